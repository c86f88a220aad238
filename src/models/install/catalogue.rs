//! Published models of the known layouts, by short names.
//!
//! The catalogue says where a model is, at which commit, and which hashes its files have, as far as they are known.
//! The hashes of other files come from the hub, a lock file, or the command line. The catalogue's figures are
//! published ones, and none was measured here.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A model of the catalogue.
#[derive(Debug, Deserialize)]
pub(crate) struct Entry {
    pub name: String,
    /// Where it is on the hub.
    pub repository: String,
    /// The commit that was looked at, if one was.
    pub commit: Option<String>,
    /// The folder in the repository that holds it, where that is not the topmost.
    pub folder: Option<String>,
    /// The repository of its tokenizer and configuration, where that is another one.
    pub tokenizer: Option<String>,
    /// Its two graphs.
    layout: String,
    /// The length of its vectors.
    pub dimensions: u16,
    /// As its page states it; none where that was not read.
    pub licence: Option<String>,
    /// Sizes and hashes of its files as far as they are known, by their paths in the folder.
    #[serde(default)]
    pub files: BTreeMap<String, KnownFile>,
    pub immich: Option<Immich>,
    pub open_clip: Option<OpenClip>,
    /// The need that it is best for, or why it is for none.
    pub advice: String,
}

/// A file of a model as it was published.
#[derive(Debug, Deserialize)]
pub(crate) struct KnownFile {
    pub size: u64,
    /// 64 hexadecimal digits.
    pub sha256: String,
}

/// Of immich's table: the mean recall, in percent, of Crossmodal-3600, XTD-10 and Flickr30k, and the time of a query.
#[derive(Debug, Deserialize)]
pub(crate) struct Immich {
    pub english: f32,
    pub german: Option<f32>,
    pub french: Option<f32>,
    pub milliseconds: f32,
}

/// Of OpenCLIP's table, in percent: right labels of ImageNet without training, photos found first by their captions.
#[derive(Debug, Deserialize)]
pub(crate) struct OpenClip {
    pub imagenet: f32,
    pub coco: f32,
    pub flickr: f32,
}

impl Entry {
    /// The bytes of both graphs in full precision, where they are known.
    pub(crate) fn size(&self) -> Option<u64> {
        self.graphs().map(|graph| Some(self.files.get(graph)?.size)).sum()
    }

    fn graphs(&self) -> impl Iterator<Item = &str> {
        self.layout.split(", ")
    }
}

/// All of it, in the order in which it is shown.
pub(crate) fn catalogue() -> Vec<Entry> {
    serde_json::from_str(include_str!("catalogue.json")).expect("a test reads the catalogue")
}

#[cfg(test)]
mod tests {
    use super::super::{Digest, Repository, select};
    use super::*;

    #[test]
    fn every_entry_names_a_repository_whose_layout_is_known() {
        let entries = catalogue();
        assert!(!entries.is_empty());
        for entry in &entries {
            assert!(!entry.name.contains('/'), "{}", entry.name);
            for name in [Some(&entry.repository), entry.tokenizer.as_ref()].into_iter().flatten() {
                assert_eq!(name.parse::<Repository>().unwrap().name, *name);
            }
            let mut files: Vec<&str> = entry.graphs().collect();
            files.extend(["tokenizer.json", "preprocessor_config.json"]);
            assert_eq!(select(&files, None).unwrap().files.len(), 4, "{}", entry.name);
        }
    }

    #[test]
    fn pins_are_a_commit_and_hashes_of_selected_files() {
        for entry in catalogue() {
            let is_commit = |commit: &String| commit.len() == 40 && hex::decode(commit).is_ok();
            assert!(entry.commit.as_ref().is_none_or(is_commit), "{}", entry.name);
            assert!(entry.files.is_empty() || entry.commit.is_some(), "{}: hashes at no commit", entry.name);
            assert_eq!(entry.size().is_some(), !entry.files.is_empty(), "{}", entry.name);
            for (path, file) in &entry.files {
                assert!(file.size > 0 && Digest::sha256(&file.sha256).is_some(), "{}: {path}", entry.name);
                let paths: Vec<&str> =
                    entry.files.keys().map(String::as_str).chain(["tokenizer.json"]).collect();
                let is_selected = [None, Some("quantized")].iter().any(|variant| {
                    select(&paths, *variant).is_ok_and(|selection| selection.files.contains(path))
                });
                assert!(is_selected || path.contains("int8"), "{}: {path}", entry.name);
            }
        }
    }

    #[test]
    fn each_need_has_one_recommendation_and_each_dominated_model_names_a_better_one() {
        let entries = catalogue();
        for need in ["best for English at 512", "best for other languages at 512", "smallest"] {
            assert_eq!(entries.iter().filter(|entry| entry.advice.starts_with(need)).count(), 1, "{need}");
        }
        let dominated = |entry: &&Entry| entry.advice.starts_with("dominated: ");
        assert!(entries.iter().filter(dominated).count() > 0);
        for entry in entries.iter().filter(dominated) {
            let by = entry.advice["dominated: ".len()..].split(' ').next().unwrap();
            let by = entries.iter().find(|other| other.name == by).unwrap();
            if let (Some(less), Some(more)) = (&entry.immich, &by.immich) {
                assert!(
                    more.english > less.english && more.milliseconds < less.milliseconds,
                    "{}",
                    entry.name
                );
            }
        }
    }

    #[test]
    fn names_are_found_once() {
        let mut names: Vec<String> = catalogue().into_iter().map(|entry| entry.name).collect();
        names.sort();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
