//! The costs of pg_clip, and the loads that it stands, measured through SQL on throwaway clusters with the demo
//! model.
//!
//! `cargo xtask bench` builds and installs in release mode and runs this: all of it, or the bench that is named. Each line is a
//! median, or a percentile, of several tries in this one run, and where two things are compared, they take turns: the
//! machine may be busy with other work. A bench that loses a photo, or finds a wrong one, panics. The bench of the queue takes
//! the folder of a model as well, and measures that one; the bench of a full disk takes a folder on a small file system.

mod backfill;
mod calls;
mod chaos;
mod deaths;
mod disk;
mod done;
mod feeding;
mod memory;
mod migration;
mod neighbours;
mod poison;
mod queue;
mod reconcile;
mod role;
mod search;
mod searching;
mod shops;
mod standbys;
mod statements;
mod tally;
mod throughput;

use std::path::PathBuf;
use std::process::ExitCode;

const BENCHES: [(&str, fn()); 14] = [
    ("calls", calls::measure),
    ("queue", || queue::measure(given_folder().as_deref())),
    ("throughput", throughput::measure),
    ("chaos", chaos::measure),
    ("feeding", feeding::measure),
    ("poison", poison::measure),
    ("backfill", backfill::measure),
    ("migration", migration::measure),
    ("memory", memory::measure),
    ("deaths", deaths::measure),
    ("done", done::measure),
    ("statements", statements::measure),
    ("neighbours", neighbours::measure),
    ("standbys", standbys::measure),
];

/// Run by their names only: they take an hour, or a folder.
const LONG: [(&str, fn()); 4] = [
    ("search", search::measure),
    ("shops", shops::measure),
    ("role", role::measure),
    ("disk", || disk::measure(&given_folder().expect("cargo xtask bench disk FOLDER"))),
];

/// The second argument.
fn given_folder() -> Option<PathBuf> {
    std::env::args_os().nth(2).map(PathBuf::from)
}

fn main() -> ExitCode {
    let wanted = std::env::args().nth(1);
    let mut chosen = BENCHES
        .into_iter()
        .filter(|(name, _)| wanted.as_deref().is_none_or(|wanted| wanted == *name))
        .chain(LONG.into_iter().filter(|(name, _)| wanted.as_deref() == Some(*name)))
        .peekable();
    if chosen.peek().is_none() {
        let names: Vec<&str> = BENCHES.iter().chain(&LONG).map(|(name, _)| *name).collect();
        eprintln!("the benches are {}", names.join(", "));
        return ExitCode::FAILURE;
    }
    if given_folder().is_some() && !matches!(wanted.as_deref(), Some("queue" | "disk")) {
        eprintln!("a folder is for the benches queue and disk");
        return ExitCode::FAILURE;
    }
    for (_, measure) in chosen {
        measure();
    }
    ExitCode::SUCCESS
}
