//! The files of a later release, put in place while the server runs: the running processes go on, a message says
//! that the server has to be restarted, and all goes on after the restart.

use std::path::PathBuf;

use pg_clip_tests::{
    PATIENCE, ServerCopy, Signal, TestCluster, WRONG, demo_photos, embedder, run, send, store, value,
    wait_for_the_queue, wait_until, watched_async,
};
use postgres::Client;
use postgres::error::DbError;

const TESTED: &str = env!("CARGO_PKG_VERSION");

/// A look at the library and at the extension of the database comes before one at the embedder.
const CALL: &str = "SELECT clip_embed_text('a cat')";

#[test]
fn a_server_with_the_library_in_its_memory_goes_on_until_an_embedder_of_the_new_files_starts() {
    let copy = linked("replaced-preloaded");
    let settings = [("shared_preload_libraries", "pg_clip"), ("clip.queue_poll_interval", "1s")];
    let cluster = TestCluster::on(&copy.postgres, &settings);
    let (database, mut client) = watched_async(&cluster);
    store(&mut client, &demo_photos()[..2]);
    wait_for_the_queue(&mut client);
    let process = embedder(&mut client);

    let later = copy.install_later_release();

    // New sessions and queue workers have the library of the postmaster.
    let mut another = database.connect();
    store(&mut another, &demo_photos()[2..4]);
    wait_for_the_queue(&mut another);
    assert_eq!(embedder(&mut another), process);
    let status = "SELECT concat_ws(' ', state, version, error) FROM clip_status";
    assert_eq!(value::<String>(&mut another, status), format!("ready {TESTED}"));
    assert_needs_a_restart(&mut another, "ALTER EXTENSION pg_clip UPDATE", &later);
    let mut empty = cluster.empty_database().connect();
    run(&mut empty, "CREATE EXTENSION vector");
    assert_needs_a_restart(&mut empty, "CREATE EXTENSION pg_clip", &later);

    send(process, Signal::SIGKILL);
    let listens = format!("pg_clip: embedder {later} listens");
    wait_until("an embedder of the new files listens", PATIENCE, || cluster.log().contains(&listens));
    let message = format!("the embedder is of version {later}, the library of version {TESTED}");
    let hint = "Restart the server: files that it runs were replaced.";
    assert_refused(&mut client, CALL, &message, hint);
    let status = "SELECT concat_ws(': ', state, error) FROM clip_status";
    assert_eq!(value::<String>(&mut client, status), format!("of another version: {message}"));
    store(&mut client, &demo_photos()[4..6]);
    let told = format!("pg_clip: the queue waits for the embedder: {message}");
    wait_until("the log says why photos wait", PATIENCE, || cluster.log().contains(&told));
    let untried = "SELECT count(*) FROM clip_queue WHERE NOT claimed AND attempts = 0";
    wait_until("no attempt counts", PATIENCE, || value::<i64>(&mut client, untried) == 2);

    cluster.server.restart().expect("the server restarts");
    let mut client = database.connect();
    let message = format!("the library is of version {later}, the extension of version {TESTED}");
    assert_refused(&mut client, CALL, &message, "ALTER EXTENSION pg_clip UPDATE");
    let told = format!("pg_clip: photos wait: {message}");
    wait_until("the log says that the extension is older", PATIENCE, || cluster.log().contains(&told));
    assert_works_after_the_update(&mut client, &later);
}

#[test]
fn new_sessions_name_the_remedy_where_each_loads_the_library() {
    let copy = linked("replaced-not-preloaded");
    let cluster = TestCluster::on(&copy.postgres, &[("clip.queue_poll_interval", "1s")]);
    let (database, mut before) = watched_async(&cluster);
    store(&mut before, &demo_photos()[..2]);
    wait_for_the_queue(&mut before);
    let process = embedder(&mut before);

    let later = copy.install_later_release();

    assert_eq!(embedder(&mut before), process, "a session goes on with the library that it has loaded");
    let mut after = database.connect();
    let message = format!("the library is of version {later}, the extension of version {TESTED}");
    assert_refused(&mut after, CALL, &message, "ALTER EXTENSION pg_clip UPDATE");
    store(&mut before, &demo_photos()[2..4]);
    run(&mut after, "ALTER EXTENSION pg_clip UPDATE");

    let message = format!("the library is of version {TESTED}, the extension of version {later}");
    let hint = "ALTER EXTENSION pg_clip UPDATE. Where the extension is the newer one, install its library and restart";
    assert_refused(&mut before, CALL, &message, hint);
    let message = format!("the embedder is of version {TESTED}, the library of version {later}");
    let hint = "Restart the server: files that it runs were replaced.";
    assert_refused(&mut after, CALL, &message, hint);
    store(&mut after, &demo_photos()[4..6]);
    let told = format!("pg_clip: the queue waits for the embedder: {message}");
    wait_until("the log says why photos wait", PATIENCE, || cluster.log().contains(&told));

    cluster.server.restart().expect("the server restarts");
    assert_works_after_the_update(&mut database.connect(), &later);
}

/// A copy of the server that finds pg_clip in its folder.
fn linked(name: &str) -> ServerCopy {
    let copy = ServerCopy::of_the_tested(name);
    let [library, extension]: [PathBuf; 2] =
        ["lib", "share/extension"].map(|folder| copy.pg_clip.join(folder));
    copy.link_into_server(&library, &extension);
    copy
}

/// Updates the extension, stores two photos more, and waits until all eight are embedded.
fn assert_works_after_the_update(client: &mut Client, later: &str) {
    run(client, "ALTER EXTENSION pg_clip UPDATE");
    let version = "SELECT extversion FROM pg_extension WHERE extname = 'pg_clip'";
    assert_eq!(value::<String>(client, version), later);
    store(client, &demo_photos()[6..8]);
    wait_for_the_queue(client);
    assert_eq!(value::<i64>(client, "SELECT count(*) FROM image_embeddings"), 8);
    assert_eq!(value::<i64>(client, WRONG), 0);
    let status = "SELECT concat_ws(' ', state, version, error) FROM clip_status";
    assert_eq!(value::<String>(client, status), format!("ready {later}"));
}

#[track_caller]
fn assert_needs_a_restart(client: &mut Client, statement: &str, later: &str) {
    let message = format!(
        "the library that the server has loaded is of version {TESTED}, and this is the SQL of version {later}"
    );
    assert_refused(client, statement, &message, "Restart the server.");
}

#[track_caller]
fn assert_refused(client: &mut Client, statement: &str, message: &str, hint: &str) {
    let error = client.batch_execute(statement).expect_err(statement);
    let error: &DbError = error.as_db_error().expect("an error of the server");
    assert_eq!((error.code().code(), error.message()), ("55000", message), "{statement}");
    assert!(error.hint().is_some_and(|found| found.starts_with(hint)), "{statement}: {error:?}");
}
