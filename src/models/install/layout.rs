//! Which files of a repository, or of a folder, are the model.
//!
//! A repository holds its model several times over: in other precisions, for other runtimes, as one graph and as two.
//! Only the two graphs of one precision, their external data and the configuration beside them are wanted.

use std::collections::BTreeMap;

/// The files of a model.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Selection {
    /// "fp32", or the exporter's name of another precision.
    pub variant: String,
    /// Paths, sorted.
    pub files: Vec<String>,
}

/// Why nothing was selected.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unselectable {
    /// No layout that is known.
    Unknown(String),
    /// The layout is known, and has these variants and not the one that was asked for.
    NoVariant(Vec<String>),
}

/// The variant where none is asked for.
const FULL_PRECISION: &str = "fp32";

/// Graphs that see and graphs that read, without `_<variant>.onnx`: transformers.js and optimum, immich,
/// open_clip_inference; and graphs that do both, which are the last choice.
const GRAPHS: [[&str; 2]; 8] = [
    ["onnx/vision_model", "onnx/text_model"],
    ["vision_model", "text_model"],
    ["visual/model", "textual/model"],
    ["visual", "text"],
    ["visual", "textual"],
    ["onnx/visual", "onnx/textual"],
    ["onnx/model", "onnx/model"],
    ["model", "model"],
];

/// Where a repository has its graphs.
const FOLDERS: [&str; 7] = ["", "onnx", "visual", "textual", "vision", "text", "image"];

/// The files that say how images and texts are prepared.
const CONFIGURATION: [&str; 8] = [
    "config.json",
    "model_config.json",
    "open_clip_config.json",
    "preprocess_cfg.json",
    "preprocessor_config.json",
    "special_tokens_map.json",
    TOKENIZER,
    "tokenizer_config.json",
];
const TOKENIZER: &str = "tokenizer.json";

/// Selects among `paths`, which are relative and separated by slashes.
pub(crate) fn select(paths: &[&str], variant: Option<&str>) -> Result<Selection, Unselectable> {
    let variants = GRAPHS.iter().map(|pair| variants(paths, pair)).find(|variants| !variants.is_empty());
    let mut variants = match variants.or_else(|| only_pair(paths)) {
        Some(variants) => variants,
        None => {
            let graphs = paths.iter().filter(|path| path.ends_with(".onnx")).count();
            return Err(Unselectable::Unknown(format!(
                "none of its {graphs} ONNX files make a pair that is known, such as onnx/vision_model.onnx and \
                 onnx/text_model.onnx"
            )));
        }
    };
    let wanted = variant.unwrap_or(FULL_PRECISION);
    // transformers.js called its 8-bit variant "quantized" before there were several.
    let key = if wanted == "int8" && !variants.contains_key("int8") { "quantized" } else { wanted };
    let Some(graphs) = variants.remove(key) else {
        return Err(Unselectable::NoVariant(variants.into_keys().map(str::to_owned).collect()));
    };

    let mut files: Vec<&str> = graphs.to_vec();
    files.extend(paths.iter().filter(|path| graphs.iter().any(|graph| is_data(graph, path))));
    let folders: Vec<&str> = graphs.iter().map(|graph| split(graph).0).chain([""]).collect();
    files.extend(paths.iter().filter(|path| {
        let (folder, file) = split(path);
        folders.contains(&folder) && CONFIGURATION.contains(&file)
    }));
    if !files.iter().any(|path| split(path).1 == TOKENIZER) {
        return Err(Unselectable::Unknown(format!(
            "it has no {TOKENIZER} beside its graphs; one of another repository is fetched with --tokenizer"
        )));
    }
    files.sort_unstable();
    files.dedup();
    Ok(Selection { variant: wanted.to_owned(), files: files.into_iter().map(str::to_owned).collect() })
}

/// Whether a file says how images and texts are prepared, in a folder where such files count.
pub(super) fn is_configuration(path: &str) -> bool {
    let (folder, file) = split(path);
    FOLDERS.contains(&folder) && CONFIGURATION.contains(&file)
}

/// Whether a file is part of a tokenizer.
pub(super) fn is_of_tokenizer(path: &str) -> bool {
    [TOKENIZER, "tokenizer_config.json", "special_tokens_map.json"].contains(&split(path).1)
}

/// The variants of which both graphs are there.
fn variants<'a>(paths: &[&'a str], [image, text]: &[&str; 2]) -> BTreeMap<&'a str, [&'a str; 2]> {
    let variant = |path: &'a str, stem: &str| {
        let rest = path.strip_prefix(stem)?.strip_suffix(".onnx")?;
        if rest.is_empty() { Some(FULL_PRECISION) } else { rest.strip_prefix('_') }
    };
    let graphs = |stem: &str| -> BTreeMap<&'a str, &'a str> {
        paths.iter().filter_map(|path| Some((variant(path, stem)?, *path))).collect()
    };
    let of_texts = graphs(text);
    graphs(image)
        .into_iter()
        .filter_map(|(variant, of_images)| Some((variant, [of_images, *of_texts.get(variant)?])))
        .collect()
}

/// The only two graphs, with any names.
fn only_pair<'a>(paths: &[&'a str]) -> Option<BTreeMap<&'a str, [&'a str; 2]>> {
    let is_graph = |path: &&&str| path.ends_with(".onnx") && FOLDERS.contains(&split(path).0);
    let graphs: Vec<&str> = paths.iter().filter(is_graph).copied().collect();
    let pair = <[&str; 2]>::try_from(graphs).ok()?;
    let is_8_bit = pair.iter().all(|graph| graph.ends_with("_int8.onnx"));
    Some(BTreeMap::from([(if is_8_bit { "int8" } else { FULL_PRECISION }, pair)]))
}

/// Whether `path` is external data of `graph`: `model.onnx_data`, `model.onnx.data`.
fn is_data(graph: &str, path: &str) -> bool {
    let rest = path.strip_prefix(graph);
    rest.is_some_and(|rest| !rest.contains('/') && (rest.starts_with("_data") || rest.starts_with(".data")))
}

/// The folder, empty for the topmost, and the file.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(paths: &[&str], variant: Option<&str>) -> Vec<String> {
        select(paths, variant).unwrap().files
    }

    #[test]
    fn the_files_of_one_variant_are_selected_and_nothing_else() {
        let paths = [
            "README.md",
            "config.json",
            "merges.txt",
            "model.safetensors",
            "onnx/model.onnx",
            "onnx/text_model.onnx",
            "onnx/text_model.onnx_data",
            "onnx/text_model_fp16.onnx",
            "onnx/text_model_int8.onnx",
            "onnx/vision_model.onnx",
            "onnx/vision_model_int8.onnx",
            "preprocessor_config.json",
            "tokenizer.json",
        ];
        let configuration = ["preprocessor_config.json", "tokenizer.json"];
        assert_eq!(
            files(&paths, None),
            [
                &[
                    "config.json",
                    "onnx/text_model.onnx",
                    "onnx/text_model.onnx_data",
                    "onnx/vision_model.onnx"
                ],
                &configuration[..]
            ]
            .concat()
        );
        assert_eq!(
            files(&paths, Some("int8")),
            [
                &["config.json", "onnx/text_model_int8.onnx", "onnx/vision_model_int8.onnx"],
                &configuration[..]
            ]
            .concat()
        );
        // There is no fp16 graph that sees.
        let missing = Unselectable::NoVariant(vec!["fp32".to_owned(), "int8".to_owned()]);
        assert_eq!(select(&paths, Some("fp16")), Err(missing));
    }

    #[test]
    fn quantized_is_the_older_name_of_int8() {
        let paths = ["onnx/text_model_quantized.onnx", "onnx/vision_model_quantized.onnx", "tokenizer.json"];
        assert_eq!(select(&paths, Some("int8")).unwrap().variant, "int8");
        assert_eq!(files(&paths, Some("int8")), files(&paths, Some("quantized")));
        assert_eq!(select(&paths, None), Err(Unselectable::NoVariant(vec!["quantized".to_owned()])));
    }

    #[test]
    fn the_other_layouts_are_known() {
        for paths in [
            &[
                "textual/model.onnx",
                "textual/tokenizer.json",
                "visual/model.onnx",
                "visual/preprocess_cfg.json",
            ][..],
            &["open_clip_config.json", "text.onnx", "tokenizer.json", "visual.onnx"],
            &["text_model.onnx", "tokenizer.json", "vision_model.onnx"],
            &["model.onnx", "model.onnx.data", "tokenizer.json"],
            &["onnx/reads.onnx", "onnx/sees.onnx", "tokenizer.json"],
        ] {
            assert_eq!(files(paths, None), paths);
        }
        let immich =
            ["textual/model.onnx", "textual/tokenizer.json", "visual/model.armnn", "visual/model.onnx"];
        assert_eq!(files(&immich, None), [immich[0], immich[1], immich[3]]);
    }

    #[test]
    fn files_that_are_no_model_are_refused() {
        for paths in [
            &[][..],
            &["README.md"],
            &["vision_model.onnx", "tokenizer.json"],
            &["a.onnx", "b.onnx", "c.onnx", "tokenizer.json"],
            &["vision_model.onnx", "text_model.onnx", "vocab.json"],
            &["elsewhere/vision_model.onnx", "elsewhere/text_model.onnx", "tokenizer.json"],
        ] {
            assert!(matches!(select(paths, None), Err(Unselectable::Unknown(_))), "{paths:?}");
        }
    }

    #[test]
    fn external_data_does_not_lead_elsewhere() {
        assert!(is_data("onnx/model.onnx", "onnx/model.onnx_data_1"));
        for path in
            ["onnx/model.onnx", "onnx/model.onnx.bak", "onnx/model.onnx_data/../../x", "model.onnx_data"]
        {
            assert!(!is_data("onnx/model.onnx", path), "{path}");
        }
    }
}
