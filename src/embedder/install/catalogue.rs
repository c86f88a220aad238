//! Published models of the known layouts, by short names.
//!
//! The catalogue says where a model is and nothing of its content: what its files must hash to comes from the hub, from
//! a lock file, or from the command line.

use serde::Deserialize;

/// A model of the catalogue.
#[derive(Debug, Deserialize)]
pub(crate) struct Entry {
    pub name: String,
    /// Where it is on the hub.
    pub repository: String,
    /// Its two graphs.
    #[cfg_attr(not(test), expect(dead_code, reason = "for readers of the file, and for the test"))]
    layout: String,
    /// The length of its vectors.
    pub dimensions: u16,
    pub note: String,
}

/// All of it, in the order in which it is shown.
pub(crate) fn catalogue() -> Vec<Entry> {
    serde_json::from_str(include_str!("catalogue.json")).expect("a test reads the catalogue")
}

#[cfg(test)]
mod tests {
    use super::super::{Repository, select};
    use super::*;

    #[test]
    fn every_entry_names_a_repository_whose_layout_is_known() {
        let entries = catalogue();
        assert!(!entries.is_empty());
        for entry in &entries {
            assert!(!entry.name.contains('/'), "{}", entry.name);
            let repository: Repository = entry.repository.parse().unwrap();
            assert_eq!(repository.name, entry.repository);
            let mut files: Vec<&str> = entry.layout.split(", ").collect();
            files.extend(["tokenizer.json", "preprocessor_config.json"]);
            assert_eq!(select(&files, None).unwrap().files.len(), 4, "{}", entry.name);
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
