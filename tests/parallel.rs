//! Queries that parallel workers run, in every version of PostgreSQL.

use postgres::Client;

use crate::database::run;
use crate::queue::PATIENCE;
use crate::wait::wait_until;

/// From now on the client's queries on a table are run by parallel workers, and by the client's own process only where the
/// server has no worker to spare.
#[track_caller]
pub fn prefer_workers(client: &mut Client, table: &str) {
    run(
        client,
        &format!(
            "ALTER TABLE {table} SET (parallel_workers = 2); SET parallel_leader_participation = off;
            SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0"
        ),
    );
}

/// Runs a query until workers have run it.
#[track_caller]
pub fn wait_for_workers(client: &mut Client, query: &str) {
    wait_until("workers run the query", PATIENCE, || {
        let explained = client.query(&format!("EXPLAIN (ANALYZE) {query}"), &[]).expect("the query runs");
        let launched = |line: &str| line.trim().strip_prefix("Workers Launched: ").map(str::to_owned);
        explained.iter().filter_map(|row| launched(row.get(0))).any(|count| count != "0")
    });
}
