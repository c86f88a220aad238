//! Reading any bytes as each of the files of a model that are read without ONNX Runtime.

use serde_json::Value;

use super::config::{Config, LONGEST_CONTEXT};
use super::graph_file::{LONGEST_NAME, scan};
use super::{Preprocessing, ResizeMode};

/// Reads the bytes as a graph and as the JSON files.
pub(crate) fn read(bytes: &[u8]) {
    let (locations, _) = scan(bytes).expect("bytes at hand are read");
    assert!(locations.iter().all(|location| location.len() <= LONGEST_NAME));
    let Ok(json) = serde_json::from_slice::<Value>(bytes) else { return };
    let config = Config::of(vec![json.clone()], json.clone());
    let _ = (config.kind(), config.projection());
    if let Ok(length) = config.context_length() {
        assert!((4..=LONGEST_CONTEXT as usize).contains(&length), "{length} tokens");
    }
    for preprocessing in [&json, &json["preprocess_cfg"]] {
        for image_size in [None, Some(&json["image_size"])] {
            if let Ok(read) = Preprocessing::read(preprocessing, image_size) {
                check(&read);
            }
        }
    }
}

fn check(read: &Preprocessing) {
    let sizes = 1..=4096;
    assert!(sizes.contains(&read.width) && sizes.contains(&read.height), "{read:?}");
    if let ResizeMode::Shortest(side) = read.resize_mode {
        assert!(side >= read.width.max(read.height) && sizes.contains(&side), "{read:?}");
    }
    assert!(read.mean.iter().all(|value| value.is_finite()), "{read:?}");
    assert!(read.std.iter().all(|value| value.is_finite() && *value > 0.0), "{read:?}");
}
