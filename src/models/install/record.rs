//! `model.json`: where an installed model is from, and the hashes of its files.
//!
//! It lies in the model's folder, and is a lock file too: `--lock` installs the same files somewhere else, or nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use pg_clip_embedder::Error as EmbedderError;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// An installation.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub source: Origin,
    pub variant: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub licence: Option<String>,
    /// As RFC 3339, in UTC.
    pub installed_at: String,
    /// By their paths in the folder.
    pub files: BTreeMap<String, FileRecord>,
}

/// Where a model is from.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum Origin {
    Hub {
        endpoint: String,
        repository: String,
        commit: String,
        /// The folder in the repository that holds the model, where that is not the topmost.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        folder: Option<String>,
        /// The repository of the tokenizer, where that is another one.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        tokenizer: Option<Pinned>,
    },
    Imported,
    /// Made on this machine of the model of this name and fingerprint, which was itself of this origin, where that is known.
    Quantized {
        model: String,
        fingerprint: String,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        origin: Option<Box<Origin>>,
    },
}

impl Origin {
    /// The repository that the model is from, if it is from one.
    pub(crate) fn repository(&self) -> Option<&str> {
        match self {
            Origin::Hub { repository, .. } => Some(repository),
            Origin::Imported | Origin::Quantized { .. } => None,
        }
    }
}

/// A repository at a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pinned {
    pub repository: String,
    pub commit: String,
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Origin::Hub { endpoint, repository, commit, folder, tokenizer } => {
                write!(formatter, "{endpoint}/{repository} at {commit}")?;
                if let Some(folder) = folder {
                    write!(formatter, ", folder {folder}")?;
                }
                if let Some(Pinned { repository, commit }) = tokenizer {
                    write!(formatter, ", tokenizer of {repository} at {commit}")?;
                }
                Ok(())
            }
            Origin::Imported => formatter.write_str("imported"),
            Origin::Quantized { model, fingerprint, .. } => {
                write!(formatter, "quantized from {model} of fingerprint {fingerprint}")
            }
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FileRecord {
    pub size: u64,
    /// 64 hexadecimal digits.
    pub sha256: String,
}

/// Of a size and a sha256.
impl From<(u64, [u8; 32])> for FileRecord {
    fn from((size, sha256): (u64, [u8; 32])) -> FileRecord {
        FileRecord { size, sha256: hex::encode(sha256) }
    }
}

/// The record's name in the folder of its model.
const FILE: &str = "model.json";

impl Record {
    /// The record of the model in `folder`; none where the model was put there by hand.
    pub(crate) fn of(folder: &Path) -> Result<Option<Record>, Error> {
        let path = folder.join(FILE);
        if path.exists() { Record::read(&path).map(Some) } else { Ok(None) }
    }

    /// Reads a record as a lock file.
    pub(crate) fn read(path: &Path) -> Result<Record, Error> {
        let text = fs::read(path).map_err(Error::io(format!("cannot read {}", path.display())))?;
        serde_json::from_slice(&text)
            .map_err(|error| Error::BadRecord { path: path.to_owned(), reason: error.to_string() })
    }

    /// Writes it into the folder of its model.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), Error> {
        let path = folder.join(FILE);
        let text =
            serde_json::to_string_pretty(self).map_err(|error| EmbedderError::Internal(error.to_string()))?;
        let write = || {
            let mut file = File::create(&path)?;
            writeln!(file, "{text}")?;
            file.sync_all()
        };
        write().map_err(Error::io(format!("cannot write {}", path.display())))
    }

    /// How large the model is, in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.files.values().fold(0, |total, file| total.saturating_add(file.size))
    }
}

/// The sha256 that the command line demands of files.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    /// By paths: 64 hexadecimal digits.
    pub files: BTreeMap<String, String>,
    /// Whether there may be no other files.
    pub complete: bool,
}

impl Pins {
    /// Refuses files that the pins do not list, as far as their names tell.
    pub(crate) fn check_names<'a>(&self, paths: impl Iterator<Item = &'a str> + Clone) -> Result<(), Error> {
        let demanded = "a file that was demanded";
        for path in self.files.keys() {
            if !paths.clone().any(|other| other == path) {
                return Err(Error::WrongFile {
                    file: path.clone(),
                    expected: demanded.to_owned(),
                    found: "none".to_owned(),
                });
            }
        }
        let stranger = paths.into_iter().find(|path| self.complete && !self.files.contains_key(*path));
        match stranger {
            Some(path) => Err(Error::WrongFile {
                file: path.to_owned(),
                expected: "only files that the lock file lists".to_owned(),
                found: "one that it does not list".to_owned(),
            }),
            None => Ok(()),
        }
    }

    /// Refuses a file whose sha256 is not the one that was demanded.
    pub(crate) fn check(&self, path: &str, sha256: &[u8; 32]) -> Result<(), Error> {
        let found = hex::encode(sha256);
        match self.files.get(path) {
            Some(expected) if !expected.eq_ignore_ascii_case(&found) => Err(Error::WrongFile {
                file: path.to_owned(),
                expected: format!("sha256 {expected}"),
                found: format!("sha256 {found}"),
            }),
            _ => Ok(()),
        }
    }
}
