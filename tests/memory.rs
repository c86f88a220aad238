//! The memory that connections cost.

use std::fs;

use postgres::Client;

use crate::database::{TestDatabase, value};
use crate::photos::demo_photo;

/// How much larger the backend of a connection is that has embedded a photo and a text, in kB: the difference of the
/// means over `connections` of each kind. The other kind runs a query of the same shape on the same photo.
pub fn pss_of_embedding(database: &TestDatabase, connections: u32) -> u64 {
    let photo = demo_photo();
    let plain = mean_pss(database, connections, |client| {
        client.query("SELECT sha256($1), upper('a dog')", &[&photo]).expect("a query");
    });
    let embedding = mean_pss(database, connections, |client| {
        client.query("SELECT clip_embed_image($1), clip_embed_text('a dog')", &[&photo]).expect("a query");
    });
    embedding.saturating_sub(plain)
}

/// Opens connections, lets each act once, and returns the mean proportional set size of their backends in kB while
/// all are open: the memory that is private to one, and its share of the memory that all share.
fn mean_pss(database: &TestDatabase, connections: u32, act: impl Fn(&mut Client)) -> u64 {
    let connect = |_| {
        let mut client = database.connect();
        act(&mut client);
        client
    };
    let mut clients: Vec<Client> = (0..connections).map(connect).collect();
    let sizes = clients.iter_mut().map(|client| {
        let pid: i32 = value(client, "SELECT pg_backend_pid()");
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("its memory");
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).expect("the PSS");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
    });
    sizes.sum::<u64>() / u64::from(connections)
}
