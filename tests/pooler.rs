//! A pgbouncer in front of servers of a test, in transaction mode.

use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use postgres::{Client, Config, NoTls};
use xtask::account::Account;
use xtask::cluster::PORT;

use crate::cluster::TestCluster;
use crate::database::TestDatabase;
use crate::wait::wait_for;

/// A pgbouncer of the test's own, on the socket folder of the first cluster; gone when dropped.
pub struct Pooler {
    sockets: PathBuf,
    process: Child,
}

impl Pooler {
    const PORT: u16 = PORT + 1;

    /// Starts one that opens at most `pool` connections for each of these users.
    pub fn start(cluster: &TestCluster, pool: u32, users: &[&str]) -> Pooler {
        Pooler::in_front_of(&[cluster], pool, users)
    }

    /// As [`Pooler::start`], with connections to each cluster in turn.
    pub fn in_front_of(clusters: &[&TestCluster], pool: u32, users: &[&str]) -> Pooler {
        let first = clusters.first().expect("a pooler is in front of a server");
        let (sockets, directory) = (first.server.sockets(), first.server.directory());
        let hosts: Vec<String> =
            clusters.iter().map(|cluster| cluster.server.sockets().display().to_string()).collect();
        let file = |name: &str| directory.join(name);
        let listed: String = users.iter().map(|user| format!("\"{user}\" \"\"\n")).collect();
        fs::write(file("pgbouncer.users"), listed).expect("the users are written");
        let settings = format!(
            "[databases]\n* = host='{}' port={PORT}\n[pgbouncer]\npool_mode = transaction\n\
             default_pool_size = {pool}\nunix_socket_dir = {}\nlisten_port = {}\n\
             auth_type = trust\nauth_file = {}\nlogfile = {}\n",
            hosts.join(","),
            sockets.display(),
            Pooler::PORT,
            file("pgbouncer.users").display(),
            file("pgbouncer.log").display(),
        );
        fs::write(file("pgbouncer.ini"), settings).expect("the settings are written");
        let program = xtask::clients::pgbouncer().expect("pgbouncer is on this machine");
        let mut command = Account::current().command(program);
        let process = command.arg("--quiet").arg(file("pgbouncer.ini")).spawn().expect("pgbouncer runs");
        Pooler { sockets: sockets.to_owned(), process }
    }

    /// A new client, once the pooler takes it.
    pub fn connect(&self, database: &TestDatabase, user: &str) -> Client {
        let mut config = Config::new();
        config.host_path(&self.sockets).port(Pooler::PORT);
        config.user(user).dbname(database.name()).application_name("pooled");
        wait_for("a connection through the pooler", Duration::from_secs(20), || config.connect(NoTls).ok())
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        self.process.kill().expect("the pooler is ours");
        self.process.wait().expect("the pooler ends");
    }
}
