//! `quantize`: an 8-bit model beside the one that it is made of, or nothing.

use std::fs;
use std::io::{self, BufRead, BufReader, PipeReader, Write, pipe};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::unistd::Pid;
use pg_clip_embedder::embed_text;

use crate::installer::{Installer, MODEL, PATIENCE, data, models_directory};

const NOWHERE: &str = "http://127.0.0.1:9";

/// An installer with the demo model, or one of the tiny ones, as its only model.
fn with(model: &str) -> Installer {
    let installer = Installer::new(NOWHERE);
    let source =
        if model == MODEL { models_directory().join(MODEL) } else { data().join("models").join(model) };
    copy(&source, &installer.models_directory().join(model));
    installer
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_file() {
            fs::copy(path, target).unwrap();
        } else if !["photos", "training"].contains(&path.file_name().unwrap().to_str().unwrap()) {
            copy(&path, &target);
        }
    }
}

fn files(folder: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            files.extend(self::files(&path).into_iter().map(|file| format!("{name}/{file}")));
        } else {
            files.push(name);
        }
    }
    files.sort();
    files
}

fn size(file: &Path) -> u64 {
    fs::metadata(file).unwrap().len()
}

/// A number after some words of the output.
fn number(out: &str, line: &str, before: &str) -> f64 {
    let line =
        out.lines().find(|text| text.starts_with(line)).unwrap_or_else(|| panic!("no {line} in {out}"));
    let rest = line.split_once(before).unwrap_or_else(|| panic!("no {before} in {line}")).1;
    rest.split([' ', ',']).next().unwrap().parse().unwrap()
}

#[test]
fn the_demo_model_is_quantized_measured_and_recorded() {
    let installer = with(MODEL);
    let out = installer.succeed("quantize", &[MODEL]);
    assert_eq!(installer.models(), ["demo", "demo-int8"]);
    assert_eq!(installer.staged(), [""; 0]);
    for kind in ["images", "texts"] {
        assert!(number(&out, kind, "cosine to the source ") >= 0.99, "{out}");
        assert!(number(&out, kind, "on average, ") >= 0.98, "{out}");
    }
    // The photos whose names find them, of 64: the demo model itself finds nearly all.
    let (after, before) =
        (number(&out, "recall", "recall          "), number(&out, "recall", "with the source "));
    assert!(before >= 55.0 && (before - after).abs() <= 2.0, "{out}");
    assert!(out.contains("text_model_int8.onnx: 8 of 13 products in 8 bits"), "{out}");
    assert!(out.contains("vision_model_int8.onnx: 0 of 1 products in 8 bits"), "{out}");

    let fingerprint = hex::encode(installer.load(MODEL).fingerprint);
    let record = installer.record("demo-int8");
    let source = serde_json::json!({"kind": "quantized", "model": "demo", "fingerprint": fingerprint});
    assert_eq!((&record["source"], &record["variant"]), (&source, &"int8".into()));
    let folder = installer.models_directory().join("demo-int8");
    let expected = [
        "config.json",
        "model.json",
        "preprocessor_config.json",
        "text_model_int8.onnx",
        "tokenizer.json",
        "vision_model_int8.onnx",
    ];
    assert_eq!(files(&folder), expected);
    for file in expected {
        assert_eq!(fs::metadata(folder.join(file)).unwrap().permissions().mode() & 0o777, 0o644, "{file}");
    }
    let listed = installer.succeed("list", &[""; 0]);
    let line = listed.lines().find(|line| line.starts_with("demo-int8")).unwrap();
    assert!(line.contains("quantized from demo") && line.contains(&fingerprint[..12]), "{line}");
    assert!(line.contains("int8"), "{line}");

    // Both embed, and neither is the other.
    let vectors =
        ["demo", "demo-int8"].map(|model| embed_text(&installer.load(model), "a red apple").unwrap());
    let cosine: f32 = vectors[0].iter().zip(&vectors[1]).map(|(a, b)| a * b).sum();
    assert!((0.98..0.999_999).contains(&cosine), "{cosine}");
}

/// The origin of a file is passed on as far as it is known, and the record is a lock file as others are.
#[test]
fn every_layout_is_quantized_and_can_be_taken_elsewhere() {
    let layouts = [
        ("transformers_js", "onnx/vision_model_int8.onnx"),
        ("immich", "visual/model_int8.onnx"),
        ("immich_uint8", "visual/model_int8.onnx"),
        ("open_clip_inference", "visual_int8.onnx"),
        ("optimum_one_file", "model_int8.onnx"),
        ("qdrant", "vision_int8.onnx"),
        ("mlunar", "clip-visual-float32_int8.onnx"),
        ("half_weights", "onnx/vision_model_int8.onnx"),
        ("external_data", "onnx/vision_model_int8.onnx"),
        ("siglip", "onnx/vision_model_int8.onnx"),
        ("mobileclip", "onnx/vision_model_int8.onnx"),
        ("vit_l14", "onnx/vision_model_int8.onnx"),
    ];
    for (layout, graph) in layouts {
        let installer = Installer::new(NOWHERE);
        let source = data().join("models").join(layout);
        installer.succeed("import", &[source.to_str().unwrap(), "--name", "source"]);
        let out = installer.succeed("quantize", &["source", "--as", "small"]);
        for kind in ["images", "texts"] {
            assert!(number(&out, kind, "cosine to the source ") >= 0.99, "{layout}: {out}");
        }
        let record = installer.record("small");
        assert_eq!(record["source"]["origin"]["kind"], "imported", "{layout}");
        assert!(record["files"].get(graph).is_some(), "{layout}: {record}");
        let folder = installer.models_directory().join("small");
        assert_eq!(files(&folder).len(), record["files"].as_object().unwrap().len() + 1, "{layout}");

        let elsewhere = Installer::new(NOWHERE);
        let lock = folder.join("model.json");
        let arguments = [folder.to_str().unwrap(), "--name", "small", "--lock", lock.to_str().unwrap()];
        elsewhere.succeed("import", &arguments);
        let fingerprints = [&elsewhere, &installer].map(|installer| installer.load("small").fingerprint);
        assert_eq!(fingerprints[0], fingerprints[1], "{layout}");
    }
}

#[test]
fn weights_beside_a_graph_are_beside_it_again_and_smaller() {
    let installer = with("external_data");
    installer.succeed("quantize", &["external_data", "--as", "small"]);
    let models = installer.models_directory();
    for tower in ["vision", "text"] {
        let old = models.join(format!("external_data/onnx/{tower}_model.onnx_data"));
        let new = models.join(format!("small/onnx/{tower}_model_int8.onnx_data"));
        assert!(size(&new) > 0, "{tower}");
        let graph = models.join(format!("small/onnx/{tower}_model_int8.onnx"));
        let bytes = fs::read(graph).unwrap();
        let names = |name: &str| bytes.windows(name.len()).any(|window| window == name.as_bytes());
        assert!(names(&format!("{tower}_model_int8.onnx_data")), "{tower}");
        assert!(!names(&format!("{tower}_model.onnx_data")), "{tower}");
        assert!(old.is_file());
    }
    fs::remove_file(models.join("external_data/onnx/text_model.onnx_data")).unwrap();
    let err = installer.fail("quantize", &["external_data"]);
    assert!(err.contains("text_model.onnx_data, is missing"), "{err}");
    fs::write(models.join("external_data/onnx/text_model.onnx_data"), "short").unwrap();
    let err = installer.fail("quantize", &["external_data"]);
    assert!(err.contains("text_model.onnx_data ends before tensor"), "{err}");
    assert_eq!(installer.staged(), [""; 0]);
}

#[test]
fn models_that_cannot_be_quantized_are_refused_by_name() {
    let installer = with("int8");
    let err = installer.fail("quantize", &["int8"]);
    assert!(err.contains("model \"int8\" cannot be quantized"), "{err}");
    assert!(err.contains("it is quantized already, it has DynamicQuantizeLinear"), "{err}");

    let err = installer.fail("quantize", &["other"]);
    assert!(err.contains("model \"other\" is not installed") && err.contains("int8"), "{err}");
    let err = installer.fail("quantize", &["../int8"]);
    assert!(err.contains("is not a model's name"), "{err}");

    // The image tower of the demo has no product but its projection.
    let demo = with(MODEL);
    let folder = demo.models_directory().join(MODEL);
    fs::copy(folder.join("vision_model.onnx"), folder.join("text_model.onnx")).unwrap();
    let err = demo.fail("quantize", &[MODEL]);
    assert!(err.contains("None of its graphs has a block of products with constant matrices"), "{err}");
    fs::write(folder.join("text_model.onnx"), "no graph").unwrap();
    let err = demo.fail("quantize", &[MODEL]);
    assert!(err.contains("text_model.onnx: it is no ONNX graph"), "{err}");
    assert_eq!((installer.staged(), demo.staged()), (vec![], vec![]));
}

#[test]
fn a_model_that_exists_is_replaced_only_on_demand() {
    let installer = with("transformers_js");
    installer.succeed("quantize", &["transformers_js", "--as", "small"]);
    let before = installer.record("small");
    let err = installer.fail("quantize", &["transformers_js", "--as", "small"]);
    assert!(err.contains("model \"small\" is installed already") && err.contains("--replace"), "{err}");
    assert_eq!(installer.record("small"), before);
    let err = installer.fail("quantize", &["small", "--as", "smaller"]);
    assert!(err.contains("quantized already"), "{err}");
    let err = installer.fail("quantize", &["transformers_js", "--as", "a/b"]);
    assert!(err.contains("is not a model's name"), "{err}");
    let out = installer.succeed("quantize", &["transformers_js", "--as", "small", "--replace"]);
    assert!(out.contains("ALTER SYSTEM SET clip.model = 'small';"), "{out}");
    // The same source gives the same files.
    assert_eq!(installer.record("small")["files"], before["files"]);
    assert_eq!(installer.staged(), [""; 0]);
}

#[test]
fn a_model_that_loses_too_much_is_refused_with_the_figures() {
    let err = quantize_with_one_channel_larger_by(100.0);
    assert!(err.contains("model \"transformers_js\" loses too much in 8 bits"), "{err}");
    assert!(err.contains("of images, 0.") && err.contains("at least 0.99 of each is demanded"), "{err}");
    let err = quantize_with_one_channel_larger_by(1000.0);
    assert!(err.contains("model \"transformers_js\" cannot be quantized"), "{err}");
    assert!(err.contains("In 8 bits it fails its test: text tower: it gives the same vector"), "{err}");
}

/// Where one channel is much larger than the others and counts as much less, these have few bits left, or none.
fn quantize_with_one_channel_larger_by(factor: f32) -> String {
    let installer = with("transformers_js");
    let graph = installer.models_directory().join("transformers_js/onnx/text_model.onnx");
    let mut bytes = fs::read(&graph).unwrap();
    // Two normalisations before products, and the matrices of these, whose first rows have 16 or 64 columns.
    for tensor in ["v6", "v10"] {
        multiply_the_first_values(&mut bytes, tensor, factor, 1);
    }
    for (tensor, columns) in [("v14", 16), ("v15", 16), ("v16", 16), ("v18", 64)] {
        multiply_the_first_values(&mut bytes, tensor, 1.0 / factor, columns);
    }
    fs::write(&graph, bytes).unwrap();
    let err = installer.fail("quantize", &["transformers_js"]);
    assert_eq!(installer.staged(), [""; 0]);
    err
}

/// Of a tensor in a graph: its name is followed by the key of its bytes and their length.
fn multiply_the_first_values(graph: &mut [u8], tensor: &str, factor: f32, count: usize) {
    let name = [&[0x42, tensor.len() as u8], tensor.as_bytes(), &[0x4a]].concat();
    let found = graph.windows(name.len()).position(|window| window == name);
    let length = found.unwrap_or_else(|| panic!("no tensor {tensor}")) + name.len();
    let length_bytes = graph[length..].iter().take_while(|byte| **byte >= 0x80).count() + 1;
    let values = graph[length + length_bytes..].chunks_exact_mut(4).take(count);
    for value in values {
        let new = f32::from_le_bytes(value.try_into().unwrap()) * factor;
        value.copy_from_slice(&new.to_le_bytes());
    }
}

#[test]
fn a_death_on_the_way_leaves_no_model() {
    // A script's background processes have SIGINT ignored, and so have their children.
    // SAFETY: the default action runs no code of this process.
    unsafe { signal(Signal::SIGINT, SigHandler::SigDfl) }.unwrap();
    // While its source embeds, nothing was loaded of the new model; while it embeds, all of its files are there.
    for (fatal, moment) in [
        (Signal::SIGKILL, "text_model_int8.onnx ("),
        (Signal::SIGINT, "demo embeds"),
        (Signal::SIGKILL, "demo-int8 embeds"),
    ] {
        let installer = with(MODEL);
        let mut command = installer.command("quantize", &[MODEL]);
        let _reader = let_it_wait_at_its_first_line(&mut command);
        let mut running = command.spawn().unwrap();
        let said = BufReader::new(running.stderr.take().unwrap());
        let reached = said.lines().map(Result::unwrap).find(|line| line.starts_with(moment));
        assert!(reached.is_some(), "{moment} was not said");
        kill(Pid::from_raw(running.id() as i32), fatal).unwrap();
        assert!(!running.wait().unwrap().success(), "{moment}");
        assert_eq!(installer.models(), [MODEL], "{moment}");
        assert_eq!(installer.staged(), [".demo-int8.staging"], "{moment}");
        // The files that are left hinder neither another attempt nor its removal.
        installer.succeed("quantize", &[MODEL]);
        assert_eq!((installer.models().len(), installer.staged().len()), (2, 0), "{moment}");
    }
}

/// Gives a command a full pipe to print to, so that it stops at its first line of output.
fn let_it_wait_at_its_first_line(command: &mut Command) -> PipeReader {
    let (reader, mut writer) = pipe().unwrap();
    let capacity = fcntl(&writer, FcntlArg::F_GETPIPE_SZ).unwrap();
    writer.write_all(&vec![0; capacity as usize]).unwrap();
    command.stdout(writer);
    reader
}

#[test]
fn a_source_that_changes_meanwhile_is_refused() {
    let installer = with("transformers_js");
    let mut command = installer.command("quantize", &["transformers_js"]);
    // It waits at the first line of its progress, which it prints when it has read the source.
    let (reader, mut writer) = pipe().unwrap();
    let capacity = fcntl(&writer, FcntlArg::F_GETPIPE_SZ).unwrap();
    writer.write_all(&vec![b'\n'; capacity as usize]).unwrap();
    command.stderr(writer);
    let mut running = command.spawn().unwrap();
    drop(command);
    let started = Instant::now();
    while installer.staged().is_empty() {
        assert!(started.elapsed() < PATIENCE, "nothing is prepared");
        thread::sleep(Duration::from_millis(5));
    }
    let config = installer.models_directory().join("transformers_js/config.json");
    fs::write(&config, fs::read_to_string(&config).unwrap() + "\n").unwrap();
    let said = io::read_to_string(reader).unwrap();
    assert!(!running.wait().unwrap().success());
    assert!(said.contains("Its files were changed meanwhile"), "{}", said.trim_start());
    assert_eq!((installer.models(), installer.staged()), (vec!["transformers_js".to_owned()], vec![]));
}

#[test]
fn a_full_disk_leaves_nothing() {
    let installer = with(MODEL);
    let said = installer.run_where_disk_is_full("quantize", &[MODEL], 1_000_000);
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(said.err.contains("cannot write") && said.err.contains("Make room"), "{}", said.err);
    assert_eq!((installer.models(), installer.staged()), (vec![MODEL.to_owned()], vec![]));
}
