//! A server whose background worker slots are all taken.

use pg_clip_tests::{
    PATIENCE, TestCluster, WRONG, demo_photo, store, value, wait_for_the_queue, wait_until, watched_async,
};

#[test]
fn clip_workers_tells_that_no_worker_slot_is_free() {
    // The supervisor, the queue launcher and PostgreSQL's launcher of logical replication take one each.
    let cluster = TestCluster::preloaded_with(&[("max_worker_processes", "3")]);
    let (database, mut client) = watched_async(&cluster);
    store(&mut client, &[demo_photo()]);
    let activity = "SELECT activity FROM clip_workers WHERE worker = 'pg_clip queue launcher'";
    let reason = "no background worker slot is free for pg_clip's queue worker";
    wait_until("the view says why photos wait", PATIENCE, || {
        value::<String>(&mut client, activity) == format!("photos wait: {reason}")
    });
    let lines = || cluster.log().matches(&format!("LOG:  pg_clip: {reason}")).count();
    assert_eq!(lines(), 1, "{}", cluster.log());
    let workers = "SELECT count(*) FROM clip_workers WHERE worker = 'pg_clip queue worker'";
    assert_eq!(value::<i64>(&mut client, workers), 0);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 0);
    drop(client);

    let settings = [("shared_preload_libraries", "pg_clip"), ("max_worker_processes", "8")];
    cluster.server.configure(&settings).expect("the settings are written");
    cluster.server.restart().expect("the server restarts");
    let mut client = database.connect();
    wait_for_the_queue(&mut client);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 1);
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
    assert_eq!(value::<String>(&mut client, activity), "");
    assert_eq!(lines(), 1, "{}", cluster.log());
}
