//! A process that dies while photos are embedded: no photo is lost, and no vector is left without its photo.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pg_clip_tests::{
    PATIENCE, Signal, Stop, TestCluster, WRONG, demo_photos, embedder, is_alive, run, send, store, value,
    wait_for_the_queue, wait_until, watched_async, working_worker,
};

#[test]
fn a_killed_embedder_costs_no_photo_and_no_attempt() {
    let cluster = TestCluster::preloaded();
    let (_database, mut client) = watched_async(&cluster);
    let stopped = embedder(&mut client);
    send(stopped, Signal::SIGSTOP);
    store(&mut client, &demo_photos()[..60]);
    working_worker(&mut client);
    send(stopped, Signal::SIGKILL);
    wait_for_the_queue(&mut client);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM clip_failures"), 0);
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
}

#[test]
fn a_worker_that_is_terminated_or_cancelled_comes_back() {
    let cluster = TestCluster::preloaded();
    let (_database, mut client) = watched_async(&cluster);
    let photos = demo_photos();
    for (number, end) in ["pg_terminate_backend", "pg_cancel_backend"].into_iter().enumerate() {
        let stopped = embedder(&mut client);
        send(stopped, Signal::SIGSTOP);
        store(&mut client, &photos[40 * number..40 * (number + 1)]);
        let worker = working_worker(&mut client);
        run(&mut client, &format!("SELECT {end}({worker})"));
        wait_until("the worker is gone", PATIENCE, || !is_alive(worker));
        send(stopped, Signal::SIGCONT);
        wait_for_the_queue(&mut client);
        assert_eq!(value::<i64>(&mut client, WRONG), 0);
    }
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM clip_failures"), 0);
    assert!(!cluster.log().contains("reinitializing"), "{}", cluster.log());
}

#[test]
fn deaths_at_any_moment_cost_no_photo() {
    let cluster = TestCluster::preloaded();
    let (database, mut client) = watched_async(&cluster);
    let photos = demo_photos();
    let stored = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for share in photos[..320].chunks(80) {
            let (mut client, stored) = (database.connect(), &stored);
            scope.spawn(move || {
                for photo in share {
                    store(&mut client, std::slice::from_ref(photo));
                    stored.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for round in 0..12 {
            wait_until("the load goes on", PATIENCE, || stored.load(Ordering::Relaxed) >= 24 * round);
            let end = match round % 3 {
                0 => "SELECT pg_terminate_backend(pid) FROM clip_workers WHERE worker LIKE '%worker'",
                1 => "SELECT pg_cancel_backend(pid) FROM clip_workers WHERE worker LIKE '%worker'",
                _ => {
                    send(embedder(&mut client), Signal::SIGKILL);
                    continue;
                }
            };
            run(&mut client, end);
        }
    });
    wait_for_the_queue(&mut client);
    let failures = "SELECT concat_ws(' ', count(*), max(sqlstate), max(message)) FROM clip_failures";
    assert_eq!(value::<String>(&mut client, failures), "0");
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 320);
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
    assert!(!cluster.log().contains("reinitializing"), "{}", cluster.log());
}

#[test]
fn a_launcher_that_is_terminated_comes_back() {
    let cluster = TestCluster::preloaded();
    let (_database, mut client) = watched_async(&cluster);
    let launcher = "SELECT pid FROM clip_workers WHERE worker = 'pg_clip queue launcher'";
    let first: i32 = value(&mut client, launcher);
    run(&mut client, &format!("SELECT pg_terminate_backend({first})"));
    store(&mut client, &demo_photos()[..3]);
    wait_for_the_queue(&mut client);
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
    wait_until("there is one launcher", PATIENCE, || {
        client.query(launcher, &[]).expect("a query").len() == 1
    });
}

#[test]
fn a_killed_worker_or_backend_restarts_the_server_and_the_queue_goes_on() {
    // Otherwise the crash would take the clients' commits.
    let cluster = TestCluster::preloaded_with(&[("synchronous_commit", "on")]);
    let (database, mut client) = watched_async(&cluster);
    store(&mut client, &demo_photos()[..1]);
    wait_for_the_queue(&mut client);
    let stopped = embedder(&mut client);
    send(stopped, Signal::SIGSTOP);
    store(&mut client, &demo_photos()[..100]);
    let worker = working_worker(&mut client);
    // PostgreSQL restarts when one of its own processes is killed. Here only this test does that.
    send(worker, Signal::SIGKILL);
    wait_until("the server has restarted", PATIENCE, || {
        cluster.log().contains("reinitializing")
            && database.try_connect().is_ok_and(|mut client| client.batch_execute("SELECT 1").is_ok())
    });
    let mut client = database.connect();
    wait_for_the_queue(&mut client);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 101);
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
}

#[test]
fn a_fast_stop_in_the_middle_of_a_batch_costs_no_photo_and_no_time() {
    let cluster = TestCluster::preloaded();
    let (database, mut client) = watched_async(&cluster);
    let stopped = embedder(&mut client);
    send(stopped, Signal::SIGSTOP);
    store(&mut client, &demo_photos()[..60]);
    working_worker(&mut client);
    drop(client);
    let start = Instant::now();
    cluster.server.stop(Stop::Fast).expect("the server stops");
    // Long before the answers would have been given up.
    assert!(start.elapsed() < Duration::from_secs(15), "stopped within {:?}", start.elapsed());
    assert!(!is_alive(stopped), "the embedder went along");
    cluster.server.start().expect("the server starts");
    let mut client = database.connect();
    run(&mut client, "SET lock_timeout = '60s'; UPDATE photos SET project = 'p'");
    wait_for_the_queue(&mut client);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings WHERE project = 'p'"), 60);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM clip_failures"), 0);
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
}

#[test]
fn a_backlog_is_embedded_after_a_restart_without_a_client() {
    let cluster = TestCluster::preloaded();
    let (database, mut client) = watched_async(&cluster);
    let stopped = embedder(&mut client);
    send(stopped, Signal::SIGSTOP);
    store(&mut client, &demo_photos()[..100]);
    working_worker(&mut client);
    drop(client);
    cluster.server.restart().expect("the server restarts");
    let statistics = cluster.existing_database("postgres");
    let mut observer = statistics.connect();
    let name = database.name();
    let worker = format!("SELECT count(*) FROM clip_workers_seen WHERE database = '{name}'");
    run(
        &mut observer,
        "CREATE VIEW clip_workers_seen AS SELECT datname AS database FROM pg_stat_activity
        WHERE backend_type = 'pg_clip queue worker'",
    );
    wait_until("a worker starts by itself", PATIENCE, || value::<i64>(&mut observer, &worker) > 0);
    wait_until("and leaves when it is done", PATIENCE, || value::<i64>(&mut observer, &worker) == 0);
    let mut client = database.connect();
    wait_for_the_queue(&mut client);
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
}
