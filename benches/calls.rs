//! Single calls, first calls and batches.

use std::time::Duration;

use pg_clip_tests::{TestCluster, demo_photos, run, value};

use crate::tally::{median, milliseconds, report, report_times, time};

pub(crate) fn measure() {
    let cluster = TestCluster::preloaded();
    let database = cluster.database();
    let mut client = database.connect();
    let photos = &demo_photos()[..200];
    run(&mut client, "SELECT clip_embed_text('a dog')");

    let mut empty: Vec<Duration> = (0..200).map(|_| time(|| run(&mut client, "SELECT 1"))).collect();
    report_times("SELECT 1", &mut empty);
    let mut cached: Vec<Duration> =
        (0..200).map(|_| time(|| run(&mut client, "SELECT clip_embed_text('a dog')"))).collect();
    report_times("clip_embed_text, a text that was embedded before", &mut cached);
    let mut texts: Vec<Duration> = (0..200)
        .map(|number| {
            time(|| run(&mut client, &format!("SELECT clip_embed_text('a photo of {number} dogs')")))
        })
        .collect();
    report_times("clip_embed_text, a new text", &mut texts);
    let mut images: Vec<Duration> = photos
        .iter()
        .map(|photo| {
            time(|| _ = client.query("SELECT clip_embed_image($1)", &[photo]).expect("a photo is embedded"))
        })
        .collect();
    report_times("clip_embed_image, a photo of the demo", &mut images);

    let one_by_one: Duration = images.iter().sum();
    let batch = time(|| {
        client.query("SELECT clip_embed_images($1)", &[&photos]).expect("photos are embedded");
    });
    let ratio = one_by_one.as_secs_f64() / batch.as_secs_f64();
    report("200 photos in one clip_embed_images, against 200 calls", &format!("{ratio:9.2} times as fast"));

    let (mut first, mut second) = (Vec::new(), Vec::new());
    for _ in 0..50 {
        let mut fresh = database.connect();
        first.push(time(|| run(&mut fresh, "SELECT clip_embed_text('a dog')")));
        second.push(time(|| run(&mut fresh, "SELECT clip_embed_text('a dog')")));
    }
    let more = milliseconds(median(&mut first)) - milliseconds(median(&mut second));
    report(
        "the first call of a connection takes more than its second",
        &format!("{more:9.2} ms (medians of 50)"),
    );

    run(
        &mut client,
        "CREATE TABLE image_embeddings (image_id int PRIMARY KEY, embedding vector(512));
        INSERT INTO image_embeddings
        SELECT i, ARRAY(SELECT sin(i * 7 + j * (i % 31 + 1)) FROM generate_series(1, 512) AS j)::vector
        FROM generate_series(1, 10000) AS i",
    );
    let before: i64 = value(&mut client, "SELECT text_inferences FROM clip_status");
    let search = time(|| {
        run(
            &mut client,
            "SELECT image_id FROM image_embeddings ORDER BY embedding <=> clip_embed_text('pizza') LIMIT 10",
        );
    });
    let inferences: i64 = value::<i64>(&mut client, "SELECT text_inferences FROM clip_status") - before;
    let search = milliseconds(search);
    report("search of 10,000 rows without an index", &format!("{search:9.2} ms, {inferences} inference"));
}
