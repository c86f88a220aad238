//! Which model made a vector.
//!
//! The fingerprint is the sha256 over one line for each file that the model was read from, `<sha256>  <name>\n` as
//! `sha256sum` writes it, sorted by name. It changes where a file changes, and so does what the model answers.

use std::fmt::Write;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use pg_clip_wire::Fingerprint;
use sha2::{Digest, Sha256};

use super::Folder;

/// The fingerprint of the model in `folder`, or which file could not be read.
pub(super) fn of(folder: &Folder) -> Result<Fingerprint, String> {
    let mut files: Vec<PathBuf> = folder.graphs.to_vec();
    files.extend(folder.graphs.iter().flat_map(|graph| external_data(graph)));
    files.extend([folder.tokenizer.clone(), folder.preprocessing.clone()]);
    files.extend(folder.config.clone());
    files.sort();
    files.dedup();
    let mut lines = String::new();
    for file in &files {
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

/// Weights that an exporter put beside the graph: `model.onnx_data`, `model.onnx.data`.
fn external_data(graph: &Path) -> Vec<PathBuf> {
    let (Some(folder), Some(name)) = (graph.parent(), graph.file_name().and_then(|name| name.to_str()))
    else {
        return Vec::new();
    };
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let rest = path.file_name().and_then(|file| file.to_str()?.strip_prefix(name));
            rest.is_some_and(|rest| rest.starts_with("_data") || rest.starts_with(".data"))
        })
        .collect()
}
