//! The answers of the server.

use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use image::{ImageFormat, Rgb, RgbImage};
use pg_clip_wire::{Answer, Failure, FailureKind, PROTOCOL, Party, Priority, Request};

use crate::embedder::{Embedder, MODEL, PATIENCE, models_directory, onnxruntime};

pub(crate) fn photo(seed: u32, format: ImageFormat) -> Vec<u8> {
    let picture = RgbImage::from_fn(320, 240, |x, y| {
        Rgb([(x * seed / 2) as u8, (y + 40 * seed) as u8, ((x * y / 64) ^ (seed * 37)) as u8])
    });
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn bulk(id: u32, image: &[u8]) -> Request<'_> {
    Request::EmbedImage { id, model: MODEL, priority: Priority::Bulk, max_pixels: u64::MAX, image }
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn texts_and_images_become_vectors_of_length_1() {
    let server = Embedder::start("serve");
    let mut connection = server.connect();
    let text = connection.embed_text("a photo of a cat").unwrap();
    let image = connection.embed_image(&photo(1, ImageFormat::Png)).unwrap();
    assert_eq!(text.len(), image.len());
    for vector in [&text, &image] {
        assert!((cosine(vector, vector) - 1.0).abs() < 1e-5);
    }
    assert_eq!(connection.embed_text("a photo of a cat").unwrap(), text);
    assert_ne!(connection.embed_text("a photo of a dog").unwrap(), text);
}

#[test]
fn a_vector_does_not_depend_on_its_batch() {
    let server = Embedder::start("serve");
    let photos: Vec<Vec<u8>> = (0..16).map(|seed| photo(seed, ImageFormat::Png)).collect();
    let texts: Vec<String> =
        (0..16).map(|number| format!("{number} photos of {}", "a cat and ".repeat(number % 3))).collect();
    let mut connection = server.connect();
    let alone: Vec<_> = photos.iter().map(|photo| connection.embed_image(photo).unwrap()).collect();
    for (id, image) in (0..).zip(&photos) {
        connection.send(&bulk(id, image));
    }
    for (id, alone) in (0..).zip(&alone) {
        assert_eq!(&connection.receive_vector(id).unwrap(), alone, "photo {id}");
    }

    // A cached text would prove nothing: another server embeds them one by one.
    let other = Embedder::start("serve");
    let mut one_by_one = other.connect();
    for (id, text) in (0..).zip(&texts) {
        connection.send(&Request::EmbedText { id, model: MODEL, text });
    }
    for (id, text) in (0..).zip(&texts) {
        assert_eq!(connection.receive_vector(id), one_by_one.embed_text(text), "{text}");
    }
}

#[test]
fn mixed_requests_are_answered_in_their_order() {
    let server = Embedder::start("serve");
    let mut connection = server.connect();
    let good = photo(3, ImageFormat::Jpeg);
    let priority = Priority::Interactive;
    let image = |id, image| Request::EmbedImage { id, model: MODEL, priority, max_pixels: 100_000, image };
    let huge = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\xfa\xfa\0\0\xfa\xfa\x08\x02";
    let requests: Vec<(Request, Option<FailureKind>)> = vec![
        (image(1, &good), None),
        (image(2, b""), Some(FailureKind::InvalidParameter)),
        (image(3, b"not an image"), Some(FailureKind::UndecodableImage)),
        (Request::EmbedText { id: 4, model: MODEL, text: "between" }, None),
        (image(5, b"%PDF-1.7"), Some(FailureKind::UnsupportedFormat)),
        (image(6, huge), Some(FailureKind::LimitExceeded)),
        (image(7, &good[..good.len() / 2]), Some(FailureKind::UndecodableImage)),
        (Request::EmbedText { id: 8, model: "other", text: "" }, Some(FailureKind::InvalidParameter)),
        (Request::EmbedText { id: 9, model: "../demo", text: "" }, Some(FailureKind::InvalidParameter)),
        (Request::EmbedText { id: 10, model: MODEL, text: "" }, None),
        (image(11, &good), None),
    ];
    let repeated = requests.iter().cycle().take(requests.len() * 10);
    thread::scope(|scope| {
        let mut sender = server.connect();
        scope.spawn(move || {
            // Another backend asks at the same time.
            for _ in 0..20 {
                sender.embed_text("meanwhile").unwrap();
            }
        });
        repeated.clone().take(60).for_each(|(request, _)| connection.send(request));
        let mut first = None;
        for (request, expected) in repeated.take(60) {
            let (Request::EmbedImage { id, .. } | Request::EmbedText { id, .. }) = *request else { continue };
            let answer = connection.receive_vector(id);
            assert_eq!(
                answer.as_ref().err().map(|failure| failure.kind),
                *expected,
                "request {id}: {answer:?}"
            );
            if id == 1 {
                let answer = answer.unwrap();
                assert_eq!(first.get_or_insert_with(|| answer.clone()), &answer);
            }
        }
    });
}

#[test]
fn a_model_that_is_not_installed_is_answered_with_the_installed_ones() {
    let server = Embedder::start("serve");
    let mut connection = server.connect();
    connection.send(&Request::EmbedText { id: 1, model: "absent", text: "cat" });
    let failure = connection.receive_vector(1).unwrap_err();
    assert_eq!(failure.message, "model \"absent\" is not installed");
    assert!(failure.hint.contains(MODEL), "{}", failure.hint);
}

#[test]
fn a_model_can_be_described() {
    let server = Embedder::start("serve");
    let mut connection = server.connect();
    connection.send(&Request::Describe { id: 3, model: MODEL });
    let Some(Answer::Description { id: 3, fingerprint, dimensions }) = connection.receive() else {
        panic!("no description")
    };
    connection.send(&Request::EmbedText { id: 4, model: MODEL, text: "cat" });
    match connection.receive() {
        Some(Answer::Embedding { fingerprint: same, vector, .. }) => {
            assert_eq!((same, vector.len()), (fingerprint, usize::from(dimensions)));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_status_counts_inputs_that_went_through_the_network() {
    let server =
        Embedder::start_with("serve", &models_directory(), MODEL, &["--restarts", "4", "--threads", "1"]);
    let mut connection = server.connect();
    connection.embed_text("cat").unwrap();
    connection.embed_text("cat").unwrap();
    connection.embed_text("CAT").unwrap();
    connection.embed_image(&photo(1, ImageFormat::Jpeg)).unwrap();
    connection.embed_image(b"").unwrap_err();
    let status = server.status();
    for (name, value) in [
        ("text_requests", 3),
        ("text_cache_hits", 2),
        ("text_inferences", 1),
        ("image_requests", 2),
        ("image_inferences", 1),
        ("image_batches", 1),
        ("failures", 1),
        ("restarts", 4),
        ("threads", 1),
    ] {
        assert_eq!(status[name], value, "{name} in {status}");
    }
    assert_eq!((&status["state"], &status["error"]), (&"ready".into(), &serde_json::Value::Null));
    assert_eq!(status["models"][0]["name"], MODEL);
    assert!(status["onnxruntime"].as_str().unwrap().starts_with("1."));
    assert!(status["resident_bytes"].as_u64().unwrap() > 1 << 20);
    assert!(status["started_at"].as_f64().unwrap() > 1.7e9);
}

#[test]
fn the_statistics_tell_bulk_images_from_interactive_ones() {
    let server = Embedder::start("serve");
    let mut connection = server.connect();
    let photos: Vec<Vec<u8>> = (0..32).map(|seed| photo(seed, ImageFormat::Png)).collect();
    (0..).zip(&photos).for_each(|(id, photo)| connection.send(&bulk(id, photo)));
    server.connect().embed_image(&photos[0]).unwrap();
    (0..).zip(&photos).for_each(|(id, _)| assert!(connection.receive_vector(id).is_ok()));
    let status = server.status();
    let rows: Vec<_> = ["kind", "priority", "model"].map(|name| &status["statistics"][0][name]).into();
    assert_eq!(rows, ["image", "interactive", MODEL], "{status}");
    assert_eq!(status["statistics"][0]["requests"], 1);
    let bulk = &status["statistics"][1];
    assert_eq!(
        (&bulk["priority"], &bulk["requests"], &bulk["inferences"]),
        (&"bulk".into(), &32.into(), &32.into())
    );
    let sizes = bulk["batch_sizes"].as_object().unwrap().keys();
    assert!(sizes.clone().all(|size| size.parse::<u32>().unwrap() <= 16), "{bulk}");
    assert_eq!(status["image_requests"], 33);
}

#[test]
fn a_broken_model_is_an_answer_and_can_be_repaired() {
    let models = temp_dir::TempDir::new().unwrap();
    let folder = models.path().join(MODEL);
    copy_folder(&models_directory().join(MODEL), &folder);
    let tokenizer = fs::read(folder.join("tokenizer.json")).unwrap();
    fs::write(folder.join("tokenizer.json"), "{").unwrap();
    let server = Embedder::start_with("serve", models.path(), MODEL, &[]);
    let mut connection = server.connect();
    let Failure { kind, message, detail, .. } = connection.embed_text("cat").unwrap_err();
    assert_eq!((kind, message.as_str()), (FailureKind::Configuration, "model \"demo\" cannot be used"));
    assert!(detail.contains("tokenizer.json"), "{detail}");
    assert_eq!(server.status()["state"], "failed");
    assert!(server.status()["error"].as_str().unwrap().contains("tokenizer.json"));

    fs::write(folder.join("tokenizer.json"), tokenizer).unwrap();
    let started = Instant::now();
    while let Err(failure) = connection.embed_text("cat") {
        assert!(started.elapsed() < PATIENCE, "{failure}");
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(server.status()["state"], "ready");
}

#[test]
fn a_missing_runtime_is_an_answer() {
    let more = ["--onnxruntime", "/nowhere/libonnxruntime.so"];
    let server = Embedder::start_with("serve", &models_directory(), MODEL, &more);
    let failure = server.connect().embed_text("cat").unwrap_err();
    assert_eq!(failure.kind, FailureKind::Configuration);
    assert!(failure.detail.contains("/nowhere/libonnxruntime.so"), "{failure:?}");
}

#[test]
fn an_execution_provider_that_is_not_there_stops_no_embedding() {
    let more = ["--execution-provider", "tensorrt"];
    assert_computes_on_cpu(&more, "execution provider \"tensorrt\" is not available, cpu computes instead");
}

#[test]
fn a_library_without_cuda_computes_on_the_processor_and_says_so() {
    let more = ["--execution-provider", "cuda"];
    assert_computes_on_cpu(&more, WITHOUT_CUDA);
}

/// ONNX Runtime of PyPI has one library for the processor alone: it looks for no provider beside itself.
#[test]
fn a_broken_provider_beside_the_library_stops_no_embedding() {
    let folder = temp_dir::TempDir::new().unwrap();
    let library = folder.path().join("libonnxruntime.so");
    fs::copy(onnxruntime(), &library).unwrap();
    fs::write(folder.path().join("libonnxruntime_providers_shared.so"), "no library").unwrap();
    fs::write(folder.path().join("libonnxruntime_providers_cuda.so"), "no library").unwrap();
    let more = ["--execution-provider", "cuda", "--onnxruntime", library.to_str().unwrap()];
    assert_computes_on_cpu(&more, WITHOUT_CUDA);
}

const WITHOUT_CUDA: &str = "execution provider \"cuda\" is not available, cpu computes instead: CUDA execution provider is not \
                            enabled in this build.";

/// Tells it in the status and once in the log, and gives the vector that it gives without the option.
fn assert_computes_on_cpu(more: &[&str], problem: &str) {
    let mut server = Embedder::start_with("serve", &models_directory(), MODEL, more);
    let vector = server.connect().embed_text("cat").unwrap();
    assert_eq!(Embedder::start("serve").connect().embed_text("cat").unwrap(), vector);
    let status = server.status();
    let told = ["state", "error", "execution_provider"].map(|name| status[name].as_str().unwrap());
    assert_eq!(told, ["ready", problem, "cpu"]);
    let process = nix::unistd::Pid::from_raw(server.process.id() as i32);
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGTERM).unwrap();
    server.wait();
    let logged = server.logged();
    let warnings: Vec<&str> = logged.lines().filter(|line| !line.starts_with("LO")).collect();
    assert_eq!(warnings, [format!("WARNING: {problem}")]);
}

#[test]
fn the_backlog_is_answered_with_overloaded() {
    let server = Embedder::start_with("serve", &models_directory(), MODEL, &["--backlog", "0"]);
    let mut connection = server.connect();
    assert_eq!(connection.embed_text("cat").unwrap_err().kind, FailureKind::Overloaded);
    assert_eq!(server.status()["state"].as_str().map(str::is_empty), Some(false));
}

#[test]
fn the_first_frame_must_be_a_hello_of_this_protocol() {
    let server = Embedder::start("serve");
    let mut silent = server.connect_silently();
    silent.send(&Request::Status { id: 1 });
    assert_protocol_failure(silent.receive());
    assert_eq!(silent.receive(), None);

    let mut other = server.connect_silently();
    other.send(&Request::Hello { protocol: PROTOCOL + 1, party: Party::default() });
    assert!(matches!(other.receive(), Some(Answer::Welcome { protocol: PROTOCOL, .. })));
    assert_eq!(other.receive(), None);

    let mut stray = server.connect_silently();
    stray.send_bytes(b"GET / HTTP/1.1\r\n\r\n");
    assert_protocol_failure(stray.receive());
    assert_eq!(stray.receive(), None);
}

#[test]
fn a_broken_frame_ends_its_connection_after_the_earlier_answers() {
    let server = Embedder::start("serve");
    let mut connection = server.connect();
    connection.send(&Request::EmbedText { id: 1, model: MODEL, text: "cat" });
    connection.send_bytes(&[0, 0, 0, 0, 99]);
    assert!(connection.receive_vector(1).is_ok());
    assert_protocol_failure(connection.receive());
    assert_eq!(connection.receive(), None);
    assert!(server.connect().embed_text("cat").is_ok());
}

#[test]
fn many_backends_are_answered_with_their_own() {
    let server = Embedder::start("serve");
    let mut connection = server.connect();
    let expected: Vec<_> = (0..8).map(|n| connection.embed_text(&format!("{n} cats")).unwrap()).collect();
    thread::scope(|scope| {
        for (number, expected) in expected.iter().enumerate() {
            let mut connection = server.connect();
            scope.spawn(move || {
                for _ in 0..20 {
                    assert_eq!(&connection.embed_text(&format!("{number} cats")).unwrap(), expected);
                    let _ = connection.embed_image(&photo(number as u32, ImageFormat::Bmp)).unwrap();
                }
            });
        }
    });
}

#[test]
fn requests_of_a_closed_connection_are_dropped() {
    let server = Embedder::start("serve");
    server.connect().embed_text("ready").unwrap();
    let photo = photo(5, ImageFormat::Png);
    for _ in 0..20 {
        let mut connection = server.connect();
        for id in 0..40 {
            connection.send(&bulk(id, &photo));
        }
    }
    // The answer comes soon, and the server did not do all requests.
    server.connect().embed_image(&photo).unwrap();
    let inferences = server.status()["image_inferences"].as_u64().unwrap();
    assert!(inferences < 800, "{inferences}");
}

#[test]
fn a_signal_ends_the_server_with_status_0() {
    let mut server = Embedder::start("serve");
    server.connect();
    let process = nix::unistd::Pid::from_raw(server.process.id() as i32);
    nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(server.wait().code(), Some(0));
}

fn assert_protocol_failure(answer: Option<Answer>) {
    match answer {
        Some(Answer::Failed { id: 0, failure }) => assert_eq!(failure.kind, FailureKind::Protocol),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy_folder(&path, &target) } else { fs::copy(&path, &target).map(drop).unwrap() }
    }
}
