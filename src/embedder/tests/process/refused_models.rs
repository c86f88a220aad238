//! Folders that are no CLIP model, each with a reason that a person understands.

use std::fs;
use std::path::Path;

use crate::models::{check, data};
use crate::serve::copy_folder;

/// Makes a model out of the good one in `layout`, changes it, and returns why `check` refuses it.
fn reason(layout: &str, change: impl FnOnce(&Path)) -> String {
    let models = temp_dir::TempDir::new().unwrap();
    let folder = models.path().join("model");
    copy_folder(&data().join("models").join(layout), &folder);
    change(&folder);
    let output = check(models.path(), "model");
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.starts_with("ERROR:  model \"model\" cannot be used\nDETAIL:  "), "{error}");
    error
}

#[track_caller]
fn assert_reason(reason: &str, parts: &[&str]) {
    for part in parts {
        assert!(reason.contains(part), "no {part:?} in {reason}");
    }
}

const VISION: &str = "onnx/vision_model.onnx";
const TEXT: &str = "onnx/text_model.onnx";

fn refused(file: &str) -> std::path::PathBuf {
    data().join("refused_models").join(file)
}

fn with_vision(file: &str) -> String {
    reason("transformers_js", |folder| {
        fs::copy(refused(file), folder.join(VISION)).unwrap();
    })
}

fn with_text(file: &str) -> String {
    reason("transformers_js", |folder| {
        fs::copy(refused(file), folder.join(TEXT)).unwrap();
    })
}

#[test]
fn towers_without_their_projection() {
    let advice = "before the projection into the space that images and texts share";
    assert_reason(&with_vision("unprojected_vision.onnx"), &[VISION, "pooler_output", advice]);
    assert_reason(&with_text("unprojected_text.onnx"), &[TEXT, "pooler_output", advice]);
}

/// Nothing in the graph tells that its output is not the embedding, and both towers agree; the configuration does not.
#[test]
fn unprojected_towers_that_do_not_say_so() {
    let reason = reason("transformers_js", |folder| {
        let config = fs::read_to_string(folder.join("config.json")).unwrap();
        let changed = config.replace("\"projection_dim\": 24", "\"projection_dim\": 16");
        assert_ne!(changed, config);
        fs::write(folder.join("config.json"), changed).unwrap();
    });
    assert_reason(&reason, &["24 dimensions where its configuration says 16", "before the projection"]);
}

#[test]
fn half_a_model() {
    let no_text = reason("transformers_js", |folder| fs::remove_file(folder.join(TEXT)).unwrap());
    assert_reason(&no_text, &["vision_model.onnx is an image tower, and its text tower is missing"]);
    let no_image = reason("transformers_js", |folder| fs::remove_file(folder.join(VISION)).unwrap());
    assert_reason(&no_image, &["text_model.onnx is a text tower, and its image tower is missing"]);
    let two_images = reason("transformers_js", |folder| {
        fs::copy(folder.join(VISION), folder.join(TEXT)).unwrap();
    });
    assert_reason(&two_images, &["are both image towers"]);
    let nothing = reason("transformers_js", |folder| fs::remove_dir_all(folder.join("onnx")).unwrap());
    assert_reason(&nothing, &["has no ONNX file"]);
}

#[test]
fn towers_of_two_models() {
    let reason = reason("transformers_js", |folder| {
        fs::copy(data().join("models/vit_l14").join(TEXT), folder.join(TEXT)).unwrap();
    });
    assert_reason(&reason, &["Its image tower gives 24 dimensions and its text tower 768"]);
}

#[test]
fn missing_files() {
    let no_tokenizer =
        reason("transformers_js", |folder| fs::remove_file(folder.join("tokenizer.json")).unwrap());
    assert_reason(&no_tokenizer, &["has no tokenizer.json"]);
    let no_preprocessing =
        reason("transformers_js", |folder| fs::remove_file(folder.join("preprocessor_config.json")).unwrap());
    assert_reason(&no_preprocessing, &["No file says how images are prepared", "preprocessor_config.json"]);
    let no_weights =
        reason("external_data", |folder| fs::remove_file(folder.join("onnx/text_model.onnx_data")).unwrap());
    assert_reason(
        &no_weights,
        &["text_model.onnx", "the file of its weights, text_model.onnx_data, is missing"],
    );
}

#[test]
fn other_networks() {
    assert_reason(&with_text("bert.onnx"), &[TEXT, "token_type_ids is one of BERT's"]);
    let reason = with_vision("hidden_states.onnx");
    assert_reason(&reason, &[VISION, "none of its outputs is an embedding", "last_hidden_state f32["]);
}

#[test]
fn broken_weights() {
    assert_reason(&with_vision("not_a_number.onnx"), &["Image tower: it gives a vector that is not finite"]);
    let truncated = reason("transformers_js", |folder| {
        let graph = fs::read(folder.join(VISION)).unwrap();
        fs::write(folder.join(VISION), &graph[..graph.len() / 2]).unwrap();
    });
    assert_reason(&truncated, &[VISION, "ONNX Runtime cannot load it"]);
    let page = reason("transformers_js", |folder| {
        fs::write(folder.join(TEXT), "<!DOCTYPE html><title>404</title>").unwrap();
    });
    assert_reason(&page, &[TEXT, "ONNX Runtime cannot load it"]);
    let empty = reason("transformers_js", |folder| fs::write(folder.join(TEXT), "").unwrap());
    assert_reason(&empty, &[TEXT]);
}

#[test]
fn preprocessing_that_does_not_fit() {
    let reason = reason("immich", |folder| {
        let file = folder.join("visual/preprocess_cfg.json");
        let config = fs::read_to_string(&file).unwrap();
        fs::write(&file, config.replace("[32, 32]", "[64, 64]")).unwrap();
    });
    assert_reason(&reason, &["takes 32 x 32 pixels, and its preprocessing makes 64 x 64"]);
}

#[test]
fn a_context_that_the_graph_does_not_have() {
    let reason = reason("transformers_js", |folder| {
        let file = folder.join("config.json");
        let config = fs::read_to_string(&file).unwrap();
        fs::write(
            &file,
            config.replace("\"max_position_embeddings\": 16", "\"max_position_embeddings\": 77"),
        )
        .unwrap();
    });
    assert_reason(&reason, &["Text tower: it cannot read a text of its context length, 77 tokens"]);
}
