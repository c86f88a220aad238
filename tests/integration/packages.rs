//! Packages, unpacked in a folder: a server that has none of pg_clip's files runs it from there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pg_clip_tests::{ServerCopy, TestCluster, cargo_of_the_checkout, run, tested_postgres, value};
use serde_json::Value;
use xtask::package::unpack_image;

#[test]
fn packages_hold_all_files_that_a_server_needs() {
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
        "usr/lib/pg_clip/pg_clip_models",
        "usr/share/doc/pg-clip-embedder/onnxruntime/ThirdPartyNotices.txt",
        "usr/share/doc/pg-clip-embedder/demo-model/NOTICE",
        "var/lib/pg_clip/models/demo/config.json",
    ] {
        assert!(root.join(file).is_file(), "{file}");
    }
    the_command_line_works(&root.join("usr/bin"));
    let server = format!("postgresql/{major}");
    let library = root.join("usr/lib").join(&server).join("lib");
    let extension = root.join("usr/share").join(&server).join("extension");
    it_runs(&copy, &library, &extension);

    let archive = package_ending(&folder, ".tar.gz");
    let unpacked = copy.another_folder("unpacked");
    succeed(Command::new("tar").args(["--strip-components=1", "-xzf"]).arg(archive).arg("-C").arg(&unpacked));
    assert!(unpacked.join("licences/onnxruntime/LICENSE").is_file());
    the_command_line_works(&unpacked.join("bin"));
    it_runs(&copy, &unpacked.join("lib"), &unpacked.join("share/extension"));

    let volume = copy.another_folder("volume");
    let configuration = unpack_image(&package_ending(&folder, "-volume.oci.tar"), &volume).expect("an image");
    assert_eq!(configuration["os"], "linux");
    let folders = fs::read_dir(&volume).expect("the volume is listed").flatten();
    let folders: BTreeSet<_> =
        folders.map(|entry| entry.file_name().into_string().expect("a name")).collect();
    assert_eq!(folders, ["bin", "lib", "licenses", "share"].map(str::to_owned).into());
    the_command_line_works(&volume.join("bin"));
    for licence in ["LICENSE", "crates.txt", "demo-model/NOTICE", "onnxruntime/LICENSE"] {
        assert!(volume.join("licenses").join(licence).is_file(), "{licence}");
    }
    succeed(Command::new("chmod").args(["-R", "a-w"]).arg(&volume));
    if major >= 18 {
        it_runs_as_a_volume(&copy, &volume);
    } else {
        it_runs(&copy, &volume.join("lib"), &volume.join("share/extension"));
    }

    bill_names_linked_crates(&package_ending(&folder, ".cdx.json"), &unpacked.join("licences/crates.txt"));
    sources_are_as_pgxn_has_them(&package_ending(&folder, ".zip"));
}

/// Of the embedder's program, and of the one beside it that installs models.
fn the_command_line_works(commands: &Path) {
    for arguments in [&["check", "demo"][..], &["list"]] {
        let said = succeed(Command::new(commands.join("pg_clip_embedder")).args(arguments).env_clear());
        assert!(said.contains("demo"), "{said}");
    }
}

/// As an operator of Kubernetes mounts it: nothing of pg_clip is in the server's own folders.
fn it_runs_as_a_volume(copy: &ServerCopy, volume: &Path) {
    copy.unlink_from_server();
    let folder = volume.to_str().expect("a path in UTF-8");
    let (libraries, extensions) = (format!("{folder}/lib:$libdir"), format!("{folder}/share:$system"));
    let settings = [
        ("shared_preload_libraries", "pg_clip"),
        ("dynamic_library_path", &*libraries),
        ("extension_control_path", &*extensions),
    ];
    let cluster = TestCluster::on(&copy.postgres, &settings);
    let mut client = cluster.database().connect();
    run(&mut client, "SELECT clip_embed_text('a cat')");
    assert_eq!(value::<String>(&mut client, "SELECT state FROM clip_status"), "ready");
}

/// The bill of materials and the file of licences name each crate that cargo links, and the parts that are no
/// crates.
fn bill_names_linked_crates(bill: &Path, licences: &Path) {
    let bill: Value = serde_json::from_slice(&fs::read(bill).expect("the bill is read")).expect("JSON");
    let licences = fs::read_to_string(licences).expect("the licences are read");
    let components = bill["components"].as_array().expect("components");
    let named: BTreeSet<String> = components
        .iter()
        .map(|component| {
            let version = component["version"].as_str().unwrap_or_default();
            format!("{} {version}", component["name"].as_str().expect("a name"))
        })
        .collect();
    let mut tree = cargo_of_the_checkout("cargo");
    tree.args(["tree", "--locked", "--edges=normal", "--prefix=none", "--format={p}"]);
    let tree = succeed(tree.args(
        ["pg_clip_embedder", "pg_clip_models", "pg_clip_feeder"].map(|name| format!("--package={name}")),
    ));
    let linked: BTreeSet<String> = tree
        .lines()
        .filter_map(|line| line.split_once(" v"))
        .map(|(name, rest)| format!("{name} {}", rest.split(' ').next().unwrap_or_default()))
        .collect();
    assert!(linked.len() > 100, "{linked:?}");
    let missing: Vec<&String> = linked.difference(&named).collect();
    assert!(missing.is_empty(), "{missing:?}");
    for name in linked.iter().filter(|name| !name.starts_with("pg_clip")) {
        assert!(licences.contains(&format!("{name}: ")), "{name} has no licence");
    }
    assert!(named.iter().any(|name| name.starts_with("onnxruntime ")), "{named:?}");
    assert!(named.iter().any(|name| name.starts_with("pgrx ")), "{named:?}");
    // Each reference leads to a component.
    let references: BTreeSet<&str> =
        components.iter().map(|component| component["bom-ref"].as_str().expect("a reference")).collect();
    assert_eq!(references.len(), components.len());
    for dependency in bill["dependencies"].as_array().expect("dependencies") {
        for on in dependency["dependsOn"].as_array().expect("a list") {
            assert!(references.contains(on.as_str().expect("a reference")), "{on}");
        }
    }
}

fn sources_are_as_pgxn_has_them(zip: &Path) {
    let name = zip.file_stem().expect("a name").to_str().expect("a path in UTF-8");
    let content = |file: &str| {
        let script =
            "import sys, zipfile; sys.stdout.write(zipfile.ZipFile(sys.argv[1]).read(sys.argv[2]).decode())";
        succeed(Command::new("python3").args(["-c", script]).arg(zip).arg(format!("{name}/{file}")))
    };
    let meta: Value = serde_json::from_str(&content("META.json")).expect("META.json is JSON");
    let control = content("pg_clip.control");
    let version = meta["version"].as_str().expect("a version");
    assert!(control.contains(&format!("default_version = '{version}'")), "{control}");
    assert_eq!(name, format!("pg_clip-{version}"));
    let provided = &meta["provides"]["pg_clip"];
    assert_eq!(provided["version"], version);
    for file in ["file", "docfile"] {
        assert!(!content(provided[file].as_str().expect("a file")).is_empty());
    }
    for member in ["name", "abstract", "maintainer", "license", "meta-spec"] {
        assert!(!meta[member].is_null(), "{member}");
    }
    assert!(content("Makefile").contains("PG_CONFIG"));
}

fn it_runs(copy: &ServerCopy, library: &Path, extension: &Path) {
    copy.link_into_server(library, extension);
    let cluster = TestCluster::on(&copy.postgres, &[("shared_preload_libraries", "pg_clip")]);
    let mut client = cluster.database().connect();
    run(&mut client, "SELECT clip_embed_text('a cat')");
    assert_eq!(value::<String>(&mut client, "SELECT state FROM clip_status"), "ready");
}

fn package_named(folder: &Path, start: &str) -> PathBuf {
    package_with(folder, start, "")
}

fn package_ending(folder: &Path, end: &str) -> PathBuf {
    package_with(folder, "", end)
}

fn package_with(folder: &Path, start: &str, end: &str) -> PathBuf {
    let entries = fs::read_dir(folder).expect("the packages are listed").flatten();
    let found = entries.map(|entry| entry.path()).find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(start) && name.ends_with(end)
    });
    found.unwrap_or_else(|| panic!("no {start}*{end} in {}", folder.display()))
}

#[track_caller]
fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
