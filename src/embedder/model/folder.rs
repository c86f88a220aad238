//! Where the files of a model are.
//!
//! A model's name is a folder in the models directory and never a path: it holds nothing that leads elsewhere.
//! Exporters put everything in the folder itself, or the graphs in `onnx/` (transformers.js), or each half in a
//! folder of its own (immich: `visual/` and `textual/`). Files are looked for in all of these; the code looks into
//! a graph to find its purpose.

use std::fs;
use std::path::{Path, PathBuf};

use pg_clip_wire::is_model_name;

use crate::error::Error;

/// The files of a model.
#[derive(Debug)]
pub struct Folder {
    pub path: PathBuf,
    /// One graph that sees and reads, or one for each.
    pub graphs: Vec<PathBuf>,
    pub tokenizer: PathBuf,
    pub tokenizer_config: Option<PathBuf>,
    /// The file that says how images are prepared, where it is not part of a file in `configs`.
    pub preprocessing: Option<PathBuf>,
    /// The JSON files about the whole model or about one half of it.
    pub configs: Vec<PathBuf>,
}

impl Folder {
    /// Finds the files of the model `name`.
    pub fn open(models_directory: &Path, name: &str) -> Result<Folder, Error> {
        let path = locate(models_directory, name)?;
        let unusable = |reason| Error::UnusableModel { name: name.to_owned(), reason };
        let mut tokenizers = find(&path, &["tokenizer.json"]).into_iter();
        let mut preprocessing = find(&path, &["preprocessor_config.json", "preprocess_cfg.json"]).into_iter();
        Ok(Folder {
            graphs: find_graphs(&path).map_err(unusable)?,
            tokenizer: tokenizers
                .next()
                .ok_or_else(|| unusable(format!("its folder {} has no tokenizer.json", path.display())))?,
            tokenizer_config: find(&path, &["tokenizer_config.json"]).into_iter().next(),
            preprocessing: preprocessing.next(),
            configs: find(&path, &["open_clip_config.json", "config.json"]),
            path,
        })
    }
}

/// The folder of the model `name`, which is installed if the folder is there.
pub fn locate(models_directory: &Path, name: &str) -> Result<PathBuf, Error> {
    if !is_model_name(name) {
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
pub fn installed(models_directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(models_directory) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok().filter(|entry| entry.path().is_dir())?.file_name().into_string().ok())
        .filter(|name| is_model_name(name))
        .collect();
    names.sort();
    names
}

/// Where exporters put files, in the order in which they count.
const SUBFOLDERS: [&str; 7] = ["", "onnx", "visual", "textual", "vision", "text", "image"];

/// All files of these names, files of the first name and of the first folder first.
fn find(folder: &Path, names: &[&str]) -> Vec<PathBuf> {
    let places = names.iter().flat_map(|name| SUBFOLDERS.map(|subfolder| folder.join(subfolder).join(name)));
    places.filter(|path| path.is_file()).collect()
}

/// The graphs that stand for a model where its folder has more than two: its full-precision ones.
const KNOWN: [&[&str]; 5] = [
    &["vision_model.onnx", "text_model.onnx"],
    &["visual.onnx", "textual.onnx"],
    &["visual.onnx", "text.onnx"],
    &["model.onnx", "model.onnx"],
    &["model.onnx"],
];

fn find_graphs(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let mut graphs: Vec<PathBuf> = SUBFOLDERS
        .iter()
        .filter_map(|subfolder| fs::read_dir(folder.join(subfolder)).ok())
        .flat_map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())))
        .filter(|path| path.extension().is_some_and(|extension| extension == "onnx") && path.is_file())
        .collect();
    graphs.sort();
    match graphs.len() {
        0 => Err(format!("its folder {} has no ONNX file", folder.display())),
        1 | 2 => Ok(graphs),
        count => KNOWN.iter().find_map(|names| choose(&graphs, names)).ok_or_else(|| {
            format!(
                "its folder {} has {count} ONNX files and none is clearly the one: a model has one, or one for \
                 images and one for texts",
                folder.display()
            )
        }),
    }
}

/// The graphs of these names, if there are exactly as many.
fn choose(graphs: &[PathBuf], names: &[&str]) -> Option<Vec<PathBuf>> {
    let is_chosen =
        |path: &&PathBuf| path.file_name().is_some_and(|file| names.iter().any(|name| file == *name));
    let chosen: Vec<PathBuf> = graphs.iter().filter(is_chosen).cloned().collect();
    (chosen.len() == names.len()).then_some(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_model_is_answered_with_the_installed_ones() {
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
        let cases: [(&[&str], Option<&[&str]>); 8] = [
            (&["a.onnx", "b.onnx"], Some(&["a.onnx", "b.onnx"])),
            (
                &["visual/model.onnx", "textual/model.onnx"],
                Some(&["textual/model.onnx", "visual/model.onnx"]),
            ),
            (
                &[
                    "onnx/model.onnx",
                    "onnx/text_model.onnx",
                    "onnx/vision_model.onnx",
                    "onnx/text_model_q4.onnx",
                ],
                Some(&["onnx/text_model.onnx", "onnx/vision_model.onnx"]),
            ),
            (&["model.onnx"], Some(&["model.onnx"])),
            (
                &["onnx/model.onnx", "onnx/model_fp16.onnx", "onnx/model_int8.onnx"],
                Some(&["onnx/model.onnx"]),
            ),
            (&["elsewhere/model.onnx"], None),
            (&["a.onnx", "b.onnx", "c.onnx"], None),
            (&[], None),
        ];
        for (files, expected) in cases {
            let folder = temp_dir::TempDir::new().unwrap();
            for file in files {
                let path = folder.path().join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "").unwrap();
            }
            let expected = expected.map(|files| files.iter().map(|file| folder.path().join(file)).collect());
            assert_eq!(find_graphs(folder.path()).ok(), expected, "{files:?}");
        }
    }
}
