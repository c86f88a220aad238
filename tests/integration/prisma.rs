//! A shop written with Prisma: its migration, and its tests in TypeScript, which run in node.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use pg_clip_tests::{
    FEEDER, PhotoFolder, TestCluster, TestDatabase, drain, feeder, repository, repository_file, run,
};
use xtask::lock::Lock;
use xtask::places::Places;

const MIGRATION: &str = "tests/prisma/migrations/20261124000000_init/migration.sql";

#[test]
fn the_tests_of_a_shop_written_with_prisma_pass() {
    let places = Places::find().expect("the target folder is found");
    let _lock = Lock::take(&places, "prisma").expect("no other process installs at the same time");
    let folder = installed(&places);

    let cluster = TestCluster::shared();
    // Prisma sends a migration as one query, too.
    let migration = String::from_utf8(repository_file(MIGRATION)).expect("a migration in UTF-8");
    let [sync, in_async_mode] = [0; 2].map(|_| {
        let database = cluster.empty_database();
        run(&mut database.connect(), &migration);
        database
    });
    run(&mut in_async_mode.connect(), "SELECT clip_watch('customer_photos', mode => 'async')");
    let elsewhere = cluster.empty_database();
    run(&mut elsewhere.connect(), &migration);
    let stored = ["pizza-1.jpg", "guitar-1.jpg", "bicycle-1.jpg"];
    feed_photos(&cluster, &elsewhere, &stored);
    let npm_run = |script: &str, database: &TestDatabase| {
        let socket = percent_encoded(cluster.server.sockets());
        let url = format!("postgresql://postgres@localhost/{}?host={socket}", database.name());
        let mut npm = Command::new("npm");
        npm.args(["run", "--silent", script]).current_dir(&folder);
        npm.env("DATABASE_URL", &url).env("PHOTOS", repository().join("models/demo/photos"));
        npm.env("STORED", stored.join(" "));
        // Generating asks for the engine of migrations, which npm does not install, but does not run it.
        npm.env("PRISMA_SCHEMA_ENGINE_BINARY", std::env::current_exe().expect("a program"));
        output(&mut npm)
    };
    npm_run("generate", &sync);
    npm_run("check", &sync);
    for (script, database, least) in
        [("test", &sync, 12), ("test-async", &in_async_mode, 5), ("test-elsewhere", &elsewhere, 3)]
    {
        let report = npm_run(script, database);
        // Not by a macro: those keep to themselves what a test prints.
        std::io::stdout().write_all(report.as_bytes()).expect("the report is shown");
        let count = |what: &str| {
            let line = report.lines().find_map(|line| line.strip_prefix(&format!("ℹ {what} ")));
            line.and_then(|count| count.parse::<u32>().ok()).expect("a count in the report")
        };
        assert!(count("tests") >= least, "{report}");
        assert_eq!(count("pass"), count("tests"), "{report}");
    }
}

/// Has photos of the demo fetched from a folder.
fn feed_photos(cluster: &TestCluster, database: &TestDatabase, photos: &[&str]) {
    let folder = PhotoFolder::new();
    for photo in photos {
        folder.store(photo, &repository_file(&format!("models/demo/photos/{photo}")));
    }
    let mut client = database.connect();
    run(
        &mut client,
        &format!(
            "CREATE TABLE stored_photos (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, storage_path text);
            SELECT clip_watch('stored_photos', target => 'stored_embeddings', reference_column => 'storage_path');
            INSERT INTO stored_photos (storage_path) SELECT unnest('{{{}}}'::text[]);
            DO $$ BEGIN CREATE ROLE {FEEDER} LOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN END $$;
            SELECT clip_grant_feeder('stored_photos', '{FEEDER}')",
            photos.join(",")
        ),
    );
    drain(&mut feeder(cluster, database, &folder.address()));
}

/// The shop's folder below the target folder, with the packages of its lock file.
fn installed(places: &Places) -> PathBuf {
    let folder = places.base.join("prisma");
    fs::create_dir_all(&folder).expect("a folder");
    for entry in fs::read_dir(repository().join("tests/prisma")).expect("the shop") {
        let from = entry.expect("an entry is read").path();
        if from.is_file() {
            fs::copy(&from, folder.join(from.file_name().expect("a name"))).expect("a file is copied");
        }
    }
    // Written last: packages without it are half installed, or those of another lock file.
    let stamp = folder.join("installed");
    let wanted = fs::read(folder.join("package-lock.json")).expect("the lock file");
    if !fs::read(&stamp).is_ok_and(|present| present == wanted) {
        output(
            Command::new("npm")
                .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
                .current_dir(&folder),
        );
        fs::write(stamp, wanted).expect("the stamp is written");
    }
    folder
}

/// Runs a program to its end; panics with what it said where it fails.
fn output(command: &mut Command) -> String {
    // Prisma asks its maker for a newer version otherwise.
    let output = command.env("CHECKPOINT_DISABLE", "1").output().expect("a program runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}\n{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

fn percent_encoded(path: &Path) -> String {
    path.as_os_str().as_encoded_bytes().iter().map(|byte| format!("%{byte:02x}")).collect()
}
