//! What the demo, the tests and the packages build is built once.

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

/// What cargo says of a crate that it has built.
struct Made {
    name: String,
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
        Made {
            name: artifact["target"]["name"].as_str().expect("a name").to_owned(),
            is_fresh: artifact["fresh"] == true,
        }
    }
}
