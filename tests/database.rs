//! One database of a test's cluster, and its clients.

use postgres::types::ToSql;
use postgres::{Client, Config, Error, NoTls};

/// Knows how to connect; keeps nothing open.
pub struct TestDatabase {
    config: Config,
}

impl TestDatabase {
    pub(crate) fn new(config: Config) -> TestDatabase {
        TestDatabase { config }
    }

    pub fn name(&self) -> &str {
        self.config.get_dbname().unwrap_or_default()
    }

    /// A new connection as the superuser.
    pub fn connect(&self) -> Client {
        self.config.connect(NoTls).expect("a client connects")
    }

    /// A new connection as another role.
    pub fn connect_as(&self, role: &str) -> Client {
        self.config.clone().user(role).connect(NoTls).expect("a client connects")
    }

    /// A new connection as another role, or why there is none.
    pub(crate) fn try_connect_as(&self, role: &str) -> Result<Client, Error> {
        self.config.clone().user(role).connect(NoTls)
    }

    /// A new connection, or why there is none.
    pub fn try_connect(&self) -> Result<Client, Error> {
        self.config.connect(NoTls)
    }
}

/// The SQLSTATE that the server gave; panics where the error is not the server's.
#[track_caller]
pub fn sqlstate(error: &Error) -> &str {
    match error.code() {
        Some(state) => state.code(),
        None => panic!("not an error of the server: {error:?}"),
    }
}

/// The only value of the only row of a query without parameters.
#[track_caller]
pub fn value<T>(client: &mut Client, query: &str) -> T
where
    T: for<'a> postgres::types::FromSql<'a>,
{
    match client.query_one(query, &[]) {
        Ok(row) => row.get(0),
        Err(error) => panic!("{query}: {error:?}"),
    }
}

/// Runs statements without parameters.
#[track_caller]
pub fn run(client: &mut Client, statements: &str) {
    if let Err(error) = client.batch_execute(statements) {
        panic!("{statements}: {error:?}");
    }
}

/// The SQLSTATE with which a query fails.
#[track_caller]
pub fn failure(client: &mut Client, query: &str, parameters: &[&(dyn ToSql + Sync)]) -> String {
    match client.query(query, parameters) {
        Ok(rows) => panic!("{query}: succeeded with {} rows", rows.len()),
        Err(error) => sqlstate(&error).to_owned(),
    }
}
