//! Searches by words on a primary and on its standbys, all on this machine: how many a second each answers, and all
//! of them together. They share the processors, so that the sum tells the cost of several servers and not the gain
//! of several machines.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use pg_clip_tests::{
    TestCluster, TestDatabase, demo_photos, run, value, wait_for_the_queue, wait_until, watched_async,
};
use postgres::types::Type;

use crate::tally::{report, report_rate, time};

const CLIENTS: usize = 8;
const STANDBYS: usize = 3;
const LONG: &str = "SELECT pg_sleep(5)";
const SEARCH: &str = "SELECT image_id FROM image_embeddings
    ORDER BY embedding <=> (SELECT clip_embed_text($1)) LIMIT 10";

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
        let followers = standbys.iter().map(|standby| standby.existing_database(database.name()));
        let nodes: Vec<TestDatabase> =
            [primary.existing_database(database.name())].into_iter().chain(followers).collect();
        for node in &nodes {
            warm(node);
        }
        let (answers, took) = load(&nodes, &mut || run(&mut client, LONG));
        report_rate(&format!("{CLIENTS} clients on {} servers", nodes.len()), answers.iter().sum(), took);
        for (number, answers) in answers.into_iter().enumerate() {
            report_rate(&format!("  server {}", number + 1), answers, took);
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

/// Searches on all servers for as long as `meanwhile` takes; returns how many were answered by each.
fn load(nodes: &[TestDatabase], meanwhile: &mut dyn FnMut()) -> (Vec<usize>, Duration) {
    let answers: Vec<AtomicUsize> = nodes.iter().map(|_| AtomicUsize::new(0)).collect();
    let stop = AtomicBool::new(false);
    let took = thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (answers, stop) = (&answers[number % nodes.len()], &stop);
            let mut client = nodes[number % nodes.len()].connect();
            scope.spawn(move || {
                for search in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let words = format!("client {number}, {search} dogs on {:?}", thread::current().id());
                    client.query_typed(SEARCH, &[(&words, Type::TEXT)]).expect("a search is answered");
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let took = time(meanwhile);
        stop.store(true, Ordering::Relaxed);
        took
    });
    (answers.into_iter().map(AtomicUsize::into_inner).collect(), took)
}
