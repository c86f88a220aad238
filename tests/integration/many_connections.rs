//! What a connection costs that has embedded.

use std::fs;

use pg_clip_tests::{TestCluster, TestDatabase, demo_photo, run, value};
use postgres::Client;

#[test]
fn a_connection_that_has_embedded_takes_less_than_2_mb_more() {
    let cluster = TestCluster::preloaded();
    let database = cluster.database();
    let photo = demo_photo();
    // Both kinds run a query of the same shape on the same photo, so that the difference is pg_clip's.
    let idle = connections(&database, |client| {
        client.query("SELECT sha256($1), upper('a dog')", &[&photo]).expect("a query");
    });
    let idle_pss = pss(idle);
    let embedding = connections(&database, |client| {
        client.query("SELECT clip_embed_image($1), clip_embed_text('a dog')", &[&photo]).expect("a query");
    });
    let more = pss(embedding).saturating_sub(idle_pss);
    println!("{more} kB of PSS more for a connection that has embedded (100 of each kind)");
    assert!(more < 2048, "{more} kB");
}

fn connections(database: &TestDatabase, mut act: impl FnMut(&mut Client)) -> Vec<Client> {
    (0..100)
        .map(|_| {
            let mut client = database.connect();
            act(&mut client);
            client
        })
        .collect()
}

/// The mean over the connections, in kB.
fn pss(mut clients: Vec<Client>) -> u64 {
    let total: u64 = clients
        .iter_mut()
        .map(|client| {
            let pid: i32 = value(client, "SELECT pg_backend_pid()");
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("its memory");
            let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).expect("the PSS");
            line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
        })
        .sum();
    let count = u64::try_from(clients.len()).expect("a hundred");
    run(&mut clients[0], "SELECT 1");
    total / count
}
