//! Running every test, and the plain sum at the end.
//!
//! A runner that fails does not keep the others from running; one that runs no test at all has failed, unless a
//! filter was given. What is not run, because its client is missing, is said below the sum.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::abandoned;
use crate::build;
use crate::clients::{self, Clients};
use crate::environment::Environment;
use crate::install;
use crate::places::Places;
use crate::postgres::Postgres;
use crate::postgres_fdw;
use crate::progress::say;

/// The environment variable that tells the integration tests which PostgreSQL to run.
pub const PG_CONFIG_VARIABLE: &str = "PG_CLIP_TEST_PG_CONFIG";

/// The tests that need postgres_fdw.
const SHARDS: [&str; 2] = ["shards::", "the_page_on_shards"];

/// The crates whose tests need no server; `pg_clip_models` is tested with the embedder.
const UNIT_TESTED: [&str; 4] = ["pg_clip_embedder", "pg_clip_feeder", "pg_clip_wire", "xtask"];

/// Runs the tests whose names contain the filter; returns whether all is well.
pub fn test(
    places: &Places,
    environment: &Environment,
    servers: &[Postgres],
    filter: Option<&str>,
) -> Result<bool> {
    let mut sum = Sum::default();
    let clients = clients::find()?;
    for package in UNIT_TESTED {
        let mut runner = runner(places, package, &[], filter);
        // ONNX Runtime is loaded into the tests themselves too, and only where it writes no telemetry.
        runner.env("PG_CLIP_ONNXRUNTIME", environment.onnxruntime()).env("ORT_DISABLE_TELEMETRY", "1");
        let outcome = run(&mut runner);
        sum.add(package, outcome, filter);
    }
    for postgres in servers {
        let outcome = integration(places, environment, postgres, &clients, filter);
        sum.add(&format!("pg_clip_tests on {}", postgres.version), outcome, filter);
    }
    println!("{} passed, {} failed", sum.passed, sum.failed);
    for missing in clients.missing {
        println!("{missing}");
    }
    Ok(sum.all_is_well && sum.passed > 0)
}

fn integration(
    places: &Places,
    environment: &Environment,
    postgres: &Postgres,
    clients: &Clients,
    filter: Option<&str>,
) -> Result<Outcome> {
    let built = build::build(&places.workspace, environment, postgres)?;
    install::install(&places.workspace, environment, postgres, &built)?;
    abandoned::remove(places, postgres)?;
    postgres_fdw::add(places, postgres)?;
    let mut runner = runner(places, "pg_clip_tests", &["--features", &clients.features.join(",")], filter);
    if !postgres_fdw::is_there(postgres) {
        println!("not run: the tests of shards on {}, for it has no postgres_fdw", postgres.version);
        let options: &[&str] = if filter.is_some() { &[] } else { &["--"] };
        runner.args(options).args(SHARDS.iter().flat_map(|tests| ["--skip", tests]));
    }
    run(runner.env(PG_CONFIG_VARIABLE, &postgres.pg_config))
}

/// The command that tests a crate.
fn runner(places: &Places, package: &str, options: &[&str], filter: Option<&str>) -> Command {
    let mut cargo = places.workspace.cargo();
    cargo.args(["test", "--no-fail-fast", "--package", package]).args(options);
    // Decoders take minutes unless they are optimised, and the builds are those that are installed. The other crates
    // build faster than they would gain.
    if ["pg_clip_embedder", "pg_clip_feeder"].contains(&package) {
        cargo.arg("--release");
    }
    // Named together, as in the build: alone, the embedder's crates have other features, and would be built again. The
    // extension has no tests of its own.
    if package == "pg_clip_embedder" {
        cargo.args(["--package", "pg_clip", "--package", "pg_clip_models"]);
    }
    if let Some(filter) = filter {
        cargo.args(["--", filter]);
    }
    cargo
}

#[derive(Debug, Default, PartialEq)]
struct Outcome {
    passed: u64,
    failed: u64,
    success: bool,
}

/// Runs one runner, passing its output through as it comes.
fn run(runner: &mut Command) -> Result<Outcome> {
    let mut child = runner.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot run cargo")?;
    let mut outcome = Outcome::default();
    let mut output = BufReader::new(child.stdout.take().context("no standard output")?);
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line)? > 0 {
        std::io::stdout().write_all(&line)?;
        if let Some((passed, failed)) = counts(&String::from_utf8_lossy(&line)) {
            outcome.passed += passed;
            outcome.failed += failed;
        }
        line.clear();
    }
    outcome.success = child.wait()?.success();
    Ok(outcome)
}

/// What a line like "test result: ok. 3 passed; 0 failed; 0 ignored; …" says.
fn counts(line: &str) -> Option<(u64, u64)> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let of = |what: &str| {
        let count = counts.split("; ").find_map(|count| count.strip_suffix(what))?;
        count.trim().parse().ok()
    };
    Some((of("passed")?, of("failed")?))
}

struct Sum {
    passed: u64,
    failed: u64,
    all_is_well: bool,
}

impl Default for Sum {
    fn default() -> Sum {
        Sum { passed: 0, failed: 0, all_is_well: true }
    }
}

impl Sum {
    fn add(&mut self, runner: &str, outcome: Result<Outcome>, filter: Option<&str>) {
        let complaint = match outcome {
            Err(error) => Some(format!("{error:#}")),
            Ok(outcome) => {
                self.passed += outcome.passed;
                self.failed += outcome.failed;
                let ran_none = outcome.passed + outcome.failed == 0 && filter.is_none();
                if !outcome.success {
                    Some("it failed".to_owned())
                } else if ran_none {
                    Some("it ran no test".to_owned())
                } else {
                    None
                }
            }
        };
        if let Some(complaint) = complaint {
            say(&format!("{runner}: {complaint}"));
            self.all_is_well = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Outcome, Sum, counts};

    #[test]
    fn counts_what_a_result_line_says() {
        let ok = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.00s\n";
        assert_eq!(counts(ok), Some((12, 0)));
        let failed = "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(counts(failed), Some((1, 2)));
        assert_eq!(counts("test counts ... ok"), None);
    }

    #[test]
    fn a_runner_without_a_test_has_failed() {
        let mut sum = Sum::default();
        sum.add("one", Ok(Outcome { passed: 1, failed: 0, success: true }), None);
        assert!(sum.all_is_well);
        sum.add("none", Ok(Outcome { passed: 0, failed: 0, success: true }), Some("filter"));
        assert!(sum.all_is_well);
        sum.add("none", Ok(Outcome { passed: 0, failed: 0, success: true }), None);
        assert!(!sum.all_is_well);
    }
}
