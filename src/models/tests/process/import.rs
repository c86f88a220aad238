//! `import`: a model from a folder of this machine.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;

use crate::installer::{Installer, Said, models_directory};

#[test]
fn the_layouts_are_imported() {
    let layouts: [&[(&str, &str)]; 4] = [
        &[
            ("onnx/vision_model.onnx", "vision_model.onnx"),
            ("onnx/text_model.onnx", "text_model.onnx"),
            ("tokenizer.json", "tokenizer.json"),
            ("preprocessor_config.json", "preprocessor_config.json"),
            ("config.json", "config.json"),
        ],
        &[
            ("visual/model.onnx", "vision_model.onnx"),
            ("textual/model.onnx", "text_model.onnx"),
            ("textual/tokenizer.json", "tokenizer.json"),
            ("visual/preprocess_cfg.json", "preprocessor_config.json"),
            ("config.json", "config.json"),
        ],
        &[
            ("visual.onnx", "vision_model.onnx"),
            ("text.onnx", "text_model.onnx"),
            ("tokenizer.json", "tokenizer.json"),
            ("preprocessor_config.json", "preprocessor_config.json"),
            ("config.json", "config.json"),
        ],
        &[
            ("one.onnx", "vision_model.onnx"),
            ("other.onnx", "text_model.onnx"),
            ("tokenizer.json", "tokenizer.json"),
            ("preprocessor_config.json", "preprocessor_config.json"),
            ("config.json", "config.json"),
        ],
    ];
    for (number, layout) in layouts.into_iter().enumerate() {
        let installer = Installer::new("http://127.0.0.1:9");
        let folder = temp_dir::TempDir::new().unwrap();
        let source = folder.path().join("a-model");
        fill(&source, layout);
        fs::write(source.join("README.md"), "not wanted").unwrap();
        let out = installer.succeed("import", &[&source]);
        assert!(out.contains("source          imported"), "{out}");
        assert_eq!(installer.models(), ["a-model"], "layout {number}");
        assert_eq!(installer.record("a-model")["source"]["kind"], "imported");
        assert!(!installer.models_directory().join("a-model/README.md").exists());
        assert!(installer.succeed("list", &[""; 0]).contains("imported"));
    }
}

#[test]
fn the_cache_of_another_client_is_imported_through_its_links() {
    let installer = Installer::new("http://127.0.0.1:9");
    let folder = temp_dir::TempDir::new().unwrap();
    let demo = models_directory().join("demo");
    for file in
        ["vision_model.onnx", "text_model.onnx", "tokenizer.json", "preprocessor_config.json", "config.json"]
    {
        symlink(demo.join(file), folder.path().join(file)).unwrap();
    }
    symlink("nowhere", folder.path().join("dangling")).unwrap();
    let source = folder.path().to_str().unwrap();
    installer.succeed("import", &[source, "--name", "linked"]);
    let copied = installer.models_directory().join("linked/vision_model.onnx");
    assert!(copied.symlink_metadata().unwrap().is_file());
    // The lock file of one machine holds on another.
    let lock = installer.models_directory().join("linked/model.json");
    installer.succeed("import", &[source, "--name", "again", "--lock", lock.to_str().unwrap()]);

    let wrong = format!("config.json={}", "0".repeat(64));
    let err = installer.fail("import", &[source, "--name", "other", "--sha256", &wrong]);
    assert!(err.contains("file \"config.json\" is another one than expected"), "{err}");
    assert_eq!(installer.staged(), [""; 0]);
}

#[test]
fn a_full_disk_keeps_nothing_of_a_folder() {
    let installer = Installer::new("http://127.0.0.1:9");
    let demo = models_directory().join("demo");
    let said = installer.run_where_disk_is_full("import", &[&demo], 3_000_000);
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(said.err.contains("cannot write") && said.err.contains("Make room"), "{}", said.err);
    assert_eq!((installer.models(), installer.staged()), (vec![], vec![]));
}

#[test]
fn a_folder_that_is_no_model_is_refused() {
    let installer = Installer::new("http://127.0.0.1:9");
    let folder = temp_dir::TempDir::new().unwrap();
    let source = folder.path().join("m");
    let err = installer.fail("import", &[&source]);
    assert!(err.contains("cannot read"), "{err}");
    fs::create_dir(&source).unwrap();
    let err = installer.fail("import", &[&source]);
    assert!(err.contains("cannot be installed"), "{err}");
    // Two towers that see, and files that are none.
    fill(
        &source,
        &[
            ("a.onnx", "vision_model.onnx"),
            ("b.onnx", "vision_model.onnx"),
            ("tokenizer.json", "tokenizer.json"),
            ("preprocessor_config.json", "preprocessor_config.json"),
        ],
    );
    let err = installer.fail("import", &[&source]);
    assert!(err.contains("model \"m\" cannot be used"), "{err}");
    fs::write(source.join("b.onnx"), "no graph").unwrap();
    let err = installer.fail("import", &[&source]);
    assert!(err.contains("b.onnx"), "{err}");
    assert_eq!(installer.staged(), [""; 0]);
}

#[test]
fn a_user_without_the_permission_is_told_its_name_and_the_remedy() {
    const NOBODY: u32 = 65534;
    let installer = Installer::new("http://127.0.0.1:9");
    let open_to_all = |path: &Path| fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
    open_to_all(&installer.models_directory());
    let folder = temp_dir::TempDir::new().unwrap();
    open_to_all(folder.path());
    let source = folder.path().join("closed");
    fill(&source, &[("config.json", "config.json")]);
    fs::set_permissions(&source, Permissions::from_mode(0o000)).unwrap();

    let mut import = installer.command("import", &[&source]);
    let is_root = nix::unistd::geteuid().is_root();
    if is_root {
        import.uid(NOBODY).gid(NOBODY);
    }
    let said = Said::of(import.output().unwrap());
    fs::set_permissions(&source, Permissions::from_mode(0o700)).unwrap();
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(said.err.contains("Permission denied"), "{}", said.err);
    let user = if is_root { "user \"nobody\"" } else { "user \"" };
    assert!(said.err.contains(&format!("HINT:  The program runs as {user}")), "{}", said.err);
}

/// Makes a folder of parts of the demo model.
fn fill(folder: &Path, files: &[(&str, &str)]) {
    for (file, source) in files {
        let target = folder.join(file);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(models_directory().join("demo").join(source), target).unwrap();
    }
}
