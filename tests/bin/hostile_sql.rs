//! The run that `cargo xtask fuzz sql` starts: `--statements` and `--seed`, both with a number.

use std::process::ExitCode;

use pg_clip_tests::hostile::attack;

/// A run that breaks more is stopped: further failures tell nothing new.
const MOST_BROKEN: usize = 20;

fn main() -> ExitCode {
    let (statements, seed) = (argument("--statements"), argument("--seed"));
    println!("seeds from {seed}");
    let mut shown = 0;
    let outcome = attack(statements, seed, |outcome| {
        for broken in &outcome.broken[shown..] {
            println!("{broken}");
        }
        shown = outcome.broken.len();
        if outcome.batches % 50 == 0 {
            println!("{} statements", outcome.statements);
        }
        shown < MOST_BROKEN
    });
    println!("{outcome}");
    if outcome.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn argument(name: &str) -> u64 {
    let value = std::env::args().skip_while(|argument| argument != name).nth(1);
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} takes a number"))
}
