//! Where things lie.
//!
//! The base folder is `<target>/pg_clip`. Root's servers run as another user, which must be able to read its files:
//! in a clone that is closed to others, a folder in /var/tmp stands in.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::account::Account;
use crate::progress::say;
use crate::workspace::Workspace;

pub struct Places {
    pub workspace: Workspace,
    pub account: Account,
    /// The folder of the environment and the clusters; the servers' user can enter it.
    pub base: PathBuf,
}

impl Places {
    pub fn find() -> Result<Places> {
        let workspace = Workspace::find()?;
        let account = Account::current();
        let mut base = workspace.target.join("pg_clip");
        fs::create_dir_all(&base).with_context(|| {
            format!("cannot make {}: make it writable, or set CARGO_TARGET_DIR", base.display())
        })?;
        if !account.can_enter(&base)? {
            base = stand_in(&base)?;
            say(&format!(
                "the servers' user cannot enter the target folder: using {} instead",
                base.display()
            ));
        }
        Ok(Places { workspace, account, base })
    }
}

/// Eight hexadecimal digits that stand for a path.
pub fn path_hash(path: &Path) -> String {
    let digest = Sha256::digest(path.as_os_str().as_encoded_bytes());
    digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// Makes a folder that only its owner can change, at a path that any user could have taken.
pub fn make_own_folder(folder: &Path, mode: u32, owner: u32) -> Result<()> {
    let us = nix::unistd::geteuid().as_raw();
    match fs::DirBuilder::new().mode(mode).create(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("cannot make {}", folder.display()));
        }
        _ => {}
    }
    let metadata = fs::symlink_metadata(folder)?;
    if !metadata.is_dir() || ![us, owner].contains(&metadata.uid()) || metadata.mode() & 0o022 != 0 {
        bail!("{} belongs to another user: remove it and try again", folder.display());
    }
    Ok(())
}

fn stand_in(base: &Path) -> Result<PathBuf> {
    let us = nix::unistd::geteuid().as_raw();
    let folder = PathBuf::from(format!("/var/tmp/pg_clip-{us}-{}", path_hash(base)));
    make_own_folder(&folder, 0o755, us)?;
    Ok(folder)
}
