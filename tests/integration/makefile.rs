//! `make install` into a folder, and `make uninstall` out of it.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command};

use pg_clip_tests::{cargo_of_the_checkout, repository, tested_postgres};
use xtask::install::beneath;

#[test]
fn make_installs_into_a_folder_and_uninstalls() {
    let folder = Folder::new();
    make("install", &folder.0);
    let postgres = tested_postgres();
    let (library, share) = (&postgres.pkglibdir, &postgres.sharedir);
    let mut expected = BTreeSet::from(
        [
            "pg_clip.so",
            "pg_clip/libonnxruntime.so",
            "pg_clip/models",
            "pg_clip/pg_clip_embedder",
            "pg_clip/pg_clip_models",
        ]
        .map(|file| library.join(file)),
    );
    expected.extend(
        [
            "extension/pg_clip.control",
            "pg_clip/licences/LICENSE",
            "pg_clip/licences/demo-model/NOTICE",
            "pg_clip/licences/onnxruntime/LICENSE",
            "pg_clip/licences/onnxruntime/ThirdPartyNotices.txt",
            "pg_clip/models/demo/config.json",
            "pg_clip/models/demo/preprocessor_config.json",
            "pg_clip/models/demo/text_model.onnx",
            "pg_clip/models/demo/tokenizer.json",
            "pg_clip/models/demo/vision_model.onnx",
        ]
        .map(|file| share.join(file)),
    );
    expected.extend(["pg_clip_embedder", "pg_clip_feeder"].map(|program| postgres.bindir.join(program)));
    let (scripts, others): (BTreeSet<PathBuf>, BTreeSet<PathBuf>) =
        folder.files().into_iter().partition(|file| file.starts_with(share) && is_script(file));
    assert_eq!(others, expected);
    let control = fs::read_to_string(repository().join("pg_clip.control")).expect("the control file is read");
    let version = control.split_once("default_version = '").and_then(|(_, rest)| rest.split_once('\''));
    let script = format!("extension/pg_clip--{}.sql", version.expect("it names a version").0);
    assert!(scripts.contains(&share.join(script)), "{scripts:?}");

    // The links lead into the folder, so that the program works from there.
    let program = beneath(&folder.0, &postgres.bindir).join("pg_clip_embedder");
    for arguments in [&["check", "demo"][..], &["list"]] {
        let said = Command::new(&program).args(arguments).env_clear().output().expect("the program runs");
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    }

    // Once more over the installed files, as root does it without a cargo; then out, but for a model that was
    // added.
    make_with("install", &folder.0, &["CARGO=/nowhere/cargo"]);
    let added = beneath(&folder.0, &share.join("pg_clip/models/own/config.json"));
    fs::create_dir_all(added.parent().expect("a file has a folder")).expect("a folder is made");
    fs::write(&added, "{}").expect("a file is written");
    make("uninstall", &folder.0);
    assert_eq!(folder.files(), BTreeSet::from([share.join("pg_clip/models/own/config.json")]));
    fs::remove_dir_all(added.parent().expect("a file has a folder")).expect("the added model is removed");
    make("uninstall", &folder.0);
    assert_eq!(folder.files(), BTreeSet::new());
    assert!(!beneath(&folder.0, &share.join("pg_clip")).exists());
}

fn is_script(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("pg_clip--") && name.ends_with(".sql")
}

#[track_caller]
fn make(goal: &str, destdir: &Path) {
    make_with(goal, destdir, &[]);
}

#[track_caller]
fn make_with(goal: &str, destdir: &Path, variables: &[&str]) {
    let mut make = cargo_of_the_checkout("make");
    make.arg(goal).args(variables).arg(format!("DESTDIR={}", destdir.display()));
    make.arg(format!("PG_CONFIG={}", tested_postgres().pg_config.display()));
    let output = make.output().expect("make is on the PATH");
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}{err}", String::from_utf8_lossy(&output.stdout));
}

struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        let folder = env::temp_dir().join(format!("pg_clip-makefile-{}", process::id()));
        fs::create_dir_all(&folder).expect("a folder is made");
        Folder(folder)
    }

    /// All files and links, by their paths once they are installed.
    fn files(&self) -> BTreeSet<PathBuf> {
        let (mut files, mut folders) = (BTreeSet::new(), vec![self.0.clone()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("a folder is listed") {
                let entry = entry.expect("an entry is read");
                if entry.file_type().expect("a type is read").is_dir() {
                    folders.push(entry.path());
                } else {
                    let inside = entry.path();
                    let inside = inside.strip_prefix(&self.0).expect("it is beneath");
                    files.insert(Path::new("/").join(inside));
                }
            }
        }
        files
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
