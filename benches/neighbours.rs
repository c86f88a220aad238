//! The delays of a role beside another one that uses as much of pg_clip as it can.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use pg_clip_tests::{
    PATIENCE, StopOnDrop, TestCluster, TestDatabase, demo_photos, run, value, variant, wait_for_the_queue,
    wait_until,
};
use postgres::Client;

use crate::tally::{percentile, report, report_times, report_times_at, time};

const WAITING: u32 = 20_000;
const PHOTOS: usize = 20;
const CONNECTIONS: u32 = 90;
const IMAGES_A_CALL: usize = 100;
/// Calls of each kind that are measured, before and meanwhile.
const CALLS: u32 = 40;

pub(crate) fn measure() {
    beside_a_long_queue();
    beside_many_connections();
}

/// A photo of one table while the photos of another one wait.
fn beside_a_long_queue() {
    let cluster = TestCluster::preloaded();
    let database = cluster.database();
    let mut client = database.connect();
    for name in ["large", "small"] {
        shop(&mut client, name, "async");
    }
    let pictures = demo_photos();
    let count = u32::try_from(pictures.len()).expect("a few");
    client
        .execute(
            "INSERT INTO large.photos (image) SELECT image || int4send(round::int)
            FROM generate_series(1, $2::int) AS round, unnest($1::bytea[]) AS image",
            &[&pictures, &i32::try_from(WAITING.div_ceil(count)).expect("a few")],
        )
        .expect("photos are stored");
    let waiting = "SELECT count(*) FROM clip_queue WHERE source = 'large.photos'::regclass";
    let before: i64 = value(&mut client, waiting);
    let mut times: Vec<Duration> = Vec::new();
    for (number, picture) in pictures.iter().take(PHOTOS).enumerate() {
        times.push(time(|| {
            client
                .execute("INSERT INTO small.photos (image) VALUES ($1)", &[picture])
                .expect("a photo is stored");
            wait_until("the photo is embedded", PATIENCE, || {
                value::<i64>(&mut client, "SELECT count(*) FROM small.image_embeddings")
                    == i64::try_from(number).expect("a few") + 1
            });
        }));
    }
    let after: i64 = value(&mut client, waiting);
    report_times(
        &format!("INSERT of a photo and its embedding, beside {before} to {after} of another table"),
        &mut times,
    );
    report_times_at(100, "", &mut times);
    run(&mut client, "TRUNCATE large.photos");
    wait_for_the_queue(&mut client);
}

/// Texts and photos of one role while another role embeds with all the connections that it has.
fn beside_many_connections() {
    let cluster = TestCluster::preloaded_with(&[("max_connections", "150")]);
    let database = cluster.database();
    let mut client = database.connect();
    shop(&mut client, "shop", "sync");
    run(
        &mut client,
        "CREATE ROLE greedy LOGIN; CREATE TABLE pictures (image bytea); GRANT SELECT ON pictures TO greedy",
    );
    let pictures = demo_photos();
    let some = &pictures[..IMAGES_A_CALL];
    client.execute("INSERT INTO pictures SELECT unnest($1::bytea[])", &[&some]).expect("pictures are stored");
    let mut alone = calls(&mut client, &pictures, 0);
    let mut beside = [PLAIN, EMBEDDING].map(|statement| {
        let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
        let times = thread::scope(|scope| {
            let _stop = StopOnDrop(&stop);
            for _ in 0..CONNECTIONS {
                scope.spawn(|| greedy(&database, statement, &stop, &answered));
            }
            wait_until("the other role is at work", PATIENCE, || answered.load(Ordering::Relaxed) > 0);
            calls(&mut client, &pictures, if statement == PLAIN { 1 } else { 2 })
        });
        report(
            &format!("{CONNECTIONS} connections of another role: {statement}"),
            &format!("{:9} answers meanwhile", answered.into_inner()),
        );
        times
    });
    for (kind, what) in
        ["clip_embed_text, a new text", "INSERT of a photo, sync mode"].into_iter().enumerate()
    {
        report_times(&format!("{what}, alone"), &mut alone[kind]);
        report_times_at(95, "", &mut alone[kind]);
        for (times, beside) in beside.iter_mut().zip(["checksums", "embeddings"]) {
            report_times(
                &format!("  beside {CONNECTIONS} connections that compute {beside}"),
                &mut times[kind],
            );
            report_times_at(95, "", &mut times[kind]);
        }
        let [plain, embedding] = [0, 1].map(|number| percentile(95, &mut beside[number][kind]).as_secs_f64());
        report("  p95 beside embeddings, of that beside checksums", &format!("{:9.2}", embedding / plain));
    }
}

/// A load that keeps the processors busy without pg_clip: no other role is safe from it.
const PLAIN: &str = "SELECT count(sha256(image)) FROM pictures, generate_series(1, 10)";
const EMBEDDING: &str = "SELECT clip_embed_images(array_agg(image)) FROM pictures";

fn shop(client: &mut Client, name: &str, mode: &str) {
    run(
        client,
        &format!(
            "CREATE SCHEMA {name}; CREATE TABLE {name}.photos (id serial PRIMARY KEY, image bytea);
            SELECT clip_watch('{name}.photos', mode => '{mode}')"
        ),
    );
}

/// None of the calls may fail: requests beyond a role's share wait.
fn greedy(database: &TestDatabase, statement: &str, stop: &AtomicBool, answered: &AtomicUsize) {
    let mut client = database.connect_as("greedy");
    while !stop.load(Ordering::Relaxed) {
        run(&mut client, statement);
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

/// Each call is for an input that was not embedded before, and none may fail.
fn calls(client: &mut Client, pictures: &[Vec<u8>], round: u32) -> [Vec<Duration>; 2] {
    let [mut texts, mut photos] = [Vec::new(), Vec::new()];
    for number in 0..CALLS {
        let text = format!("a photo of {number} dogs in round {round}");
        texts.push(time(|| _ = client.query("SELECT clip_embed_text($1)", &[&text]).expect("a vector")));
        let photo = variant(&pictures[number as usize], round * CALLS + number);
        photos.push(time(|| {
            client
                .execute("INSERT INTO shop.photos (image) VALUES ($1)", &[&photo])
                .expect("a photo is stored");
        }));
    }
    [texts, photos]
}
