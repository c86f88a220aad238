//! A repository on a hub, at one commit.
//!
//! A revision is resolved to its commit first, and everything is fetched at that commit: the installed files are
//! one state of the repository, also where its owner pushes meanwhile.

use std::str::FromStr;

use serde::Deserialize;
use serde_json::Value;

use super::digest::Digest;
use super::hub::Hub;
use super::record::Pinned;
use super::refusal::Refusal;
use crate::error::Error;

/// A repository and a revision of it, as `owner/name` or `owner/name@revision`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Repository {
    /// `owner/name`.
    pub name: String,
    /// A branch, a tag or a commit.
    pub revision: Option<String>,
}

/// A repository at one commit.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// `owner/name`.
    pub repository: String,
    pub commit: String,
    pub licence: Option<String>,
    pub files: Vec<RemoteFile>,
}

/// A file of a repository.
#[derive(Debug, Clone)]
pub(crate) struct RemoteFile {
    /// Relative, and nothing in it leads elsewhere.
    pub path: String,
    pub size: u64,
    pub digest: Digest,
}

impl Repository {
    /// The last part of its name.
    pub(crate) fn short_name(&self) -> &str {
        self.name.rsplit('/').next().unwrap_or(&self.name)
    }

    /// Asks the hub for the commit, the licence and the files.
    pub(crate) fn snapshot(&self, hub: &Hub) -> Result<Snapshot, Error> {
        let refused = |refusal| self.refused(hub, refusal);
        let revision = encode(self.revision.as_deref().unwrap_or("main"), false);
        let about: About =
            hub.read(&format!("/api/models/{}/revision/{revision}", self.name)).map_err(refused)?;
        let entries: Vec<Entry> = hub
            .list(&format!("/api/models/{}/tree/{}?recursive=true", self.name, encode(&about.sha, false)))
            .map_err(refused)?;
        let unusable = |reason| Error::UnusableRepository { repository: self.name.clone(), reason };
        if !is_commit(&about.sha) {
            return Err(unusable(format!("the hub calls \"{}\" a commit", about.sha)));
        }
        let mut files = Vec::new();
        for entry in entries.into_iter().filter(|entry| entry.kind == "file") {
            if leads_elsewhere(&entry.path) {
                return Err(unusable(format!("it has a file of the name {:?}", entry.path)));
            }
            if !is_hidden(&entry.path) {
                files.push(entry.file().map_err(unusable)?);
            }
        }
        Ok(Snapshot { repository: self.name.clone(), licence: about.licence(), commit: about.sha, files })
    }

    fn refused(&self, hub: &Hub, refusal: Refusal) -> Error {
        let repository = self.name.clone();
        match (refusal.status, refusal.code.as_deref(), &self.revision) {
            (Some(404), Some("RepoNotFound"), _) | (Some(404), _, None) => {
                Error::NotOnHub { what: format!("repository \"{repository}\""), url: refusal.url }
            }
            (Some(404), _, Some(revision)) => Error::NotOnHub {
                what: format!("revision \"{revision}\" of a repository \"{repository}\""),
                url: refusal.url,
            },
            _ => refused(hub, repository, refusal),
        }
    }
}

impl From<&Pinned> for Repository {
    fn from(pinned: &Pinned) -> Repository {
        Repository { name: pinned.repository.clone(), revision: Some(pinned.commit.clone()) }
    }
}

impl FromStr for Repository {
    type Err = Error;

    fn from_str(text: &str) -> Result<Repository, Error> {
        let (name, revision) = match text.split_once('@') {
            Some((name, revision)) => (name, Some(revision)),
            None => (text, None),
        };
        let is_part = |part: &str| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
            !part.is_empty() && !part.starts_with('.') && part.bytes().all(allowed)
        };
        let parts: Vec<&str> = name.split('/').collect();
        if parts.len() != 2 || !parts.iter().all(|part| is_part(part)) || revision == Some("") {
            return Err(Error::BadRepository { text: text.to_owned() });
        }
        Ok(Repository { name: name.to_owned(), revision: revision.map(str::to_owned) })
    }
}

impl Snapshot {
    /// Where the hub has a file.
    pub(super) fn url_path(&self, file: &RemoteFile) -> String {
        format!("/{}/resolve/{}/{}", self.repository, self.commit, encode(&file.path, true))
    }

    /// Why the hub does not give a file. The hub lists gated files without a token too.
    pub(super) fn refused(&self, hub: &Hub, refusal: Refusal) -> Error {
        refused(hub, self.repository.clone(), refusal)
    }
}

fn refused(hub: &Hub, repository: String, refusal: Refusal) -> Error {
    match refusal.status {
        Some(401 | 403) => Error::Forbidden { repository, token: hub.token(), reason: refusal.reason },
        _ => refusal.into(),
    }
}

/// The hub's entry of a repository at a revision.
#[derive(Debug, Deserialize)]
struct About {
    sha: String,
    #[serde(rename = "cardData", default)]
    card: Value,
    #[serde(default)]
    tags: Vec<String>,
}

impl About {
    /// The licence that the model's card states. One that has no identifier is "other", and has a name.
    fn licence(&self) -> Option<String> {
        let card = match &self.card["license"] {
            Value::String(licence) if licence == "other" => {
                self.card["license_name"].as_str().or(Some("other"))
            }
            Value::String(licence) => Some(licence.as_str()),
            Value::Array(licences) => licences.first().and_then(Value::as_str),
            _ => None,
        };
        let tag = || self.tags.iter().find_map(|tag| tag.strip_prefix("license:"));
        // It is shown on terminals, to which control characters are commands.
        card.or_else(tag).filter(|licence| !licence.contains(char::is_control)).map(str::to_owned)
    }
}

/// The hub's entry of a file or a folder.
#[derive(Debug, Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    oid: String,
    lfs: Option<Lfs>,
}

#[derive(Debug, Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

impl Entry {
    fn file(self) -> Result<RemoteFile, String> {
        let (size, digest) = match &self.lfs {
            Some(lfs) => (lfs.size, Digest::sha256(lfs.oid.trim_start_matches("sha256:"))),
            None => (self.size, Digest::git_blob(&self.oid)),
        };
        let digest = digest.ok_or_else(|| format!("the hub gives no hash of {}", self.path))?;
        Ok(RemoteFile { path: self.path, size, digest })
    }
}

fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether a path is one that git would never have, and that would leave the folder of the model.
fn leads_elsewhere(path: &str) -> bool {
    path.contains(|character: char| character.is_control() || character == '\\')
        || path.split('/').any(|part| matches!(part, "" | "." | ".."))
}

/// Whether a path begins with a dot anywhere, as `.gitattributes` does.
fn is_hidden(path: &str) -> bool {
    path.split('/').any(|part| part.starts_with('.'))
}

/// Percent-encodes characters that are not unreserved in a URL, slashes also where they do not separate.
fn encode(text: &str, slashes_separate: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(byte.into()),
            b'/' if slashes_separate => encoded.push('/'),
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_repository_has_an_owner_a_name_and_maybe_a_revision() {
        let repository: Repository = "Xenova/clip-vit-base-patch32@refs/pr/1".parse().unwrap();
        assert_eq!(repository.name, "Xenova/clip-vit-base-patch32");
        assert_eq!(repository.revision.as_deref(), Some("refs/pr/1"));
        assert_eq!(repository.short_name(), "clip-vit-base-patch32");
        for text in
            ["", "name", "a/b/c", "a/", "/b", "../b", "a/..", "a/b@", "a/b c", "https://hub/a", "a/b?c"]
        {
            assert!(text.parse::<Repository>().is_err(), "{text}");
        }
    }

    #[test]
    fn no_path_leads_elsewhere() {
        for path in ["a", "onnx/model.onnx", "a..b", "..a", "ä/ö"] {
            assert!(!leads_elsewhere(path), "{path}");
        }
        for path in ["", "/etc/x", "../x", "a/../../x", "a//b", "a/", "./a", "a\\b", "a\0b", "a\nb"] {
            assert!(leads_elsewhere(path), "{path:?}");
        }
        for path in [".gitattributes", ".hidden/x", "a/.b"] {
            assert!(is_hidden(path), "{path}");
        }
    }

    #[test]
    fn urls_are_encoded() {
        assert_eq!(encode("refs/pr/1", false), "refs%2Fpr%2F1");
        assert_eq!(encode("onnx/a b?#%é.onnx", true), "onnx/a%20b%3F%23%25%C3%A9.onnx");
    }

    #[test]
    fn the_licence_is_that_of_the_card() {
        let licence = |json| serde_json::from_value::<About>(json).unwrap().licence();
        for (json, expected) in [
            (json!({"sha": "", "cardData": {"license": "mit"}}), Some("mit")),
            (json!({"sha": "", "cardData": {"license": ["apache-2.0"]}}), Some("apache-2.0")),
            (
                json!({"sha": "", "cardData": {"license": "other", "license_name": "apple-ascl"}}),
                Some("apple-ascl"),
            ),
            (json!({"sha": "", "tags": ["clip", "license:cc-by-4.0"]}), Some("cc-by-4.0")),
            (json!({"sha": "", "cardData": null}), None),
            (json!({"sha": "", "cardData": {"license": "mit\u{1b}[2J"}}), None),
        ] {
            assert_eq!(licence(json).as_deref(), expected);
        }
    }
}
