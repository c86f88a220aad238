//! The costs of an upload and a search while a table is watched in async mode, and the speed of the queue.

use std::ffi::OsStr;
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
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
/// How often the uploads into tables that are not watched are repeated: they end soon, and a search has to be measured
/// often enough beside them.
const ROUNDS: u32 = 4;
/// Searches on a machine that does nothing else: so many before the uploads, and so many after the backlog.
const SEARCHES: usize = 300;

/// The work beside a search.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Uploads into tables that are not watched.
    UnwatchedUploads,
    /// The same uploads, half of them into the watched table.
    Uploads,
    /// The queue works off the photos that they left.
    QueueAlone,
}

/// The phase of the moment, for the client that searches. It is over when this is dropped.
struct Now<'a>(&'a Mutex<Option<Phase>>);

impl Now<'_> {
    fn is(&self, phase: Option<Phase>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }
}

impl Drop for Now<'_> {
    fn drop(&mut self) {
        self.is(None);
    }
}

/// Measures with the demo model, or with the one in the `given` folder, which takes as long as it needs for 5,300 photos.
pub(crate) fn measure(given: Option<&Path>) {
    // The settings of a server that must not lose committed rows.
    let mut settings = vec![("synchronous_commit", "on")];
    if let Some(model) = given {
        let place = [model.parent().and_then(Path::to_str), model.file_name().and_then(OsStr::to_str)];
        let [Some(directory), Some(name)] = place else { panic!("{} has no name", model.display()) };
        settings.extend([("clip.models_directory", directory), ("clip.model", name)]);
    }
    let cluster = TestCluster::preloaded_with(&settings);
    let (database, mut client) = watched_async(&cluster);
    for table in ["unwatched", "unwatched_too"] {
        run(&mut client, &format!("CREATE TABLE {table} (LIKE photos INCLUDING ALL)"));
    }
    let pictures = demo_photos();

    let [mut without, mut with] = upload(&mut client, ["unwatched", "photos"], &pictures, 1..=FIRST);
    report_inserts("one session", &mut without, &mut with);
    wait_for_the_queue(&mut client);

    let mut idle = search_alone(&database, "before");
    let phase = Mutex::new(Some(Phase::UnwatchedUploads));
    let (inserts, took, beside) = thread::scope(|scope| {
        let searches = scope
            .spawn(|| search(&database, "beside", |_| *phase.lock().unwrap_or_else(PoisonError::into_inner)));
        let now = Now(&phase);
        for round in 1..=ROUNDS {
            let first = FIRST + 1 + round * PHOTOS;
            upload_by_sessions(&database, ["unwatched", "unwatched_too"], &pictures, first..first + PHOTOS);
        }
        now.is(Some(Phase::Uploads));
        let start = Instant::now();
        let inserts =
            upload_by_sessions(&database, ["unwatched", "photos"], &pictures, FIRST + 1..FIRST + 1 + PHOTOS);
        let uploads = start.elapsed();
        let waiting: i64 = value(&mut client, "SELECT count(*) FROM clip_queue");
        now.is(Some(Phase::QueueAlone));
        report(
            &format!("{PHOTOS} uploads by {SESSIONS} sessions, and as many that are not watched"),
            &format!("{:9.1} s, {waiting} of them waited in the queue then", uploads.as_secs_f64()),
        );
        wait_until("all photos are embedded", 10 * PATIENCE, || {
            value(&mut client, "SELECT NOT EXISTS (SELECT FROM clip_queue WHERE NOT dead)")
        });
        drop(now);
        (inserts, start.elapsed(), searches.join().expect("the searches"))
    });
    idle.extend(search_alone(&database, "after"));

    let [mut without, mut with] = inserts;
    report_inserts(&format!("{SESSIONS} sessions and a search"), &mut without, &mut with);
    report_rate("photos through the queue, from the first upload to the last vector", PHOTOS as usize, took);
    let beside = |phases: &[Phase]| -> Vec<Duration> {
        beside.iter().filter(|(its, _)| phases.contains(its)).map(|(_, took)| *took).collect()
    };
    let of_idle = report_searches("nothing", &mut idle);
    let of_unwatched = report_searches("uploads, not watched", &mut beside(&[Phase::UnwatchedUploads]));
    let of_uploads = report_searches("the same uploads, watched", &mut beside(&[Phase::Uploads]));
    let of_queue = report_searches("the queue alone", &mut beside(&[Phase::QueueAlone]));
    let of_backlog = report_searches("either", &mut beside(&[Phase::Uploads, Phase::QueueAlone]));
    report_ratio(
        "  p95 beside watched uploads, of that beside the same, not watched",
        of_uploads,
        of_unwatched,
    );
    report_ratio("  p95 beside the queue alone, of that beside nothing", of_queue, of_idle);
    report_ratio("  p95 beside either, of that beside nothing", of_backlog, of_idle);
    reconcile(&mut client, &pictures, FIRST + PHOTOS);
}

/// Stores each photo in both tables, in turns, and returns how long it took in the first and in the second.
fn upload(
    client: &mut Client,
    tables: [&str; 2],
    pictures: &[Vec<u8>],
    numbers: impl Iterator<Item = u32>,
) -> [Vec<Duration>; 2] {
    let insert = |table| format!("INSERT INTO {table} (id, image) OVERRIDING SYSTEM VALUE VALUES ($1, $2)");
    let inserts = tables.map(|table| client.prepare(&insert(table)).expect("an INSERT is prepared"));
    let mut times = [Vec::new(), Vec::new()];
    for number in numbers {
        let (id, photo) = (i64::from(number), photo(pictures, number));
        for (insert, times) in inserts.iter().zip(&mut times) {
            times.push(time(|| _ = client.execute(insert, &[&id, &photo]).expect("a photo is stored")));
        }
    }
    times
}

/// Has sessions share the uploads of photos.
fn upload_by_sessions(
    database: &TestDatabase,
    tables: [&str; 2],
    pictures: &[Vec<u8>],
    numbers: Range<u32>,
) -> [Vec<Duration>; 2] {
    thread::scope(|scope| {
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|session| {
                let numbers = (numbers.start + session..numbers.end).step_by(SESSIONS as usize);
                scope.spawn(move || upload(&mut database.connect(), tables, pictures, numbers))
            })
            .collect();
        let mut times = [Vec::new(), Vec::new()];
        for session in sessions {
            let its_times = session.join().expect("a session uploads");
            times.iter_mut().zip(its_times).for_each(|(times, its)| times.extend(its));
        }
        times
    })
}

fn search_alone(database: &TestDatabase, word: &str) -> Vec<Duration> {
    search(database, word, |count| (count < SEARCHES).then_some(()))
        .into_iter()
        .map(|((), took)| took)
        .collect()
}

fn report_inserts(role: &str, without: &mut [Duration], with: &mut [Duration]) {
    report_times(&format!("INSERT of a photo by {role}, not watched"), without);
    report_times(&format!("INSERT of a photo by {role}, watched in async mode"), with);
    let more = milliseconds(median(with)) - milliseconds(median(without));
    report("  the second above the first", &format!("{more:9.2} ms"));
}

/// Reports the searches beside something, and returns their p95.
fn report_searches(what: &str, times: &mut [Duration]) -> Duration {
    report_times(&format!("search by a new text, beside {what}"), times);
    report_times_at(95, "", times);
    percentile(95, times)
}

fn report_ratio(what: &str, time: Duration, other: Duration) {
    report(what, &format!("{:9.2} times as long", time.as_secs_f64() / other.as_secs_f64()));
}
