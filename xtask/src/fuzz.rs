//! Random inputs: hostile SQL against a throwaway cluster, and cargo-fuzz on the code that reads a user's bytes.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::build;
use crate::command;
use crate::environment::Environment;
use crate::install;
use crate::places::Places;
use crate::postgres::Postgres;
use crate::progress::say;
use crate::test_run::PG_CONFIG_VARIABLE;

/// Builds, installs, and sends statements with the seeds from `seed` on.
pub fn sql(
    places: &Places,
    environment: &Environment,
    postgres: &Postgres,
    statements: u64,
    seed: u64,
) -> Result<()> {
    let built = build::build(&places.workspace, environment, postgres)?;
    install::install(&places.workspace, environment, postgres, &built)?;
    let mut attack = places.workspace.cargo();
    attack.args(["run", "--package", "pg_clip_tests", "--bin", "hostile_sql", "--"]);
    attack.args(["--statements", &statements.to_string(), "--seed", &seed.to_string()]);
    let status = attack.env(PG_CONFIG_VARIABLE, &postgres.pg_config).status()?;
    if !status.success() {
        bail!("hostile SQL broke something");
    }
    Ok(())
}

/// Runs a target of `fuzz/` for so many seconds, on the seeds of the repository and the inputs that earlier runs
/// found; of one format, where it is given.
pub fn target(places: &Places, name: &str, seconds: u64, format: Option<&str>) -> Result<()> {
    if command::status_if_present(Command::new("cargo-fuzz").arg("--version"))?.is_none() {
        bail!("cargo-fuzz is not on the PATH: install it with cargo install cargo-fuzz --locked");
    }
    let fuzz = places.workspace.root.join("fuzz");
    // New inputs are kept beside the builds, the seeds stay as they are.
    let kept = format.map_or(name.to_owned(), |format| format!("{name}-{format}"));
    let corpus = places.workspace.target.join("fuzz").join(kept);
    std::fs::create_dir_all(&corpus).with_context(|| format!("cannot make {}", corpus.display()))?;
    say("building the target with the address sanitizer: the first time takes minutes");
    let mut run = places.workspace.cargo();
    // The sanitizers are a nightly's flags, which this lets a stable toolchain take.
    run.env("RUSTC_BOOTSTRAP", "1").env("CARGO_TARGET_DIR", places.workspace.target.join("fuzz-build"));
    // A backtrace for each loan of a row of pixels makes the AV1 decoder thousands of times as slow.
    run.env("RUST_LIB_BACKTRACE", "0");
    run.args(["fuzz", "run", "--fuzz-dir"]).arg(&fuzz).arg(name).arg(&corpus);
    match format {
        Some(format) => run.arg(seeds_of_format(places, name, format)?),
        None => run.args(seeds(places, name)?),
    };
    run.arg("--").args([
        format!("-max_total_time={seconds}"),
        // Longer inputs are slower and reach no other code.
        "-max_len=262144".to_owned(),
        "-timeout=20".to_owned(),
        "-rss_limit_mb=2048".to_owned(),
        "-print_final_stats=1".to_owned(),
    ]);
    let status = run.status().context("cannot run cargo fuzz")?;
    if !status.success() {
        bail!("the target {name} failed");
    }
    Ok(())
}

/// The folders with seeds: the target's own, and for images the pictures of the tests.
fn seeds(places: &Places, name: &str) -> Result<Vec<PathBuf>> {
    let own = places.workspace.root.join("fuzz/seeds").join(name);
    let images = places.workspace.root.join("tests/data/images");
    let folders: Vec<PathBuf> = [Some(own), (name == "image").then_some(images)]
        .into_iter()
        .flatten()
        .filter(|f| f.is_dir())
        .collect();
    if folders.is_empty() {
        bail!("there are no seeds for the target {name}");
    }
    Ok(folders)
}

/// A folder with the seeds of one format.
fn seeds_of_format(places: &Places, name: &str, format: &str) -> Result<PathBuf> {
    let folder = places.workspace.target.join("fuzz").join(format!("seeds-{name}-{format}"));
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut count = 0;
    for seeds in seeds(places, name)? {
        for entry in std::fs::read_dir(&seeds).with_context(|| format!("cannot read {}", seeds.display()))? {
            let entry = entry?;
            let file = entry.file_name().to_string_lossy().into_owned();
            // The seeds of the tests end with the format, and those of fuzz/ begin with its whole name.
            let long = match format {
                "jpg" => "jpeg",
                "tif" => "tiff",
                other => other,
            };
            if file.ends_with(&format!(".{format}")) || file.starts_with(&format!("{long}-")) {
                std::fs::copy(entry.path(), folder.join(&file))?;
                count += 1;
            }
        }
    }
    if count == 0 {
        bail!("there are no seeds of the format {format}");
    }
    Ok(folder)
}
