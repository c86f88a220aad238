//! The licences of the crates that are linked into the library and the programs, in one file: most ask that their text
//! is passed on with them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::crates::Crate;

/// Writes the file into the folder and returns its path.
pub(super) fn write(crates: &[Crate], folder: &Path) -> Result<PathBuf> {
    // By their text, for hundreds of crates share a few.
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut list = String::new();
    for each in crates.iter().filter(|each| !each.is_ours()) {
        let name = format!("{} {}", each.name, each.version);
        list += &format!("{name}: {}\n", each.licence.as_deref().unwrap_or("see below"));
        for text in licences(&each.folder)? {
            texts.entry(text).or_default().push(name.clone());
        }
    }
    let mut file = format!("The library and the programs of pg_clip hold code of these crates.\n\n{list}");
    for (text, names) in &texts {
        file += &format!("\n{}\n{}:\n\n{}\n", "=".repeat(80), names.join(", "), text.trim_end());
    }
    let path = folder.join("crates.txt");
    fs::write(&path, file).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// The texts of the licences and notices in the folder of a crate.
fn licences(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_file() && is_licence(path))
        .collect();
    files.sort();
    Ok(files.iter().filter_map(|file| fs::read_to_string(file).ok()).collect())
}

fn is_licence(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
    let is_text = !name.ends_with(".RS") && !name.ends_with(".TOML");
    is_text
        && ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"]
            .iter()
            .any(|start| name.starts_with(start))
}
