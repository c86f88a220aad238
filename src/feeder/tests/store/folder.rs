//! A folder as a store.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::Duration;

use pg_clip_feeder::store::{NoObject, Store, Why};
use temp_dir::TempDir;

const LIMIT: u64 = 1_000;

#[test]
fn a_folder_gives_its_files_and_nothing_else() {
    let outside = TempDir::new().expect("a folder");
    fs::write(outside.child("secret"), "secret").expect("a file");
    let folder = TempDir::new().expect("a folder");
    fs::create_dir(folder.child("küche")).expect("a folder");
    fs::write(folder.child("küche/a b.jpg"), "photo").expect("a file");
    fs::write(folder.child("large"), [0; 1_001]).expect("a file");
    symlink("küche/a b.jpg", folder.child("inside")).expect("a link");
    symlink(outside.child("secret"), folder.child("leak")).expect("a link");
    symlink(outside.path(), folder.child("leaks")).expect("a link");
    let pipe = Command::new("mkfifo").arg(folder.child("pipe")).status().expect("mkfifo runs");
    assert!(pipe.success());

    let address = format!("file://{}", folder.path().display()).parse().expect("an address");
    let store = Store::open(&address, Duration::from_secs(10)).expect("a store");
    let fetch = |key: &str| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(store.fetch(key, LIMIT))
    };
    assert_eq!(fetch("küche/a b.jpg").map_err(|error| error.message), Ok(b"photo".to_vec()));
    assert_eq!(fetch("inside").map_err(|error| error.message), Ok(b"photo".to_vec()));
    let cases = [
        ("missing.jpg", Why::Missing),
        ("large/x", Why::Missing),
        ("küche", Why::Missing),
        ("pipe", Why::Missing),
        ("large", Why::TooLarge),
        ("leak", Why::Refused),
        ("leaks/secret", Why::Refused),
        ("../secret", Why::Refused),
        ("/etc/passwd", Why::Refused),
    ];
    for (key, why) in cases {
        let NoObject { why: found, message } = fetch(key).expect_err(key);
        assert_eq!(found, why, "{key}: {message}");
        assert!(!message.contains("secret") || key.contains("secret"), "{message}");
    }
}
