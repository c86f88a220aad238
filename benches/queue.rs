//! What an upload and a search cost while a table is watched in async mode, and how fast the queue embeds.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pg_clip_tests::{
    PATIENCE, TestCluster, TestDatabase, demo_photos, run, value, wait_for_the_queue, wait_until,
    watched_async,
};
use postgres::Client;

use crate::reconcile::{photo, reconcile};
use crate::searching::search;
use crate::tally::{
    median, milliseconds, percentile, report, report_rate, report_times, report_times_at, time,
};

/// Stored by one session, without a search beside it.
const FIRST: u32 = 300;
const PHOTOS: u32 = 5000;
const SESSIONS: u32 = 8;
/// Searches without a backlog: so many before it, and so many after it, when the table has grown.
const SEARCHES: usize = 300;

/// What the queue has to do during a search.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Uploads,
    QueueAlone,
}

pub(crate) fn measure() {
    // As a server has it that must not lose what it has committed.
    let cluster = TestCluster::preloaded_with(&[("synchronous_commit", "on")]);
    let (database, mut client) = watched_async(&cluster);
    run(&mut client, "CREATE TABLE unwatched (LIKE photos INCLUDING ALL)");
    let pictures = demo_photos();

    let (mut without, mut with) = upload(&mut client, &pictures, 1..=FIRST);
    wait_for_the_queue(&mut client);
    report_inserts("one session", &mut without, &mut with);

    let mut alone = search_alone(&database, "before");
    let (uploaded, embedded) = (AtomicBool::new(false), AtomicBool::new(false));
    let start = Instant::now();
    let (mut without, mut with, beside) = thread::scope(|scope| {
        let searches = scope.spawn(|| {
            search(&database, "beside", |_| match (uploaded.load(Ordering::Relaxed), &embedded) {
                (false, _) => Some(Phase::Uploads),
                (true, embedded) => (!embedded.load(Ordering::Relaxed)).then_some(Phase::QueueAlone),
            })
        });
        let (database, pictures) = (&database, &pictures);
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|session| {
                scope.spawn(move || {
                    let numbers = (FIRST + 1 + session..=FIRST + PHOTOS).step_by(SESSIONS as usize);
                    upload(&mut database.connect(), pictures, numbers)
                })
            })
            .collect();
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for session in sessions {
            let (its_without, its_with) = session.join().expect("a session uploads");
            without.extend(its_without);
            with.extend(its_with);
        }
        let uploads = start.elapsed();
        let waiting: i64 = value(&mut client, "SELECT count(*) FROM clip_queue");
        uploaded.store(true, Ordering::Relaxed);
        report(
            &format!("{PHOTOS} uploads by {SESSIONS} sessions, and as many that are not watched"),
            &format!("{:9.1} s, {waiting} of them waited in the queue then", uploads.as_secs_f64()),
        );
        wait_until("all photos are embedded", 3 * PATIENCE, || {
            value::<i64>(&mut client, "SELECT count(*) FROM clip_queue WHERE NOT dead") == 0
        });
        embedded.store(true, Ordering::Relaxed);
        (without, with, searches.join().expect("the searches"))
    });
    let took = start.elapsed();
    alone.extend(search_alone(&database, "after"));

    report_inserts(&format!("{SESSIONS} sessions and a search"), &mut without, &mut with);
    report_rate("photos through the queue, from the first upload to the last vector", PHOTOS as usize, took);
    report_times_at(95, "search by a new text, without a backlog", &mut alone);
    let without_backlog = percentile(95, &mut alone);
    for (what, phase) in [
        ("search by a new text, during the backlog", None),
        ("  of these, while the sessions upload", Some(Phase::Uploads)),
        ("  of these, while the queue alone is at work", Some(Phase::QueueAlone)),
    ] {
        let mut times: Vec<Duration> = beside
            .iter()
            .filter(|(its, _)| phase.is_none_or(|phase| phase == *its))
            .map(|(_, took)| *took)
            .collect();
        report_times_at(95, what, &mut times);
        let ratio = percentile(95, &mut times).as_secs_f64() / without_backlog.as_secs_f64();
        report("    against that without a backlog", &format!("{ratio:9.2} times as long"));
    }
    reconcile(&mut client, &pictures, FIRST + PHOTOS);
}

/// Stores each photo in the unwatched table and in the watched one, in turns, and returns how long either took.
fn upload(
    client: &mut Client,
    pictures: &[Vec<u8>],
    numbers: impl Iterator<Item = u32>,
) -> (Vec<Duration>, Vec<Duration>) {
    let insert = |table| format!("INSERT INTO {table} (id, image) OVERRIDING SYSTEM VALUE VALUES ($1, $2)");
    let [unwatched, watched] =
        ["unwatched", "photos"].map(|table| client.prepare(&insert(table)).expect("an INSERT is prepared"));
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for number in numbers {
        let (id, photo) = (i64::from(number), photo(pictures, number));
        for (statement, times) in [(&unwatched, &mut without), (&watched, &mut with)] {
            times.push(time(|| _ = client.execute(statement, &[&id, &photo]).expect("a photo is stored")));
        }
    }
    (without, with)
}

fn search_alone(database: &TestDatabase, word: &str) -> Vec<Duration> {
    search(database, word, |count| (count < SEARCHES).then_some(()))
        .into_iter()
        .map(|((), took)| took)
        .collect()
}

fn report_inserts(who: &str, without: &mut [Duration], with: &mut [Duration]) {
    report_times(&format!("INSERT of a photo by {who}, not watched"), without);
    report_times(&format!("INSERT of a photo by {who}, watched in async mode"), with);
    let more = milliseconds(median(with)) - milliseconds(median(without));
    report("  the second above the first", &format!("{more:9.2} ms"));
}
