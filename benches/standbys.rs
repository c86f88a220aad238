//! Searches by new words and by new pictures on a primary and its standbys, through one pgbouncer that takes turns among the
//! servers. All servers share this machine's processors: the sum tells the cost of several servers, and not the gain of several
//! machines.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use pg_clip_tests::{
    Pooler, TestCluster, TestDatabase, demo_jpegs, demo_photos, run, value, variant, wait_for_the_queue,
    wait_until, watched_async,
};
use postgres::Client;
use postgres::types::Type;

use crate::tally::{report, report_rate, time};

const CLIENTS: usize = 8;
const STANDBYS: usize = 3;
const LONG: &str = "SELECT pg_sleep(5)";

pub(crate) fn measure() {
    let primary = TestCluster::preloaded();
    let (database, mut client) = watched_async(&primary);
    let insert = "INSERT INTO photos (image) SELECT unnest($1::bytea[])";
    client.execute(insert, &[&demo_photos()]).expect("photos are stored");
    wait_for_the_queue(&mut client);
    report("processors", &thread::available_parallelism().map_or(0, usize::from).to_string());
    let mut standbys = Vec::new();
    for count in 0..=STANDBYS {
        if count > 0 {
            standbys.push(primary.standby());
        }
        let servers: Vec<&TestCluster> = [&primary].into_iter().chain(&standbys).collect();
        let nodes: Vec<TestDatabase> =
            servers.iter().map(|server| server.existing_database(database.name())).collect();
        nodes.iter().for_each(warm);
        let connections = u32::try_from(CLIENTS).expect("a few");
        let pooler = Pooler::in_front_of(&servers, connections, &["postgres"]);
        for (what, search) in [("words", by_words as Search), ("pictures", by_picture)] {
            let before: Vec<i64> = nodes.iter().map(inferences).collect();
            let connect = || pooler.connect(&database, "postgres");
            let (answers, took) = load(&connect, search, &mut || run(&mut client, LONG));
            report_rate(&format!("searches by {what}, {} servers", servers.len()), answers, took);
            for (number, (node, before)) in nodes.iter().zip(before).enumerate() {
                let count = usize::try_from(inferences(node) - before).expect("a count grows");
                report_rate(&format!("  server {}", number + 1), count, took);
            }
        }
    }
}

/// Waits until a server has all vectors, and loads its model.
fn warm(node: &TestDatabase) {
    let mut client = node.connect();
    let photos = i64::try_from(demo_photos().len()).expect("a few");
    wait_until("all vectors are there", Duration::from_secs(60), || {
        value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings") == photos
    });
    run(&mut client, "SELECT clip_embed_text('start')");
}

fn inferences(node: &TestDatabase) -> i64 {
    value(&mut node.connect(), "SELECT coalesce(sum(inferences), 0)::bigint FROM clip_stats")
}

/// A search that no server has answered yet, by its number.
type Search = fn(&mut Client, u32);

fn by_words(client: &mut Client, number: u32) {
    const SEARCH: &str = "SELECT image_id FROM image_embeddings
        ORDER BY embedding <=> (SELECT clip_embed_text($1)) LIMIT 10";
    let words = format!("{number} dogs");
    client.query_typed(SEARCH, &[(&words, Type::TEXT)]).expect("a search is answered");
}

fn by_picture(client: &mut Client, number: u32) {
    const SEARCH: &str = "SELECT image_id FROM image_embeddings
        ORDER BY embedding <=> (SELECT clip_embed_image($1)) LIMIT 10";
    thread_local! {
        static PICTURES: Vec<Vec<u8>> = demo_jpegs();
    }
    let picture = PICTURES.with(|pictures| variant(&pictures[number as usize % pictures.len()], number));
    client.query_typed(SEARCH, &[(&picture, Type::BYTEA)]).expect("a search is answered");
}

/// Searches with all clients for as long as `meanwhile` takes; returns how many were answered.
fn load(
    connect: &(dyn Fn() -> Client + Sync),
    search: Search,
    meanwhile: &mut dyn FnMut(),
) -> (usize, Duration) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let (answers, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let took = thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = connect();
                while !stop.load(Ordering::Relaxed) {
                    search(&mut client, NEXT.fetch_add(1, Ordering::Relaxed));
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let took = time(meanwhile);
        stop.store(true, Ordering::Relaxed);
        took
    });
    (answers.into_inner(), took)
}
