//! Uploads while the disk of the database is full again and again.
//!
//! The database lies in a tablespace on a small file system. Its log lies elsewhere: a server without room for that ends, and
//! goes on where it was after its next start, which `chaos` measures.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use pg_clip_tests::{TestCluster, demo_photos, run, sqlstate, value, wait_for_the_queue, wait_until};
use postgres::Client;

use crate::reconcile::{photo, reconcile};
use crate::tally::report;

const PHOTOS: u32 = 3_000;
const ROUNDS: u32 = 3;
/// Uploads that are refused in a round before there is room again.
const REFUSED: u32 = 20;
const PATIENCE: Duration = Duration::from_secs(120);

/// `folder` is one on a file system of some 200 MB that every user may write to.
pub(crate) fn measure(folder: &Path) {
    let cluster = TestCluster::preloaded_with(&[("clip.queue_poll_interval", "5s")]);
    let mut server = cluster.existing_database("postgres").connect();
    let folder = folder.display();
    program(&mut server, &format!("rm -rf {folder}/data {folder}/filler && mkdir {folder}/data"))
        .expect("the server's user may write to the folder");
    run(&mut server, &format!("CREATE TABLESPACE small LOCATION '{folder}/data'"));
    run(&mut server, "CREATE DATABASE shop TABLESPACE small");
    let shop = cluster.existing_database("shop");
    let mut client = shop.connect();
    run(
        &mut client,
        "CREATE EXTENSION vector; CREATE EXTENSION pg_clip;
        CREATE TABLE photos (id bigint PRIMARY KEY, image bytea);
        SELECT clip_watch('photos', mode => 'async')",
    );

    let pictures = demo_photos();
    let (stored, refused, is_full) = (AtomicU32::new(0), AtomicU32::new(0), AtomicBool::new(false));
    let mut states: BTreeMap<String, u32> = BTreeMap::new();
    thread::scope(|scope| {
        let uploads = scope.spawn(|| {
            let mut states: BTreeMap<String, u32> = BTreeMap::new();
            let mut session = shop.connect();
            for number in 1..=PHOTOS {
                let bytes = photo(&pictures, number);
                loop {
                    let insert = "INSERT INTO photos VALUES ($1, $2)";
                    match session.execute(insert, &[&i64::from(number), &bytes]) {
                        Ok(_) => break,
                        Err(error) => *states.entry(sqlstate(&error).to_owned()).or_default() += 1,
                    }
                    if refused.fetch_add(1, Ordering::Relaxed) + 1 >= REFUSED {
                        wait_until("there is room", PATIENCE, || !is_full.load(Ordering::Relaxed));
                    }
                }
                stored.store(number, Ordering::Relaxed);
            }
            states
        });
        for round in 1..=ROUNDS {
            let some = PHOTOS / (ROUNDS + 1) * round;
            wait_until("photos are stored", PATIENCE, || stored.load(Ordering::Relaxed) >= some);
            refused.store(0, Ordering::Relaxed);
            is_full.store(true, Ordering::Relaxed);
            program(&mut server, &format!("cat /dev/zero > {folder}/filler")).expect_err("the disk is full");
            wait_until("uploads are refused", PATIENCE, || refused.load(Ordering::Relaxed) >= REFUSED);
            wait_until("the queue stands still", PATIENCE, || stands_still(&mut client));
            program(&mut server, &format!("rm {folder}/filler")).expect("there is room");
            is_full.store(false, Ordering::Relaxed);
        }
        states = uploads.join().expect("the uploads end");
    });
    wait_for_the_queue(&mut client);
    for (state, count) in states {
        report(&format!("uploads that were refused with {state}"), &format!("{count:9}"));
    }
    let failures: i64 = value(&mut client, "SELECT count(*) FROM clip_failures");
    report("photos that are given up", &format!("{failures:9}"));
    reconcile(&mut client, &pictures, PHOTOS);
    let log = cluster.log();
    assert!(!log.contains("PANIC") && !log.contains("was terminated by signal"), "{log}");
}

/// Runs a program of the shell as the server's user.
fn program(client: &mut Client, command: &str) -> Result<(), postgres::Error> {
    client.batch_execute(&format!("COPY (SELECT) TO PROGRAM '{command}'"))
}

/// Whether no embedding comes while jobs wait, for as long as a worker takes to try again.
fn stands_still(client: &mut Client) -> bool {
    let counts = "SELECT (SELECT count(*) FROM image_embeddings) || ' ' || (SELECT count(*) FROM clip_queue)";
    let before: String = value(client, counts);
    thread::sleep(Duration::from_secs(2));
    before == value::<String>(client, counts)
}
