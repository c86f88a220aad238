//! The commands that install models: the embedder becomes the program beside it.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use crate::embedder::program;

/// Runs a copy of the embedder, which lies beside this script as the installer.
fn run(installer: Option<&str>, arguments: &[&str]) -> (u32, Output) {
    let folder = temp_dir::TempDir::new().unwrap();
    let embedder = folder.path().join("pg_clip_embedder");
    fs::copy(program(), &embedder).unwrap();
    if let Some(script) = installer {
        let path = folder.path().join("pg_clip_models");
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new(embedder);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = command.spawn().unwrap();
    // The program may have ended without reading it.
    let _ = running.stdin.take().unwrap().write_all(b"from the terminal\n");
    let process = running.id();
    (process, running.wait_with_output().unwrap())
}

#[test]
fn the_installer_takes_the_place_of_the_embedder() {
    let script =
        "#!/bin/sh\nread -r line\necho $$ \"$line\"\nprintf '<%s>' \"$@\"\necho complaint >&2\nexit 7\n";
    for command in ["fetch", "import", "quantize", "catalogue", "list", "remove"] {
        let (process, output) = run(Some(script), &[command, "a b", "--unknown", ""]);
        let out = String::from_utf8(output.stdout).unwrap();
        assert_eq!(out, format!("{process} from the terminal\n<{command}><a b><--unknown><>"));
        assert_eq!((output.status.code(), &*output.stderr), (Some(7), &b"complaint\n"[..]));
    }
    let (_, output) = run(Some(script), &["help", "fetch"]);
    assert!(output.stdout.ends_with(b"<help><fetch>"));
}

#[test]
fn a_missing_installer_is_named() {
    let (_, output) = run(None, &["fetch", "a/b"]);
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    assert!(
        err.starts_with("ERROR:  /") && err.contains("/pg_clip_models cannot be started: No such"),
        "{err}"
    );
    assert!(err.contains("HINT:  It is installed together with this program"), "{err}");
}

#[test]
fn help_lists_the_commands_of_both_programs() {
    let (_, output) = run(None, &["--help"]);
    let out = String::from_utf8(output.stdout).unwrap();
    for line in [
        "  check ",
        "  embed ",
        "  fetch      Install a model from a hub",
        "  remove     Remove an installed model",
    ] {
        assert!(out.contains(line), "{line} in {out}");
    }
    assert_eq!(output.status.code(), Some(0));
    let (_, output) = run(None, &["fetched"]);
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && err.contains("unrecognized subcommand 'fetched'"), "{err}");
}
