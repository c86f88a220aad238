//! Models to test with, beside the demo.

use std::fs;
use std::path::Path;

use xtask::cluster::Setting;

use crate::cluster::TestCluster;
use crate::photos::repository;

/// A preloaded cluster whose models are `demo` and [`OTHER_MODEL`].
pub fn cluster_of_two_models() -> TestCluster {
    let cluster = TestCluster::preloaded();
    let models = cluster.server.directory().join("models");
    let demo = repository().join("models/demo");
    copy_model(&demo, &models.join("demo"), |_| {});
    copy_model(&demo, &models.join(OTHER_MODEL), negate_a_part_of_the_projection);
    let folder = models.to_str().expect("a path in UTF-8");
    let settings: [Setting; 2] = [("shared_preload_libraries", "pg_clip"), ("clip.models_directory", folder)];
    cluster.server.configure(&settings).expect("the settings are written");
    cluster.server.restart().expect("the server restarts");
    cluster
}

/// The demo with other weights: the same dimensions, but other vectors, which rank photos in another order.
pub const OTHER_MODEL: &str = "other";

fn copy_model(from: &Path, to: &Path, change: impl Fn(&mut [u8])) {
    fs::create_dir_all(to).expect("a folder for a model");
    for entry in fs::read_dir(from).expect("the model is read") {
        let file = entry.expect("an entry is read").path();
        if !file.is_file() {
            continue;
        }
        let mut bytes = fs::read(&file).expect("a file of the model is read");
        if file.extension().is_some_and(|extension| extension == "onnx") {
            change(&mut bytes);
        }
        fs::write(to.join(file.file_name().expect("a name")), bytes).expect("a file of the model is written");
    }
}

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
