//! What a connection that embeds costs in memory.

use std::fs;

use pg_clip_tests::{TestCluster, TestDatabase, demo_photos, value};
use postgres::Client;

use crate::tally::report;

pub(crate) fn measure() {
    const CONNECTIONS: usize = 100;
    let cluster = TestCluster::preloaded();
    let database = cluster.database();
    let photo = &demo_photos()[0];
    let plain = pss(&mut connections(&database, CONNECTIONS, |client| {
        client.query("SELECT sha256($1), upper('a dog')", &[photo]).expect("a query");
    }));
    let embedding = pss(&mut connections(&database, CONNECTIONS, |client| {
        client.query("SELECT clip_embed_image($1), clip_embed_text('a dog')", &[photo]).expect("a query");
    }));
    let more = embedding.saturating_sub(plain);
    report(
        "PSS of a connection that has embedded, above one that has not",
        &format!("{more:9} kB (mean of 100)"),
    );
    let mut client = database.connect();
    let embedder: i64 = value(&mut client, "SELECT resident_bytes FROM clip_status");
    report("resident memory of the embedder with the demo model", &format!("{:9} kB", embedder / 1024));
}

fn connections(database: &TestDatabase, count: usize, act: impl Fn(&mut Client)) -> Vec<Client> {
    let connect = |_| {
        let mut client = database.connect();
        act(&mut client);
        client
    };
    (0..count).map(connect).collect()
}

/// The mean proportional set size, in kB.
fn pss(clients: &mut [Client]) -> u64 {
    let each = clients.iter_mut().map(|client| {
        let pid: i32 = value(client, "SELECT pg_backend_pid()");
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("its memory");
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).expect("the PSS");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
    });
    each.sum::<u64>() / u64::try_from(clients.len()).expect("a hundred")
}
