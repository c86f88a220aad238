//! The parts of a model: a repository, or a folder of it, and a tokenizer that another repository may have.

use std::collections::BTreeMap;

use super::layout::{is_configuration, is_of_tokenizer};
use super::repository::{RemoteFile, Snapshot};
use crate::error::Error;

/// The files that may be of a model, by the paths that they have when it is installed.
#[derive(Debug)]
pub(crate) struct Parts {
    pub model: Snapshot,
    pub tokenizer: Option<Snapshot>,
    pub files: BTreeMap<String, Part>,
}

/// A file of one of the repositories.
#[derive(Debug)]
pub(crate) struct Part {
    file: RemoteFile,
    is_of_tokenizer: bool,
}

impl Parts {
    /// The files in `folder` of the model's repository, and the files of `tokenizer` that prepare texts and images:
    /// its tokenizer replaces the model's own, and its configuration counts where the model has none.
    pub(crate) fn of(
        model: Snapshot,
        folder: Option<&str>,
        tokenizer: Option<Snapshot>,
    ) -> Result<Parts, Error> {
        let inside = |path: &str| match folder {
            Some(folder) => Some(path.strip_prefix(folder)?.strip_prefix('/')?.to_owned()),
            None => Some(path.to_owned()),
        };
        let part = |file: &RemoteFile, is_of_tokenizer| Part { file: file.clone(), is_of_tokenizer };
        let mut files: BTreeMap<String, Part> =
            model.files.iter().filter_map(|file| Some((inside(&file.path)?, part(file, false)))).collect();
        if let Some(folder) = folder
            && files.is_empty()
        {
            let reason = format!("it has no folder {folder}");
            return Err(Error::UnusableRepository { repository: model.repository, reason });
        }
        if let Some(tokenizer) = &tokenizer {
            files.retain(|path, _| !is_of_tokenizer(path));
            for file in tokenizer.files.iter().filter(|file| is_configuration(&file.path)) {
                files.entry(file.path.clone()).or_insert_with(|| part(file, true));
            }
        }
        Ok(Parts { model, tokenizer, files })
    }

    /// The file that is installed as `path`, one of `files`.
    pub(crate) fn file(&self, path: &str) -> &RemoteFile {
        &self.files[path].file
    }

    /// Which repository it is in.
    pub(crate) fn snapshot(&self, path: &str) -> &Snapshot {
        match &self.tokenizer {
            Some(tokenizer) if self.files[path].is_of_tokenizer => tokenizer,
            _ => &self.model,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Digest;
    use super::*;

    fn snapshot(repository: &str, paths: &[&str]) -> Snapshot {
        let digest = Digest::GitBlob([0; 20]);
        let file = |path: &&str| RemoteFile { path: (*path).to_owned(), size: 1, digest };
        let files = paths.iter().map(file).collect();
        Snapshot { repository: repository.to_owned(), commit: String::new(), licence: None, files }
    }

    #[test]
    fn a_folder_and_a_tokenizer_from_elsewhere_make_a_model() {
        let model = snapshot(
            "a/models",
            &[
                "b32/visual.onnx",
                "b32/textual.onnx",
                "b32/tokenizer_config.json",
                "b32x/visual.onnx",
                "tokenizer.json",
            ],
        );
        let tokenizer = snapshot(
            "b/clip",
            &["tokenizer.json", "open_clip_config.json", "model.onnx", "deep/config.json"],
        );
        let parts = Parts::of(model, Some("b32"), Some(tokenizer)).unwrap();
        let found: Vec<(&str, &str)> = parts
            .files
            .keys()
            .map(|path| (path.as_str(), parts.snapshot(path).repository.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                ("open_clip_config.json", "b/clip"),
                ("textual.onnx", "a/models"),
                ("tokenizer.json", "b/clip"),
                ("visual.onnx", "a/models"),
            ]
        );
        assert_eq!(parts.file("visual.onnx").path, "b32/visual.onnx");
    }

    #[test]
    fn the_configuration_of_the_model_comes_first() {
        let model = snapshot("a/model", &["config.json", "tokenizer.json"]);
        let tokenizer = snapshot("b/clip", &["config.json", "tokenizer.json"]);
        let parts = Parts::of(model, None, Some(tokenizer)).unwrap();
        let repositories = ["config.json", "tokenizer.json"].map(|path| &parts.snapshot(path).repository);
        assert_eq!(repositories, ["a/model", "b/clip"]);
    }

    #[test]
    fn a_missing_folder_is_named() {
        let refused = Parts::of(snapshot("a/model", &["onnx/x"]), Some("on"), None);
        assert!(matches!(refused, Err(Error::UnusableRepository { .. })));
    }
}
