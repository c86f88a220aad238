//! Which model made a vector.
//!
//! The fingerprint is the sha256 over one line for each file that the model was read from, `<sha256>  <name>\n` as
//! `sha256sum` writes it, sorted by name. It changes where a file changes, as the model's answers may.

use std::fmt::Write;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use pg_clip_wire::Fingerprint;
use sha2::{Digest, Sha256};

use super::folder::Folder;
use super::graph_file::GraphFile;

impl Folder {
    /// The fingerprint that the model has where it is loaded, or which of its files could not be read.
    pub fn fingerprint(&self) -> Result<Fingerprint, String> {
        let graphs: Result<Vec<GraphFile>, String> =
            self.graphs.iter().cloned().map(GraphFile::read).collect();
        of(self, &graphs?)
    }
}

/// The fingerprint of the model in `folder`, or which file could not be read.
pub(super) fn of(folder: &Folder, graphs: &[GraphFile]) -> Result<Fingerprint, String> {
    let mut files: Vec<&PathBuf> = vec![&folder.tokenizer];
    files.extend(graphs.iter().flat_map(|graph| graph.external_data.iter().chain([&graph.path])));
    files.extend(&folder.configs);
    files.extend([&folder.tokenizer_config, &folder.preprocessing].into_iter().flatten());
    files.sort();
    files.dedup();
    let mut lines = String::new();
    for file in files {
        let digest = sha256(file).map_err(|error| format!("{}: {error}", file.display()))?;
        let name = file.strip_prefix(&folder.path).unwrap_or(file);
        writeln!(lines, "{}  {}", hex::encode(digest), name.display()).expect("a string takes everything");
    }
    Ok(Sha256::digest(lines).into())
}

fn sha256(path: &Path) -> io::Result<Fingerprint> {
    let mut hash = HashWriter(Sha256::new());
    io::copy(&mut File::open(path)?, &mut hash)?;
    Ok(hash.0.finalize().into())
}

struct HashWriter(Sha256);

impl io::Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
