//! What the demo, the tests and the packages build is built once.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use pg_clip_tests::{places, tested_postgres};
use serde_json::Value;
use xtask::build;
use xtask::clients;
use xtask::environment::Environment;
use xtask::test_run::{UNIT_TESTED, runner};

#[test]
fn nothing_is_built_again() {
    // The first round builds what this run of the tests has not.
    round();
    let again: Vec<String> =
        round().into_iter().flatten().filter(|made| !made.is_fresh).map(|made| made.name).collect();
    assert_eq!(again, Vec::<String>::new());
}

#[test]
fn the_tests_of_embedder_and_feeder_take_the_crates_that_are_installed() {
    let rounds = round();
    let ([server, feeder], [embedder_tests, feeder_tests, ..]) = rounds.split_at(2) else {
        panic!("fewer commands");
    };
    for (installed, tests, own) in
        [(server, embedder_tests, &["fastrand", "temp_dir"][..]), (feeder, feeder_tests, &["temp_dir"])]
    {
        let installed: BTreeSet<&[String]> = installed.iter().map(|made| made.files.as_slice()).collect();
        let others: BTreeSet<&str> = tests
            .iter()
            .filter(|made| !made.is_ours && !installed.contains(made.files.as_slice()))
            .map(|made| made.name.as_str())
            .collect();
        assert_eq!(others, own.iter().copied().collect());
    }
}

/// What cargo says of a crate that it has built.
struct Made {
    name: String,
    /// Whether it is a crate of the checkout.
    is_ours: bool,
    files: Vec<String>,
    is_fresh: bool,
}

/// The builds of a server and of the feeder, then those of the tests' runners in the order of [`UNIT_TESTED`].
fn round() -> Vec<Vec<Made>> {
    let places = places();
    let environment = Environment::without_servers(places, None).expect("the environment of this run");
    let clients = clients::find().expect("clients are looked for").features.join(",");
    let server = build::of_server(&places.workspace, &environment, tested_postgres()).expect("a command");
    let mut commands = vec![server, build::of_feeder(&places.workspace)];
    let mut runners: Vec<Command> = UNIT_TESTED.map(|package| runner(places, package, &[], None)).into();
    runners.push(runner(places, "pg_clip_tests", &["--features", &clients], None));
    for runner in &mut runners {
        runner.arg("--no-run");
    }
    commands.extend(runners);
    commands.iter_mut().map(made).collect()
}

fn made(command: &mut Command) -> Vec<Made> {
    let output = command.arg("--message-format=json").stdin(Stdio::null()).output().expect("cargo runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    let messages = String::from_utf8(output.stdout).expect("UTF-8");
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let artifacts = messages.filter(|message| message["reason"] == "compiler-artifact");
    let made: Vec<Made> = artifacts.map(|artifact| Made::of(&artifact)).collect();
    assert!(made.len() > 10, "{} crates", made.len());
    made
}

impl Made {
    fn of(artifact: &Value) -> Made {
        let files = artifact["filenames"].as_array().expect("files").iter();
        Made {
            name: artifact["target"]["name"].as_str().expect("a name").to_owned(),
            is_ours: artifact["package_id"].as_str().is_some_and(|id| id.starts_with("path+")),
            files: files.map(|file| file.as_str().expect("a path").to_owned()).collect(),
            is_fresh: artifact["fresh"] == true,
        }
    }
}
