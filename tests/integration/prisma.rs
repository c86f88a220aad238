//! A shop written with Prisma: its migration, and its tests in TypeScript, which run in node.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use pg_clip_tests::{
    FEEDER, PhotoFolder, TestCluster, TestDatabase, drain, feeder, node_output, node_tests, repository,
    repository_file, run,
};
use xtask::node_package;
use xtask::places::Places;
use xtask::psql::{self, Database};

const MIGRATION: &str = "tests/prisma/migrations/20261124000000_init/migration.sql";

#[test]
fn the_tests_of_a_shop_written_with_prisma_pass() {
    let folder = shop();

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
        let mut npm = Command::new("npm");
        npm.args(["run", "--silent", script]).current_dir(folder);
        npm.env("DATABASE_URL", url(&cluster, "postgres", database))
            .env("PHOTOS", repository().join("models/demo/photos"));
        npm.env("STORED", stored.join(" "));
        npm
    };
    node_output(&mut npm_run("check", &sync));
    for (script, database, least) in
        [("test", &sync, 12), ("test-async", &in_async_mode, 5), ("test-elsewhere", &elsewhere, 3)]
    {
        node_tests(&mut npm_run(script, database), least);
    }
}

#[test]
fn prisma_migrate_leaves_the_extensions_objects_alone() {
    let folder = shop();
    // Shadow databases are copies of template1, which no other test may be using.
    let cluster = TestCluster::preloaded();
    let mut superuser = cluster.existing_database("postgres").connect();
    run(&mut superuser, "CREATE ROLE shop LOGIN CREATEDB");
    for role in ["postgres", "shop"] {
        let database = cluster.empty_database();
        if role == "shop" {
            let extensions = "CREATE EXTENSION vector; CREATE EXTENSION pg_clip";
            run(&mut database.connect(), extensions);
            run(&mut cluster.existing_database("template1").connect(), extensions);
            run(&mut superuser, &format!("ALTER DATABASE {} OWNER TO shop", database.name()));
        }
        let server = Database { cluster: &cluster.server, name: database.name() };
        let npm_run = |script: &str| {
            let mut npm = Command::new("npm");
            npm.args(["run", "--silent", script]).current_dir(folder);
            psql::connect(&mut npm, &server, role);
            npm.env("DATABASE_URL", url(&cluster, role, &database));
            npm
        };
        node_tests(&mut npm_run("test-migrate"), 6);
        // In the database that the engine has migrated.
        let photo = repository().join("models/demo/photos/pizza-1.jpg");
        let found = node_output(npm_run("shop").arg("--").arg(photo).arg("a slice of pizza"));
        assert!(found.contains("similarity: 0."), "{found}");
    }
}

/// The folder of the shop with its packages, and the client that Prisma has generated there.
fn shop() -> &'static Path {
    static SHOP: LazyLock<PathBuf> = LazyLock::new(|| {
        let places = Places::find().expect("the target folder is found");
        let folder = node_package::installed(&places, "tests/prisma").expect("the shop is installed");
        let mut npm = Command::new("npm");
        npm.args(["run", "--silent", "generate"]).current_dir(&folder).env("DATABASE_URL", "postgresql://");
        // Generating asks for the engine of migrations, which npm does not install, but does not run it.
        npm.env("PRISMA_SCHEMA_ENGINE_BINARY", std::env::current_exe().expect("a program"));
        node_output(&mut npm);
        folder
    });
    &SHOP
}

fn url(cluster: &TestCluster, role: &str, database: &TestDatabase) -> String {
    let socket = percent_encoded(cluster.server.sockets());
    format!("postgresql://{role}@localhost/{}?host={socket}", database.name())
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

fn percent_encoded(path: &Path) -> String {
    path.as_os_str().as_encoded_bytes().iter().map(|byte| format!("%{byte:02x}")).collect()
}
