//! Running a program to its end, with an error that quotes its output.

use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

/// Runs the command and returns its standard output; its standard error becomes the error.
pub fn output(command: &mut Command) -> Result<String> {
    let name = name(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        bail!("{name}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs the command with `input` on its standard input and returns its standard output.
pub fn output_with_input(command: &mut Command, input: &[u8]) -> Result<String> {
    let name = name(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {name}"))?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    let output = std::thread::scope(|scope| {
        // A program that ends early closes the pipe; its own message says more than ours would.
        scope.spawn(move || stdin.write_all(input).ok());
        child.wait_with_output()
    })?;
    if !output.status.success() {
        bail!("{name}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs the command with our own standard error, for programs that report progress there.
pub fn run(command: &mut Command) -> Result<()> {
    let name = name(command);
    let status = command.status().with_context(|| format!("cannot run {name}"))?;
    if !status.success() {
        bail!("{name}: {status}");
    }
    Ok(())
}

/// The SHA-256 of a file, in hexadecimal, by a program that is faster than this one without optimisation.
pub fn sha256(file: &Path) -> Result<String> {
    let line = output(Command::new("sha256sum").arg("--").arg(file))?;
    // A name with odd characters has a backslash in front.
    let digest = line.trim_start_matches('\\').split_whitespace().next().context("sha256sum says nothing")?;
    Ok(digest.to_owned())
}

/// Runs the command silently; `None` where there is no such program.
pub fn status_if_present(command: &mut Command) -> Result<Option<ExitStatus>> {
    match command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Ok(status) => Ok(Some(status)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot run {}", name(command))),
    }
}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}
