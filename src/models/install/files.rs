//! Files of a folder on this machine.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use super::digest::Hasher;
use super::progress::Progress;
use crate::error::Error;

/// The paths of the files in `folder` and in the folders inside it, as a hub would list them: relative, sorted,
/// without hidden ones. Links are followed, because the cache of Hugging Face's client consists of them.
pub(crate) fn folder_files(folder: &Path) -> Result<Vec<String>, Error> {
    let cannot = || Error::io(format!("cannot read {}", folder.display()));
    let mut files = Vec::new();
    for (name, is_folder) in entries(folder).map_err(cannot())? {
        if is_folder {
            let inside = entries(&folder.join(&name)).map_err(cannot())?;
            files.extend(
                inside
                    .into_iter()
                    .filter(|(_, is_folder)| !is_folder)
                    .map(|(file, _)| format!("{name}/{file}")),
            );
        } else {
            files.push(name);
        }
    }
    files.sort();
    Ok(files)
}

/// Copies a file, makes the copy durable, and gives its size and its sha256.
pub(crate) fn copy(from: &Path, to: &Path, progress: &mut Progress) -> Result<(u64, [u8; 32]), Error> {
    let mut source = File::open(from).map_err(Error::io(format!("cannot read {}", from.display())))?;
    let mut target = HashedFile::create(to)?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = source.read(&mut buffer).map_err(Error::io(format!("cannot read {}", from.display())))?;
        if count == 0 {
            break;
        }
        target.write(&buffer[..count])?;
        progress.advance(count as u64);
    }
    target.finish()
}

/// A file that is hashed while it is written.
#[derive(Debug)]
pub(crate) struct HashedFile {
    path: PathBuf,
    file: BufWriter<File>,
    hasher: Hasher,
    size: u64,
}

impl HashedFile {
    pub(crate) fn create(path: &Path) -> Result<HashedFile, Error> {
        let file = File::create(path).map_err(Error::io(format!("cannot write {}", path.display())))?;
        Ok(HashedFile { path: path.to_owned(), file: BufWriter::new(file), hasher: Hasher::new(0), size: 0 })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let cannot = Error::io(format!("cannot write {}", self.path.display()));
        self.file.write_all(bytes).map_err(cannot)?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// How many bytes were written.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Makes the file durable, and gives its size and its sha256.
    pub(crate) fn finish(self) -> Result<(u64, [u8; 32]), Error> {
        let HashedFile { path, file, hasher, size } = self;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error);
        file.and_then(|file| file.sync_all())
            .map_err(Error::io(format!("cannot write {}", path.display())))?;
        Ok((size, hasher.finish().sha256))
    }
}

/// How many bytes the files in `folder` have, at any depth.
pub(crate) fn tree_size(folder: &Path) -> io::Result<u64> {
    let mut size = 0;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let metadata = path.symlink_metadata()?;
        size += if metadata.is_dir() { tree_size(&path)? } else { metadata.len() };
    }
    Ok(size)
}

/// Names, and whether they are folders.
fn entries(folder: &Path) -> io::Result<Vec<(String, bool)>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with('.') {
            continue;
        }
        match fs::metadata(entry.path()) {
            Ok(metadata) => entries.push((name, metadata.is_dir())),
            // A link that leads nowhere.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(entries)
}
