//! The cost of a query, counted in blocks.

use postgres::{Client, SimpleQueryMessage};

/// The blocks that a query reads or finds in the cache. Its first run fills the session's caches of the catalogs.
#[track_caller]
pub fn blocks_of(client: &mut Client, query: &str) -> i64 {
    let explain = format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query}");
    let mut count = || {
        let messages = client.simple_query(&explain).expect("an explanation");
        let plan = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        let plan: serde_json::Value = serde_json::from_str(plan.expect("a plan")).expect("JSON");
        let blocks = |kind: &str| plan[0]["Plan"][kind].as_i64().expect("a number of blocks");
        blocks("Shared Hit Blocks") + blocks("Shared Read Blocks")
    };
    count();
    count()
}
