//! Models in the layouts of their exporters: loaded, recognised, and right.
//!
//! `tests/parity/layouts.py` makes the models in `tests/data/models` and writes PyTorch's vectors of them.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::thread;

use pg_clip_wire::{FailureKind, Priority, Request};
use serde_json::Value;

use crate::embedder::{Connection, Embedder, MODEL, models_directory, onnxruntime, program};

pub(crate) fn data() -> PathBuf {
    repository().join("tests/data")
}

fn repository() -> PathBuf {
    PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../..").canonicalize().unwrap()
}

fn golden() -> serde_json::Map<String, Value> {
    let text = fs::read_to_string(data().join("golden/layouts.json")).unwrap();
    let Value::Object(layouts) = serde_json::from_str::<Value>(&text).unwrap()["layouts"].take() else {
        panic!("no layouts")
    };
    layouts
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

fn assert_close(what: &str, found: &[f32], expected: &Value, least: &Value) {
    let expected = numbers(expected);
    assert_eq!(found.len(), expected.len(), "{what}");
    let cosine: f64 = found.iter().zip(expected).map(|(a, b)| f64::from(*a) * b).sum();
    assert!(cosine >= least.as_f64().unwrap(), "{what}: cosine {cosine}, at least {least}");
}

fn photos() -> Vec<Vec<u8>> {
    let golden = golden();
    let images = golden["transformers_js"]["images"].as_array().unwrap().iter();
    images.map(|image| fs::read(repository().join(image["file"].as_str().unwrap())).unwrap()).collect()
}

#[test]
fn every_layout_has_the_vectors_of_the_reference() {
    let server =
        Embedder::start_with("serve", &data().join("models"), "int8", &["--max-loaded-models", "20"]);
    let mut connection = server.connect();
    let layouts = golden();
    for (name, layout) in &layouts {
        let least = &layout["least_cosine"];
        for image in layout["images"].as_array().unwrap() {
            let file = image["file"].as_str().unwrap();
            let photo = fs::read(repository().join(file)).unwrap();
            let vector = connection.embed_image_with(name, &photo).unwrap();
            assert_close(&format!("{name}, {file}"), &vector, &image["embedding"], &least["images"]);
        }
        for text in layout["texts"].as_array().unwrap() {
            let words = text["text"].as_str().unwrap();
            let vector = connection.embed_text_with(name, words).unwrap();
            assert_close(&format!("{name}, {words:?}"), &vector, &text["embedding"], &least["texts"]);
        }
    }
    assert_eq!(layouts.len(), 16);
    assert_eq!(server.status()["models"].as_array().map(Vec::len), Some(16));
}

/// The inputs compared above differ: a wrong one would be far off.
#[test]
fn the_references_are_far_from_each_other() {
    for (name, layout) in golden() {
        for (kind, most) in [("images", 0.9995), ("texts", 0.99995)] {
            let vectors: Vec<Vec<f64>> =
                layout[kind].as_array().unwrap().iter().map(|entry| numbers(&entry["embedding"])).collect();
            for (index, vector) in vectors.iter().enumerate() {
                for other in &vectors[..index] {
                    let cosine: f64 = vector.iter().zip(other).map(|(a, b)| a * b).sum();
                    assert!(cosine < most, "{name}: {kind} are {cosine} alike");
                }
            }
        }
    }
}

pub(crate) fn check(models: &std::path::Path, name: &str) -> Output {
    let mut command = Command::new(program());
    command.args(["check", name, "--models-directory"]).arg(models).arg("--onnxruntime").arg(onnxruntime());
    command.output().unwrap()
}

/// The output of `check`, by the words at the left.
fn checked(name: &str) -> HashMap<String, String> {
    let output = check(&data().join("models"), name);
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let split = |line: &str| (line[..16].trim_end().to_owned(), line[16..].to_owned());
    text.lines().map(split).collect()
}

#[test]
fn check_names_the_recognised_parts() {
    let cases: [(&str, &[(&str, &str)]); 10] = [
        (
            "transformers_js",
            &[
                (
                    "images",
                    "onnx/vision_model.onnx: pixel_values f32[*, 3, *, *] -> image_embeds, not normalised",
                ),
                ("texts", "onnx/text_model.onnx: input_ids i64[*, *] -> text_embeds, not normalised"),
                ("dimensions", "24"),
                ("image size", "32 x 32"),
                ("resize", "Shortest(32), Bicubic"),
                ("context length", "16"),
                ("padding", "none, it does not count"),
                ("batches", "16 images, 16 texts"),
            ],
        ),
        (
            "optimum_one_file",
            &[
                (
                    "images",
                    "model.onnx: pixel_values f32[*, 3, *, *] -> image_embeds, runs the text tower too, normalised",
                ),
                (
                    "texts",
                    "model.onnx: input_ids i64[*, *], attention_mask i64[*, *] -> text_embeds, runs the image tower \
                     too, normalised",
                ),
            ],
        ),
        (
            "immich",
            &[
                ("images", "visual/model.onnx: image f32[1, 3, 32, 32] -> embedding, normalised"),
                ("texts", "textual/model.onnx: text i32[1, 16] -> embedding, normalised"),
                ("padding", "with token 545"),
                ("batches", "1 images, 1 texts"),
            ],
        ),
        ("immich_uint8", &[("images", "visual/model.onnx: image u8[1, 32, 32, 3] -> embedding, normalised")]),
        ("mlunar", &[("image size", "224 x 224"), ("resize", "Shortest(224), Bicubic")]),
        ("mobileclip", &[("resize", "Shortest(32), Bilinear")]),
        ("int8", &[("batches", "1 images, 1 texts"), ("padding", "none, it does not count")]),
        ("siglip", &[("resize", "Squash, Bicubic"), ("padding", "with token 1"), ("dimensions", "16")]),
        (
            "siglip2",
            &[
                ("resize", "Squash, Bicubic"),
                ("padding", "with token 0"),
                ("context length", "16"),
                ("cleaning", "lower case"),
            ],
        ),
        (
            "immich_xlm_roberta",
            &[("padding", "with token 1"), ("cleaning", "glitches, references and white space")],
        ),
    ];
    for (name, expected) in cases {
        let found = checked(name);
        for (key, value) in expected {
            assert_eq!(found.get(*key).map(String::as_str), Some(*value), "{name}: {key} in {found:?}");
        }
    }
}

#[test]
fn weights_beside_the_graph_are_part_of_the_fingerprint() {
    let models = temp_dir::TempDir::new().unwrap();
    let folder = models.path().join("external");
    crate::serve::copy_folder(&data().join("models/external_data"), &folder);
    let fingerprint = || {
        let output = check(models.path(), "external");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().find(|line| line.starts_with("fingerprint")).unwrap().to_owned()
    };
    let before = fingerprint();
    let weights = folder.join("onnx/vision_model.onnx_data");
    let mut bytes = fs::read(&weights).unwrap();
    bytes[100] ^= 1;
    fs::write(&weights, bytes).unwrap();
    assert_ne!(fingerprint(), before);
}

/// Weights in the graph's own file, and in files beside it, which ONNX Runtime maps into memory.
#[test]
fn a_file_that_is_overwritten_or_cut_changes_no_vector_of_a_loaded_model() {
    let models = temp_dir::TempDir::new().unwrap();
    crate::serve::copy_folder(&models_directory().join(MODEL), &models.path().join(MODEL));
    crate::serve::copy_folder(&data().join("models/external_data"), &models.path().join("external_data"));
    let server = Embedder::start_with("serve", models.path(), MODEL, &[]);
    let mut connection = server.connect();
    // Rows of the table of tokens that were not read before come from it later.
    let texts = ["the apple", "a red dog", "two cats on a pizza"];
    let untouched = Embedder::start_with("serve", models.path(), MODEL, &[]);
    let mut reference = untouched.connect();
    for name in [MODEL, "external_data"] {
        let expected = texts.map(|text| reference.embed_text_with(name, text).unwrap());
        let expected_image = reference.embed_image_with(name, &photos()[0]).unwrap();
        connection.embed_text_with(name, "snow").unwrap();
        for file in files_with_weights(&models.path().join(name)) {
            let length = fs::metadata(&file).unwrap().len() as usize;
            let mut opened = fs::OpenOptions::new().write(true).open(&file).unwrap();
            opened.write_all(&vec![0x3f; length]).unwrap();
            opened.set_len(100).unwrap();
        }
        for (text, expected) in texts.iter().zip(&expected) {
            assert_eq!(&connection.embed_text_with(name, text).unwrap(), expected, "{name}: {text}");
        }
        assert_eq!(connection.embed_image_with(name, &photos()[0]).unwrap(), expected_image, "{name}");
    }
}

fn files_with_weights(folder: &std::path::Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with_weights(&path));
        } else if path.extension().is_some_and(|extension| extension == "onnx" || extension == "onnx_data") {
            found.push(path);
        }
    }
    found
}

/// Quantized models, whose vectors depend on their batch, and other models that run one by one.
#[test]
fn a_vector_does_not_depend_on_its_batch_in_any_layout() {
    let models = data().join("models");
    let server = Embedder::start_with("serve", &models, "int8", &["--max-loaded-models", "20"]);
    let other = Embedder::start_with("serve", &models, "int8", &["--max-loaded-models", "20"]);
    let (mut together, mut alone) = (server.connect(), other.connect());
    let photos = photos();
    let texts =
        ["a cat", "a dog", "two cats on a pizza", "the apple", "x", "in the snow", "a red dog", "of the cat"];
    for name in [
        "int8",
        "siglip",
        "siglip2",
        "immich_xlm_roberta",
        "immich",
        "open_clip_inference",
        "optimum_one_file",
        "transformers_js",
    ] {
        let model = name;
        for (id, image) in (0..16).zip(photos.iter().cycle()) {
            together.send(&Request::EmbedImage {
                id,
                model,
                priority: Priority::Bulk,
                max_pixels: u64::MAX,
                image,
            });
        }
        for (id, image) in (0..16).zip(photos.iter().cycle()) {
            assert_eq!(
                together.receive_vector(id),
                alone.embed_image_with(name, image),
                "{name}: photo {id}"
            );
        }
        for (id, text) in (0..).zip(texts) {
            together.send(&Request::EmbedText { id, model, text });
        }
        for (id, text) in (0..).zip(texts) {
            let vector = alone.embed_text_with(name, text).unwrap();
            assert_eq!(together.receive_vector(id).unwrap(), vector, "{name}: {text}");
        }
    }
}

fn loaded(server: &Embedder) -> Vec<String> {
    let status = server.status();
    status["models"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| model["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_default_model_stays_and_the_one_that_was_not_used_the_longest_leaves() {
    let models = data().join("models");
    let server = Embedder::start_with("serve", &models, "immich", &["--max-loaded-models", "2"]);
    let mut connection = server.connect();
    let first = connection.embed_text_with("immich", "a cat").unwrap();
    connection.embed_text_with("siglip", "a cat").unwrap();
    assert_eq!(loaded(&server), ["immich", "siglip"]);
    for name in ["qdrant", "transformers_js", "siglip"] {
        connection.embed_text_with(name, "a cat").unwrap();
        assert_eq!(loaded(&server), ["immich", name]);
    }
    assert_eq!(server.status()["state"], "ready", "a model that left is there when it is asked for");
    assert_eq!(connection.embed_text_with("immich", "a cat").unwrap(), first);

    assert_eq!(
        connection.embed_text_with("no-such", "a cat").unwrap_err().kind,
        FailureKind::InvalidParameter
    );
    assert_eq!(loaded(&server), ["immich", "siglip"], "a model that is not there unloads no other");
}

#[test]
fn a_model_that_leaves_answers_its_waiting_requests() {
    let names = ["immich", "qdrant", "siglip", "transformers_js"];
    let models = data().join("models");
    let server = Embedder::start_with("serve", &models, "immich", &["--max-loaded-models", "1"]);
    let photos = photos();
    let embed = |connection: &mut Connection, name: &str| {
        for (id, image) in (0..).zip(&photos) {
            connection.send(&Request::EmbedImage {
                id,
                model: name,
                priority: Priority::Interactive,
                max_pixels: u64::MAX,
                image,
            });
        }
        (0..).zip(&photos).map(|(id, _)| connection.receive_vector(id).unwrap()).collect::<Vec<_>>()
    };
    let expected = names.map(|name| embed(&mut server.connect(), name));
    let (server, embed) = (&server, &embed);
    thread::scope(|scope| {
        for (name, expected) in names.iter().zip(&expected) {
            scope.spawn(move || {
                let mut connection = server.connect();
                for _ in 0..10 {
                    assert_eq!(&embed(&mut connection, name), expected, "{name}");
                }
            });
        }
    });
    assert_eq!(loaded(server).len(), 1);
}

#[test]
fn the_status_names_installed_and_loaded_models() {
    let models = temp_dir::TempDir::new().unwrap();
    for name in ["immich", "qdrant"] {
        crate::serve::copy_folder(&data().join("models").join(name), &models.path().join(name));
    }
    fs::create_dir(models.path().join("broken")).unwrap();
    fs::create_dir(models.path().join(".partial")).unwrap();
    let server = Embedder::start_with("serve", models.path(), "immich", &[]);
    server.connect().embed_text_with("immich", "a cat").unwrap();
    server.connect().embed_text_with("broken", "a cat").unwrap_err();
    let status = server.status();
    let installed = status["installed"].as_array().unwrap();
    let names: Vec<&str> = installed.iter().map(|model| model["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["broken", "immich", "qdrant"]);
    assert!(installed[0]["error"].as_str().unwrap().contains("has no ONNX file"), "{status}");
    assert!(installed[1]["error"].is_null());
    let model = &status["models"][0];
    assert_eq!(
        (&model["name"], &model["dimensions"], &model["image_batch"]),
        (&"immich".into(), &24.into(), &1.into())
    );
    assert!(model["memory_bytes"].as_u64().is_some_and(|bytes| bytes < 1 << 30), "{status}");
    assert!(model["last_used_at"].as_f64() >= status["started_at"].as_f64(), "{status}");
}
