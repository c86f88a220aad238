//! `catalogue`: the models that are published, with their figures, and which one is for which need.

use std::process::ExitCode;

use indicatif::DecimalBytes;

use super::table::print;
use crate::install::{Entry, catalogue};

/// Where the figures are from.
const SOURCES: &str = "\
English, German, French   recall in percent: immich's table, the mean of Crossmodal-3600, XTD-10 and Flickr30k
ms                        a query's time in the same table: to be compared with each other
ImageNet, COCO, Flickr    OpenCLIP's table in percent: right labels, and photos found first by their captions
-                         not in these tables, or not read; `fetch` and `list` show the licence that the hub states";

/// Prints the catalogue: the figures, their sources, and the pinned commits and hashes.
pub(crate) fn run() -> ExitCode {
    let entries = catalogue();
    let mut rows = vec![
        [
            "name",
            "dimensions",
            "size",
            "licence",
            "English",
            "German",
            "French",
            "ms",
            "ImageNet",
            "COCO",
            "Flickr",
            "use",
        ]
        .map(str::to_owned),
    ];
    rows.extend(entries.iter().map(figures));
    print(&rows);
    println!("\n{SOURCES}\n");

    let mut rows = vec![["name", "repository", "commit"].map(str::to_owned)];
    rows.extend(entries.iter().map(place));
    print(&rows);
    println!();

    let mut rows = vec![["name", "file", "size", "sha256"].map(str::to_owned)];
    for entry in &entries {
        rows.extend(entry.files.iter().map(|(path, file)| {
            [entry.name.clone(), path.clone(), DecimalBytes(file.size).to_string(), file.sha256.clone()]
        }));
    }
    print(&rows);
    ExitCode::SUCCESS
}

fn figures(entry: &Entry) -> [String; 12] {
    let number = |value: Option<f32>| value.map(|value| value.to_string()).unwrap_or_default();
    let (immich, open_clip) = (entry.immich.as_ref(), entry.open_clip.as_ref());
    [
        entry.name.clone(),
        entry.dimensions.to_string(),
        entry.size().map(|size| DecimalBytes(size).to_string()).unwrap_or_default(),
        entry.licence.clone().unwrap_or_default(),
        number(immich.map(|immich| immich.english)),
        number(immich.and_then(|immich| immich.german)),
        number(immich.and_then(|immich| immich.french)),
        number(immich.map(|immich| immich.milliseconds)),
        number(open_clip.map(|figures| figures.imagenet)),
        number(open_clip.map(|figures| figures.coco)),
        number(open_clip.map(|figures| figures.flickr)),
        entry.advice.clone(),
    ]
}

fn place(entry: &Entry) -> [String; 3] {
    let folder = entry.folder.as_ref().map(|folder| format!(", folder {folder}")).unwrap_or_default();
    let tokenizer = entry.tokenizer.as_ref().map(|name| format!(", tokenizer of {name}")).unwrap_or_default();
    let commit = entry.commit.as_deref().unwrap_or("not pinned");
    [entry.name.clone(), format!("{}{folder}{tokenizer}", entry.repository), commit.to_owned()]
}
