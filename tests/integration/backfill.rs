//! Photos that have no embedding get one, whatever goes on beside.

use std::sync::atomic::{AtomicBool, Ordering};

use pg_clip_tests::{
    PATIENCE, Signal, StopOnDrop, TestCluster, TestDatabase, WRONG, demo_jpegs, failure, run, send, store,
    value, variant, wait_for, wait_until, watched,
};
use postgres::Client;

/// A watched table with so many photos that came while embedding was off, each with bytes of its own.
fn unfilled(cluster: &TestCluster, mode: &str, count: u32) -> (TestDatabase, Client) {
    let (database, mut client) = watched(cluster, mode);
    run(&mut client, "SET clip.enabled = off");
    let jpegs = demo_jpegs();
    let photos: Vec<Vec<u8>> =
        (0..count).map(|number| variant(&jpegs[number as usize % jpegs.len()], number)).collect();
    store(&mut client, &photos);
    run(&mut client, "INSERT INTO photos (image) VALUES (NULL); RESET clip.enabled");
    (database, client)
}

fn embedded(client: &mut Client) -> i64 {
    value(client, "SELECT count(*) FROM image_embeddings")
}

#[test]
fn two_thousand_photos_are_filled_in_under_traffic_kills_and_poison() {
    let cluster = TestCluster::preloaded();
    let (database, mut client) = unfilled(&cluster, "async", 2000);
    run(&mut client, "SET clip.enabled = off");
    store(&mut client, &[b"poison".to_vec(), b"more poison".to_vec()]);
    run(&mut client, "RESET clip.enabled");
    let (stop, oldest) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        let traffic = scope.spawn(|| {
            let mut client = database.connect();
            let jpegs = demo_jpegs();
            for number in 10_000.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                store(&mut client, &[variant(&jpegs[number as usize % 7], number)]);
                run(&mut client, &format!("DELETE FROM photos WHERE id = {}", number - 9_000));
                // Photo by photo: the queue is to be shared, not filled.
                run(&mut client, "SELECT pg_sleep(0.05)");
            }
        });
        for signal in [Signal::SIGINT, Signal::SIGTERM] {
            let mut filling = database.connect();
            let pid: i32 = value(&mut filling, "SELECT pg_backend_pid()");
            let before = embedded(&mut client);
            let call = scope.spawn(move || filling.batch_execute("CALL clip_backfill('photos')"));
            wait_until("some are filled in", PATIENCE, || embedded(&mut client) > before + 100);
            let progress = "SELECT done BETWEEN 1 AND total AND rate > 0 AND eta > now() FROM clip_backfills";
            assert!(value::<bool>(&mut client, progress));
            // No job waits behind more than a few batches, and no transaction of the call's lasts.
            assert!(value::<i64>(&mut client, "SELECT count(*) FROM clip_queue WHERE NOT dead") < 500);
            let age = format!(
                "SELECT coalesce(max(clock_timestamp() - xact_start) > '5 seconds', false) FROM pg_stat_activity
                WHERE pid = {pid}"
            );
            oldest.fetch_or(value::<bool>(&mut client, &age), Ordering::Relaxed);
            send(u32::try_from(pid).expect("a pid"), signal);
            call.join().expect("the call ends").expect_err("the call was cut short");
            wait_until("the call is no longer listed", PATIENCE, || {
                value::<i64>(&mut client, "SELECT count(*) FROM clip_backfills") == 0
            });
        }
        let twice = [(); 2].map(|()| {
            let mut filling = database.connect();
            scope.spawn(move || filling.batch_execute("CALL clip_backfill('photos')"))
        });
        for call in twice {
            call.join().expect("the call ends").expect("it fills all in");
        }
        stop.store(true, Ordering::Relaxed);
        traffic.join().expect("the traffic");
    });
    assert!(!oldest.load(Ordering::Relaxed), "a transaction is not open for longer than a batch");
    wait_until("the last live photos are embedded", PATIENCE, || {
        value::<i64>(&mut client, "SELECT count(*) FROM clip_queue WHERE NOT dead") == 0
    });
    let unembedded = "SELECT count(*) FROM photos LEFT JOIN image_embeddings ON image_id = photos.id
        WHERE image IS NOT NULL AND image_id IS NULL";
    assert_eq!(value::<i64>(&mut client, unembedded), 2, "the poison");
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM clip_failures"), 2);
    run(&mut client, "DELETE FROM photos WHERE octet_length(image) < 100 OR image IS NULL");
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
}

#[test]
fn a_table_in_sync_mode_is_filled_in_and_verified() {
    let cluster = TestCluster::preloaded();
    let (database, mut client) = unfilled(&cluster, "sync", 40);
    run(&mut client, "CALL clip_backfill('photos')");
    run(&mut client, "DELETE FROM photos WHERE image IS NULL");
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
    let jobs = "SELECT count(*) FROM clip_queue";
    assert_eq!(value::<i64>(&mut client, jobs), 0);
    // Bytes that changed without a trigger are found by reading them.
    run(
        &mut client,
        "ALTER TABLE photos DISABLE TRIGGER ALL; UPDATE photos SET image = image || '\\x01' WHERE id <= 3;
        ALTER TABLE photos ENABLE TRIGGER ALL",
    );
    run(&mut client, "CALL clip_backfill('photos')");
    let outdated = "SELECT count(*) FROM photos JOIN image_embeddings ON image_id = photos.id
        WHERE checksum <> sha256(image)";
    assert_eq!(value::<i64>(&mut client, outdated), 3);
    run(&mut client, "CALL clip_backfill('photos', verify => true)");
    assert_eq!(value::<i64>(&mut client, outdated), 0);

    run(
        &mut client,
        "CREATE ROLE stranger LOGIN; GRANT ALL ON photos TO stranger; CREATE TABLE others (id int PRIMARY KEY)",
    );
    let mut stranger = database.connect_as("stranger");
    for refused in
        ["CALL clip_backfill('photos')", "SELECT clip_verify('photos')", "SELECT * FROM clip_backfill_notes"]
    {
        assert_eq!(failure(&mut stranger, refused, &[]), "42501", "{refused}");
    }
    assert_eq!(value::<i64>(&mut stranger, "SELECT count(*) FROM clip_backfills"), 0);
    drop(stranger);
    assert_eq!(failure(&mut client, "CALL clip_backfill('others')", &[]), "55000");
    assert_eq!(failure(&mut client, "CALL clip_backfill(NULL)", &[]), "22004");
    run(&mut client, "DROP OWNED BY stranger; DROP ROLE stranger");
}

#[test]
fn a_killed_backend_loses_nothing() {
    // Or the crash would take what was committed just before.
    let cluster = TestCluster::preloaded_with(&[("synchronous_commit", "on")]);
    let (database, mut client) = unfilled(&cluster, "async", 300);
    let mut filling = database.connect();
    let pid: i32 = value(&mut filling, "SELECT pg_backend_pid()");
    std::thread::scope(|scope| {
        let call = scope.spawn(move || filling.batch_execute("CALL clip_backfill('photos')"));
        wait_until("some are filled in", PATIENCE, || embedded(&mut client) > 20);
        send(u32::try_from(pid).expect("a pid"), Signal::SIGKILL);
        call.join().expect("the call ends").expect_err("its backend is gone");
    });
    wait_until("all connections are gone", PATIENCE, || client.is_valid(PATIENCE).is_err());
    let mut client = wait_for("the server takes connections", PATIENCE, || database.try_connect().ok());
    run(&mut client, "CALL clip_backfill('photos')");
    run(&mut client, "DELETE FROM photos WHERE image IS NULL");
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
    assert_eq!(embedded(&mut client), 300);
}
