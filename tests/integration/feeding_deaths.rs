//! Feeders that end, and claims that outlive them: no photo is lost, and none is embedded from its earlier bytes.

use pg_clip_tests::{
    PATIENCE, PhotoFolder, RunningFeeder, Signal, TestCluster, demo_photos, drain, feeder, refer, run, send,
    value, wait_until, watched_by_reference,
};
use postgres::Client;

const WAITING: &str = "SELECT count(*) FROM clip_queue WHERE NOT dead";
const EMBEDDED: &str = "SELECT count(*) FROM image_embeddings";

#[test]
fn a_feeder_that_is_killed_twenty_times_loses_nothing() {
    const KILLS: u32 = 20;
    let cluster = TestCluster::preloaded();
    let (database, mut client) = watched_by_reference(&cluster);
    let folder = PhotoFolder::new();
    let photos = &demo_photos()[..120];
    let keys: Vec<String> = (0..photos.len()).map(|number| format!("{number}.jpg")).collect();
    // Every twelfth is missing.
    let is_there = |number: usize| !number.is_multiple_of(12);
    for (number, photo) in photos.iter().enumerate().filter(|(number, _)| is_there(*number)) {
        folder.store(&keys[number], photo);
    }
    refer(&mut client, &keys);
    let run_once = || {
        let mut feeder = feeder(&cluster, &database, &folder.address());
        feeder.args(["--concurrency", "2", "--lease", "500ms"]);
        feeder
    };
    let mut kills = 0;
    while kills < KILLS && value::<i64>(&mut client, WAITING) > 0 {
        let running = RunningFeeder::start(&mut run_once());
        wait_until("the feeder has claimed a photo that it has not handed over", PATIENCE, || {
            let claimed = "SELECT count(*) FROM clip_queue WHERE claimed AND run_at > now()";
            value::<i64>(&mut client, claimed) > 0 || value::<i64>(&mut client, WAITING) == 0
        });
        running.kill();
        kills += 1;
    }
    assert_eq!(kills, KILLS, "the photos were enough");
    drain(&mut run_once());
    assert_eq!(value::<i64>(&mut client, WAITING), 0);
    assert_eq!(value::<i64>(&mut client, EMBEDDED), 110);
    let failed = "SELECT count(*) FROM clip_failures WHERE sqlstate = '58P01' AND attempts = 1 AND dead";
    assert_eq!(value::<i64>(&mut client, failed), 10, "a feeder's death is no attempt");
    let checksums = "SELECT array_agg(checksum ORDER BY image_id) FROM image_embeddings";
    let stored: Vec<Vec<u8>> = value(&mut client, checksums);
    let query = "SELECT array_agg(sha256(image)) FROM unnest($1::bytea[]) AS image";
    let there: Vec<&Vec<u8>> =
        photos.iter().enumerate().filter(|(number, _)| is_there(*number)).map(|(_, photo)| photo).collect();
    let wanted: Vec<Vec<u8>> = client.query_one(query, &[&there]).expect("checksums").get(0);
    assert_eq!(stored, wanted);
}

#[test]
fn two_feeders_share_the_photos() {
    let cluster = TestCluster::preloaded();
    let (database, mut client) = watched_by_reference(&cluster);
    let folder = PhotoFolder::new();
    let photos = &demo_photos()[..60];
    let keys: Vec<String> = (0..photos.len()).map(|number| format!("{number}.jpg")).collect();
    photos.iter().zip(&keys).for_each(|(photo, key)| folder.store(key, photo));
    refer(&mut client, &keys);
    let start = || {
        RunningFeeder::start(feeder(&cluster, &database, &folder.address()).args([
            "--concurrency",
            "2",
            "--drain",
        ]))
    };
    let both = [start(), start()];
    assert!(both.map(RunningFeeder::wait).iter().all(|well| *well));
    assert_eq!(value::<i64>(&mut client, EMBEDDED), 60);
    assert_eq!(value::<i64>(&mut client, "SELECT image_inferences FROM clip_status"), 60);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM clip_queue"), 0);
}

#[test]
fn a_feeder_outlives_the_server_and_ends_when_it_is_told_to() {
    let cluster = TestCluster::preloaded();
    let (database, mut client) = watched_by_reference(&cluster);
    let folder = PhotoFolder::new();
    let photos = demo_photos();
    ["a", "b"].iter().zip(&photos).for_each(|(key, photo)| folder.store(key, photo));
    let running = RunningFeeder::start(&mut feeder(&cluster, &database, &folder.address()));
    refer(&mut client, &["a"]);
    wait_until("a photo is embedded", PATIENCE, || value::<i64>(&mut client, EMBEDDED) == 1);

    cluster.server.restart().expect("the server restarts");
    let mut client = database.connect();
    refer(&mut client, &["b"]);
    wait_until("the other photo is embedded", PATIENCE, || value::<i64>(&mut client, EMBEDDED) == 2);
    send(running.pid(), Signal::SIGTERM);
    assert!(running.wait());
}

/// Claims the jobs that are due, for so many seconds: keys, generations and references.
fn claim(client: &mut Client, seconds: f64) -> [Vec<Option<String>>; 3] {
    let query = "SELECT key, generation, reference FROM clip_claim_references('photos', 10, $1) ORDER BY key";
    let rows = client.query(query, &[&seconds]).expect("a claim");
    [0, 1, 2].map(|column| rows.iter().map(|row| row.get(column)).collect())
}

/// Hands over one image for each claimed photo.
fn feed(
    client: &mut Client,
    [keys, generations, references]: &[Vec<Option<String>>; 3],
    image: &[u8],
) -> Vec<String> {
    let images = vec![image; keys.len()];
    let none: Vec<Option<&str>> = vec![None; keys.len()];
    let call = "CALL clip_feed('photos', $1, $2, $3, $4, $5, $6)";
    client.query_one(call, &[keys, generations, references, &images, &none, &none]).expect("a call").get(0)
}

#[test]
fn a_claim_ends_by_itself_and_counts_once() {
    let cluster = TestCluster::preloaded();
    let (database, mut client) = watched_by_reference(&cluster);
    let mut other = database.connect();
    refer(&mut client, &["a.jpg"]);
    let first = claim(&mut client, 0.01);
    assert_eq!(first[2], [Some("a.jpg".to_owned())]);
    let mut second = None;
    wait_until("the claim has ended", PATIENCE, || {
        second = Some(claim(&mut other, 60.0)).filter(|claimed| !claimed[0].is_empty());
        second.is_some()
    });
    let second = second.expect("claimed");
    assert_eq!(first, second);
    assert_eq!(claim(&mut client, 60.0)[0], Vec::<Option<String>>::new(), "it is claimed");
    assert_eq!(value::<i32>(&mut client, "SELECT attempts FROM clip_queue"), 1);

    // The one that was too late comes first: the photo is the same.
    let photo = &demo_photos()[0];
    assert_eq!(feed(&mut client, &first, photo), ["embedded"]);
    assert_eq!(feed(&mut other, &second, photo), ["gone"]);
    assert_eq!(value::<i64>(&mut client, EMBEDDED), 1);
}

#[test]
fn a_photo_that_changed_meanwhile_is_not_stored() {
    let cluster = TestCluster::preloaded();
    let (_database, mut client) = watched_by_reference(&cluster);
    let photo = &demo_photos()[0];
    refer(&mut client, &["a.jpg", "b.jpg", "c.jpg", "d.jpg"]);
    let claimed = claim(&mut client, 60.0);
    run(&mut client, "UPDATE photos SET storage_path = 'new.jpg' WHERE id = 1");
    run(&mut client, "DELETE FROM photos WHERE id = 2");
    // Where no trigger tells.
    run(
        &mut client,
        "SET session_replication_role = replica; UPDATE photos SET storage_path = 'newer.jpg' WHERE id = 3;
        RESET session_replication_role",
    );
    assert_eq!(feed(&mut client, &claimed, photo), ["gone", "embedded", "later", "copied"]);
    assert_eq!(value::<i64>(&mut client, "SELECT min(image_id) FROM image_embeddings"), 4);
    let again = claim(&mut client, 60.0);
    assert_eq!(again[2], [Some("new.jpg".to_owned()), Some("newer.jpg".to_owned())]);
    assert_eq!(feed(&mut client, &again, photo), ["copied", "copied"]);
}
