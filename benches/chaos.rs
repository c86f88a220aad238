//! Uploads while all processes that have a part in them are killed at random: no photo is lost, doubled or
//! outdated.
//!
//! `PG_CLIP_CHAOS_SEED` repeats the order of deaths of another run; the machine decides when exactly they come.
//! `PG_CLIP_CHAOS_ROUNDS` is how often the deaths of [`DEATHS`] come: 20 are 1,000 deaths.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;
use std::time::Instant;

use fastrand::Rng;
use pg_clip_tests::{
    PATIENCE, Signal, TestCluster, TestDatabase, demo_photos, try_send, wait_for, wait_until, watched_async,
};
use postgres::types::FromSql;
use postgres::{Client, Error};

use crate::reconcile::{photo, reconcile};
use crate::tally::{report, report_rate};

/// Photos of up to four rounds.
const PHOTOS: u32 = 5000;
const SESSIONS: u32 = 8;
/// Uploads wait while so many photos are behind, so that uploading goes on until the end.
const MOST_BEHIND: i64 = 600;
/// Every photo of so many is stored with another picture first.
const CHANGED: u32 = 5;

/// The processes that are killed, and how often in a round.
const DEATHS: [(Death, usize); 6] = [
    (Death::Embedder, 18),
    (Death::Worker, 12),
    (Death::Launcher, 5),
    (Death::Upload, 10),
    (Death::UploadHard, 3),
    (Death::WorkerHard, 2),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Death {
    Embedder,
    Worker,
    Launcher,
    Upload,
    /// By `kill -9`: PostgreSQL ends all sessions and recovers.
    UploadHard,
    WorkerHard,
}

pub(crate) fn measure() {
    let seed = std::env::var("PG_CLIP_CHAOS_SEED").ok().map(|seed| seed.parse().expect("a seed is a number"));
    let mut random = Rng::with_seed(seed.unwrap_or_else(|| fastrand::u64(..1_000_000)));
    report("seed of the deaths", &format!("{:9}", random.get_seed()));

    let rounds = std::env::var("PG_CLIP_CHAOS_ROUNDS");
    let rounds: u32 = rounds.map_or(1, |rounds| rounds.parse().expect("rounds are a number"));
    let photos = PHOTOS * rounds.div_ceil(4);

    let cluster = TestCluster::preloaded_with(&[("synchronous_commit", "on")]);
    let (database, client) = watched_async(&cluster);
    drop(client);
    let pictures = demo_photos();
    let (acknowledged, embedded) = (AtomicI64::new(0), AtomicI64::new(0));
    let mut killed: BTreeMap<Death, usize> = BTreeMap::new();
    let start = Instant::now();
    let mut observer = Observer { client: connect(&database, "observer"), database: &database };
    let _log = LogOfFailure(&cluster);
    thread::scope(|scope| {
        for session in 0..SESSIONS {
            let (database, pictures) = (&database, &pictures);
            let (acknowledged, embedded) = (&acknowledged, &embedded);
            scope.spawn(move || {
                let mut upload = Upload { client: connect(database, "upload"), database };
                for number in (session + 1..=photos).step_by(SESSIONS as usize) {
                    wait_until("the queue keeps up", PATIENCE, || {
                        acknowledged.load(Ordering::Relaxed) - embedded.load(Ordering::Relaxed) < MOST_BEHIND
                    });
                    if number % CHANGED == 0 {
                        upload.store(number, &photo(pictures, number + 1));
                    }
                    upload.store(number, &photo(pictures, number));
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for (after, death) in plan(&mut random, rounds, photos.into()) {
            wait_until("photos are embedded", PATIENCE, || observer.embedded(&embedded) >= after);
            observer.kill(death, &mut random, &embedded);
            *killed.entry(death).or_default() += 1;
        }
        wait_until("all photos are embedded", PATIENCE, || {
            observer.embedded(&embedded) >= i64::from(photos)
                && observer.ask::<i64>("SELECT count(*) FROM clip_queue") == vec![0]
        });
    });
    let took = start.elapsed();
    let deaths: Vec<String> = killed.iter().map(|(death, count)| format!("{death:?} {count}")).collect();
    report(
        &format!("deaths during {photos} uploads by {SESSIONS} sessions"),
        &format!("{:9}", killed.values().sum::<usize>()),
    );
    report("  of these", &deaths.join(", "));
    report_rate("photos meanwhile", photos as usize, took);
    reconcile(&mut observer.client, &pictures, photos);
    let restarts = cluster.log().matches("all server processes terminated; reinitializing").count();
    report("  PostgreSQL recovered meanwhile", &format!("{restarts:9} times"));
}

/// Prints the end of the server's log where the bench fails.
struct LogOfFailure<'a>(&'a TestCluster);

impl Drop for LogOfFailure<'_> {
    fn drop(&mut self) {
        const LINES: usize = 200;
        if thread::panicking() {
            let log = self.0.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("{}", lines[lines.len().saturating_sub(LINES)..].join("\n"));
        }
    }
}

/// The deaths in random order, each after a random number of embedded photos.
fn plan(random: &mut Rng, rounds: u32, photos: i64) -> Vec<(i64, Death)> {
    let often = |count: usize| count * rounds as usize;
    let mut deaths: Vec<Death> =
        DEATHS.iter().flat_map(|(death, count)| std::iter::repeat_n(*death, often(*count))).collect();
    random.shuffle(&mut deaths);
    // Towards the end there may be no more uploads to kill.
    let mut moments: Vec<i64> = deaths.iter().map(|_| random.i64(1..photos - 2 * MOST_BEHIND)).collect();
    moments.sort_unstable();
    moments.into_iter().zip(deaths).collect()
}

fn connect(database: &TestDatabase, name: &str) -> Client {
    let set = format!("SET application_name = '{name}'");
    wait_for("the server takes connections", PATIENCE, || {
        let mut client = database.try_connect().ok()?;
        client.batch_execute(&set).ok()?;
        Some(client)
    })
}

/// Panics unless the error is one of a connection that was ended: other processes' deaths may cause no other error.
#[track_caller]
fn check_ended(error: &Error) {
    let by_the_server = error.code().is_none_or(|state| state.code().starts_with("57P"));
    assert!(by_the_server, "{error:?}");
}

/// A session that stores photos, and connects again and goes on when its backend was killed.
struct Upload<'a> {
    client: Client,
    database: &'a TestDatabase,
}

impl Upload<'_> {
    fn store(&mut self, number: u32, photo: &[u8]) {
        let insert = "INSERT INTO photos (id, image) OVERRIDING SYSTEM VALUE VALUES ($1, $2)
            ON CONFLICT (id) DO UPDATE SET image = excluded.image";
        while let Err(error) = self.client.execute(insert, &[&i64::from(number), &photo]) {
            check_ended(&error);
            self.client = connect(self.database, "upload");
        }
    }
}

/// A connection that looks, and kills processes.
struct Observer<'a> {
    client: Client,
    database: &'a TestDatabase,
}

impl Observer<'_> {
    /// The first column of a query's rows.
    fn ask<T: for<'a> FromSql<'a>>(&mut self, query: &str) -> Vec<T> {
        loop {
            match self.client.query(query, &[]) {
                Ok(rows) => return rows.iter().map(|row| row.get(0)).collect(),
                Err(error) => check_ended(&error),
            }
            self.client = connect(self.database, "observer");
        }
    }

    fn embedded(&mut self, embedded: &AtomicI64) -> i64 {
        let count = self.ask("SELECT count(*) FROM image_embeddings")[0];
        embedded.store(count, Ordering::Relaxed);
        count
    }

    fn kill(&mut self, death: Death, random: &mut Rng, embedded: &AtomicI64) {
        let candidates = match death {
            Death::Embedder => "SELECT pid FROM clip_status WHERE pid IS NOT NULL",
            Death::Worker | Death::WorkerHard => {
                "SELECT pid FROM clip_workers WHERE worker = 'pg_clip queue worker'"
            }
            Death::Launcher => "SELECT pid FROM clip_workers WHERE worker = 'pg_clip queue launcher'",
            Death::Upload | Death::UploadHard => {
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'upload'"
            }
        };
        // A process may end by itself before it is killed.
        wait_until(&format!("there is a process to kill: {death:?}"), PATIENCE, || {
            // Sessions that wait for the queue connect again once it has caught up.
            self.embedded(embedded);
            let Some(pid) = random.choice(self.ask::<i32>(candidates)) else { return false };
            match death {
                Death::Embedder | Death::UploadHard | Death::WorkerHard => {
                    try_send(u32::try_from(pid).expect("a process id"), Signal::SIGKILL)
                }
                Death::Worker | Death::Launcher | Death::Upload => {
                    self.ask::<bool>(&format!("SELECT pg_terminate_backend({pid})")) == [true]
                }
            }
        });
    }
}
