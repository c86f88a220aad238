//! Tests that are written for node.

use std::io::Write;
use std::process::Command;

/// Runs a script of node's tests, which prints the report named `spec`, to its end; panics unless at least so many
/// tests have run and all of them have passed.
#[track_caller]
pub fn node_tests(npm: &mut Command, least: u32) {
    let report = node_output(npm);
    // Not by a macro: a macro's output stays with the test that prints it.
    std::io::stdout().write_all(report.as_bytes()).expect("the report is shown");
    let count = |what: &str| {
        let line = report.lines().find_map(|line| line.strip_prefix(&format!("ℹ {what} ")));
        line.and_then(|count| count.parse::<u32>().ok()).expect("a count in the report")
    };
    assert!(count("tests") >= least, "{report}");
    assert_eq!(count("pass"), count("tests"), "{report}");
}

/// Runs a program to its end and returns its output; panics with all of it where it fails.
#[track_caller]
pub fn node_output(command: &mut Command) -> String {
    // Prisma asks its maker for a newer version otherwise.
    let output = command.env("CHECKPOINT_DISABLE", "1").output().expect("a program runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}\n{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}
