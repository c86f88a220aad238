//! A table of references is embedded by a feeder, which brings the bytes that its rows refer to.

use pg_clip_tests::{
    OTHER_MODEL, PhotoFolder, TestCluster, cluster_of_two_models, demo_photos, drain, failure, feeder, refer,
    run, value, variant, watched_by_reference, wrongly_fed,
};

fn store(folder: &PhotoFolder, photos: &[Vec<u8>]) -> Vec<(String, Vec<u8>)> {
    let named =
        photos.iter().enumerate().map(|(number, photo)| (format!("2026/{number}.jpg"), photo.clone()));
    let named: Vec<(String, Vec<u8>)> = named.collect();
    named.iter().for_each(|(key, photo)| folder.store(key, photo));
    named
}

fn keys(photos: &[(String, Vec<u8>)]) -> Vec<&str> {
    photos.iter().map(|(key, _)| key.as_str()).collect()
}

#[test]
fn photos_in_a_folder_are_embedded_like_photos_in_a_table() {
    let cluster = TestCluster::preloaded();
    let (database, mut client) = watched_by_reference(&cluster);
    let folder = PhotoFolder::new();
    let some = &demo_photos()[..40];
    let photos = store(&folder, &[some, &some[..10]].concat());
    refer(&mut client, &keys(&photos));
    run(&mut client, "UPDATE photos SET project = 'kitchen' WHERE id % 2 = 0");
    run(&mut client, "INSERT INTO photos (project) VALUES ('no photo yet')");
    let coverage = "SELECT concat_ws(' ', mode, photos, embedded, queued, failed) FROM clip_coverage";
    assert_eq!(value::<String>(&mut client, coverage), "async 50 0 50 0");

    let said = drain(feeder(&cluster, &database, &folder.address()).args(["--concurrency", "8"]));
    assert_eq!(value::<String>(&mut client, coverage), "async 50 50 0 0", "{said}");
    let inferences = "SELECT image_inferences FROM clip_status";
    assert_eq!(value::<i64>(&mut client, inferences), 40, "the same bytes are embedded once");
    assert_eq!(wrongly_fed(&mut client, &photos), 0);
    assert!(said.contains("40 photos embedded, 10 with the vector of the same bytes, 0 given up"), "{said}");
}

#[test]
fn embeddings_follow_updates_and_deletes() {
    let cluster = TestCluster::preloaded();
    let (database, mut client) = watched_by_reference(&cluster);
    let folder = PhotoFolder::new();
    let photos = store(&folder, &demo_photos()[..6]);
    refer(&mut client, &keys(&photos[..5]));
    let feed = || drain(&mut feeder(&cluster, &database, &folder.address()));
    feed();
    let jobs = "SELECT count(*) FROM clip_queue";
    let ids = "SELECT string_agg(image_id::text, ' ' ORDER BY image_id) FROM image_embeddings";

    run(
        &mut client,
        "UPDATE photos SET project = 'garden', storage_url = 'x'; UPDATE photos SET storage_path = storage_path || ''",
    );
    assert_eq!(value::<i64>(&mut client, jobs), 0, "no reference changed");
    let gardens = "SELECT count(*) FROM image_embeddings WHERE project = 'garden'";
    assert_eq!(value::<i64>(&mut client, gardens), 5, "the project is carried over at once");

    run(&mut client, "UPDATE photos SET storage_path = '2026/5.jpg' WHERE id = 1");
    run(&mut client, "UPDATE photos SET storage_path = NULL WHERE id = 2; DELETE FROM photos WHERE id = 3");
    assert_eq!(value::<String>(&mut client, ids), "1 4 5");
    feed();
    assert_eq!(wrongly_fed(&mut client, &[photos[5].clone(), photos[3].clone(), photos[4].clone()]), 0);

    // A photo that is not there any more loses its vector.
    run(&mut client, "UPDATE photos SET storage_path = '2026/none.jpg' WHERE id = 4");
    feed();
    assert_eq!(value::<String>(&mut client, ids), "1 5");
    let failed = "SELECT concat_ws(' ', key, sqlstate, message, dead) FROM clip_failures";
    assert_eq!(
        value::<String>(&mut client, failed),
        "4 58P01 cannot read \"2026/none.jpg\": No such file or directory (os error 2) t"
    );

    folder.store("2026/none.jpg", &photos[3].1);
    run(&mut client, "SELECT clip_retry('photos')");
    feed();
    assert_eq!(value::<String>(&mut client, ids), "1 4 5");
    run(&mut client, "TRUNCATE photos");
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 0);
}

#[test]
fn a_look_at_everything_finds_objects_that_were_replaced() {
    let cluster = TestCluster::preloaded();
    let (database, mut client) = watched_by_reference(&cluster);
    let folder = PhotoFolder::new();
    let mut photos = store(&folder, &demo_photos()[..5]);
    refer(&mut client, &keys(&photos));
    drain(&mut feeder(&cluster, &database, &folder.address()));
    let before: i64 = value(&mut client, "SELECT image_inferences FROM clip_status");

    photos[1].1 = demo_photos()[7].clone();
    folder.store(&photos[1].0, &photos[1].1);
    folder.remove(&photos[2].0);
    let running = pg_clip_tests::RunningFeeder::start(&mut feeder(&cluster, &database, &folder.address()));
    run(&mut client, "CALL clip_backfill('photos', verify => true)");
    drop(running);
    assert_eq!(value::<i64>(&mut client, "SELECT image_inferences FROM clip_status"), before + 1);
    // A store that does not give a photo today takes no vector away: its row refers to the same.
    assert_eq!(wrongly_fed(&mut client, &photos), 0);
    assert_eq!(value::<String>(&mut client, "SELECT sqlstate FROM clip_failures"), "58P01");
    let counts =
        "SELECT concat_ws(' ', photos, embedded, missing, stale, orphaned) FROM clip_verify('photos')";
    assert_eq!(value::<String>(&mut client, counts), "5 5 0 0 0");
}

#[test]
fn a_migration_reads_the_store_again() {
    let cluster = cluster_of_two_models();
    let (database, mut client) = watched_by_reference(&cluster);
    let folder = PhotoFolder::new();
    let photos = store(&folder, &demo_photos()[..40]);
    refer(&mut client, &keys(&photos));
    drain(&mut feeder(&cluster, &database, &folder.address()));

    // A photo that its store does not give any more keeps the table with its model.
    folder.remove(&photos[3].0);
    let running = pg_clip_tests::RunningFeeder::start(&mut feeder(&cluster, &database, &folder.address()));
    let migrate = format!("CALL clip_migrate('image_embeddings', '{OTHER_MODEL}')");
    let error = client.batch_execute(&migrate).expect_err("a photo is missing");
    let error = error.as_db_error().expect("an error of the server");
    assert_eq!(
        (error.code().code(), error.message()),
        ("55000", "1 photos of table public.photos cannot be had or embedded")
    );
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 40, "nothing is lost");

    folder.store(&photos[3].0, &photos[3].1);
    run(&mut client, "SELECT clip_retry('photos')");
    run(&mut client, &migrate);
    drop(running);
    let mut fresh = database.connect();
    let models = "SELECT string_agg(DISTINCT split_part(model, '@', 1), ' ') FROM image_embeddings";
    assert_eq!(value::<String>(&mut fresh, models), OTHER_MODEL);
    assert_eq!(wrongly_fed(&mut fresh, &photos), 0);
}

#[test]
fn a_table_that_cannot_be_watched_by_reference_is_refused() {
    let cluster = TestCluster::shared();
    let mut client = cluster.database().connect();
    run(
        &mut client,
        "CREATE TABLE photos (id int PRIMARY KEY, path text, name varchar(80), image bytea, number int)",
    );
    let cases = [
        ("SELECT clip_watch('photos', reference_column => 'number')", "42804"),
        ("SELECT clip_watch('photos', reference_column => 'image')", "42804"),
        ("SELECT clip_watch('photos', reference_column => 'none')", "42703"),
        ("SELECT clip_watch('photos', image_column => 'path')", "42804"),
        ("SELECT clip_watch('photos', reference_column => 'path', mode => 'sync')", "0A000"),
        ("SELECT clip_watch('photos', reference_column => 'path', image_column => 'name')", "22023"),
        ("SELECT clip_grant_feeder('photos', 'postgres')", "55000"),
        ("SELECT * FROM clip_claim_references('photos', 1, 60)", "55000"),
    ];
    for (statement, code) in cases {
        assert_eq!(failure(&mut client, statement, &[]), code, "{statement}");
    }
    run(&mut client, "SELECT clip_watch('photos', reference_column => 'name')");
    for statement in [
        "SELECT * FROM clip_claim_references('photos', 0, 60)",
        "SELECT * FROM clip_claim_references('photos', 1, 'NaN')",
        "SELECT * FROM clip_claim_references('photos', 1, 4000)",
        "CALL clip_feed('photos', '{1}', '{}', '{}', '{}', '{}', '{}')",
        "CALL clip_feed('photos', '{1}', '{1}', '{a}', '{NULL}', '{lost}', '{NULL}')",
    ] {
        assert_eq!(failure(&mut client, statement, &[]), "22023", "{statement}");
    }
}

#[test]
fn a_watch_goes_from_bytes_to_references_and_back() {
    let cluster = TestCluster::preloaded();
    let (database, mut client) = watched_by_reference(&cluster);
    let folder = PhotoFolder::new();
    let photos = store(&folder, &demo_photos()[..3]);
    refer(&mut client, &keys(&photos));
    run(&mut client, "ALTER TABLE photos ADD image bytea; SELECT clip_watch('photos', mode => 'async')");
    client.execute("UPDATE photos SET image = $1", &[&photos[0].1]).expect("photos are stored");
    pg_clip_tests::wait_for_the_queue(&mut client);
    assert_eq!(value::<i64>(&mut client, "SELECT count(DISTINCT checksum) FROM image_embeddings"), 1);

    run(&mut client, "SELECT clip_watch('photos', reference_column => 'storage_path')");
    run(&mut client, "UPDATE photos SET storage_path = storage_path || '.new'");
    let renamed: Vec<_> =
        photos.iter().map(|(key, photo)| (format!("{key}.new"), variant(photo, 1))).collect();
    renamed.iter().for_each(|(key, photo)| folder.store(key, photo));
    drain(&mut feeder(&cluster, &database, &folder.address()));
    assert_eq!(wrongly_fed(&mut client, &renamed), 0);
}
