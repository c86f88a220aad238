//! `clip_stats` counts the work that was done.

use std::collections::BTreeMap;
use std::time::Duration;

use pg_clip_tests::{
    Signal, TestCluster, demo_photo, demo_photos, failure, is_alive, pixel_flood, run, send, value,
    wait_until,
};
use postgres::Client;
use serde_json::{Value, json};

const EMBED: &str = "SELECT clip_embed_image($1)";

#[test]
fn statistics_count_requests_errors_cache_hits_and_batches() {
    let cluster = TestCluster::preloaded();
    let mut client = cluster.database().connect();
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM clip_stats"), 0, "nothing was asked");

    run(
        &mut client,
        "SELECT clip_embed_text('a dog'); SELECT clip_embed_text('a dog'); SELECT clip_embed_text('A dog')",
    );
    let text = row(&mut client, "kind = 'text' AND model = 'demo' AND priority = 'interactive'");
    let counts =
        ["requests", "answers", "cache_hits", "inferences", "batches", "errors", "abandoned", "image_bytes"];
    assert_eq!(counts.map(|name| &text[name]), [3, 3, 2, 1, 1, 0, 0, 0].map(Value::from).each_ref());
    assert_eq!((&text["batch_sizes"], &text["errors_by_sqlstate"]), (&json!({ "1": 1 }), &json!({})));

    let photos = demo_photos()[..40].to_vec();
    client.query("SELECT clip_embed_images($1)", &[&photos]).expect("photos are embedded");
    assert_eq!(failure(&mut client, EMBED, &[&b"no image at all".as_slice()]), "22P03");
    assert_eq!(failure(&mut client, EMBED, &[&demo_photo()[..500].to_vec()]), "22P03");
    assert_eq!(failure(&mut client, EMBED, &[&b"%PDF-1.7\n".as_slice()]), "0A000");
    assert_eq!(failure(&mut client, EMBED, &[&pixel_flood()]), "54000");
    let image = row(&mut client, "kind = 'image' AND model = 'demo' AND priority = 'interactive'");
    let counts = ["requests", "answers", "errors", "abandoned", "inferences", "cache_hits"];
    assert_eq!(counts.map(|name| &image[name]), [44, 40, 4, 0, 40, 0].map(Value::from).each_ref());
    assert_eq!(image["errors_by_sqlstate"], json!({ "22P03": 2, "0A000": 1, "54000": 1 }));
    let sizes: BTreeMap<String, u64> =
        serde_json::from_value(image["batch_sizes"].clone()).expect("a histogram");
    assert_eq!(sizes.values().sum::<u64>(), image["batches"].as_u64().expect("a number"));
    let inputs = sizes.iter().map(|(size, runs)| size.parse::<u64>().expect("a size") * runs);
    assert_eq!(inputs.sum::<u64>(), 40);
    assert!(image["image_bytes"].as_u64() > Some(photos.iter().map(Vec::len).sum::<usize>() as u64));

    for (row, absent) in [(&text, Some("decode")), (&image, None)] {
        for part in ["wait", "decode", "inference", "total"] {
            let [p50, p95, p99] = [50, 95, 99].map(|percent| row[format!("{part}_p{percent}_ms")].as_f64());
            assert_eq!(p50.is_none(), absent == Some(part), "{part} of {row}");
            assert!(p50 <= p95 && p95 <= p99, "{part} of {row}");
        }
    }

    assert_eq!(failure(&mut client, "SELECT clip_embed_text('x', 'absent')", &[]), "22023");
    let nameless = row(&mut client, "kind = 'text' AND model IS NULL");
    assert_eq!((&nameless["requests"], &nameless["errors_by_sqlstate"]), (&json!(1), &json!({ "22023": 1 })));

    let sums = "SELECT sum(requests) FILTER (WHERE kind = 'text') = text_requests
        AND sum(requests) FILTER (WHERE kind = 'image') = image_requests AND sum(errors) = failures
        AND sum(batches) FILTER (WHERE kind = 'image') = image_batches AND peak_resident_bytes >= resident_bytes
        FROM clip_stats, clip_status
        GROUP BY text_requests, image_requests, failures, image_batches, peak_resident_bytes, resident_bytes";
    assert!(value::<bool>(&mut client, sums), "clip_status has the sums");
}

#[test]
fn statistics_begin_anew_with_the_embedder() {
    let cluster = TestCluster::preloaded();
    let mut client = cluster.database().connect();
    run(&mut client, "SELECT clip_embed_text('before')");
    let killed =
        u32::try_from(value::<i32>(&mut client, "SELECT pid FROM clip_status")).expect("a process id");
    send(killed, Signal::SIGKILL);
    wait_until("the embedder is dead", Duration::from_secs(60), || !is_alive(killed));
    run(&mut client, "SELECT clip_embed_text('after')");
    let text = row(&mut client, "kind = 'text'");
    assert_eq!((&text["requests"], &text["cache_hits"]), (&json!(1), &json!(0)));
    assert_eq!(value::<i64>(&mut client, "SELECT restarts FROM clip_status"), 1);
}

#[test]
fn every_column_of_the_statistics_is_described() {
    let cluster = TestCluster::shared();
    let mut client = cluster.database().connect();
    let undescribed = "SELECT count(*) FROM pg_attribute
        WHERE attrelid = 'clip_stats'::regclass AND col_description(attrelid, attnum) IS NULL";
    assert_eq!(value::<i64>(&mut client, undescribed), 0);
}

/// The only row of `clip_stats` where a condition holds.
#[track_caller]
fn row(client: &mut Client, condition: &str) -> Value {
    let row: String =
        value(client, &format!("SELECT to_jsonb(s)::text FROM clip_stats AS s WHERE {condition}"));
    serde_json::from_str(&row).expect("a row is JSON")
}
