//! Clients that some integration tests need and that are not brought along: dpkg-deb for packages, node for Prisma and
//! the gallery, Chromium for the gallery's page, and pgbouncer.
//!
//! A test of such a client is built in only where the client is on the machine: there is no test that passes without
//! having run. What is missing is said at the end of a test run.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::command;

/// What the tests of the clients on this machine are built with.
#[derive(Default)]
pub struct Clients {
    /// Features of the crate with the integration tests.
    pub features: Vec<&'static str>,
    /// A line for each client that is missing.
    pub missing: Vec<&'static str>,
}

/// The features of all clients, whether they are there or not.
pub(crate) const FEATURES: [&str; 4] = [CHROMIUM, DPKG, NODE, PGBOUNCER];

const CHROMIUM: &str = "pg_clip_tests/chromium";
const DPKG: &str = "pg_clip_tests/dpkg";
const NODE: &str = "pg_clip_tests/node";
const PGBOUNCER: &str = "pg_clip_tests/pgbouncer";

/// The oldest major version of node that the programs of the checkout run on.
pub(crate) const OLDEST_NODE: u32 = 20;

/// Looks for the clients.
pub fn find() -> Result<Clients> {
    let mut clients = Clients::default();
    if on_path("dpkg-deb", &[]).is_some() {
        clients.features.push(DPKG);
    } else {
        clients.missing.push("not run: the test of Debian's packages, for dpkg-deb is not on the PATH");
    }
    if has_node()? {
        clients.features.push(NODE);
    } else {
        clients.missing.push(
            "not run: tests/prisma and the tests of the gallery, for node 20 or later with npm is not on the PATH",
        );
    }
    if chromium().is_some() {
        // What it shows is served by node.
        if clients.features.contains(&NODE) {
            clients.features.push(CHROMIUM);
        }
    } else {
        clients
            .missing
            .push("not run: the test of the gallery in a browser, for chromium is not on the PATH");
    }
    if pgbouncer().is_some() {
        clients.features.push(PGBOUNCER);
    } else {
        clients.missing.push("not run: the tests of a pooler, for pgbouncer is not on the PATH");
    }
    Ok(clients)
}

/// The browser: Debian's name of it, and those of others.
pub fn chromium() -> Option<PathBuf> {
    ["chromium", "chromium-browser", "google-chrome"].iter().find_map(|program| on_path(program, &[]))
}

/// The program pgbouncer; Debian installs it where only root's PATH leads.
pub fn pgbouncer() -> Option<PathBuf> {
    on_path("pgbouncer", &["/usr/sbin"])
}

pub(crate) fn has_node() -> Result<bool> {
    if on_path("node", &[]).is_none() || on_path("npm", &[]).is_none() {
        return Ok(false);
    }
    let version = command::output(Command::new("node").arg("--version"))?;
    Ok(major(&version).is_some_and(|major| major >= OLDEST_NODE))
}

fn on_path(program: &str, other_folders: &[&str]) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(other_folders.iter().map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// The major version in node's "v20.20.2".
fn major(version: &str) -> Option<u32> {
    version.strip_prefix('v')?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::major;

    #[test]
    fn reads_the_major_version_of_node() {
        assert_eq!(major("v20.20.2\n"), Some(20));
        assert_eq!(major("20.20.2\n"), None);
    }
}
