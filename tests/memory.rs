//! What connections cost in memory.

use std::fs;

use postgres::Client;

use crate::database::{TestDatabase, value};

/// Opens connections, lets each act once, and returns the mean proportional set size of their backends in kB while
/// all are open: what is private to one, and its share of what all share.
pub fn mean_pss(database: &TestDatabase, connections: u32, act: impl Fn(&mut Client)) -> u64 {
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
