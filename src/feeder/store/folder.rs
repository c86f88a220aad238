//! A local folder as a store.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use tokio::fs::OpenOptions;
use tokio::io::AsyncReadExt;

use super::object::{Fetch, NoObject, Why, check_size};

/// `O_NONBLOCK` of Linux: a FIFO is opened without waiting for its other end.
const NONBLOCK: i32 = 0o4000;

/// A folder, by a path without links.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
}

impl Folder {
    pub(super) fn open(root: &Path) -> io::Result<Folder> {
        let root = root.canonicalize()?;
        if root.is_dir() { Ok(Folder { root }) } else { Err(ErrorKind::NotADirectory.into()) }
    }

    /// Reads a file below the root. A link out of it leads nowhere.
    pub(super) async fn fetch(&self, key: &str, limit: u64) -> Fetch {
        let path = self.root.join(key);
        let resolved = tokio::fs::canonicalize(&path).await.map_err(|error| of_system(key, &error))?;
        if !resolved.starts_with(&self.root) {
            let message = format!("\"{key}\" is a link to a place outside of the folder");
            return Err(NoObject::new(Why::Refused, message));
        }
        let file = OpenOptions::new().read(true).custom_flags(NONBLOCK).open(&resolved).await;
        let file = file.map_err(|error| of_system(key, &error))?;
        let found = file.metadata().await.map_err(|error| of_system(key, &error))?;
        if !found.is_file() {
            return Err(NoObject::new(Why::Missing, format!("\"{key}\" is not a file")));
        }
        check_size(key, found.len(), limit)?;
        let mut bytes = Vec::with_capacity(usize::try_from(found.len()).unwrap_or_default());
        // It may grow meanwhile.
        let read = file.take(limit + 1).read_to_end(&mut bytes).await;
        read.map_err(|error| of_system(key, &error))?;
        check_size(key, bytes.len() as u64, limit)?;
        Ok(bytes)
    }
}

fn of_system(key: &str, error: &io::Error) -> NoObject {
    let why = match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename => Why::Missing,
        ErrorKind::PermissionDenied => Why::Forbidden,
        _ => Why::Passing,
    };
    NoObject::new(why, format!("cannot read \"{key}\": {error}"))
}
