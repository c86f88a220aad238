//! Claiming, fetching and handing over, beside one another.
//!
//! Each table has a pipeline of its own, with two connections: a table that is locked or slow delays no other.
//! Places bound the photos that a pipeline holds: a photo takes one before it is claimed, and leaves it once it is
//! handed over. All pipelines share the fetches at a time, and the memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::database::{Address, Claim, Content, Error, Fed, Session, Table};
use crate::log;
use crate::memory::{Memory, Part};
use crate::metrics::Counters;
use crate::store::{NoObject, Store, Why};

/// A batch holds so many photos at most ...
const BATCH: usize = 32;
/// ... or so many bytes, beside one photo.
const BATCH_BYTES: usize = 64 << 20;
/// The bytes of all photos that are fetched and not handed over, in KiB.
const MEMORY: u32 = 512 << 10;
/// The most that is reckoned for one of them.
const LARGEST: u32 = MEMORY / 8;
/// The pause after an error, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How often the photos that wait are counted.
const COUNT_EVERY: Duration = Duration::from_secs(15);

#[derive(Debug, Clone)]
pub struct Limits {
    /// Photos that are fetched at once, over all tables.
    pub concurrency: usize,
    pub lease: Duration,
    pub poll: Duration,
    /// Whether to end when nothing waits.
    pub drains: bool,
}

pub struct Pipeline {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    address: Arc<Address>,
    limits: Limits,
    counters: Arc<Counters>,
    fetches: Semaphore,
    memory: Arc<Memory>,
    health: Mutex<Health>,
    /// The photos that wait, of each table since it was counted last, and their sum.
    waiting: Mutex<HashMap<u32, u64>>,
    all_waiting: Arc<AtomicU64>,
}

/// The state of the store.
struct Health {
    /// When it last answered, with any answer.
    answered: Instant,
    /// Until when nothing is claimed because it gives nothing, and how long that pause was.
    paused: Option<(Instant, Duration)>,
}

/// A fetched photo, and its place in the pipeline.
struct Ready {
    fed: Fed,
    _place: OwnedSemaphorePermit,
    _memory: Option<Part>,
}

impl Pipeline {
    pub fn new(
        store: Store,
        address: Arc<Address>,
        limits: Limits,
        counters: Arc<Counters>,
        all_waiting: Arc<AtomicU64>,
    ) -> Pipeline {
        let shared = Shared {
            fetches: Semaphore::new(limits.concurrency),
            memory: Memory::new(MEMORY),
            health: Mutex::new(Health { answered: Instant::now(), paused: None }),
            waiting: Mutex::default(),
            store,
            address,
            limits,
            counters,
            all_waiting,
        };
        Pipeline { shared: Arc::new(shared) }
    }

    /// Feeds tables until SIGINT or SIGTERM: the photos that are claimed then are fetched and handed over still.
    pub async fn run(&self, tables: Vec<Table>) -> Result<(), Error> {
        let (end, ending) = watch::channel(false);
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
        let mut pipelines = JoinSet::new();
        for table in tables {
            log::line(&format!("feeding {}", table.name));
            pipelines.spawn(feed_table(self.shared.clone(), table, ending.clone()));
        }
        let mut ended = Ok(());
        loop {
            let told = async {
                match (&mut interrupt, &mut terminate) {
                    (Ok(interrupt), Ok(terminate)) => {
                        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
                    }
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                done = pipelines.join_next() => match done {
                    None => return ended,
                    Some(Ok(result)) => ended = ended.and(result),
                    Some(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
                },
                () = told => {
                    if *ending.borrow() {
                        log::line("ending at once: claimed photos are fetched again when their lease ends");
                        return ended;
                    }
                    log::line("ending: handing over the claimed photos");
                    let _ = end.send(true);
                }
            }
        }
    }
}

async fn feed_table(
    shared: Arc<Shared>,
    table: Table,
    mut ending: watch::Receiver<bool>,
) -> Result<(), Error> {
    let places = shared.limits.concurrency * 2;
    let (ready, handed) = mpsc::channel(places);
    let claimer = claim_all(shared.clone(), &table, ready, places, &mut ending);
    let feeder = hand_over(shared.clone(), &table, handed);
    let (claimed, ()) = tokio::join!(claimer, feeder);
    claimed
}

/// Claims photos and has them fetched, until it is told to end or nothing is left.
async fn claim_all(
    shared: Arc<Shared>,
    table: &Table,
    ready: mpsc::Sender<Ready>,
    places: usize,
    ending: &mut watch::Receiver<bool>,
) -> Result<(), Error> {
    let free = Arc::new(Semaphore::new(places));
    let mut session: Option<Session> = None;
    let mut pause = Pause::default();
    let mut counted: Option<Instant> = None;
    let mut max_bytes = 0;
    let mut fetches = JoinSet::new();
    while !*ending.borrow() {
        while fetches.try_join_next().is_some() {}
        shared.wait_for_store(ending).await;
        let place = tokio::select! {
            place = free.clone().acquire_owned() => place.map_err(|_| Error::NoExtension)?,
            _ = ending.changed() => continue,
        };
        let opened = match session.take() {
            Some(open) => Ok(open),
            None => Session::open(&shared.address).await,
        };
        let claimed = async {
            let open = opened?;
            if counted.is_none_or(|last| last.elapsed() > COUNT_EVERY) {
                let waiting = open.waiting(table).await?;
                max_bytes = waiting.max_image_bytes;
                shared.note_waiting(table, waiting.photos);
                counted = Some(Instant::now());
            }
            let more = free.available_permits().min(shared.limits.concurrency - 1);
            let claims = open.claim(table, 1 + more, shared.limits.lease).await?;
            Ok::<_, Error>((open, claims))
        };
        let claims = match claimed.await {
            Ok((open, claims)) => {
                session = Some(open);
                pause = Pause::default();
                claims
            }
            Err(error) => {
                shared.counters.database_errors.add(1);
                let length = pause.next();
                log::line(&format!("{}: {error}; trying again in {length:?}", table.name));
                if shared.limits.drains && !error.is_passing() {
                    return Err(error);
                }
                sleep(length, ending).await;
                continue;
            }
        };
        if claims.is_empty() {
            drop(place);
            if shared.limits.drains
                && free.available_permits() == places
                && shared.is_drained(table, session.as_ref()).await
            {
                break;
            }
            sleep(shared.limits.poll, ending).await;
            continue;
        }
        shared.counters.claimed.add(claims.len() as u64);
        let mut place = Some(place);
        for claim in claims {
            // As many are free as were asked for: only this loop takes them.
            let place = match place.take() {
                Some(place) => place,
                None => free.clone().acquire_owned().await.map_err(|_| Error::NoExtension)?,
            };
            let (shared, ready, table) = (shared.clone(), ready.clone(), table.oid);
            fetches.spawn(async move {
                let (content, memory) = shared.fetch(table, &claim, max_bytes).await;
                // It ends only after all fetches.
                let _ =
                    ready.send(Ready { fed: Fed { claim, content }, _place: place, _memory: memory }).await;
            });
        }
    }
    while fetches.join_next().await.is_some() {}
    Ok(())
}

/// Hands over what has been fetched, as many photos at once as there are then.
async fn hand_over(shared: Arc<Shared>, table: &Table, mut handed: mpsc::Receiver<Ready>) {
    let mut session: Option<Session> = None;
    let mut next: Option<Ready> = None;
    loop {
        let mut batch = Vec::new();
        let mut bytes = 0;
        let first = match next.take() {
            Some(ready) => Some(ready),
            None => handed.recv().await,
        };
        let Some(first) = first else {
            return;
        };
        let mut more = Some(first);
        while let Some(ready) = more.take() {
            bytes += ready.fed.content.len();
            if !batch.is_empty() && (bytes > BATCH_BYTES || batch.len() >= BATCH) {
                next = Some(ready);
                break;
            }
            batch.push(ready);
            more = handed.try_recv().ok();
        }
        let (photos, places): (Vec<Fed>, Vec<_>) =
            batch.into_iter().map(|ready| (ready.fed, (ready._place, ready._memory))).unzip();
        shared.hand_over(table, &mut session, &photos).await;
        drop(places);
    }
}

impl Shared {
    /// Fetches a photo, or says why it cannot. The memory is held until the photo is handed over.
    async fn fetch(&self, table: u32, claim: &Claim, max_bytes: u64) -> (Content, Option<Part>) {
        let Some(reference) = &claim.reference else {
            return (Content::Gone, None);
        };
        // The size of a photo is known only from its answer: memory for the largest is set aside, and the rest
        // given back. A table that waits for memory keeps no other from fetching.
        let most = u32::try_from(max_bytes.div_ceil(1024)).unwrap_or(MEMORY).clamp(1, LARGEST);
        let mut memory = self.memory.take(table, most).await;
        let Ok(_fetch) = self.fetches.acquire().await else {
            return (Content::Gone, None);
        };
        let start = Instant::now();
        match self.store.fetch(reference, max_bytes).await {
            Ok(bytes) => {
                self.note_answer();
                self.counters.fetched.add(1);
                self.counters.fetched_bytes.add(bytes.len() as u64);
                memory.shrink(u32::try_from(bytes.len().div_ceil(1024)).unwrap_or(most));
                (Content::Image(bytes), Some(memory))
            }
            Err(NoObject { why, message }) => {
                let reason = match why {
                    Why::Missing => "missing",
                    Why::Forbidden => "forbidden",
                    Why::Refused => "refused",
                    Why::TooLarge => "too large",
                    Why::Passing if self.has_answered_since(start) || self.store.answers().await => "failed",
                    Why::Passing | Why::Away => "unavailable",
                };
                if reason == "unavailable" {
                    self.note_silence(&message);
                } else if why != Why::Refused {
                    self.note_answer();
                }
                (Content::None(reason, message), None)
            }
        }
    }

    /// Hands photos over, for as long as it takes: the embedder, the server or the network may be away.
    async fn hand_over(&self, table: &Table, session: &mut Option<Session>, photos: &[Fed]) {
        let mut pause = Pause::default();
        loop {
            let opened = match session.take() {
                Some(open) => Ok(open),
                None => Session::open(&self.address).await,
            };
            let fed = async {
                let open = opened?;
                let outcomes = open.feed(table, photos).await?;
                Ok::<_, Error>((open, outcomes))
            };
            let error = match fed.await {
                Ok((open, outcomes)) => {
                    *session = Some(open);
                    for outcome in &outcomes {
                        self.counters.count_outcome(outcome);
                    }
                    self.note_ended(table, &outcomes);
                    return;
                }
                Err(error) => error,
            };
            self.counters.database_errors.add(1);
            let length = pause.next();
            if !error.is_passing() {
                log::line(&format!(
                    "{}: {error}; {} photos are left to their leases",
                    table.name,
                    photos.len()
                ));
                return;
            }
            log::line(&format!("{}: {error}; trying again in {length:?}", table.name));
            tokio::time::sleep(length).await;
        }
    }

    fn note_waiting(&self, table: &Table, photos: u64) {
        if let Ok(mut waiting) = self.waiting.lock() {
            waiting.insert(table.oid, photos);
            self.all_waiting.store(waiting.values().sum(), Ordering::Relaxed);
        }
    }

    /// Photos do not wait any more once they have ended, until they are counted again.
    fn note_ended(&self, table: &Table, outcomes: &[String]) {
        let waits = |outcome: &&String| matches!(outcome.as_str(), "failed" | "later");
        let ended = outcomes.len() - outcomes.iter().filter(waits).count();
        if let Ok(mut waiting) = self.waiting.lock() {
            let of_table = waiting.entry(table.oid).or_default();
            *of_table = of_table.saturating_sub(ended as u64);
            self.all_waiting.store(waiting.values().sum(), Ordering::Relaxed);
        }
    }

    /// Whether a table has no photo that waits, not even for its next try.
    async fn is_drained(&self, table: &Table, session: Option<&Session>) -> bool {
        let Some(session) = session else {
            return false;
        };
        let waiting = session.waiting(table).await;
        waiting.is_ok_and(|waiting| waiting.photos == 0)
    }

    fn has_answered_since(&self, start: Instant) -> bool {
        self.health.lock().is_ok_and(|health| health.answered > start)
    }

    fn note_answer(&self) {
        if let Ok(mut health) = self.health.lock() {
            *health = Health { answered: Instant::now(), paused: None };
        }
    }

    /// Pauses all pipelines. Photos that failed together make one pause.
    fn note_silence(&self, message: &str) {
        let Ok(mut health) = self.health.lock() else {
            return;
        };
        let now = Instant::now();
        let length = match health.paused {
            Some((until, _)) if until > now => return,
            Some((_, length)) => (2 * length).min(LONGEST_PAUSE),
            None => FIRST_PAUSE,
        };
        health.paused = Some((now + length, length));
        log::line(&format!("{message}; asking the store again in {length:?}"));
    }

    async fn wait_for_store(&self, ending: &mut watch::Receiver<bool>) {
        let until = self.health.lock().ok().and_then(|health| health.paused).map(|(until, _)| until);
        if let Some(until) = until {
            sleep(until.saturating_duration_since(Instant::now()), ending).await;
        }
    }
}

impl Content {
    fn len(&self) -> usize {
        match self {
            Content::Image(bytes) => bytes.len(),
            _ => 0,
        }
    }
}

/// The pause after errors in a row.
#[derive(Default)]
struct Pause(Option<Duration>);

impl Pause {
    fn next(&mut self) -> Duration {
        let length = self.0.map_or(FIRST_PAUSE, |length| (2 * length).min(LONGEST_PAUSE));
        self.0 = Some(length);
        length
    }
}

/// Sleeps, unless it is told to end meanwhile.
async fn sleep(length: Duration, ending: &mut watch::Receiver<bool>) {
    tokio::select! {
        () = tokio::time::sleep(length) => {}
        _ = ending.changed() => {}
    }
}
