//! Replication between clusters of a test.

use std::time::Duration;

use postgres::Client;

use crate::cluster::{TestCluster, tested_postgres};
use crate::database::{TestDatabase, run, value};
use crate::wait::wait_until;

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

/// Waits until a table has the same rows on both sides.
#[track_caller]
pub fn wait_until_equal(one: &mut Client, other: &mut Client, table: &str) {
    let rows = format!("SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM {table} AS t");
    let name = format!("the rows of {table} are the same on both sides");
    wait_until(&name, DEADLINE, || {
        value::<Option<String>>(one, &rows) == value::<Option<String>>(other, &rows)
    });
}
