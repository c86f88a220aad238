//! A library and an extension of two versions, as between the installation of a release and ALTER EXTENSION.

use std::fs;

use pg_clip_tests::{
    PATIENCE, ServerCopy, TestCluster, WRONG, demo_photos, run, store, value, wait_for_the_queue, wait_until,
    watched_async,
};
use postgres::Client;
use postgres::error::DbError;

const LIBRARY: &str = env!("CARGO_PKG_VERSION");

#[test]
fn a_library_and_an_extension_of_two_versions_do_not_work_together() {
    // The postmaster then logs each start of a worker.
    let settings = [("clip.queue_poll_interval", "1s"), ("log_min_messages", "debug1")];
    let cluster = TestCluster::preloaded_with(&settings);
    let (database, mut client) = watched_async(&cluster);
    store(&mut client, &demo_photos()[..2]);
    wait_for_the_queue(&mut client);

    set_version(&mut client, "0.0.9");
    let mut client = database.connect();
    let message = format!("the library is of version {LIBRARY}, the extension of version 0.0.9");
    for statement in [
        "INSERT INTO photos (image) VALUES (''::bytea)",
        "UPDATE photos SET image = NULL",
        "DELETE FROM photos",
        "TRUNCATE photos",
        "SELECT clip_watch('photos')",
        "SELECT clip_unwatch('photos')",
        "CALL clip_backfill('photos')",
        "SELECT * FROM clip_verify('photos')",
        "CALL clip_migrate('image_embeddings', 'demo')",
        "SELECT clip_abandon_migration('image_embeddings')",
        "SELECT clip_retry()",
        // The model that counts stands in a table of the extension.
        "SELECT clip_embed_text('a cat')",
    ] {
        let error = refusal(&mut client, statement);
        assert_eq!((error.code().code(), error.message()), ("55000", message.as_str()), "{statement}");
        let hint = error.hint().unwrap_or_default();
        assert!(hint.starts_with("ALTER EXTENSION pg_clip UPDATE"), "{statement}: {hint}");
    }
    // Views stay readable, and a call that needs no table of the extension works.
    assert_eq!(value::<Option<i64>>(&mut client, "SELECT photos FROM clip_coverage"), None);
    assert_eq!(value::<String>(&mut client, "SELECT state FROM clip_status"), "ready");
    assert_eq!(value::<String>(&mut client, "SHOW clip.model"), "demo");
    run(
        &mut client,
        "SELECT clip_embed_text('a cat', 'demo'); CREATE TABLE other (id int); DROP TABLE other",
    );
    run(&mut client, "BEGIN; SET LOCAL clip.model = 'demo'; SELECT clip_embed_text('a cat'); COMMIT");

    let told = || cluster.log().matches(&format!("LOG:  pg_clip: photos wait: {message}")).count();
    wait_until("the log says why photos wait", PATIENCE, || told() == 1);
    let starts =
        || cluster.log().matches("starting background worker process \"pg_clip queue worker\"").count();
    let before = starts();
    // Each round starts a worker in this database and another one in postgres.
    wait_until("workers have come three times more", PATIENCE, || starts() >= before + 8);
    assert_eq!(told(), 1, "{}", cluster.log());
    assert!(cluster.log().contains("HINT:  ALTER EXTENSION pg_clip UPDATE"), "{}", cluster.log());

    set_version(&mut client, LIBRARY);
    store(&mut client, &demo_photos()[2..4]);
    wait_for_the_queue(&mut client);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 4);
    assert_eq!(value::<i64>(&mut client, WRONG), 0);

    set_version(&mut client, "0.0.9");
    wait_until("the log says it again", PATIENCE, || told() == 2);

    // The extension of a release to come, while the server still has this library.
    set_version(&mut client, "9.0.0");
    let mut client = database.connect();
    let error = refusal(&mut client, "INSERT INTO photos (image) VALUES (''::bytea)");
    let message = format!("the library is of version {LIBRARY}, the extension of version 9.0.0");
    assert_eq!((error.code().code(), error.message()), ("55000", message.as_str()));
    let status: String = value(&mut client, "SELECT error FROM clip_status");
    assert!(status.starts_with("the extension is of release 9.0.0"), "{status}");
}

#[test]
fn the_sql_of_a_release_refuses_the_library_of_an_earlier_one() {
    let copy = ServerCopy::of_the_tested("earlier-library");
    let next = "9.0.0";
    let script = copy.pg_clip.join(format!("share/extension/pg_clip--{LIBRARY}.sql"));
    let script = fs::read_to_string(script).expect("the script is read");
    let control = fs::read_to_string(copy.pg_clip.join("share/extension/pg_clip.control"));
    let control = control.expect("the control file is read").replace(LIBRARY, next);
    for (name, script, found) in [
        ("later", script.replace(LIBRARY, next), LIBRARY),
        // 0.1.0 could not say its version.
        (
            "silent",
            script.replace("'clip_library_version'", "'clip_not_there'").replace(LIBRARY, next),
            "0.1.0",
        ),
    ] {
        let extension = copy.another_folder(name);
        fs::write(extension.join("pg_clip.control"), &control).expect("a control file is written");
        fs::write(extension.join(format!("pg_clip--{next}.sql")), script).expect("a script is written");
        copy.link_into_server(&copy.pg_clip.join("lib"), &extension);
        let cluster = TestCluster::on(&copy.postgres, &[]);
        let mut client = cluster.empty_database().connect();
        run(&mut client, "CREATE EXTENSION vector");
        let error = refusal(&mut client, "CREATE EXTENSION pg_clip");
        let message = format!(
            "the library that the server has loaded is of version {found}, and this is the SQL of version {next}"
        );
        assert_eq!((error.code().code(), error.message()), ("55000", message.as_str()));
        let hint = error.hint().unwrap_or_default();
        assert!(hint.starts_with("Restart the server."), "{hint}");
        run(&mut client, "SELECT 1");
    }
}

fn set_version(client: &mut Client, version: &str) {
    run(client, &format!("UPDATE pg_extension SET extversion = '{version}' WHERE extname = 'pg_clip'"));
}

#[track_caller]
fn refusal(client: &mut Client, statement: &str) -> DbError {
    let error = client.batch_execute(statement).expect_err(statement);
    error.as_db_error().expect("an error of the server").clone()
}
