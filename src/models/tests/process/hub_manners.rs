//! A hub's demands on its clients, and the places where it keeps a model: limits, tokens, folders, several
//! repositories.

use std::fs;

use serde_json::json;

use crate::hub::{COMMIT, LARGEST, LoopbackHub, REPOSITORY};
use crate::installer::Installer;

#[test]
fn a_limit_is_waited_for_as_the_headers_say_and_shown() {
    for (limits, pause) in [
        ("ratelimit: \"api\";r=0;t=1\r\nratelimit-policy: \"fixed window\";\"api\";q=500;w=300\r\n", "1s"),
        ("retry-after: 0\r\nratelimit: \"api\";r=0;t=99\r\n", "0s"),
    ] {
        let hub = LoopbackHub::start();
        hub.set(|state| {
            state.limited = 2;
            state.limits = limits.to_owned();
        });
        let installer = Installer::new(&hub.endpoint);
        let said = installer.run("fetch", &[REPOSITORY]);
        assert_eq!(said.code, Some(0), "{}", said.err);
        assert_eq!(said.err.matches(&format!("waiting for {pause}\n")).count(), 2, "{}", said.err);
        assert!(said.err.contains("status 429, too many requests"), "{}", said.err);
        assert_eq!(said.err.contains("(it allows 500 in 5m)"), limits.contains("q=500"), "{}", said.err);
    }
}

#[test]
fn a_limit_of_hours_ends_the_command_and_says_for_how_long() {
    let hub = LoopbackHub::start();
    hub.set(|state| {
        state.limited = 1;
        state.limits = "ratelimit: \"api\";r=0;t=7200\r\n".to_owned();
    });
    let err = Installer::new(&hub.endpoint).fail("fetch", &[REPOSITORY]);
    assert!(err.contains("asks for a pause of 2h") && err.contains("continues where it stopped"), "{err}");
}

#[test]
fn a_token_that_has_expired_is_left_out_where_the_repository_is_public() {
    let hub = LoopbackHub::start();
    hub.set(|state| state.knows_no_other_token = true);
    let mut installer = Installer::new(&hub.endpoint);
    installer.environment.push(("HF_TOKEN".to_owned(), "hf_expired".to_owned()));
    let said = installer.run("fetch", &[REPOSITORY]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let warning = "WARNING:  the hub refuses the token of HF_TOKEN: it answered with status 401: Invalid credentials in \
                   Authorization header\n";
    assert_eq!(said.err.matches(warning).count(), 1, "{}", said.err);
    // It is sent once, and never again.
    let (asked, _) = hub.take_requests();
    assert_eq!(asked.iter().filter(|asked| asked.authorization.is_some()).count(), 1);
    assert_eq!(installer.models(), ["demo-clip"]);

    // A gated repository stays gated, and the error names the token.
    hub.set(|state| state.token = Some("hf_valid".to_owned()));
    let file = installer.models_directory().join(".token");
    fs::write(&file, "hf_expired").unwrap();
    installer.environment.pop();
    installer.environment.push(("HF_TOKEN_PATH".to_owned(), file.to_str().unwrap().to_owned()));
    let err = installer.fail("fetch", &[REPOSITORY, "--name", "other"]);
    assert!(err.contains("does not give out repository"), "{err}");
    assert!(err.contains(&format!("The hub refused the token of {}", file.display())), "{err}");
}

#[test]
fn the_hosts_that_a_firewall_must_let_through_are_named() {
    // A port of this machine at which nothing listens: the listener is closed again.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let err = Installer::new(&format!("http://{closed}")).fail("fetch", &[REPOSITORY]);
    for part in ["the connection failed", "HF_ENDPOINT", "huggingface.co", "*.hf.co", "*.xethub.hf.co"] {
        assert!(err.to_lowercase().contains(&part.to_lowercase()), "{part}: {err}");
    }
}

/// A hub that has the graphs in a folder of one repository, and the rest in another one.
fn in_two_repositories() -> LoopbackHub {
    let hub = LoopbackHub::start();
    hub.set(|state| {
        let take = |path: &str| state.files[path].clone();
        let graphs = [("visual.onnx", LARGEST), ("textual.onnx", "onnx/text_model.onnx")];
        let graphs = graphs.map(|(path, source)| (format!("models/b32/{path}"), take(source)));
        let mut models = std::collections::BTreeMap::from(graphs);
        models.insert("models/other/visual.onnx".to_owned(), b"of another model".to_vec());
        models.insert("README.md".to_owned(), b"# Models".to_vec());
        let rest = ["config.json", "preprocessor_config.json", "tokenizer.json"];
        let rest = rest.map(|path| (path.to_owned(), take(path))).into();
        state.other_repositories =
            [("tests/models".to_owned(), models), ("tests/tokenizer".to_owned(), rest)].into();
    });
    hub
}

#[test]
fn a_folder_and_a_tokenizer_from_elsewhere_make_a_model() {
    let hub = in_two_repositories();
    let installer = Installer::new(&hub.endpoint);
    let elsewhere = ["tests/models", "--folder", "models/b32/", "--tokenizer", "tests/tokenizer@v1/x"];
    let out = installer.succeed("fetch", &elsewhere);
    assert!(out.contains(&format!("folder models/b32, tokenizer of tests/tokenizer at {COMMIT}")), "{out}");
    assert_eq!(installer.models(), ["b32"]);
    let record = installer.record("b32");
    let tokenizer = json!({"repository": "tests/tokenizer", "commit": COMMIT});
    assert_eq!(
        (&record["source"]["folder"], &record["source"]["tokenizer"]),
        (&json!("models/b32"), &tokenizer)
    );
    let files: Vec<&String> = record["files"].as_object().unwrap().keys().collect();
    assert_eq!(
        files,
        ["config.json", "preprocessor_config.json", "textual.onnx", "tokenizer.json", "visual.onnx"]
    );

    // The record is a lock file of all of that.
    let lock = installer.models_directory().join("b32/model.json");
    hub.take_requests();
    installer.succeed("fetch", &["--lock", lock.to_str().unwrap(), "--name", "again"]);
    assert_eq!(installer.record("again")["source"], record["source"]);
    let asked: Vec<String> = hub.take_requests().0.into_iter().map(|asked| asked.path).collect();
    for repository in ["tests/models", "tests/tokenizer"] {
        assert!(asked.contains(&format!("/api/models/{repository}/revision/{COMMIT}")), "{asked:?}");
    }

    let err =
        installer.fail("fetch", &["tests/models", "--folder", "models/b3", "--tokenizer", "tests/tokenizer"]);
    assert!(err.contains("has no folder models/b3"), "{err}");
    let err = installer.fail("fetch", &["tests/models", "--folder", "models/b32", "--name", "other"]);
    assert!(err.contains("no tokenizer.json") && err.contains("--tokenizer"), "{err}");
    let err =
        installer.fail("fetch", &["tests/models", "--folder", "models/b32", "--tokenizer", "tests/none"]);
    assert!(err.contains("hub has no repository \"tests/none\""), "{err}");
}

#[test]
fn the_catalogue_pins_the_commit_and_the_files() {
    let commit = "d15189d7028b43f1d3e65039190477f6af591c2a";
    let hub = LoopbackHub::start();
    hub.set(|state| {
        state.commit = commit.to_owned();
        state.other_repositories = [("Xenova/clip-vit-base-patch32".to_owned(), state.files.clone())].into();
    });
    let installer = Installer::new(&hub.endpoint);
    let err = installer.fail("fetch", &["openai-vit-b-32"]);
    // The demo's graphs are not OpenAI's, and not one of them is fetched.
    assert!(err.contains("sha256 3f6571f5bad13a97") || err.contains("sha256 fd6e1402a588279d"), "{err}");
    let (asked, sent) = hub.take_requests();
    assert!(asked[0].path.ends_with(&format!("/revision/{commit}")), "{asked:?}");
    assert_eq!(sent, 0);
    assert_eq!(installer.staged(), [""; 0]);
    // By its own name, nothing is known of it.
    installer.succeed("fetch", &["Xenova/clip-vit-base-patch32"]);
}

#[test]
fn the_catalogue_is_a_table_with_figures_sources_and_hashes() {
    let out = Installer::new("http://127.0.0.1:9").succeed("catalogue", &[""; 0]);
    let row = |start: &str| out.lines().find(|line| line.starts_with(start)).unwrap().to_owned();
    for (start, parts) in [
        ("name  ", &["dimensions", "size", "licence", "English", "German", "ImageNet", "use"][..]),
        ("datacomp-vit-b-32-256", &["512", "606.17 MB", "72.8", "39.9", "64.9", "best for English"]),
        ("xlm-roberta-vit-b-32", &["512", "MIT", "76.9", "78.4", "77.5", "best for other languages"]),
        ("siglip2-vit-b-32-256", &["768", "Apache-2.0", "82.3", "81.5", "80.2"]),
        ("openai-vit-b-16", &["dominated: laion2b-vit-b-32"]),
        ("English, German, French", &["immich's table"]),
    ] {
        for part in parts {
            assert!(row(start).contains(part), "{part} in {}", row(start));
        }
    }
    assert!(out.contains("3f7e6f94e5a34bc7ee8aba84aec0f963f56974ab405fbcd334c8e1c3f832bd2c"), "{out}");
    assert!(out.contains("17b9d07433aad73f70d338d8a1c7a4cef83887e0"), "{out}");
}
