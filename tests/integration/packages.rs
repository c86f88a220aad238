//! Packages, unpacked in a folder: a server that has none of pg_clip's files runs it from there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pg_clip_tests::{ServerCopy, TestCluster, cargo_of_the_checkout, run, tested_postgres, value};

#[test]
fn packages_hold_what_a_server_needs() {
    let mut package = cargo_of_the_checkout("cargo");
    let pg_config = &tested_postgres().pg_config;
    succeed(package.args(["xtask", "package", "--pg-config"]).arg(pg_config));
    let copy = ServerCopy::of_the_tested("packages");
    let major = copy.postgres.major;
    let folder = ServerCopy::target().join(format!("packages/{major}"));
    succeed(Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(&folder));

    let root = copy.another_folder("root");
    let extension = package_named(&folder, &format!("postgresql-{major}-pg-clip_"));
    for package in [&package_named(&folder, "pg-clip-embedder_"), &extension] {
        succeed(Command::new("dpkg-deb").arg("--extract").arg(package).arg(&root));
    }
    let depends = succeed(Command::new("dpkg-deb").arg("--field").arg(&extension).arg("Depends"));
    let server = format!("postgresql-{major}, postgresql-{major}-pgvector, pg-clip-embedder (= ");
    assert!(depends.starts_with(&server) && depends.contains("libc6 (>= 2."), "{depends}");
    for file in [
        "usr/bin/pg_clip_embedder",
        "usr/bin/pg_clip_feeder",
        "usr/share/doc/pg-clip-embedder/onnxruntime/ThirdPartyNotices.txt",
        "usr/share/doc/pg-clip-embedder/demo-model/NOTICE",
        "var/lib/pg_clip/models/demo/config.json",
    ] {
        assert!(root.join(file).is_file(), "{file}");
    }
    succeed(Command::new(root.join("usr/bin/pg_clip_embedder")).args(["check", "demo"]).env_clear());
    let server = format!("postgresql/{major}");
    let library = root.join("usr/lib").join(&server).join("lib");
    let extension = root.join("usr/share").join(&server).join("extension");
    it_runs(&copy, &library, &extension);

    let archive = package_named(&folder, "pg_clip-");
    let unpacked = copy.another_folder("unpacked");
    succeed(Command::new("tar").args(["--strip-components=1", "-xzf"]).arg(archive).arg("-C").arg(&unpacked));
    assert!(unpacked.join("licences/onnxruntime/LICENSE").is_file());
    succeed(Command::new(unpacked.join("bin/pg_clip_embedder")).args(["check", "demo"]).env_clear());
    it_runs(&copy, &unpacked.join("lib"), &unpacked.join("share/extension"));
}

fn it_runs(copy: &ServerCopy, library: &Path, extension: &Path) {
    copy.link_into_server(library, extension);
    let cluster = TestCluster::on(&copy.postgres, &[("shared_preload_libraries", "pg_clip")]);
    let mut client = cluster.database().connect();
    run(&mut client, "SELECT clip_embed_text('a cat')");
    assert_eq!(value::<String>(&mut client, "SELECT state FROM clip_status"), "ready");
}

fn package_named(folder: &Path, start: &str) -> PathBuf {
    let entries = fs::read_dir(folder).expect("the packages are listed").flatten();
    let found = entries
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start)));
    found.unwrap_or_else(|| panic!("no {start}* in {}", folder.display()))
}

#[track_caller]
fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
