//! The launcher: a background worker that starts a queue worker in each database that has work.
//!
//! It is connected to no database and reads `pg_database` only. It starts with the server where pg_clip is in
//! `shared_preload_libraries`, and otherwise with the first photo that is enqueued; on a standby it starts when that is
//! promoted. Once at its start, and then every `clip.queue_poll_interval`, it looks into all databases, one after the
//! other, by a worker that leaves at once where there is nothing to do: so a message that no worker read costs time and
//! no photo. It is the only one that starts workers. One that ended without having said that its queue is idle is
//! started again, after a pause that doubles each time.
//!
//! A worker that finds an extension of another version writes a line to the log and leaves. The launcher remembers that,
//! and tells the workers of later rounds not to write the line again.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use pgrx::{PgMemoryContexts, pg_sys};

use super::batch::report;
use super::lane::Lane;
use super::message::{Message, Place, Start};
use super::place::{LAUNCHER_ASKED, LAUNCHER_LOCK, LAUNCHER_SOCKET};
use super::wakeup_socket::WakeupSocket;
use crate::error::Error;
use crate::latch::{Interest, wait};
use crate::worker::{accept_signals, ask_for, named, reload_settings};
use crate::{lock, settings};

/// Has the postmaster start the launcher together with the server.
pub(crate) fn register_at_server_start() {
    // SAFETY: a plain read of a variable of this process; registering is allowed while libraries are preloaded.
    unsafe {
        if pg_sys::process_shared_preload_libraries_in_progress {
            pg_sys::RegisterBackgroundWorker(&mut registration());
        }
    }
}

/// Starts the launcher, unless one runs.
pub(super) fn ensure_running() -> Result<(), Error> {
    if lock::is_held(LAUNCHER_LOCK)? || ask_for(&mut registration(), LAUNCHER_ASKED)? {
        Ok(())
    } else {
        Err(Error::NoWorkerSlot("queue launcher"))
    }
}

fn registration() -> pg_sys::BackgroundWorker {
    const RESTART_SECONDS: i32 = 1;
    pg_sys::BackgroundWorker {
        bgw_flags: (pg_sys::BGWORKER_SHMEM_ACCESS | pg_sys::BGWORKER_BACKEND_DATABASE_CONNECTION) as i32,
        bgw_start_time: pg_sys::BgWorkerStartTime::BgWorkerStart_RecoveryFinished,
        bgw_restart_time: RESTART_SECONDS,
        ..named(c"pg_clip queue launcher", c"clip_queue_launcher_main")
    }
}

/// The entry point that the postmaster calls in the launcher's process. It returns only where another launcher runs.
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub(crate) extern "C-unwind" fn clip_queue_launcher_main(_argument: pg_sys::Datum) {
    accept_signals();
    if let Err(error) = launch() {
        error.raise();
    }
}

/// The pause before a worker that failed is started again, doubled each time up to the poll's interval.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// A worker that lived this long failed of something new.
const GOOD_LIFE: Duration = Duration::from_secs(10);
/// How long the round waits for one database before it goes on to the next.
const VISIT: Duration = Duration::from_secs(1);

fn launch() -> Result<(), Error> {
    let Some(_lock) = lock::take(LAUNCHER_LOCK)? else {
        return Ok(());
    };
    let socket = WakeupSocket::bind(LAUNCHER_SOCKET.to_owned())?;
    // SAFETY: the first call of a worker that is registered with a database connection; no name means no database.
    unsafe { pg_sys::BackgroundWorkerInitializeConnection(std::ptr::null(), std::ptr::null(), 0) };
    let mut workers = Workers::default();
    let mut next_round = Instant::now();
    loop {
        reload_settings();
        for message in socket.messages() {
            match Message::decode(&message) {
                Some(Message::Wanted(place)) => workers.want(place),
                Some(Message::Idle(place)) => workers.is_idle(place),
                Some(Message::OtherVersion(place)) => workers.has_other_version(place),
                None => {}
            }
        }
        let now = Instant::now();
        if now >= next_round {
            workers.visit_all(&databases());
            next_round = now + settings::queue_poll_interval();
        }
        let next = workers.start_due().map_or(next_round, |due| due.min(next_round));
        wait(socket.descriptor(), Interest::Readable, Some(next));
    }
}

/// The workers that this launcher has started, and the workers that it is to start.
#[derive(Default)]
struct Workers {
    of: HashMap<Place, Worker>,
    /// The databases that the round has yet to look into.
    to_visit: VecDeque<pg_sys::Oid>,
    visited: Option<Place>,
    /// The databases of which the log says that their extension is of another version.
    explained: HashSet<pg_sys::Oid>,
    slots_are_exhausted: bool,
}

struct Worker {
    handle: *mut pg_sys::BackgroundWorkerHandle,
    started: Instant,
    /// When it is to be started, once it does not run any more.
    due: Option<Instant>,
    pause: Duration,
    said_idle: bool,
}

impl Workers {
    fn want(&mut self, place: Place) {
        // One that failed is not started before its pause is over, however often it is wanted.
        self.of.entry(place).or_insert_with(Worker::new).due.get_or_insert_with(Instant::now);
    }

    fn is_idle(&mut self, place: Place) {
        self.explained.remove(&place.database);
        self.leaves(place);
    }

    fn has_other_version(&mut self, place: Place) {
        self.explained.insert(place.database);
        self.leaves(place);
    }

    fn leaves(&mut self, place: Place) {
        if let Some(worker) = self.of.get_mut(&place) {
            worker.said_idle = true;
        }
    }

    fn visit_all(&mut self, databases: &[pg_sys::Oid]) {
        self.of.retain(|place, worker| worker.is_running() || databases.contains(&place.database));
        self.explained.retain(|database| databases.contains(database));
        self.to_visit = databases.iter().copied().collect();
    }

    /// Starts the workers that are due. Returns when the next one is.
    fn start_due(&mut self) -> Option<Instant> {
        self.reap();
        let turn = self.visited.and_then(|place| self.of.get(&place)).filter(|worker| worker.is_running());
        let turn = turn.map(|worker| worker.started + VISIT).filter(|end| *end > Instant::now());
        if turn.is_none()
            && let Some(database) = self.to_visit.pop_front()
        {
            // It finds out whether the other lane has work as well.
            let place = Place { database, lane: Lane::Prompt };
            self.visited = Some(place);
            self.want(place);
        }
        let due: Vec<Place> =
            self.of.iter().filter(|(_, worker)| worker.is_due()).map(|(place, _)| *place).collect();
        if !due.is_empty() {
            let present = databases();
            for place in due {
                if present.contains(&place.database) {
                    self.start(place);
                } else {
                    self.of.remove(&place);
                }
            }
        }
        let waiting = self.of.values().filter(|worker| !worker.is_running()).filter_map(|worker| worker.due);
        let next_visit = (!self.to_visit.is_empty()).then(|| turn.unwrap_or_else(|| Instant::now() + VISIT));
        waiting.chain(next_visit).min()
    }

    /// Notes which workers have ended.
    fn reap(&mut self) {
        for worker in self.of.values_mut().filter(|worker| worker.has_ended()) {
            // SAFETY: the handle was allocated by the registration, and is forgotten here.
            unsafe { pg_sys::pfree(worker.handle.cast()) };
            worker.handle = std::ptr::null_mut();
            if worker.said_idle {
                worker.pause = FIRST_PAUSE;
            } else {
                worker.retry_later();
            }
        }
        self.of.retain(|_, worker| worker.is_running() || worker.due.is_some());
    }

    fn start(&mut self, place: Place) {
        let Some(worker) = self.of.get_mut(&place) else {
            return;
        };
        let start = Start { place, is_explained: self.explained.contains(&place.database) };
        let mut registration = pg_sys::BackgroundWorker {
            bgw_flags: (pg_sys::BGWORKER_SHMEM_ACCESS | pg_sys::BGWORKER_BACKEND_DATABASE_CONNECTION) as i32,
            bgw_start_time: pg_sys::BgWorkerStartTime::BgWorkerStart_RecoveryFinished,
            // The postmaster would start it again also where its database is gone.
            bgw_restart_time: pg_sys::BGW_NEVER_RESTART,
            bgw_main_arg: start.argument(),
            // SAFETY: a plain read of a variable of this process.
            bgw_notify_pid: unsafe { pg_sys::MyProcPid },
            ..named(c"pg_clip queue worker", c"clip_queue_worker_main")
        };
        let mut handle = std::ptr::null_mut();
        // SAFETY: the registration lives through the call; the handle is allocated to outlive any transaction.
        let started = unsafe {
            PgMemoryContexts::TopMemoryContext
                .switch_to(|_| pg_sys::RegisterDynamicBackgroundWorker(&mut registration, &mut handle))
        };
        worker.started = Instant::now();
        worker.said_idle = false;
        worker.due = None;
        if started {
            worker.handle = handle;
        } else {
            worker.retry_later();
            if !self.slots_are_exhausted {
                pgrx::log!("pg_clip: {}", Error::NoWorkerSlot("queue worker"));
            }
        }
        self.slots_are_exhausted = !started;
        let state = pg_sys::BackendState::STATE_IDLE;
        if started {
            report(state, "");
        } else {
            report(state, &format!("photos wait: {}", Error::NoWorkerSlot("queue worker")));
        }
    }
}

impl Worker {
    fn new() -> Worker {
        Worker {
            handle: std::ptr::null_mut(),
            started: Instant::now(),
            due: None,
            pause: FIRST_PAUSE,
            said_idle: false,
        }
    }

    fn is_running(&self) -> bool {
        !self.handle.is_null()
    }

    fn has_ended(&self) -> bool {
        let mut pid = 0;
        // SAFETY: the handle is one that the registration gave.
        self.is_running()
            && unsafe { pg_sys::GetBackgroundWorkerPid(self.handle, &mut pid) }
                == pg_sys::BgwHandleStatus::BGWH_STOPPED
    }

    fn is_due(&self) -> bool {
        !self.is_running() && self.due.is_some_and(|due| due <= Instant::now())
    }

    fn retry_later(&mut self) {
        if self.started.elapsed() >= GOOD_LIFE {
            self.pause = FIRST_PAUSE;
        }
        self.due = Some(Instant::now() + self.pause);
        self.pause = (2 * self.pause).min(settings::queue_poll_interval()).max(FIRST_PAUSE);
    }
}

/// The databases that can have a queue: they take connections and are no templates.
fn databases() -> Vec<pg_sys::Oid> {
    /// `DATCONNLIMIT_INVALID_DB`: a DROP DATABASE that did not come to its end.
    const INVALID: i32 = -2;
    let mut databases = Vec::new();
    // SAFETY: pg_database is a shared catalog and a heap; its tuples begin with the struct of its fixed columns.
    unsafe {
        pg_sys::StartTransactionCommand();
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let table = pg_sys::table_open(pg_sys::DatabaseRelationId, lock);
        let scan = pg_sys::table_beginscan_catalog(table, 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            if tuple.is_null() {
                break;
            }
            let database = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
            if database.datallowconn && !database.datistemplate && database.datconnlimit != INVALID {
                databases.push(database.oid);
            }
        }
        pg_sys::heap_endscan(scan);
        pg_sys::table_close(table, lock);
        pg_sys::PopActiveSnapshot();
        pg_sys::CommitTransactionCommand();
    }
    databases
}
