//! Logical replication: a subscriber has the vectors, and nothing is embedded a second time there.
//!
//! The rows that a subscriber applies fire no ordinary trigger, and no statement-level trigger of any kind: the
//! subscriber has the embeddings that it is sent, and those that it fills in itself.

use std::time::Duration;

use pg_clip_tests::{
    TestCluster, TestDatabase, demo_photos, run, sqlstate, value, wait_for_the_queue, wait_until,
    wait_until_equal,
};
use postgres::Client;
use xtask::command;
use xtask::psql::client;

const DEADLINE: Duration = Duration::from_secs(60);

const PHOTOS: &str = "CREATE TABLE photos (id bigint PRIMARY KEY, project text, image bytea);
    SELECT clip_watch('photos')";
const PHOTOS_ASYNC: &str = "CREATE TABLE photos (id bigint PRIMARY KEY, project text, image bytea);
    SELECT clip_watch('photos', mode => 'async')";

const WRONG: &str = "SELECT count(*) FROM photos FULL JOIN image_embeddings ON image_id = photos.id
    WHERE checksum IS DISTINCT FROM sha256(image) OR embedding IS DISTINCT FROM clip_embed_image(image)
        OR photos.project IS DISTINCT FROM image_embeddings.project";

#[test]
fn a_subscriber_takes_the_embeddings_of_the_publisher() {
    takes_the_embeddings_of_the_publisher(PHOTOS);
}

#[test]
fn a_subscriber_takes_the_embeddings_of_a_publisher_in_async_mode() {
    takes_the_embeddings_of_the_publisher(PHOTOS_ASYNC);
}

fn takes_the_embeddings_of_the_publisher(photos: &str) {
    let (publisher, subscriber) = clusters();
    let (source, copy) = (publisher.database(), subscriber.database());
    let (mut writer, mut reader) = (source.connect(), copy.connect());
    run(&mut writer, photos);
    run(&mut reader, photos);
    insert(&mut writer, 1, 20);
    run(&mut writer, "CREATE PUBLICATION shop FOR TABLE photos, image_embeddings");
    subscribe(&mut reader, &publisher, &source);
    assert_follows(&mut writer, &mut reader);
}

#[test]
fn a_subscriber_to_all_tables_takes_the_watch_too() {
    let (publisher, subscriber) = clusters();
    let (source, copy) = (publisher.database(), subscriber.empty_database());
    let (mut writer, mut reader) = (source.connect(), copy.connect());
    run(&mut writer, PHOTOS);
    insert(&mut writer, 1, 20);
    restore_schema(&publisher, &source, &subscriber, &copy);
    run(&mut writer, "CREATE PUBLICATION shop FOR ALL TABLES");
    subscribe(&mut reader, &publisher, &source);
    wait_until_equal(&mut writer, &mut reader, "clip_watches");
    assert_follows(&mut writer, &mut reader);
}

#[test]
fn a_subscriber_to_all_tables_leaves_the_publishers_queue_alone() {
    let publisher = TestCluster::preloaded_with(&[("wal_level", "logical")]);
    let subscriber = TestCluster::preloaded_with(&[("clip.queue_poll_interval", "1s")]);
    let (source, copy) = (publisher.database(), subscriber.empty_database());
    let (mut writer, mut reader) = (source.connect(), copy.connect());
    run(&mut writer, PHOTOS_ASYNC);
    restore_schema(&publisher, &source, &subscriber, &copy);
    run(&mut writer, "CREATE PUBLICATION shop FOR ALL TABLES");
    subscribe(&mut reader, &publisher, &source);
    // The publisher's worker has to wait, and its jobs go to the subscriber.
    let mut holds = source.connect();
    run(&mut holds, "BEGIN; LOCK image_embeddings IN SHARE MODE");
    insert(&mut writer, 1, 20);
    wait_until("the jobs and the watch are on the subscriber", DEADLINE, || {
        let there =
            "SELECT (SELECT count(*) FROM clip_queue) = 20 AND (SELECT count(*) FROM clip_watches) = 1";
        value::<bool>(&mut reader, there)
    });
    // A photo of its own wakes the subscriber's worker, which leaves that one, too.
    insert(&mut reader, 21, 21);
    run(&mut holds, "COMMIT");
    wait_for_the_queue(&mut writer);
    wait_until("only its own job is on the subscriber", DEADLINE, || {
        value::<i64>(&mut reader, "SELECT count(*) FROM clip_queue") == 1
    });
    wait_until_equal(&mut writer, &mut reader, "image_embeddings");
    assert_eq!(inferences(&mut reader), 0);
    let waits_for_nothing =
        reader.batch_execute("CALL clip_backfill('photos')").expect_err("nothing is embedded here");
    assert_eq!(sqlstate(&waits_for_nothing), "55000");
    run(&mut reader, "DROP SUBSCRIPTION shop");
    wait_for_the_queue(&mut reader);
    assert_eq!(value::<i64>(&mut reader, "SELECT count(*) FROM image_embeddings"), 21);
    assert_eq!(value::<i64>(&mut reader, WRONG), 0);
}

#[test]
fn a_subscriber_to_the_photos_alone_fills_in_their_embeddings() {
    let (publisher, subscriber) = clusters();
    let (source, copy) = (publisher.database(), subscriber.database());
    let (mut writer, mut reader) = (source.connect(), copy.connect());
    run(&mut writer, "CREATE TABLE photos (id bigint PRIMARY KEY, project text, image bytea)");
    run(&mut reader, PHOTOS);
    insert(&mut writer, 1, 20);
    run(&mut writer, "CREATE PUBLICATION shop FOR TABLE photos");
    subscribe(&mut reader, &publisher, &source);
    wait_until_equal(&mut writer, &mut reader, "photos");
    insert(&mut writer, 21, 40);
    wait_until_equal(&mut writer, &mut reader, "photos");
    assert_eq!(value::<i64>(&mut reader, "SELECT count(*) FROM image_embeddings"), 0);

    run(&mut reader, "CALL clip_backfill('photos')");
    assert_eq!(inferences(&mut reader), 40);
    assert_eq!(value::<i64>(&mut reader, WRONG), 0);
    run(&mut reader, "DROP SUBSCRIPTION shop");
}

/// Changes 20 photos of the publisher and adds 20: the subscriber is the same and has embedded nothing. Then ends the
/// subscription: it embeds its own photos.
#[track_caller]
fn assert_follows(writer: &mut Client, reader: &mut Client) {
    wait_for_the_queue(writer);
    wait_until_equal(writer, reader, "image_embeddings");
    insert(writer, 21, 40);
    run(
        writer,
        "UPDATE photos SET image = (SELECT image FROM photos WHERE id = 40) WHERE id = 1;
        UPDATE photos SET project = 'garden' WHERE id = 2;
        DELETE FROM photos WHERE id = 3",
    );
    wait_for_the_queue(writer);
    wait_until_equal(writer, reader, "photos");
    wait_until_equal(writer, reader, "image_embeddings");
    assert_eq!(inferences(writer), 40);
    assert_eq!(inferences(reader), 0, "nothing is embedded a second time");
    assert_eq!(value::<i64>(reader, WRONG), 0);

    run(writer, "TRUNCATE photos");
    wait_until_equal(writer, reader, "photos");
    wait_until_equal(writer, reader, "image_embeddings");
    run(reader, "DROP SUBSCRIPTION shop");
    insert(reader, 1, 5);
    wait_for_the_queue(reader);
    assert_eq!(value::<i64>(reader, "SELECT count(*) FROM image_embeddings"), 5);
    assert_eq!(value::<i64>(reader, WRONG), 0);
}

fn clusters() -> (TestCluster, TestCluster) {
    (TestCluster::preloaded_with(&[("wal_level", "logical")]), TestCluster::preloaded())
}

/// Brings the tables of a database, and of the extension, to a subscriber.
fn restore_schema(
    publisher: &TestCluster,
    source: &TestDatabase,
    subscriber: &TestCluster,
    copy: &TestDatabase,
) {
    let mut dump = client(&publisher.server, "pg_dump", source.name());
    let schema = command::output(dump.arg("--schema-only")).expect("a dump");
    let mut psql = client(&subscriber.server, "psql", copy.name());
    psql.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"]);
    command::output_with_input(&mut psql, schema.as_bytes()).expect("the schema is restored");
}

fn subscribe(reader: &mut Client, publisher: &TestCluster, source: &TestDatabase) {
    pg_clip_tests::subscribe(reader, "shop", publisher, source, "");
}

/// Inserts the demo's photos of these numbers, from 1 on, in one statement.
fn insert(client: &mut Client, first: usize, last: usize) {
    let photos = &demo_photos()[first - 1..last];
    let ids: Vec<i64> = (1i64..).skip(first - 1).take(photos.len()).collect();
    let statement = "INSERT INTO photos (id, image) SELECT * FROM unnest($1::bigint[], $2::bytea[])";
    client.execute(statement, &[&ids, &photos]).expect("photos are inserted");
}

fn inferences(client: &mut Client) -> i64 {
    value(client, "SELECT image_inferences FROM clip_status")
}
