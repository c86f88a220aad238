//! The queue worker holds up no session that wants its database or its tables.

use pg_clip_tests::{
    PATIENCE, Signal, TestCluster, WRONG, demo_photos, embedder, run, send, store, value, wait_for_the_queue,
    wait_until, watched_async, working_worker,
};

#[test]
fn a_database_can_be_copied_renamed_and_dropped_while_its_photos_are_embedded() {
    let cluster = TestCluster::preloaded();
    let (database, mut client) = watched_async(&cluster);
    let stopped = embedder(&mut client);
    send(stopped, Signal::SIGSTOP);
    store(&mut client, &demo_photos()[..40]);
    working_worker(&mut client);
    drop(client);
    let mut other = cluster.existing_database("postgres").connect();
    let name = database.name();
    let working = format!(
        "SELECT count(*) FROM pg_stat_activity
        WHERE backend_type = 'pg_clip queue worker' AND datname LIKE '{name}%' AND query LIKE 'embedding %'"
    );

    run(&mut other, &format!("CREATE DATABASE {name}_copy TEMPLATE {name}"));
    wait_until("the worker is back", PATIENCE, || value::<i64>(&mut other, &working) > 0);
    run(&mut other, &format!("ALTER DATABASE {name} RENAME TO {name}_renamed"));
    wait_until("the worker is back", PATIENCE, || value::<i64>(&mut other, &working) > 0);
    send(stopped, Signal::SIGCONT);
    let mut client = cluster.existing_database(&format!("{name}_renamed")).connect();
    wait_for_the_queue(&mut client);
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
    drop(client);

    // The copy has the queue of its original; its worker comes with the poll, or with its next photo.
    let mut copy = cluster.existing_database(&format!("{name}_copy")).connect();
    store(&mut copy, &demo_photos()[40..41]);
    wait_for_the_queue(&mut copy);
    assert_eq!(value::<i64>(&mut copy, WRONG), 0);
    send(embedder(&mut copy), Signal::SIGSTOP);
    store(&mut copy, &demo_photos()[50..90]);
    working_worker(&mut copy);
    drop(copy);
    run(&mut other, &format!("DROP DATABASE {name}_copy"));
    run(&mut other, &format!("DROP DATABASE {name}_renamed WITH (FORCE)"));
    assert_eq!(value::<i64>(&mut other, &working), 0);
}

#[test]
fn the_extension_and_the_tables_can_be_dropped_while_photos_are_embedded() {
    let cluster = TestCluster::preloaded();
    let (_database, mut client) = watched_async(&cluster);
    let stopped = embedder(&mut client);
    send(stopped, Signal::SIGSTOP);
    store(&mut client, &demo_photos()[..40]);
    working_worker(&mut client);
    run(&mut client, "DROP TABLE photos");
    send(stopped, Signal::SIGCONT);
    wait_for_the_queue(&mut client);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 0);

    run(
        &mut client,
        "DROP TABLE image_embeddings; CREATE TABLE photos (id int PRIMARY KEY, image bytea);
        SELECT clip_watch('photos', mode => 'async');
        CREATE SEQUENCE ids; ALTER TABLE photos ALTER id SET DEFAULT nextval('ids')",
    );
    send(stopped, Signal::SIGSTOP);
    store(&mut client, &demo_photos()[..40]);
    working_worker(&mut client);
    run(&mut client, "DROP EXTENSION pg_clip CASCADE");
    send(stopped, Signal::SIGCONT);
    wait_until("the worker has left", PATIENCE, || {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_clip queue worker'";
        value::<i64>(&mut client, query) == 0
    });
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM photos"), 40);

    // Tables of our names that are not ours are no queue.
    run(&mut client, "CREATE TABLE clip_queue (source int); CREATE TABLE clip_watches (source int)");
    run(&mut client, "DROP TABLE clip_queue, clip_watches; CREATE EXTENSION pg_clip");
    run(
        &mut client,
        "SELECT clip_watch('photos', mode => 'async'); UPDATE photos SET image = image || '\\x00'",
    );
    wait_for_the_queue(&mut client);
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
}
