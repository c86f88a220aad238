//! psql and its like on a cluster, and SQL run through it.

use std::env;
use std::process::Command;

use anyhow::{Result, anyhow};
use serde_json::{Map, Value};

use crate::cluster::{Cluster, PORT};
use crate::command;

/// psql, set to connect to this database of the cluster unless its arguments say otherwise.
pub fn psql(cluster: &Cluster, database: &str) -> Command {
    client(cluster, "psql", database)
}

/// A client program of the cluster's PostgreSQL, set to connect to this database as the superuser.
pub fn client(cluster: &Cluster, program: &str, database: &str) -> Command {
    let mut client = Command::new(cluster.postgres().program(program));
    connect(&mut client, &Database { cluster, name: database }, "postgres");
    client
}

/// Sets a program that reads libpq's environment variables to connect to this database as a role.
pub fn connect(program: &mut Command, database: &Database, role: &str) {
    for (name, _) in env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"PG") {
            program.env_remove(name);
        }
    }
    program
        .env("PGHOST", database.cluster.sockets())
        .env("PGPORT", PORT.to_string())
        .env("PGUSER", role)
        .env("PGDATABASE", database.name);
}

/// One database of a cluster.
pub struct Database<'a> {
    pub cluster: &'a Cluster,
    pub name: &'a str,
}

impl Database<'_> {
    /// Runs the SQL, each statement for itself, up to the first error; returns psql's output.
    pub fn run(&self, sql: &str) -> Result<String> {
        self.psql(&["--quiet"], sql)
    }

    /// The rows of one query, each by its columns' names in their order.
    pub fn rows(&self, query: &str) -> Result<Vec<Map<String, Value>>> {
        let sql = format!("SELECT to_json(answer) FROM ({}) answer", query.trim_end().trim_end_matches(';'));
        let answer = self.psql(&["--quiet", "--tuples-only", "--no-align"], &sql)?;
        answer.lines().map(|row| Ok(serde_json::from_str(row)?)).collect()
    }

    fn psql(&self, arguments: &[&str], sql: &str) -> Result<String> {
        let mut psql = psql(self.cluster, self.name);
        psql.args(["--no-psqlrc", "--set=ON_ERROR_STOP=1"]).args(arguments);
        command::output_with_input(&mut psql, sql.as_bytes()).map_err(|error| anyhow!("{error:#}"))
    }
}
