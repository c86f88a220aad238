//! How fast the queue works photos off: photos whose bytes are embedded already, which need no inference, and new
//! ones, beside the same number in calls of `clip_embed_images`. The processor time is counted apart from the time
//! that it takes.

use std::fs;
use std::time::{Duration, Instant};

use pg_clip_tests::{
    PATIENCE, TestCluster, demo_photos, run, value, wait_for, wait_for_the_queue, wait_until, watched,
    watched_async,
};
use postgres::Client;

use crate::reconcile::photo;
use crate::tally::{median, milliseconds, report, report_rate, time};

const KNOWN: i32 = 8000;
const NEW: u32 = 640;
const ROUNDS: u32 = 5;
const IMAGES_A_CALL: u32 = 320;
const INSERTS: u32 = 2000;

pub(crate) fn measure() {
    let cluster = TestCluster::preloaded();
    known_bytes(&cluster);
    inserts(&cluster);
    new_photos(&cluster);
}

/// Photos whose vectors are copied. Without the index on the vectors, whose maintenance is pgvector's.
fn known_bytes(cluster: &TestCluster) {
    let pictures = demo_photos();
    for mode in ["sync", "async"] {
        let (_database, mut client) = watched(cluster, mode);
        run(
            &mut client,
            "DO $$ BEGIN EXECUTE (SELECT string_agg(format('DROP INDEX %s', indexrelid::regclass), '; ')
                FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_am ON pg_am.oid = relam
                WHERE indrelid = 'image_embeddings'::regclass AND amname = 'hnsw'); END $$",
        );
        client
            .execute("INSERT INTO photos (image) SELECT unnest($1::bytea[])", &[&pictures])
            .expect("photos are stored");
        wait_for_the_queue(&mut client);
        run(&mut client, "CREATE TABLE copies AS SELECT image FROM photos");
        let again = format!(
            "INSERT INTO photos (image) SELECT image FROM copies, generate_series(1, {}) AS round",
            KNOWN.unsigned_abs().div_ceil(u32::try_from(pictures.len()).expect("a few"))
        );
        let before: i64 = value(&mut client, "SELECT count(*) FROM photos");
        run(&mut client, "BEGIN");
        let backend = Processor::of(value(&mut client, "SELECT pg_backend_pid()"));
        let stored = time(|| run(&mut client, &again));
        let of_statement = backend.used();
        run(&mut client, "COMMIT");
        let start = Instant::now();
        let count: i64 = value::<i64>(&mut client, "SELECT count(*) FROM photos") - before;
        let count = usize::try_from(count).expect("some");
        if mode == "sync" {
            report_rate("photos whose bytes are known, in sync mode", count, stored);
            report_each("  the backend, of a processor", count, of_statement);
        } else {
            let query =
                "SELECT pid FROM clip_workers WHERE worker LIKE '%worker' AND database = current_database()";
            let pid = wait_for("the worker works", PATIENCE, || {
                client.query_opt(query, &[]).expect("a query").map(|row| row.get(0))
            });
            let worker = Processor::of(pid);
            let left: i64 = value(&mut client, "SELECT count(*) FROM clip_queue");
            wait_until("the copies are embedded", PATIENCE, || {
                value(&mut client, "SELECT NOT EXISTS (SELECT FROM clip_queue)")
            });
            let left = usize::try_from(left).expect("some");
            report_rate("photos whose bytes are known, through the queue", count, start.elapsed());
            report_each("  its worker, of a processor", left, worker.used());
        }
        let embedded: i64 = value(&mut client, "SELECT count(*) FROM image_embeddings");
        assert_eq!(embedded, value::<i64>(&mut client, "SELECT count(*) FROM photos"));
    }
}

/// Statements that store one photo each.
fn inserts(cluster: &TestCluster) {
    let (_database, mut client) = watched_async(cluster);
    run(&mut client, "CREATE TABLE unwatched (LIKE photos INCLUDING ALL)");
    let picture = &demo_photos()[0];
    let [mut without, mut with] = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (table, used) in [("unwatched", &mut without), ("photos", &mut with)] {
            let insert =
                client.prepare(&format!("INSERT INTO {table} (image) VALUES ($1)")).expect("an INSERT");
            let backend = Processor::of(value(&mut client, "SELECT pg_backend_pid()"));
            for _ in 0..INSERTS {
                client.execute(&insert, &[picture]).expect("a photo is stored");
            }
            used.push(backend.used() / INSERTS);
        }
        wait_for_the_queue(&mut client);
    }
    for (what, used) in [("not watched", &mut without), ("watched in async mode", &mut with)] {
        let used = milliseconds(median(used));
        report(
            &format!("INSERT of one photo, {what}: the backend, of a processor"),
            &format!("{used:9.3} ms"),
        );
    }
}

/// Photos that no vector is known of, by the queue and by calls, in turns.
fn new_photos(cluster: &TestCluster) {
    let (_database, mut client) = watched_async(cluster);
    let pictures = demo_photos();
    run(&mut client, "CREATE TABLE staged (number serial, image bytea)");
    let stage = |client: &mut Client, first: u32| {
        run(client, "TRUNCATE staged RESTART IDENTITY");
        let photos: Vec<Vec<u8>> = (first..first + NEW).map(|number| photo(&pictures, number)).collect();
        client.execute("INSERT INTO staged (image) SELECT unnest($1::bytea[])", &[&photos]).expect("photos");
    };
    let (mut by_calls, mut by_queue, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    // The first round warms up.
    for round in 0..=ROUNDS {
        stage(&mut client, 1 + 2 * round * NEW);
        let calls = time(|| {
            for call in 0..NEW / IMAGES_A_CALL {
                let first = 1 + call * IMAGES_A_CALL;
                let last = first + IMAGES_A_CALL - 1;
                run(
                    &mut client,
                    &format!(
                        "SELECT clip_embed_images(ARRAY(
                            SELECT image FROM staged WHERE number BETWEEN {first} AND {last}))"
                    ),
                );
            }
        });
        stage(&mut client, 1 + (2 * round + 1) * NEW);
        run(&mut client, "INSERT INTO photos (image) SELECT image FROM staged");
        let start = Instant::now();
        wait_until("the photos are embedded", PATIENCE, || {
            value(&mut client, "SELECT NOT EXISTS (SELECT FROM clip_queue)")
        });
        let queue = start.elapsed();
        if round > 0 {
            by_calls.push(calls);
            by_queue.push(queue);
            ratios.push(1000 * calls.as_micros() / queue.as_micros());
        }
    }
    report_rate(
        &format!("new photos, by calls of clip_embed_images of {IMAGES_A_CALL}"),
        NEW as usize,
        median(&mut by_calls),
    );
    report_rate("new photos, through the queue", NEW as usize, median(&mut by_queue));
    let ratio = median(&mut ratios);
    report("  the second in thousandths of the first, the median of the rounds", &format!("{ratio:9}"));
}

/// A process of this machine, and the processor time that it had used.
struct Processor {
    path: String,
    before: Duration,
}

impl Processor {
    fn of(pid: i32) -> Processor {
        let path = format!("/proc/{pid}/schedstat");
        let before = on_processor(&path);
        Processor { path, before }
    }

    fn used(&self) -> Duration {
        on_processor(&self.path) - self.before
    }
}

/// How long a process has run on a processor.
fn on_processor(path: &str) -> Duration {
    let text = fs::read_to_string(path).expect("the statistics of a process");
    Duration::from_nanos(
        text.split_whitespace().next().and_then(|first| first.parse().ok()).expect("a number"),
    )
}

fn report_each(what: &str, count: usize, used: Duration) {
    let count = u32::try_from(count).expect("a few");
    report(what, &format!("{:9.3} ms a photo", milliseconds(used / count.max(1))));
}
