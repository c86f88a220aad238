//! The harm that an ordinary role can do to a server, and to another role, in an hour: `PG_CLIP_ROLE_MINUTES` is
//! another time.
//!
//! Several sessions of the role send random statements: calls, DDL, triggers, casts, types and operators of its own, on everything
//! that pg_clip adds to a database. Another role searches and stores photos in the same database. Its times are compared with those
//! beside as many sessions that compute checksums, which no extension can keep from using the processors: both take turns with
//! times alone.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pg_clip_tests::hostile::Trial;
use pg_clip_tests::{PATIENCE, StopOnDrop, demo_photos, run, value, variant, wait_until};
use postgres::Client;

use crate::tally::{percentile, report, report_times, report_times_at, time};

const MINUTES: u64 = 60;
const SESSIONS: usize = 2;
/// How long the other role's times are taken alone, and beside checksums; beside the attempts, four times as long.
const TURN: Duration = Duration::from_secs(15);
/// The pause of the other role between two calls: a shop is not a benchmark.
const PAUSE: Duration = Duration::from_millis(50);

const KINDS: [&str; 3] = [
    "clip_embed_text, a new text",
    "INSERT of a photo, sync mode",
    "INSERT of a photo to its embedding, async mode",
];

/// The times of each kind of call.
#[derive(Default)]
struct Times([Vec<Duration>; KINDS.len()]);

impl AddAssign for Times {
    fn add_assign(&mut self, other: Times) {
        self.0.iter_mut().zip(other.0).for_each(|(times, others)| times.extend(others));
    }
}

pub(crate) fn measure() {
    let minutes = std::env::var("PG_CLIP_ROLE_MINUTES")
        .map_or(MINUTES, |minutes| minutes.parse().expect("minutes are a number"));
    let mut trial = Trial::begin();
    run(
        &mut trial.database().connect(),
        "CREATE SCHEMA shop AUTHORIZATION neighbour; SET ROLE neighbour;
        CREATE TABLE shop.sync (id serial PRIMARY KEY, image bytea);
        CREATE TABLE shop.async (id serial PRIMARY KEY, image bytea);
        SELECT public.clip_watch('shop.sync', target => 'shop.sync_embeddings');
        SELECT public.clip_watch('shop.async', target => 'shop.async_embeddings', mode => 'async')",
    );
    let mut shop =
        Shop { number: 0, pictures: demo_photos(), client: trial.database().connect_as("neighbour") };
    // No object of the ordinary role's is found by its name.
    run(&mut shop.client, "SET search_path = pg_catalog");

    let [mut alone, mut checksums, mut attempts] = [Times::default(), Times::default(), Times::default()];
    let mut states: BTreeMap<String, u64> = BTreeMap::new();
    let mut gained = Vec::new();
    let start = Instant::now();
    for round in 0.. {
        if start.elapsed() >= Duration::from_secs(60 * minutes) {
            break;
        }
        alone += shop.trade(TURN);
        checksums +=
            beside(&trial, |trial, _, stop| compute_checksums(trial, stop), |_| (), || shop.trade(TURN));
        attempts += beside(
            &trial,
            |trial, session, stop| trial.attempt(seed(round, session), stop),
            |ended| ended.into_iter().for_each(|(state, count)| *states.entry(state).or_default() += count),
            || shop.trade(4 * TURN),
        );
        gained.extend(trial.broken(i32::try_from(round).expect("few rounds") * 10));
        if !gained.is_empty() {
            break;
        }
    }
    let statements: u64 = states.values().sum();
    report(
        "random statements of an ordinary role",
        &format!("{statements:9} in {} minutes by {SESSIONS} sessions", start.elapsed().as_secs() / 60),
    );
    for (state, count) in &states {
        report(&format!("  that ended with {state}"), &format!("{count:9}"));
    }
    for (kind, what) in KINDS.iter().enumerate() {
        for (beside, times) in [
            ("alone", &mut alone),
            ("beside checksums", &mut checksums),
            ("beside the statements", &mut attempts),
        ] {
            report_times(&format!("{what}, {beside}"), &mut times.0[kind]);
            report_times_at(95, "", &mut times.0[kind]);
        }
        let p95 = [&mut alone, &mut checksums, &mut attempts]
            .map(|times| percentile(95, &mut times.0[kind]).as_secs_f64());
        report("  p95 beside the statements, of that alone", &format!("{:9.2}", p95[2] / p95[0]));
        report("  p95 beside the statements, of that beside checksums", &format!("{:9.2}", p95[2] / p95[1]));
    }
    assert!(gained.is_empty(), "the role has broken or gained something: {gained:#?}");
}

/// A seed of its own for each round and session; a batch takes the next one.
fn seed(round: u64, session: usize) -> u64 {
    (round * SESSIONS as u64 + session as u64) * 100_000 + 1
}

/// Does something while sessions of the ordinary role are at work; `ended` takes the result of each of them.
fn beside<T: Send, R>(
    trial: &Trial,
    session: impl Fn(&Trial, usize, &AtomicBool) -> T + Sync,
    mut ended: impl FnMut(T),
    action: impl FnOnce() -> R,
) -> R {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let stopped = StopOnDrop(&stop);
        let (stop, session) = (&stop, &session);
        let sessions: Vec<_> =
            (0..SESSIONS).map(|number| scope.spawn(move || session(trial, number, stop))).collect();
        let result = action();
        drop(stopped);
        sessions.into_iter().for_each(|session| ended(session.join().expect("a session ends")));
        result
    })
}

fn compute_checksums(trial: &Trial, stop: &AtomicBool) {
    let mut client = trial.database().connect_as("stranger");
    while !stop.load(Ordering::Relaxed) {
        run(
            &mut client,
            "SELECT count(pg_catalog.sha256(image)) FROM public.pictures, pg_catalog.generate_series(1, 100)",
        );
    }
}

/// The role that uses pg_clip. Each call is for an input that was not embedded before, and none may fail.
struct Shop {
    client: Client,
    pictures: Vec<Vec<u8>>,
    number: u32,
}

impl Shop {
    fn trade(&mut self, length: Duration) -> Times {
        let mut times = Times::default();
        let end = Instant::now() + length;
        while Instant::now() < end {
            self.number += 1;
            let text = format!("a photo of {} dogs", self.number);
            let client = &mut self.client;
            times.0[0].push(time(|| {
                client.query("SELECT public.clip_embed_text($1)", &[&text]).expect("a vector");
            }));
            thread::sleep(PAUSE);
            let [photo, other] = [0, 1].map(|kind| {
                let number = 2 * self.number + kind;
                variant(&self.pictures[number as usize % self.pictures.len()], number)
            });
            times.0[1].push(time(|| {
                client
                    .execute("INSERT INTO shop.sync (image) VALUES ($1)", &[&photo])
                    .expect("a photo is stored");
            }));
            thread::sleep(PAUSE);
            times.0[2].push(time(|| {
                client.execute("INSERT INTO shop.async (image) VALUES ($1)", &[&other]).expect("a photo is stored");
                wait_until("the photo is embedded", PATIENCE, || {
                    value::<i64>(
                        client,
                        "SELECT count(*) FROM shop.async_embeddings WHERE image_id = (SELECT max(id) FROM shop.async)",
                    ) == 1
                });
            }));
            thread::sleep(PAUSE);
        }
        times
    }
}
