//! A library and an extension of two versions, as between the installation of a release and ALTER EXTENSION.

use pg_clip_tests::{
    PATIENCE, TestCluster, WRONG, demo_photos, run, store, value, wait_for_the_queue, wait_until,
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
}

fn set_version(client: &mut Client, version: &str) {
    run(client, &format!("UPDATE pg_extension SET extversion = '{version}' WHERE extname = 'pg_clip'"));
}

#[track_caller]
fn refusal(client: &mut Client, statement: &str) -> DbError {
    let error = client.batch_execute(statement).expect_err(statement);
    error.as_db_error().expect("an error of the server").clone()
}
