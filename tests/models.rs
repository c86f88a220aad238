//! Models to test with, beside the demo.

use std::fs;
use std::path::{Path, PathBuf};

use xtask::cluster::Setting;

use crate::cluster::TestCluster;
use crate::photos::repository;

/// A preloaded cluster whose models are `demo` and [`OTHER_MODEL`].
pub fn cluster_of_two_models() -> TestCluster {
    let cluster = cluster_of_models(&[], &[]);
    let other = models_of(&cluster).join(OTHER_MODEL);
    copy_model(&repository().join("models/demo"), &other);
    for entry in fs::read_dir(&other).expect("the model is read") {
        let file = entry.expect("an entry is read").path();
        if file.extension().is_some_and(|extension| extension == "onnx") {
            let mut bytes = fs::read(&file).expect("a file of the model is read");
            negate_a_part_of_the_projection(&mut bytes);
            fs::write(&file, bytes).expect("a file of the model is written");
        }
    }
    cluster
}

/// A preloaded cluster whose models are `demo`, which has 512 dimensions, and some of `tests/data/models`.
pub fn cluster_of_models(names: &[&str], settings: &[Setting]) -> TestCluster {
    let cluster = TestCluster::preloaded();
    let models = models_of(&cluster);
    copy_model(&repository().join("models/demo"), &models.join("demo"));
    for name in names {
        copy_model(&test_model(name), &models.join(name));
    }
    let folder = models.to_str().expect("a path in UTF-8");
    let preloaded = [("shared_preload_libraries", "pg_clip"), ("clip.models_directory", folder)];
    cluster.server.configure(&[&preloaded, settings].concat()).expect("the settings are written");
    cluster.server.restart().expect("the server restarts");
    cluster
}

/// Where a cluster of [`cluster_of_models`] has its models.
pub fn models_of(cluster: &TestCluster) -> PathBuf {
    cluster.server.directory().join("models")
}

/// One of the tiny models of `tests/data/models`.
pub fn test_model(name: &str) -> PathBuf {
    repository().join("tests/data/models").join(name)
}

/// Copies a model's folder. Of the demo, only the files: its photos are no part of the model.
pub fn copy_model(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder for a model");
    for entry in fs::read_dir(from).expect("the model is read") {
        let path = entry.expect("an entry is read").path();
        let copy = to.join(path.file_name().expect("a name"));
        if path.is_file() {
            fs::copy(&path, &copy).expect("a file of the model is copied");
        } else if !path.ends_with("photos") {
            copy_model(&path, &copy);
        }
    }
}

/// The demo with other weights: the same dimensions, but other vectors, which rank photos in another order. The tiny
/// models cannot stand in for it: none has 512 dimensions, and they know no things to rank.
pub const OTHER_MODEL: &str = "other";

/// The last weights of both towers are those of the projection, in little-endian 16-bit floats. Which rows of it a
/// stretch of the file holds differs between the towers: texts and images are not turned alike.
fn negate_a_part_of_the_projection(onnx: &mut [u8]) {
    const FROM_THE_END: usize = 120_001;
    const LENGTH: usize = 60_000;
    const SIGN: u8 = 0x80;
    let start = onnx.len() - FROM_THE_END;
    for value in onnx[start..start + LENGTH].chunks_exact_mut(2) {
        value[1] ^= SIGN;
    }
}
