//! `fetch`: a whole model or none, whatever the hub, the disk and the user do.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::unistd::Pid;
use serde_json::json;

use crate::hub::{COMMIT, LARGEST, LoopbackHub, REPOSITORY};
use crate::installer::{Installer, PATIENCE, Said, models_directory};

const NAME: &str = "demo-clip";

/// The files of a model of the loopback hub.
const FILES: [&str; 5] =
    ["config.json", "onnx/text_model.onnx", LARGEST, "preprocessor_config.json", "tokenizer.json"];

#[test]
fn a_model_is_fetched_verified_loaded_and_recorded() {
    let hub = LoopbackHub::start();
    hub.set(|state| state.pages = true);
    let installer = Installer::new(&hub.endpoint);
    let out = installer.succeed("fetch", &[REPOSITORY]);
    assert!(out.contains("ALTER SYSTEM SET clip.model = 'demo-clip';"), "{out}");
    assert_eq!(installer.models(), [NAME]);
    assert_eq!(installer.staged(), [""; 0]);

    let record = installer.record(NAME);
    let source = json!({"kind": "hub", "endpoint": hub.endpoint, "repository": REPOSITORY, "commit": COMMIT});
    assert_eq!(record["source"], source);
    assert_eq!((&record["variant"], &record["licence"]), (&json!("fp32"), &json!("mit")));
    assert_eq!(record["files"].as_object().unwrap().keys().collect::<Vec<_>>(), FILES);

    // Nothing else was fetched, and everything at the commit.
    let (requests, _) = hub.take_requests();
    let files: Vec<&str> = requests
        .iter()
        .filter_map(|asked| asked.path.split_once("/resolve/"))
        .map(|(_, file)| file)
        .collect();
    assert_eq!(files, FILES.map(|file| format!("{COMMIT}/{file}")));

    let list = installer.succeed("list", &[""; 0]);
    for part in [NAME, REPOSITORY, &COMMIT[..12], "fp32", "7.36 MB", "mit"] {
        assert!(list.contains(part), "{list}");
    }
    assert_eq!(installer.load(NAME).dimensions, 512);
    installer.succeed("remove", &[NAME]);
    assert_eq!(installer.models(), [""; 0]);
    assert!(installer.fail("remove", &[NAME]).contains("model \"demo-clip\" is not installed"));
}

#[test]
fn a_revision_a_name_and_a_variant_can_be_given() {
    let hub = LoopbackHub::start();
    hub.set(|state| {
        for tower in ["vision", "text"] {
            let graph = state.files[&format!("onnx/{tower}_model.onnx")].clone();
            state.files.insert(format!("onnx/{tower}_model_int8.onnx"), graph);
        }
    });
    let installer = Installer::new(&hub.endpoint);
    installer.succeed("fetch", &[&format!("{REPOSITORY}@v1/x"), "--name", "mine"]);
    installer.succeed("fetch", &[REPOSITORY, "--variant", "int8"]);
    assert_eq!(installer.models(), ["demo-clip-int8", "mine"]);
    assert!(installer.models_directory().join("demo-clip-int8/onnx/vision_model_int8.onnx").is_file());
    assert_eq!(installer.record("demo-clip-int8")["variant"], "int8");

    let err = installer.fail("fetch", &[REPOSITORY, "--variant", "fp16"]);
    assert!(err.contains("model has no variant \"fp16\"") && err.contains("fp32, int8"), "{err}");
    let err = installer.fail("fetch", &[REPOSITORY, "--name", "../elsewhere"]);
    assert!(err.contains("is not a model's name"), "{err}");
}

#[test]
fn a_cut_download_is_continued() {
    let hub = LoopbackHub::start();
    hub.set(|state| {
        state.cut.insert(LARGEST.to_owned(), 3_000_000);
        state.away_after_cut = true;
    });
    let installer = Installer::new(&hub.endpoint);
    let err = installer.fail("fetch", &[REPOSITORY]);
    assert!(err.contains("cannot be fetched") && err.contains("continues where it stopped"), "{err}");
    assert_eq!(installer.staged(), [".demo-clip.staging"]);
    let (_, first) = hub.take_requests();

    hub.set(|state| state.busy = 0);
    installer.succeed("fetch", &[REPOSITORY]);
    let (requests, second) = hub.take_requests();
    let ranges: Vec<_> = requests.iter().filter_map(|asked| asked.range.clone()).collect();
    assert_eq!(ranges, ["bytes=3000000-"]);
    let whole: usize = FILES.iter().map(|file| file_size(&installer, file)).sum();
    assert_eq!(first + second, whole);
    assert_eq!(installer.models(), [NAME]);

    // A model.json of another meaning is no record.
    fs::write(installer.models_directory().join(NAME).join("model.json"), "{}").unwrap();
    assert!(installer.succeed("list", &[""; 0]).contains("demo-clip  -"));
}

#[test]
fn a_server_that_is_cut_off_is_asked_for_the_rest_at_once() {
    let hub = LoopbackHub::start();
    hub.set(|state| {
        state.cut.insert(LARGEST.to_owned(), 1_000_000);
        state.busy = 2;
    });
    let installer = Installer::new(&hub.endpoint);
    let said = installer.run("fetch", &[REPOSITORY]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.err.contains("the connection failed"), "{}", said.err);
    assert!(hub.take_requests().0.iter().any(|asked| asked.range.as_deref() == Some("bytes=1000000-")));
}

#[test]
fn a_server_that_knows_no_ranges_sends_all_again() {
    let hub = LoopbackHub::start();
    hub.set(|state| {
        state.no_ranges = true;
        state.away_after_cut = true;
        state.cut.insert(LARGEST.to_owned(), 3_000_000);
    });
    let installer = Installer::new(&hub.endpoint);
    installer.fail("fetch", &[REPOSITORY]);
    hub.set(|state| state.busy = 0);
    installer.succeed("fetch", &[REPOSITORY]);
    assert_eq!(installer.models(), [NAME]);
}

#[test]
fn a_fetch_continues_after_control_c() {
    // A script's background processes have SIGINT ignored, and so have their children.
    // SAFETY: the default action runs no code of this process.
    unsafe { signal(Signal::SIGINT, SigHandler::SigDfl) }.unwrap();
    for fatal in [Signal::SIGINT, Signal::SIGKILL] {
        let hub = LoopbackHub::start();
        hub.set(|state| {
            state.stall.insert(LARGEST.to_owned(), 2_500_000);
        });
        let installer = Installer::new(&hub.endpoint);
        let mut running = installer.command("fetch", &[REPOSITORY]).spawn().unwrap();
        let staged = installer.models_directory().join(".demo-clip.staging/demo-clip").join(LARGEST);
        let length = || fs::metadata(&staged).map_or(0, |metadata| metadata.len());
        let started = Instant::now();
        while length() < 2_500_000 {
            assert!(started.elapsed() < PATIENCE, "only {} bytes were written", length());
            thread::sleep(Duration::from_millis(5));
        }
        kill(Pid::from_raw(running.id() as i32), fatal).unwrap();
        assert!(!running.wait().unwrap().success());
        assert_eq!(installer.models(), [""; 0]);

        hub.take_requests();
        hub.set(|state| state.stall.clear());
        installer.succeed("fetch", &[REPOSITORY]);
        let (requests, _) = hub.take_requests();
        let ranges: Vec<_> = requests.iter().filter_map(|asked| asked.range.clone()).collect();
        assert_eq!(ranges, ["bytes=2500000-"], "{fatal}");
        assert_eq!(installer.models(), [NAME]);
    }
}

#[test]
fn a_file_with_another_hash_is_refused_and_removed() {
    for file in [LARGEST, "config.json"] {
        let hub = LoopbackHub::start();
        let zeros = if file == LARGEST {
            json!({"lfs": {"oid": "0".repeat(64), "size": 4_972_579}})
        } else {
            json!({"oid": "0".repeat(40)})
        };
        hub.set(|state| {
            state.listed.insert(file.to_owned(), zeros);
        });
        let installer = Installer::new(&hub.endpoint);
        let err = installer.fail("fetch", &[REPOSITORY]);
        assert!(err.contains(&format!("file \"{file}\" is another one than expected")), "{err}");
        assert!(err.contains("Expected: ") && err.contains(" 00000000") && err.contains("Found: "), "{err}");
        assert!(!installer.models_directory().join(".demo-clip.staging/demo-clip").join(file).exists());
    }
}

#[test]
fn bytes_that_were_damaged_on_the_disk_are_fetched_again() {
    let hub = LoopbackHub::start();
    let installer = Installer::new(&hub.endpoint);
    let staged = installer.models_directory().join(".demo-clip.staging/demo-clip/onnx");
    fs::create_dir_all(&staged).unwrap();
    for (file, bytes) in [("vision_model.onnx", vec![0; 100_000]), ("text_model.onnx", vec![0; 9_000_000])] {
        fs::write(staged.join(file), bytes).unwrap();
    }
    installer.succeed("fetch", &[REPOSITORY]);
    assert_eq!(installer.models(), [NAME]);
}

#[test]
fn a_file_is_as_long_as_the_hub_says_or_refused() {
    let hub = LoopbackHub::start();
    hub.set(|state| {
        state.listed.insert("config.json".to_owned(), json!({"size": 400}));
    });
    let installer = Installer::new(&hub.endpoint);
    assert!(installer.fail("fetch", &[REPOSITORY]).contains("is another one than expected"));
    hub.set(|state| {
        state.listed.insert("config.json".to_owned(), json!({"size": 500}));
    });
    assert!(installer.fail("fetch", &[REPOSITORY]).contains("cannot be fetched"));
}

#[test]
fn pins_and_lock_files_are_honoured() {
    let hub = LoopbackHub::start();
    let installer = Installer::new(&hub.endpoint);
    installer.succeed("fetch", &[REPOSITORY]);
    let lock = installer.models_directory().join(NAME).join("model.json");
    let lock = lock.to_str().unwrap();
    let record = installer.record(NAME);
    let sha256 = |file: &str| format!("{file}={}", record["files"][file]["sha256"].as_str().unwrap());

    installer.succeed(
        "fetch",
        &[REPOSITORY, "--name", "pinned", "--sha256", &sha256(LARGEST), "--sha256", &sha256("config.json")],
    );
    // The lock file names the repository and the commit.
    hub.take_requests();
    installer.succeed("fetch", &["--lock", lock, "--name", "locked"]);
    assert!(hub.take_requests().0[0].path.ends_with(&format!("/revision/{COMMIT}")));
    assert_eq!(installer.models(), [NAME, "locked", "pinned"]);

    for file in [LARGEST, "config.json"] {
        let wrong = format!("{file}={}", "a".repeat(64));
        let err = installer.fail("fetch", &[REPOSITORY, "--name", "other", "--sha256", &wrong]);
        assert!(err.contains(file) && err.contains("sha256 aaaaaaaa"), "{err}");
    }
    let both = installer.run("fetch", &["--lock", lock, "--sha256", &sha256(LARGEST)]);
    assert!(both.code == Some(1) && both.err.contains("cannot be used with"), "{}", both.err);
    let strange = format!("weights.bin={}", "a".repeat(64));
    let err = installer.fail("fetch", &[REPOSITORY, "--name", "other", "--sha256", &strange]);
    assert!(err.contains("weights.bin"), "{err}");

    hub.set(|state| {
        state.files.insert("onnx/vision_model.onnx_data".to_owned(), b"more".to_vec());
    });
    let err = installer.fail("fetch", &["--lock", lock, "--name", "other"]);
    assert!(err.contains("onnx/vision_model.onnx_data") && err.contains("does not list"), "{err}");
    hub.set(|state| {
        state.files.remove("onnx/vision_model.onnx_data");
        state.files.insert("config.json".to_owned(), b"{}".to_vec());
    });
    let err = installer.fail("fetch", &["--lock", lock, "--name", "other"]);
    assert!(err.contains("file \"config.json\" is another one than expected"), "{err}");
}

#[test]
fn a_fetch_names_the_missing_repository_revision_or_file() {
    let hub = LoopbackHub::start();
    let installer = Installer::new(&hub.endpoint);
    let err = installer.fail("fetch", &["tests/other"]);
    assert!(err.contains("hub has no repository \"tests/other\""), "{err}");
    let err = installer.fail("fetch", &[&format!("{REPOSITORY}@v9")]);
    assert!(err.contains("hub has no revision \"v9\" of a repository \"tests/demo-clip\""), "{err}");
    let err = installer.fail("fetch", &["demo-clip"]);
    assert!(err.contains("\"demo-clip\" is not a repository") && err.contains("OWNER/NAME"), "{err}");
    hub.set(|state| {
        state.files.remove("tokenizer.json");
    });
    let err = installer.fail("fetch", &[REPOSITORY]);
    assert!(err.contains("cannot be installed") && err.contains("no tokenizer.json"), "{err}");
    assert_eq!(installer.staged(), [""; 0]);
}

#[test]
fn a_token_opens_gated_repositories_and_goes_to_the_hub_alone() {
    let elsewhere = LoopbackHub::start();
    let hub = LoopbackHub::start();
    hub.set(|state| {
        state.token = Some("hf_secret".to_owned());
        state.elsewhere = Some(elsewhere.endpoint.clone());
    });
    let mut installer = Installer::new(&hub.endpoint);
    for listed_openly in [false, true] {
        hub.set(|state| state.listed_openly = listed_openly);
        let err = installer.fail("fetch", &[REPOSITORY]);
        assert!(err.contains("does not give out repository") && err.contains("HF_TOKEN"), "{err}");
    }

    let file = installer.models_directory().join(".token");
    fs::write(&file, "hf_secret\n").unwrap();
    installer.environment.push(("HF_TOKEN_PATH".to_owned(), file.to_str().unwrap().to_owned()));
    hub.take_requests();
    installer.succeed("fetch", &[REPOSITORY]);
    let (asked, _) = hub.take_requests();
    assert_eq!(asked.len(), 2 + FILES.len());
    assert!(asked.iter().all(|asked| asked.authorization.as_deref() == Some("Bearer hf_secret")));
    let (asked, sent) = elsewhere.take_requests();
    assert_eq!((asked.len(), sent > 7_000_000), (FILES.len(), true));
    assert!(asked.iter().all(|asked| asked.authorization.is_none()));

    installer.environment.push(("HF_TOKEN".to_owned(), "wrong".to_owned()));
    let err = installer.fail("fetch", &[REPOSITORY, "--name", "other"]);
    assert!(err.contains("The hub refused the token of HF_TOKEN"), "{err}");

    // A token that is known, of an account that may not read it.
    installer.environment.pop();
    hub.set(|state| state.gated = true);
    let err = installer.fail("fetch", &[REPOSITORY, "--name", "other"]);
    assert!(err.contains("status 403: Access is restricted") && err.contains("Accept its terms"), "{err}");
}

#[test]
fn a_full_disk_installs_nothing() {
    let hub = LoopbackHub::start();
    let installer = Installer::new(&hub.endpoint);
    let said = installer.run_where_disk_is_full("fetch", &[REPOSITORY], 3_000_000);
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(said.err.contains("cannot write") && said.err.contains("Make room"), "{}", said.err);
    assert_eq!(installer.models(), [""; 0]);
    installer.succeed("fetch", &[REPOSITORY]);
    assert_eq!(installer.models(), [NAME]);
}

#[test]
fn a_second_fetch_of_the_same_model_is_refused() {
    let hub = LoopbackHub::start();
    hub.set(|state| {
        state.stall.insert(LARGEST.to_owned(), 100_000);
    });
    let installer = Installer::new(&hub.endpoint);
    let first = installer.command("fetch", &[REPOSITORY]).spawn().unwrap();
    hub.wait_sent(100_000 + 2_189_946);
    for (subcommand, arguments) in [("fetch", [REPOSITORY]), ("remove", [NAME])] {
        let err = installer.fail(subcommand, &arguments);
        assert!(
            err.contains("model \"demo-clip\" is being installed or removed by another process"),
            "{err}"
        );
    }
    hub.set(|state| state.stall.clear());
    // The first one was cut off by that, and goes on.
    let said = Said::of(first.wait_with_output().unwrap());
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!((installer.models(), installer.staged()), (vec![NAME.to_owned()], vec![]));
}

#[test]
fn an_installed_model_is_replaced_only_on_demand() {
    let hub = LoopbackHub::start();
    let installer = Installer::new(&hub.endpoint);
    installer.succeed("fetch", &[REPOSITORY]);
    hub.take_requests();
    let err = installer.fail("fetch", &[REPOSITORY]);
    assert!(err.contains("model \"demo-clip\" is installed already") && err.contains("--replace"), "{err}");
    assert_eq!((hub.take_requests().1, installer.staged()), (0, vec![]));

    // One that does not load replaces nothing.
    let config = fs::read_to_string(installer.models_directory().join(NAME).join("config.json")).unwrap();
    hub.set(|state| {
        state.files.insert("preprocessor_config.json".to_owned(), b"[".to_vec());
    });
    let err = installer.fail("fetch", &[REPOSITORY, "--replace"]);
    assert!(
        err.contains("model \"demo-clip\" cannot be used") && err.contains("preprocessor_config.json"),
        "{err}"
    );
    assert_eq!(installer.staged(), [""; 0]);
    assert_eq!(installer.load(NAME).dimensions, 512);

    hub.set(|state| {
        let whole = fs::read(models_directory().join("demo/preprocessor_config.json")).unwrap();
        state.files.insert("preprocessor_config.json".to_owned(), whole);
        state.files.insert("config.json".to_owned(), format!("{config}\n").into());
    });
    installer.succeed("fetch", &[REPOSITORY, "--replace"]);
    let replaced = fs::read_to_string(installer.models_directory().join(NAME).join("config.json")).unwrap();
    assert_eq!(replaced, format!("{config}\n"));
    assert_eq!((installer.models(), installer.staged()), (vec![NAME.to_owned()], vec![]));
}

#[test]
fn a_listing_that_leads_elsewhere_is_refused() {
    for path in ["../../etc/x", "/etc/x", "onnx/../../x", "onnx//x", "onnx/vision_model.onnx_data/../../../x"]
    {
        let hub = LoopbackHub::start();
        hub.set(|state| {
            state.files.insert(path.to_owned(), b"x".to_vec());
        });
        let installer = Installer::new(&hub.endpoint);
        let err = installer.fail("fetch", &[REPOSITORY]);
        assert!(err.contains("cannot be installed") && err.contains(path), "{err}");
        assert_eq!(installer.staged(), [""; 0]);
    }
    // Hidden files are part of every repository, and of no model.
    let hub = LoopbackHub::start();
    hub.set(|state| {
        state.files.insert("onnx/.hidden".to_owned(), b"x".to_vec());
    });
    let installer = Installer::new(&hub.endpoint);
    installer.succeed("fetch", &[REPOSITORY]);
    let model = installer.models_directory().join(NAME);
    assert!(!model.join("onnx/.hidden").exists() && !model.join(".gitattributes").exists());
}

#[test]
fn a_hub_that_is_away_or_has_no_address_is_named() {
    let installer = Installer::new("http://127.0.0.1:9");
    assert!(installer.fail("fetch", &[REPOSITORY]).contains("cannot be fetched"));
    let installer = Installer::new("nonsense");
    let err = installer.fail("fetch", &[REPOSITORY]);
    assert!(err.contains("environment variable HF_ENDPOINT cannot be used"), "{err}");
}

#[test]
fn the_catalogue_is_listed() {
    let out = Installer::new("http://127.0.0.1:9").succeed("catalogue", &[""; 0]);
    for part in ["Xenova/clip-vit-base-patch32", "immich-app/ViT-B-32__laion2b-s34b-b79k", "512"] {
        assert!(out.contains(part), "{out}");
    }
}

fn file_size(installer: &Installer, file: &str) -> usize {
    let path = installer.models_directory().join(NAME).join(Path::new(file));
    fs::metadata(path).unwrap().len() as usize
}
