//! The user that runs the servers.
//!
//! initdb and postgres refuse root, so root runs them as the conventional "nobody" through setpriv; any other user runs
//! them directly. A server starts with an environment of its own: RUST_BACKTRACE would put backtraces into the
//! DETAIL of errors, and PG* variables would steer it.

use std::env;
use std::ffi::OsStr;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command;

const NOBODY: u32 = 65534;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Account {
    Own,
    Nobody,
}

impl Account {
    pub fn current() -> Account {
        if nix::unistd::geteuid().is_root() { Account::Nobody } else { Account::Own }
    }

    pub fn uid(self) -> u32 {
        match self {
            Account::Own => nix::unistd::geteuid().as_raw(),
            Account::Nobody => NOBODY,
        }
    }

    /// A program of the server, to be run by this account.
    pub fn command(self, program: impl AsRef<OsStr>) -> Command {
        let mut command = match self {
            Account::Own => Command::new(program),
            Account::Nobody => {
                let mut command = Command::new("setpriv");
                command.args([
                    &format!("--reuid={NOBODY}"),
                    &format!("--regid={NOBODY}"),
                    "--clear-groups",
                    "--",
                ]);
                command.arg(program);
                command
            }
        };
        command.env_clear().env("LC_ALL", "C").current_dir("/");
        if let Some(path) = env::var_os("PATH") {
            command.env("PATH", path);
        }
        command
    }

    /// Makes this account the owner of a file or folder that we made.
    pub fn give(self, path: &Path) -> Result<()> {
        match self {
            Account::Own => Ok(()),
            Account::Nobody => chown(path, Some(NOBODY), Some(NOBODY))
                .with_context(|| format!("cannot give {} to the servers' user", path.display())),
        }
    }

    /// Whether this account can enter the folder.
    pub fn can_enter(self, folder: &Path) -> Result<bool> {
        if self == Account::Own {
            return Ok(true);
        }
        let mut test = self.command("test");
        match command::status_if_present(test.arg("-x").arg(folder))? {
            Some(status) => Ok(status.success()),
            None => bail!(
                "setpriv is not on the PATH: as root, servers are run through it; install util-linux or run this as \
                 an ordinary user"
            ),
        }
    }
}
