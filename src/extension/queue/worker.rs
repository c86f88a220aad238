//! The queue worker: a background worker that embeds the photos of one lane of a database's queue.

use std::ffi::CStr;
use std::time::{Duration, Instant};

use pgrx::{PgSqlErrorCode, pg_sys};

use super::batch::{Batches, report};
use super::claim::{self, Claim, Claimed, Turns};
use super::failure::{Disposition, is_passing};
use super::known::{Known, Waiting};
use super::lane::Lane;
use super::message::{Message, Place, Start};
use super::pause::{self, Pauses};
use super::place::{LAUNCHER_SOCKET, slow_mark, worker_lock, worker_socket};
use super::spent::Spent;
use super::transaction::{LONGEST, forget_the_slow_end, mark_a_slow_end, transaction};
use super::wake;
use super::wakeup_socket::{WakeupSocket, send};
use crate::current_model;
use crate::error::Error;
use crate::failure::Failure;
use crate::latch::{Interest, run_while_waiting, wait};
use crate::lock;
use crate::watch::extension_schema::{ExtensionSchema, Installed};
use crate::worker::{accept_signals, reload_settings};

/// The entry point that the launcher has called in the worker's process. It returns where there is nothing to do, and
/// where another session waits to drop, rename or copy the database.
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub(crate) extern "C-unwind" fn clip_queue_worker_main(argument: pg_sys::Datum) {
    accept_signals();
    if let Some(start) = Start::from_argument(argument)
        && let Err(error) = work(start)
    {
        error.raise();
    }
}

/// A worker whose queue is empty stays this long: the next photo does not wait for its start.
const IDLE: Duration = Duration::from_secs(2);
/// The pause before a queue that another session has locked is looked at again.
const LOCKED: Duration = Duration::from_secs(1);

fn work(start: Start) -> Result<(), Error> {
    let place = start.place;
    let Some(_lock) = lock::take(&worker_lock(place.database, place.lane))? else {
        return Ok(());
    };
    let socket = WakeupSocket::bind(worker_socket(place.database, place.lane))?;
    connect(place.database);
    let mark = slow_mark(place.database, place.lane);
    let was_slow = mark_a_slow_end(&mark);
    let (installed, left_behind) = transaction(LONGEST, |spi| {
        let installed = ExtensionSchema::installed();
        let mut left_behind = Vec::new();
        if let Installed::Here(extension) = &installed {
            if let Some(source) = was_slow {
                pause::note_slow(spi, extension, source)?;
            }
            left_behind = claim::left_behind(spi, extension, place.lane)?;
        }
        Ok((installed, left_behind))
    })?;
    forget_the_slow_end(&mark);
    run_while_waiting(leave_if_wanted);
    match installed {
        Installed::Here(extension) => {
            let mut batches = Batches::new(extension, place.lane);
            // Those that another transaction has locked are looked at again until they are free.
            batches.settle_all(left_behind, &Disposition::Recover);
            let (turns, spent) = (Turns::default(), Spent::default());
            let known = Known::default();
            Worker { place, socket, batches, known, turns, spent, at_work: None, has_woken_other: false }
                .run()?;
        }
        Installed::OtherVersion(version) => say_other_version(place, version, start.is_explained),
        Installed::Nothing => say_idle(place),
    }
    Ok(())
}

fn say_idle(place: Place) {
    send(LAUNCHER_SOCKET, &Message::Idle(place).encode());
}

/// Writes to the log why photos wait, unless the log says so already.
fn say_other_version(place: Place, version: String, is_explained: bool) {
    if !is_explained {
        Error::OtherVersion(version).log();
    }
    send(LAUNCHER_SOCKET, &Message::OtherVersion(place).encode());
}

/// Connects as the bootstrap superuser, as which no code of a user's runs: see [`crate::watch::role`].
fn connect(database: pg_sys::Oid) {
    let set = |name: &CStr, value: &CStr| {
        // SAFETY: settings of the server by their names, with values that they take.
        unsafe {
            pg_sys::SetConfigOption(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_SUSET,
                pg_sys::GucSource::PGC_S_OVERRIDE,
            );
        }
    };
    // SAFETY: the first call of a worker that is registered with a database connection.
    unsafe {
        pg_sys::BackgroundWorkerInitializeConnectionByOid(database, pg_sys::InvalidOid, 0);
        pg_sys::pgstat_report_appname(c"pg_clip queue".as_ptr());
    }
    // A session that waits for this worker waits for less than `deadlock_timeout`.
    set(c"lock_timeout", c"500ms");
    set(c"default_transaction_isolation", c"read committed");
    set(c"default_transaction_read_only", c"off");
}

struct Worker {
    place: Place,
    socket: WakeupSocket,
    batches: Batches,
    known: Known,
    turns: Turns,
    spent: Spent,
    /// The table that the slow lane is at work on, and since when.
    at_work: Option<(pg_sys::Oid, Instant)>,
    /// Whether the worker of the slow lane was asked for, which a start of the server makes necessary.
    has_woken_other: bool,
}

/// The result of a look at the queue.
enum Look {
    Jobs(Claimed),
    /// A job that is to be embedded alone, once the embedder has no other.
    Later,
    /// No job that is to be done now, and in how long to look again.
    Due(Option<Duration>),
    /// Another session has locked it.
    Busy,
    /// There is no queue.
    Gone,
    /// A new worker is to go on: see [`current_model::is_removed`].
    Outdated,
    /// The extension has become one of this version, which is not the library's.
    OtherVersion(String),
}

impl Worker {
    fn run(mut self) -> Result<(), Error> {
        let mut last_work = None;
        loop {
            reload_settings();
            if self.socket.messages().iter().any(|message| message == wake::AGAIN) {
                self.batches.pauses = Pauses::default();
            }
            leave_if_wanted();
            self.batches.settle_rest();
            if self.batches.is_first_back() || !self.batches.has_room() {
                self.batches.finish_first();
                last_work = Some(Instant::now());
                continue;
            }
            let pause_ends = self.batches.pause_ends();
            let due = match self.look(pause_ends.is_some())? {
                Look::Jobs(claimed) => {
                    last_work = Some(Instant::now());
                    self.at_work = claimed.jobs.first().map(|job| (job.source, Instant::now()));
                    self.batches.begin(claimed);
                    continue;
                }
                Look::Later | Look::Busy | Look::Due(_) if !self.batches.is_idle() => {
                    self.batches.finish_first();
                    continue;
                }
                Look::Gone => {
                    say_idle(self.place);
                    return Ok(());
                }
                // The launcher starts the next one.
                Look::Outdated => return Ok(()),
                Look::OtherVersion(version) => {
                    say_other_version(self.place, version, false);
                    return Ok(());
                }
                Look::Busy | Look::Later => Some(Instant::now() + LOCKED),
                Look::Due(left) => left.map(|left| Instant::now() + left),
            };
            report(pg_sys::BackendState::STATE_IDLE, &self.batches.pauses.reasons());
            let idle_ends = last_work.map(|last: Instant| last + IDLE).filter(|end| *end > Instant::now());
            let unsettled = self.batches.has_unsettled().then(|| Instant::now() + LOCKED);
            let Some(until) = pause_ends.or(due).into_iter().chain(unsettled).min().or(idle_ends) else {
                if self.leave() {
                    return Ok(());
                }
                continue;
            };
            wait(self.socket.descriptor(), Interest::Readable, Some(until));
        }
    }

    /// Looks at the queue, and claims jobs of the table whose turn it is, unless the worker pauses.
    fn look(&mut self, pausing: bool) -> Result<Look, Failure> {
        if self.known.is_good() {
            let looked = self.look_at_known(pausing)?;
            if matches!(looked, Look::Jobs(_) | Look::Later) {
                return Ok(looked);
            }
        }
        self.known.forget();
        self.look_at_known(pausing)
    }

    /// Looks at the jobs that are known, or at the whole queue where nothing is known of it.
    fn look_at_known(&mut self, pausing: bool) -> Result<Look, Failure> {
        report(pg_sys::BackendState::STATE_RUNNING, "claiming photos");
        let lane = self.place.lane;
        let may_be_alone = self.batches.is_idle();
        let may_leave = may_be_alone && !self.batches.has_unsettled();
        let known = &mut self.known;
        let turns = &mut self.turns;
        let spent = &mut self.spent;
        if let Some((source, since)) = self.at_work.take() {
            spent.add(source, since.elapsed());
        }
        let pauses = &mut self.batches.pauses;
        let looked = transaction(LONGEST, |spi| {
            // The extension may have been dropped, moved to another schema or updated meanwhile.
            let extension = match ExtensionSchema::installed() {
                Installed::Here(extension) => extension,
                Installed::OtherVersion(version) => return Ok(Err(Look::OtherVersion(version))),
                Installed::Nothing => return Ok(Err(Look::Gone)),
            };
            if may_leave && current_model::is_removed() {
                return Ok(Err(Look::Outdated));
            }
            if !known.is_good() {
                let began = Instant::now();
                let waiting = claim::waiting(spi, &extension, lane)?;
                let other = lane == Lane::Prompt && !claim::waiting(spi, &extension, Lane::Slow)?.is_empty();
                pauses.retain(|source| waiting.iter().any(|waiting| waiting.source == source));
                spent.follow(&waiting);
                *known = Known::by_whole_look(waiting, other, began);
            }
            let mut claimed = None;
            let mut locked = Vec::new();
            while claimed.is_none() && !pausing {
                let is_free = |waiting: &&Waiting| {
                    waiting.due_in.is_zero()
                        && pauses.until(waiting.source).is_none()
                        && !locked.contains(&waiting.source)
                        && !known.is_moved(waiting.source)
                };
                let due: Vec<&Waiting> = known.waiting.iter().filter(is_free).collect();
                let before = turns.clone();
                let next = match lane {
                    Lane::Prompt => turns.next(&due),
                    Lane::Slow => spent.next(&due),
                };
                let Some(source) = next else {
                    break;
                };
                if lane == Lane::Prompt && pause::is_slow(spi, &extension, source)? {
                    pause::slow_down(spi, &extension, source)?;
                    known.moved(source);
                    locked.push(source);
                    continue;
                }
                match claim::claim(spi, &extension, lane, known, source, may_be_alone)? {
                    Claim::Jobs(jobs) => claimed = Some(jobs),
                    Claim::Locked => locked.push(source),
                    Claim::Later => {
                        // The table keeps its turn until the embedder is free.
                        *turns = before;
                        return Ok(Err(Look::Later));
                    }
                }
            }
            let next = known.waiting.iter().map(|waiting| {
                let pause = pauses.until(waiting.source).map(|end| end.duration_since(Instant::now()));
                let locked = locked.contains(&waiting.source).then_some(LOCKED);
                waiting.due_in.max(pause.unwrap_or_default()).max(locked.unwrap_or_default())
            });
            Ok(Ok((extension, claimed, next.min(), known.has_slow)))
        });
        match looked {
            Ok(Ok((extension, claimed, next, other))) => {
                self.batches.extension = extension;
                if other && !self.has_woken_other {
                    wake::want(self.place.database, Lane::Slow);
                }
                self.has_woken_other = other;
                Ok(claimed.map_or(Look::Due(next), Look::Jobs))
            }
            Ok(Err(look)) => Ok(look),
            // Dropped while the worker waited for it: the next look finds that out.
            Err(failure) if failure.code == PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE => Ok(Look::Busy),
            Err(failure) if is_passing(failure.code) => Ok(Look::Busy),
            Err(failure) => Err(failure),
        }
    }

    /// Leaves, unless a backend sent a message meanwhile: one that comes later finds no socket and goes to the launcher.
    fn leave(&mut self) -> bool {
        self.socket.unlink();
        if self.socket.messages().is_empty() {
            say_idle(self.place);
            return true;
        }
        match WakeupSocket::bind(worker_socket(self.place.database, self.place.lane)) {
            Ok(socket) => self.socket = socket,
            Err(_) => return true,
        }
        false
    }
}

/// Ends the worker if another session waits to drop, rename or copy its database: that session holds a lock by
/// which the worker notices, and waits 5 seconds for other connections to end. The launcher starts it again.
fn leave_if_wanted() {
    // SAFETY: no transaction is open while this worker waits; the end of this one releases the lock.
    let free = unsafe {
        pg_sys::StartTransactionCommand();
        // The lock on a shared object: that of no database.
        let database = pg_sys::LOCKTAG {
            locktag_field1: 0,
            locktag_field2: u32::from(pg_sys::DatabaseRelationId),
            locktag_field3: u32::from(pg_sys::MyDatabaseId),
            locktag_field4: 0,
            locktag_type: u8::try_from(pg_sys::LockTagType::LOCKTAG_OBJECT).expect("a small number"),
            locktag_lockmethodid: u8::try_from(pg_sys::DEFAULT_LOCKMETHOD).expect("a small number"),
        };
        let mode = pg_sys::RowExclusiveLock as pg_sys::LOCKMODE;
        let got = pg_sys::LockAcquire(&database, mode, false, true);
        pg_sys::CommitTransactionCommand();
        got != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
    };
    if !free {
        // SAFETY: runs the server's own callbacks and ends the process.
        unsafe { pg_sys::proc_exit(0) };
    }
}
