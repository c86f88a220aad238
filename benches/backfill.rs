//! The counts of `clip_coverage` before, during and after photos of a table get their embeddings.

use std::thread;
use std::time::Instant;

use pg_clip_tests::{
    PATIENCE, TestCluster, WRONG, demo_photos, run, store, value, variant, wait_until, watched_async,
};
use postgres::Client;

use crate::tally::{median, report, report_rate, time};

const PHOTOS: u32 = 1000;
/// When the view is read: after so many photos.
const LOOKS: [i64; 2] = [300, 700];
/// How often the table is filled with the index kept and with the index last.
const ROUNDS: u32 = 5;

pub(crate) fn measure() {
    let cluster = TestCluster::preloaded();
    let (database, mut client) = watched_async(&cluster);
    let pictures = demo_photos();
    let photos: Vec<Vec<u8>> =
        (0..PHOTOS).map(|number| variant(&pictures[number as usize % pictures.len()], number)).collect();
    run(&mut client, "SET clip.enabled = off");
    for share in photos.chunks(50) {
        store(&mut client, share);
    }
    print_coverage(&mut client, "before clip_backfill");
    let start = Instant::now();
    thread::scope(|scope| {
        let call = scope.spawn(|| run(&mut database.connect(), "CALL clip_backfill('photos')"));
        for look in LOOKS {
            wait_until("so many are embedded", PATIENCE, || {
                value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings") >= look
            });
            print_coverage(&mut client, "during clip_backfill");
        }
        call.join().expect("the backfill ends");
    });
    let took = start.elapsed();
    print_coverage(&mut client, "after clip_backfill");
    report_rate("photos by clip_backfill", photos.len(), took);
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
    compare_indexes(&mut client);
}

/// Fills the table with the index kept and with the index built last, in turns.
fn compare_indexes(client: &mut Client) {
    let ways = [
        ("kept", "CALL clip_backfill('photos')"),
        ("last", "CALL clip_backfill('photos', index_last => true)"),
    ];
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for ((_, call), times) in ways.iter().zip(&mut times) {
            run(client, "TRUNCATE image_embeddings");
            times.push(time(|| run(client, call)));
        }
    }
    let [kept, last] = times.each_mut().map(|times| median(times));
    for ((way, _), time) in ways.iter().zip([kept, last]) {
        report_rate(&format!("photos by clip_backfill, index {way}"), PHOTOS as usize, time);
    }
    report(
        "time with the index last, of that with it kept",
        &format!("{:.2}", last.as_secs_f64() / kept.as_secs_f64()),
    );
    assert_eq!(value::<i64>(client, WRONG), 0);
}

fn print_coverage(client: &mut Client, when: &str) {
    let row = "SELECT concat_ws(', ', 'photos ' || photos, 'embedded ' || embedded, 'missing ' || missing, 'stale ' || stale,
            'queued ' || queued, 'failed ' || failed, 'oldest waiting ' || date_trunc('milliseconds', now() - oldest_waiting))
        FROM clip_coverage";
    report(&format!("clip_coverage {when}"), &value::<String>(client, row));
}
