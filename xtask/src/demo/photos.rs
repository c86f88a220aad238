//! The demo's photos, as a folder with a manifest holds them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

pub(super) struct Photo {
    pub(super) file: String,
    pub(super) concept: String,
    /// Empty where the manifest names none.
    pub(super) project: String,
    pub(super) bytes: Vec<u8>,
}

/// The photos that the folder's manifest lists, in its order.
pub(super) fn read(folder: &Path) -> Result<Vec<Photo>> {
    let path = folder.join("manifest.json");
    let manifest = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let manifest: Vec<Value> =
        serde_json::from_slice(&manifest).with_context(|| format!("{} is no list", path.display()))?;
    manifest.iter().map(|entry| photo(folder, entry)).collect()
}

/// A literal of type text.
pub(super) fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

impl Photo {
    /// A literal of type bytea.
    pub(super) fn literal(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut literal = String::with_capacity(4 + 2 * self.bytes.len());
        literal += r"'\x";
        for byte in &self.bytes {
            literal.push(char::from(DIGITS[usize::from(byte >> 4)]));
            literal.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        literal + "'"
    }
}

fn photo(folder: &Path, entry: &Value) -> Result<Photo> {
    let file = entry["file"].as_str().with_context(|| format!("no file is named in {entry}"))?.to_owned();
    let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let path = folder.join(&file);
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Photo { file, concept: text("concept"), project: text("project"), bytes })
}

#[cfg(test)]
mod tests {
    use super::{Photo, quote};

    #[test]
    fn writes_literals() {
        let photo = Photo {
            file: String::new(),
            concept: String::new(),
            project: String::new(),
            bytes: vec![0, 0x9f, 255],
        };
        assert_eq!(photo.literal(), r"'\x009fff'");
        assert_eq!(quote("it's"), "'it''s'");
    }
}
