//! The checkout and its target folder, as cargo sees them.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command;

pub struct Workspace {
    /// The folder of the workspace's Cargo.toml.
    pub root: PathBuf,
    /// Cargo's target folder, wherever CARGO_TARGET_DIR or a configuration put it.
    pub target: PathBuf,
}

impl Workspace {
    /// The checkout whose package cargo runs, or the current folder's.
    ///
    /// Cargo says which one each time: in a checkout that was copied or moved together with its target folder, cargo
    /// runs the program that was built before, and `env!` in it would name the old place.
    pub fn find() -> Result<Workspace> {
        let mut metadata = Command::new(cargo());
        metadata.args(["metadata", "--no-deps", "--format-version", "1"]);
        if let Some(package) = env::var_os("CARGO_MANIFEST_DIR") {
            metadata.arg("--manifest-path").arg(PathBuf::from(package).join("Cargo.toml"));
        }
        let metadata: serde_json::Value =
            serde_json::from_str(&command::output(&mut metadata)?).context("cargo metadata")?;
        let folder = |name: &str| {
            let path = metadata[name].as_str().map(PathBuf::from);
            path.with_context(|| format!("cargo metadata names no {name}"))
        };
        let (root, target) = (folder("workspace_root")?, folder("target_directory")?);
        if !root.join("pg_clip.control").is_file() {
            bail!("{} is no checkout of pg_clip: run cargo xtask in one", root.display());
        }
        Ok(Workspace { root, target })
    }

    /// The cargo that runs us, in the root of the checkout.
    ///
    /// The target folder is passed on, for a relative CARGO_TARGET_DIR would mean another folder there.
    pub fn cargo(&self) -> Command {
        let mut command = Command::new(cargo());
        // The variables by which cargo tells a program about its package are no settings; a build script that
        // watches these variables would run again for each package that runs it.
        for (name, _) in env::vars_os() {
            let told = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];
            if told.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes())) {
                command.env_remove(name);
            }
        }
        command.current_dir(&self.root).env("CARGO_TARGET_DIR", &self.target);
        command
    }
}

fn cargo() -> std::ffi::OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    use super::Workspace;

    #[test]
    fn says_its_root() {
        let root = Workspace::find().expect("a test runs in a checkout").root;
        assert!(root.join("sql/preamble.sql").is_file());
        println!("root={}", root.display());
    }

    #[test]
    fn a_copied_checkout_is_not_the_one_it_was_copied_from() {
        let original = Workspace::find().expect("a test runs in a checkout").root;
        let copy = env::temp_dir().join(format!("pg_clip-copy-{}", std::process::id()));
        let put = |path: &str, content: &str| {
            let path = copy.join(path);
            fs::create_dir_all(path.parent().expect("a file has a folder")).expect("a folder is made");
            fs::write(path, content).expect("a file is written");
        };
        put("Cargo.toml", "[workspace]\nmembers = [\"xtask\"]\nresolver = \"3\"\n");
        put("xtask/Cargo.toml", "[package]\nname = \"xtask\"\nversion = \"0.0.0\"\nedition = \"2024\"\n");
        put("xtask/src/lib.rs", "");
        for file in ["pg_clip.control", "sql/preamble.sql"] {
            put(file, &fs::read_to_string(original.join(file)).expect("a file of the checkout is read"));
        }
        // This program, as cargo runs it in a copy.
        let said = |package: &Path| {
            let mut program = Command::new(env::current_exe().expect("a program has a path"));
            program.args(["--exact", "--nocapture", "workspace::tests::says_its_root"]);
            let output = program.env("CARGO_MANIFEST_DIR", package).output().expect("the program runs");
            String::from_utf8(output.stdout).expect("text")
        };
        let in_copy = said(&copy.join("xtask"));
        let elsewhere = said(Path::new("/nowhere/xtask"));
        fs::remove_dir_all(&copy).expect("the copy is removed");
        assert!(in_copy.contains(&format!("root={}\n", copy.display())), "{in_copy}");
        assert!(elsewhere.contains("1 failed"), "{elsewhere}");
    }
}
