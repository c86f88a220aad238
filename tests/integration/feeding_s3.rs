//! Photos in an S3-compatible store: the outcome of missing, forbidden and broken ones, and the requests to the
//! store.

use pg_clip_tests::{
    S3Server, TestCluster, demo_photos, drain, feeder, refer, run, value, watched_by_reference,
};

#[test]
fn photos_in_s3_are_fed_and_failures_have_their_reasons() {
    let cluster = TestCluster::preloaded();
    let (database, mut client) = watched_by_reference(&cluster);
    let s3 = S3Server::start();
    s3.make_bucket("photos");
    s3.make_bucket("other");
    s3.store("other", "x", b"not yours");
    s3.store("photos", "secret.jpg", b"not below the prefix");
    let photos = &demo_photos()[..40];
    let mut keys = Vec::new();
    let mut name = |kind: &str, number: usize| {
        keys.push(format!("{kind}/{number}.jpg"));
        keys[keys.len() - 1].clone()
    };
    for (number, photo) in photos.iter().enumerate() {
        s3.store("photos", &format!("shop/{}", name("good", number)), photo);
    }
    for (number, photo) in photos.iter().take(6).enumerate() {
        s3.store("photos", &format!("shop/{}", name("private", number)), photo);
        s3.store("photos", &format!("shop/{}", name("broken", number)), &photo[..100]);
        name("missing", number);
    }
    s3.forbid("photos", "shop/private/");
    let hostile = [
        "../secret.jpg",
        "/secret.jpg",
        "http://127.0.0.1/",
        "s3://other/x",
        "a/../../secret.jpg",
        &"k".repeat(2000),
    ];
    keys.extend(hostile.map(str::to_owned));
    refer(&mut client, &keys);

    let mut feeder = feeder(&cluster, &database, "s3://photos/shop/");
    let said = drain(feeder.envs(s3.environment()));
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 40, "{said}");
    let failures = "SELECT string_agg(line, E'\n') FROM (
        SELECT concat_ws(' ', split_part(storage_path, '/', 1), sqlstate, count(*), min(message)) AS line
        FROM clip_failures JOIN photos ON id::text = key WHERE dead AND storage_path ~ '^(private|broken|missing)/'
        GROUP BY split_part(storage_path, '/', 1), sqlstate ORDER BY 1) AS lines";
    let failures: String = value(&mut client, failures);
    let lines: Vec<&str> = failures.lines().collect();
    assert!(lines[0].starts_with("broken 22P03 6 "), "{failures}");
    assert_eq!(lines[1], "missing 58P01 6 the store has no object \"missing/0.jpg\"");
    assert_eq!(
        lines[2],
        "private 42501 6 the store does not give \"private/0.jpg\" to the feeder (403 Forbidden)"
    );
    let refused = "SELECT count(*) FROM clip_failures WHERE sqlstate = '42602'
        AND message LIKE 'the reference is not a key of the store: %'";
    assert_eq!(value::<i64>(&mut client, refused), 6);

    let asked: Vec<String> =
        s3.requests().into_iter().filter(|request| request.starts_with("GET ")).collect();
    assert_eq!(asked.len(), 58, "each object is asked for once: {asked:?}");
    let outside = asked.iter().find(|request| !request.starts_with("GET /photos/shop/"));
    assert_eq!(outside, None, "nothing but what lies below the prefix");
    run(&mut client, "SELECT clip_embed_text('pizza')");
}

#[test]
fn a_store_that_gives_nothing_takes_nothing_away() {
    let cluster = TestCluster::preloaded();
    let (database, mut client) = watched_by_reference(&cluster);
    let s3 = S3Server::start();
    refer(&mut client, &["a.jpg", "b.jpg"]);
    // The bucket is not there: that says nothing of a photo.
    let running = pg_clip_tests::RunningFeeder::start(
        feeder(&cluster, &database, "s3://photos/shop").envs(s3.environment()),
    );
    pg_clip_tests::wait_until("the owner is told", pg_clip_tests::PATIENCE, || {
        let told = "SELECT count(*) FROM clip_failures WHERE NOT dead AND sqlstate = '58030' AND message LIKE '%NoSuchBucket'";
        value::<i64>(&mut client, told) == 2
    });
    s3.make_bucket("photos");
    demo_photos()
        .iter()
        .zip(["a", "b"])
        .for_each(|(photo, key)| s3.store("photos", &format!("shop/{key}.jpg"), photo));
    pg_clip_tests::wait_until("the photos are embedded", pg_clip_tests::PATIENCE, || {
        value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings") == 2
    });
    drop(running);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM clip_queue"), 0);
}
