//! Replication between clusters of a test.

use std::time::Duration;

use postgres::Client;

use crate::cluster::{TestCluster, tested_postgres};
use crate::database::{TestDatabase, run, value};
use crate::wait::{found_within, wait_until};

/// Far above what replication needs for the rows of a test.
const DEADLINE: Duration = Duration::from_secs(180);

/// The settings that a publisher and a subscriber of a test are started with: a worker of a subscription that ended
/// with an error starts again at once.
pub const REPLICATING: [(&str, &str); 2] =
    [("wal_level", "logical"), ("wal_retrieve_retry_interval", "200ms")];

/// Where a database is, as libpq has it.
fn connection_to(cluster: &TestCluster, database: &TestDatabase) -> String {
    let host = cluster.server.sockets().display().to_string().replace('\\', "\\\\").replace('\'', "\\'");
    format!("host='{host}' user=postgres dbname={}", database.name())
}

/// Subscribes to the publication of the same name. `options` is empty or begins with WITH. PostgreSQL 15 does not have the option
/// `origin`.
#[track_caller]
pub fn subscribe(
    subscriber: &mut Client,
    name: &str,
    publisher: &TestCluster,
    database: &TestDatabase,
    options: &str,
) {
    let connection = connection_to(publisher, database).replace('\'', "''");
    let options = if has_origin() { options.to_owned() } else { options.replace(ORIGIN, "") };
    run(
        subscriber,
        &format!("CREATE SUBSCRIPTION {name} CONNECTION '{connection}' PUBLICATION {name} {options}"),
    );
}

/// The option of a subscription that PostgreSQL 15 does not have, before others.
pub const ORIGIN: &str = "origin = none, ";

pub fn has_origin() -> bool {
    tested_postgres().major > 15
}

/// Waits until a standby has its primary's changes.
#[track_caller]
pub fn catch_up(primary: &mut Client, standby: &mut Client) {
    let position: String = value(primary, "SELECT pg_current_wal_insert_lsn()::text");
    let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{position}'");
    wait_until("the standby has replayed everything", DEADLINE, || value(standby, &replayed));
}

/// Waits until a table has the same rows on both sides; panics with the state of both after the deadline.
#[track_caller]
pub fn wait_until_equal(one: &mut Client, other: &mut Client, table: &str) {
    let rows = format!("SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM {table} AS t");
    let are_equal = found_within(DEADLINE, || {
        let [one, other] = [&mut *one, &mut *other].map(|client| value::<Option<String>>(client, &rows));
        (one == other).then_some(())
    });
    if are_equal.is_none() {
        let states = [one, other].map(|client| state(client, table));
        panic!("not within {DEADLINE:?}: the rows of {table} are the same on both sides: {states:#?}");
    }
}

/// What a server knows of a table that is replicated, to explain why it waits.
fn state(client: &mut Client, table: &str) -> Vec<String> {
    let queries = [
        &format!("SELECT count(*)::text FROM {table}"),
        "SELECT string_agg(s::text, '; ') FROM pg_stat_subscription AS s",
        "SELECT string_agg(format('%s %s %s', srrelid::regclass, srsubstate, srsublsn), '; ') FROM pg_subscription_rel",
        "SELECT string_agg(s::text, '; ') FROM pg_replication_slots AS s",
        "SELECT string_agg(s::text, '; ') FROM pg_stat_replication AS s",
        "SELECT string_agg(format('%s %s %s %s', pid, backend_type, wait_event, query), '; ') FROM pg_stat_activity",
        "SELECT string_agg(c::text, '; ') FROM clip_coverage AS c",
        "SELECT string_agg(q::text, '; ') FROM (SELECT * FROM clip_queue LIMIT 5) AS q",
    ];
    let answer = |query: &str| match client.query_one(query, &[]) {
        Ok(row) => row.get::<_, Option<String>>(0).unwrap_or_default(),
        Err(error) => error.to_string(),
    };
    queries.map(answer).to_vec()
}
