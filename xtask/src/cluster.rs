//! A cluster of our own: a data directory, a log, and a folder for its socket.
//!
//! It listens on no network port, lets in every user that can enter the folder of its socket, and has one superuser,
//! postgres. A temporary one stops and vanishes when it is dropped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

use crate::account::Account;
use crate::command;
use crate::places::{Places, make_own_folder, path_hash};
use crate::postgres::Postgres;
use crate::template;

pub const PORT: u16 = 5432;

/// How the name of a temporary cluster's folder begins; its maker's process id follows.
pub(crate) const TEMPORARY: &str = "temporary-";

/// The most bytes of a Unix socket's path, less the name that PostgreSQL gives it.
const LONGEST_SOCKET_FOLDER: usize = 107 - "/.s.PGSQL.5432".len();

/// A setting's name and value.
pub type Setting<'a> = (&'a str, &'a str);

#[derive(Clone, Copy)]
pub enum Stop {
    Fast,
    Immediate,
}

pub struct Cluster {
    postgres: Postgres,
    account: Account,
    directory: PathBuf,
    sockets: PathBuf,
    temporary: bool,
}

impl Cluster {
    /// Makes and starts a cluster that lives as long as the value; safe to lose power, never to keep data.
    pub fn temporary(places: &Places, postgres: &Postgres, settings: &[Setting]) -> Result<Cluster> {
        let cluster = Cluster::unmade(places, postgres);
        cluster.create(places)?;
        cluster.start_quick(settings)?;
        Ok(cluster)
    }

    /// Makes and starts a hot standby of this running cluster, which follows it as long as the value lives.
    pub fn standby(&self, places: &Places, settings: &[Setting]) -> Result<Cluster> {
        let standby = Cluster::unmade(places, &self.postgres);
        standby.make_directory()?;
        let mut backup = self.account.command(self.postgres.program("pg_basebackup"));
        backup.arg("--host").arg(&self.sockets).args(["--port", &PORT.to_string(), "--username=postgres"]);
        backup.args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync", "--pgdata"]);
        command::output(backup.arg(standby.data()))?;
        standby.start_quick(settings)?;
        Ok(standby)
    }

    /// A temporary cluster whose data pg_upgrade is to fill, of one that the template's settings made: no checksums, which
    /// initdb writes from 18 on.
    pub fn of_upgrade(places: &Places, postgres: &Postgres) -> Result<Cluster> {
        let cluster = Cluster::unmade(places, postgres);
        cluster.make_directory()?;
        template::make_without_checksums(places, postgres, &cluster.data())?;
        make_own_folder(&cluster.sockets, 0o700, places.account.uid())?;
        places.account.give(&cluster.sockets)?;
        Ok(cluster)
    }

    /// A temporary cluster that nothing has been made of.
    fn unmade(places: &Places, postgres: &Postgres) -> Cluster {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = places.base.join(format!("{TEMPORARY}{}-{number}", std::process::id()));
        let mut cluster = Cluster::at(places, postgres, directory);
        cluster.temporary = true;
        cluster
    }

    fn start_quick(&self, settings: &[Setting]) -> Result<()> {
        let unsafe_but_quick = [("fsync", "off"), ("synchronous_commit", "off"), ("full_page_writes", "off")];
        self.configure(&[&unsafe_but_quick, settings].concat())?;
        self.start()
    }

    /// The cluster in this folder, whether it has been created yet or not.
    pub fn at(places: &Places, postgres: &Postgres, directory: PathBuf) -> Cluster {
        let mut sockets = directory.join("socket");
        if sockets.as_os_str().len() > LONGEST_SOCKET_FOLDER {
            sockets = PathBuf::from(format!("/tmp/pg_clip-{}", path_hash(&directory)));
        }
        Cluster { postgres: postgres.clone(), account: places.account, directory, sockets, temporary: false }
    }

    /// Gives it a fresh data directory, in place of all files in its folder.
    pub fn create(&self, places: &Places) -> Result<()> {
        self.remove()?;
        self.make_directory()?;
        template::copy(places, &self.postgres, &self.data())
    }

    fn make_directory(&self) -> Result<()> {
        fs::create_dir(&self.directory)
            .with_context(|| format!("cannot make {}", self.directory.display()))?;
        self.account.give(&self.directory)
    }

    /// Writes the cluster's settings, in place of those written before; a start or a reload reads them.
    pub fn configure(&self, settings: &[Setting]) -> Result<()> {
        let sockets = format!("\"{}\"", self.sockets.display());
        let always = [
            ("listen_addresses", ""),
            ("unix_socket_directories", sockets.as_str()),
            ("max_connections", "200"),
            ("log_line_prefix", "%m [%p] %d "),
        ];
        let file = self.data().join(template::SETTINGS_FILE);
        fs::write(&file, always.iter().chain(settings).map(line).collect::<String>())?;
        self.account.give(&file)
    }

    /// Starts it and waits until it takes connections.
    pub fn start(&self) -> Result<()> {
        make_own_folder(&self.sockets, 0o700, self.account.uid())?;
        self.account.give(&self.sockets)?;
        let mut start = self.pg_ctl();
        start.args(["start", "--wait", "--timeout=120", "--log"]).arg(self.directory.join("log"));
        command::output(start.args(["--options", &format!("-p {PORT}")])).map(drop).map_err(|error| {
            let log = self.log().unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(20)..].join("\n");
            error.context(format!("{} does not start; the end of its log:\n{end}", self.postgres.version))
        })
    }

    pub fn stop(&self, how: Stop) -> Result<()> {
        let mode = match how {
            Stop::Fast => "--mode=fast",
            Stop::Immediate => "--mode=immediate",
        };
        command::output(self.pg_ctl().args(["stop", "--wait", "--timeout=120", mode])).map(drop)
    }

    pub fn restart(&self) -> Result<()> {
        self.stop(Stop::Fast)?;
        self.start()
    }

    /// Makes the running server read its settings again.
    pub fn reload(&self) -> Result<()> {
        command::output(self.pg_ctl().arg("reload")).map(drop)
    }

    pub fn is_created(&self) -> bool {
        self.data().join("PG_VERSION").exists()
    }

    pub fn is_running(&self) -> Result<bool> {
        if !self.is_created() {
            return Ok(false);
        }
        let status = command::status_if_present(self.pg_ctl().arg("status"))?;
        match status.and_then(|status| status.code()) {
            Some(0) => Ok(true),
            Some(3) => Ok(false),
            _ => bail!(
                "cannot tell whether the cluster in {} runs: if another user made it, remove it as that user",
                self.directory.display()
            ),
        }
    }

    pub fn postmaster_pid(&self) -> Result<u32> {
        let file =
            fs::read_to_string(self.data().join("postmaster.pid")).context("the cluster does not run")?;
        let pid = file.lines().next().and_then(|line| line.trim().parse().ok());
        pid.context("postmaster.pid holds no process id")
    }

    /// The server's log so far.
    pub fn log(&self) -> Result<String> {
        let log = fs::read(self.directory.join("log")).context("cannot read the server's log")?;
        Ok(String::from_utf8_lossy(&log).into_owned())
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// The folder of its socket: the host to connect to.
    pub fn sockets(&self) -> &Path {
        &self.sockets
    }

    pub fn postgres(&self) -> &Postgres {
        &self.postgres
    }

    /// Stops it where it runs, and removes all of it.
    pub fn remove(&self) -> Result<()> {
        if self.is_running()? {
            self.stop(Stop::Immediate)?;
        }
        for folder in [&self.directory, &self.sockets] {
            if folder.exists() {
                fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
            }
        }
        Ok(())
    }

    /// The command that runs the server in the foreground, with the same settings.
    pub fn foreground(&self) -> Command {
        let mut command = self.account.command(self.postgres.program("postgres"));
        command.arg("-D").arg(self.data()).args(["-p", &PORT.to_string()]);
        command
    }

    fn pg_ctl(&self) -> Command {
        let mut command = self.account.command(self.postgres.program("pg_ctl"));
        command.arg("--pgdata").arg(self.data());
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = self.remove()
        {
            eprintln!("{error:#}");
        }
    }
}

fn line((name, value): &Setting) -> String {
    format!("{name} = '{}'\n", value.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn quotes_a_setting() {
        assert_eq!(line(&("a.b", r"it's a \ folder")), "a.b = 'it''s a \\\\ folder'\n");
    }
}
