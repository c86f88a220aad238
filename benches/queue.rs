//! What storing a photo costs while its table is watched in async mode, and how fast the queue embeds.

use std::time::{Duration, Instant};

use pg_clip_tests::{PATIENCE, TestCluster, demo_photos, run, value, wait_until};

use crate::tally::{median, milliseconds, report, report_times, time};

const PHOTOS: usize = 1000;

pub(crate) fn measure() {
    // As a server has it that must not lose what it has committed.
    let cluster = TestCluster::preloaded_with(&[("synchronous_commit", "on")]);
    let mut client = cluster.database().connect();
    run(
        &mut client,
        "CREATE TABLE photos (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, image bytea);
        CREATE TABLE unwatched (LIKE photos INCLUDING ALL);
        SELECT clip_watch('photos', mode => 'async');
        SELECT clip_embed_text('start')",
    );
    let photos: Vec<Vec<u8>> = demo_photos().into_iter().take(PHOTOS).collect();
    let (mut without, mut with) = (Vec::new(), Vec::new());
    let mut insert = |table: &str, photo: &Vec<u8>| -> Duration {
        let statement = format!("INSERT INTO {table} (image) VALUES ($1)");
        time(|| _ = client.execute(&statement, &[photo]).expect("a photo is stored"))
    };
    let start = Instant::now();
    for photo in &photos {
        without.push(insert("unwatched", photo));
        with.push(insert("photos", photo));
    }
    wait_until("all photos are embedded", 10 * PATIENCE, || {
        value::<i64>(&mut client, "SELECT count(*) FROM clip_queue") == 0
    });
    let rate = f64::from(u32::try_from(photos.len()).expect("a few")) / start.elapsed().as_secs_f64();
    assert_eq!(value::<i64>(&mut client, "SELECT missing FROM clip_coverage"), 0);
    report_times("INSERT of a photo, the table is not watched", &mut without);
    report_times("INSERT of a photo, the table is watched in async mode", &mut with);
    let more = milliseconds(median(&mut with)) - milliseconds(median(&mut without));
    report("the second above the first, the queue at work beside it", &format!("{more:9.2} ms"));
    report("photos of the demo through the queue", &format!("{rate:9.1} a second"));
}
