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
const ROUNDS: u32 = 3;
const VECTORS: u32 = 10_000;

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

/// Fills a table with the index kept and with the index built last, in turns. The vectors are made up: the target has them already,
/// under other keys that the index leaves out, and the queue copies the vector of the same bytes.
fn compare_indexes(client: &mut Client) {
    run(
        client,
        &format!(
            "SET clip.enabled = off;
            CREATE TABLE known AS
                SELECT number AS image_id, (SELECT array_agg(random() - 0.5 + 0 * (place + number)) FROM generate_series(1, 512) AS place)::vector(512)
                    AS embedding, sha256(number::text::bytea) AS checksum,
                    (SELECT model FROM image_embeddings LIMIT 1) AS model
                FROM generate_series(1, {VECTORS}) AS number;
            TRUNCATE photos;
            INSERT INTO photos (id, image) OVERRIDING SYSTEM VALUE
                SELECT number, ((number - 1) % {VECTORS} + 1)::text::bytea FROM generate_series(1, 2 * {VECTORS}) AS number;
            DROP INDEX image_embeddings_embedding_idx;
            CREATE INDEX ON image_embeddings USING hnsw (embedding vector_cosine_ops) WHERE image_id > {VECTORS}"
        ),
    );
    run(client, "VACUUM ANALYZE photos");
    let ways = ["CALL clip_backfill('photos')", "CALL clip_backfill('photos', index_last => true)"];
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (call, times) in ways.iter().zip(&mut times) {
            run(
                client,
                "TRUNCATE image_embeddings; INSERT INTO image_embeddings (image_id, embedding, checksum, model) TABLE known",
            );
            run(client, "VACUUM ANALYZE image_embeddings");
            times.push(time(|| run(client, call)));
            assert_eq!(value::<i64>(client, "SELECT count(*) FROM image_embeddings"), 2 * i64::from(VECTORS));
        }
    }
    let [kept, last] = times.each_mut().map(|times| median(times));
    for (way, time) in [("kept", kept), ("last", last)] {
        report_rate(&format!("made-up vectors by clip_backfill, index {way}"), VECTORS as usize, time);
    }
    let share = last.as_secs_f64() / kept.as_secs_f64();
    report("time with the index last, of that with it kept", &format!("{share:.2} (medians of {ROUNDS})"));
}

fn print_coverage(client: &mut Client, when: &str) {
    let row = "SELECT concat_ws(', ', 'photos ' || photos, 'embedded ' || embedded, 'missing ' || missing, 'stale ' || stale,
            'queued ' || queued, 'failed ' || failed, 'oldest waiting ' || date_trunc('milliseconds', now() - oldest_waiting))
        FROM clip_coverage";
    report(&format!("clip_coverage {when}"), &value::<String>(client, row));
}
