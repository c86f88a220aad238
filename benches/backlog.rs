//! What a search costs while other sessions embed photos.

use std::thread;
use std::time::Duration;

use pg_clip_tests::{TestCluster, TestDatabase, demo_photos, run};

use crate::tally::{percentile, report, report_times_at, time};

/// Enough for a 95th percentile.
const SEARCHES: usize = 300;
const PHOTOS: usize = 1000;
const SESSIONS: usize = 4;
/// How many photos a session sends in one call.
const BATCH: usize = 25;

pub(crate) fn measure() {
    let cluster = TestCluster::preloaded();
    let database = cluster.database();
    run(
        &mut database.connect(),
        "CREATE TABLE image_embeddings (image_id int PRIMARY KEY, embedding vector(512));
        INSERT INTO image_embeddings
        SELECT i, ARRAY(SELECT sin(i * 7 + j * (i % 31 + 1)) FROM generate_series(1, 512) AS j)::vector
        FROM generate_series(1, 2000) AS i;
        CREATE INDEX ON image_embeddings USING hnsw (embedding vector_cosine_ops)",
    );
    let photos: Vec<Vec<u8>> = demo_photos().into_iter().cycle().take(PHOTOS).collect();
    let mut alone = search(&database, "alone", |searches| searches < SEARCHES);
    let mut beside = thread::scope(|scope| {
        let sessions: Vec<_> = photos
            .chunks(PHOTOS / SESSIONS)
            .map(|share| {
                let mut client = database.connect();
                scope.spawn(move || {
                    for batch in share.chunks(BATCH) {
                        client.query("SELECT clip_embed_images($1)", &[&batch]).expect("photos are embedded");
                    }
                })
            })
            .collect();
        search(&database, "beside", |_| !sessions.iter().all(thread::ScopedJoinHandle::is_finished))
    });
    report_times_at(95, "search by a new text", &mut alone);
    report_times_at(95, "search by a new text, while 4 sessions embed 1,000 photos", &mut beside);
    let ratio = percentile(95, &mut beside).as_secs_f64() / percentile(95, &mut alone).as_secs_f64();
    report("the second against the first", &format!("{ratio:9.2} times as long"));
}

/// Searches, each time by a text that was not embedded before, as long as there is `more` to do.
fn search(database: &TestDatabase, word: &str, more: impl Fn(usize) -> bool) -> Vec<Duration> {
    let mut client = database.connect();
    run(&mut client, "SELECT clip_embed_text('start')");
    let mut times = Vec::new();
    while more(times.len()) {
        let number = times.len();
        let search = format!(
            "SELECT image_id FROM image_embeddings
            ORDER BY embedding <=> clip_embed_text('{word} {number} dogs') LIMIT 10"
        );
        times.push(time(|| run(&mut client, &search)));
    }
    times
}
