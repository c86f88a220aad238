//! Where the files of a model are, and what a model's name may be.
//!
//! A name is a folder in the models directory and never a path: it holds nothing that leads elsewhere. Known layouts:
//! everything in the folder, or the graphs in `onnx/` (transformers.js), or in `visual/` and `textual/` (immich).

use std::fs;
use std::path::{Path, PathBuf};

use pg_clip_wire::MAX_MODEL_NAME;

use crate::error::Error;

/// The files of a model.
#[derive(Debug)]
pub(crate) struct Folder {
    pub name: String,
    pub path: PathBuf,
    /// The two graphs; which one sees and which one reads is found by looking into them.
    pub graphs: [PathBuf; 2],
    pub tokenizer: PathBuf,
    pub preprocessing: PathBuf,
    pub config: Option<PathBuf>,
}

impl Folder {
    /// Finds the files of the model `name`.
    pub(crate) fn open(models_directory: &Path, name: &str) -> Result<Folder, Error> {
        let path = locate(models_directory, name)?;
        let unusable = |reason| Error::UnusableModel { name: name.to_owned(), reason };
        let find = |candidates: &[&str]| {
            candidates.iter().map(|candidate| path.join(candidate)).find(|file| file.is_file())
        };
        let require = |candidates: &[&str]| {
            find(candidates)
                .ok_or_else(|| unusable(format!("its folder {} has no {}", path.display(), candidates[0])))
        };
        Ok(Folder {
            name: name.to_owned(),
            graphs: find_graphs(&path).map_err(unusable)?,
            tokenizer: require(&["tokenizer.json", "textual/tokenizer.json"])?,
            preprocessing: require(&["preprocessor_config.json", "visual/preprocess_cfg.json"])?,
            config: find(&["config.json"]),
            path,
        })
    }
}

/// The folder of the model `name`, which is installed if the folder is there.
pub(crate) fn locate(models_directory: &Path, name: &str) -> Result<PathBuf, Error> {
    if !is_name(name) {
        return Err(Error::BadModelName { name: name.to_owned() });
    }
    let path = models_directory.join(name);
    if path.is_dir() {
        Ok(path)
    } else {
        Err(Error::UnknownModel { name: name.to_owned(), installed: installed(models_directory) })
    }
}

/// The names of all models in the models directory, sorted.
pub(crate) fn installed(models_directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(models_directory) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok().filter(|entry| entry.path().is_dir())?.file_name().into_string().ok())
        .filter(|name| is_name(name))
        .collect();
    names.sort();
    names
}

/// Whether `name` may be the name of a model.
pub(crate) fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=MAX_MODEL_NAME).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(allowed)
}

/// The pairs of graphs that stand for a model where its folder has more than two: its full-precision ones.
const KNOWN_PAIRS: [[&str; 2]; 4] = [
    ["vision_model.onnx", "text_model.onnx"],
    ["visual.onnx", "textual.onnx"],
    ["visual.onnx", "text.onnx"],
    ["model.onnx", "model.onnx"],
];

fn find_graphs(folder: &Path) -> Result<[PathBuf; 2], String> {
    let mut graphs: Vec<PathBuf> = ["", "onnx", "visual", "textual"]
        .iter()
        .filter_map(|subfolder| fs::read_dir(folder.join(subfolder)).ok())
        .flat_map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())))
        .filter(|path| path.extension().is_some_and(|extension| extension == "onnx") && path.is_file())
        .collect();
    graphs.sort();
    if graphs.len() > 2
        && let Some(pair) = KNOWN_PAIRS.iter().find_map(|pair| choose(&graphs, *pair))
    {
        return Ok(pair);
    }
    graphs.try_into().map_err(|graphs: Vec<PathBuf>| {
        let found = graphs.len();
        format!("its folder {} has {found} ONNX files where two are expected", folder.display())
    })
}

fn choose(graphs: &[PathBuf], names: [&str; 2]) -> Option<[PathBuf; 2]> {
    let is_chosen =
        |path: &&PathBuf| path.file_name().is_some_and(|file| names.iter().any(|name| file == *name));
    graphs.iter().filter(is_chosen).cloned().collect::<Vec<_>>().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_not_paths() {
        for name in ["demo", "clip-vit-base-patch32", "ViT-B-32__openai", "a.b", &"x".repeat(63)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", ".", "..", ".hidden", "a/b", "../demo", "a b", "a\0", "é", &"x".repeat(64)] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn a_model_that_is_not_there_is_answered_with_those_that_are() {
        let models = temp_dir::TempDir::new().unwrap();
        for name in ["two", "one", ".hidden"] {
            fs::create_dir(models.path().join(name)).unwrap();
        }
        let error = locate(models.path(), "three").unwrap_err();
        assert_eq!(error.to_string(), "model \"three\" is not installed");
        let Error::UnknownModel { installed, .. } = error else { panic!("{error}") };
        assert_eq!(installed, ["one", "two"]);
        assert!(matches!(locate(models.path(), "../one"), Err(Error::BadModelName { .. })));
    }

    #[test]
    fn graphs_are_found_in_every_layout() {
        for (files, expected) in [
            (vec!["a.onnx", "b.onnx"], Some(["a.onnx", "b.onnx"])),
            (
                vec!["visual/model.onnx", "textual/model.onnx"],
                Some(["textual/model.onnx", "visual/model.onnx"]),
            ),
            (
                vec![
                    "onnx/model.onnx",
                    "onnx/text_model.onnx",
                    "onnx/vision_model.onnx",
                    "onnx/text_model_q4.onnx",
                ],
                Some(["onnx/text_model.onnx", "onnx/vision_model.onnx"]),
            ),
            (vec!["one.onnx"], None),
            (vec!["a.onnx", "b.onnx", "c.onnx"], None),
        ] {
            let folder = temp_dir::TempDir::new().unwrap();
            for file in &files {
                let path = folder.path().join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "").unwrap();
            }
            let found = find_graphs(folder.path()).ok();
            assert_eq!(found, expected.map(|pair| pair.map(|file| folder.path().join(file))), "{files:?}");
        }
    }
}
