//! Photos in an S3-compatible store: the outcome of missing, forbidden and broken ones, and the requests to the
//! store.

use pg_clip_tests::{
    Feeding, PATIENCE, RunningFeeder, S3Server, TestCluster, demo_photos, feed_from_s3, feeder, refer, value,
    wait_until, watched_by_reference,
};

#[test]
fn photos_in_s3_are_fed_and_failures_have_their_reasons() {
    let feeding = Feeding { photos: 40, missing: 6, forbidden: 6, broken: 6, kills: 0 };
    let fed = feed_from_s3(feeding);
    assert_eq!(fed.requests, 40 + 18 + 5, "each object is asked for once");
    assert_eq!(fed.inferences_of_migration, 40);
}

/// `cargo xtask bench feeding` does the same to 1,000 photos and 20 feeders.
#[test]
fn feeders_of_s3_that_are_killed_lose_nothing_and_embed_nothing_twice() {
    let feeding = Feeding { photos: 110, missing: 4, forbidden: 3, broken: 3, kills: 4 };
    let fed = feed_from_s3(feeding);
    assert!(fed.in_flight >= 4, "each feeder was killed at work");
}

#[test]
fn a_store_that_gives_nothing_takes_nothing_away() {
    let cluster = TestCluster::preloaded();
    let (database, mut client) = watched_by_reference(&cluster);
    let s3 = S3Server::start();
    refer(&mut client, &["a.jpg", "b.jpg"]);
    // The bucket is not there: that says nothing of a photo.
    let running =
        RunningFeeder::start(feeder(&cluster, &database, "s3://photos/shop").envs(s3.environment()));
    wait_until("the owner is told", PATIENCE, || {
        let told = "SELECT count(*) FROM clip_failures WHERE NOT dead AND sqlstate = '58030' AND message LIKE '%NoSuchBucket'";
        value::<i64>(&mut client, told) == 2
    });
    s3.make_bucket("photos");
    demo_photos()
        .iter()
        .zip(["a", "b"])
        .for_each(|(photo, key)| s3.store("photos", &format!("shop/{key}.jpg"), photo));
    wait_until("the photos are embedded", PATIENCE, || {
        value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings") == 2
    });
    drop(running);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM clip_queue"), 0);
}
