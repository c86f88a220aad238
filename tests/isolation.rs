//! Sessions that take their steps in a given order, in the spirit of PostgreSQL's isolationtester, and the query
//! that finds the differences that they have left.
//!
//! Each session has a connection and a thread of its own. A step either ends or comes to wait for a lock of another of
//! the sessions, directly or through a process between them, which the server tells; nothing here waits for time to
//! pass. A step that waits is finished later, when another session has released its lock.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread;

use postgres::{Client, Error};

use crate::database::{TestDatabase, sqlstate, value};
use crate::queue::PATIENCE;
use crate::wait::wait_for;

/// How far a step has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Done,
    /// It waits for a lock that another session has.
    Blocked,
    /// It has come to the point that the test named.
    Reached,
}

/// Sessions by name, and a connection beside them that looks at them.
pub struct Sessions<'a> {
    database: &'a TestDatabase,
    observer: Client,
    sessions: BTreeMap<String, Session>,
}

struct Session {
    pid: i32,
    orders: Sender<String>,
    ends: Receiver<Result<(), Error>>,
    /// The step that is not done yet.
    step: Option<String>,
}

impl<'a> Sessions<'a> {
    pub fn new(database: &'a TestDatabase) -> Sessions<'a> {
        Sessions { database, observer: database.connect(), sessions: BTreeMap::new() }
    }

    /// Takes a step that must end at once, beside any locks of other sessions.
    #[track_caller]
    pub fn run(&mut self, name: &str, statement: &str) {
        match self.start(name, statement) {
            Step::Done => {}
            other => panic!("{name}: {statement}: {other:?} instead of done"),
        }
    }

    /// Starts a step, and returns once it is done or waits for another session.
    #[track_caller]
    pub fn start(&mut self, name: &str, statement: &str) -> Step {
        self.start_until(name, statement, |_| false)
    }

    /// Starts a step, and returns once it is done, or waits for another session, or has come to where the test says.
    #[track_caller]
    pub fn start_until(
        &mut self,
        name: &str,
        statement: &str,
        mut reached: impl FnMut(&mut Sessions) -> bool,
    ) -> Step {
        self.order(name, statement);
        self.rest(name, |sessions| reached(sessions))
    }

    /// Waits until a step that was started is done, or waits for another session again.
    #[track_caller]
    pub fn settle(&mut self, name: &str) -> Step {
        self.rest(name, |_| false)
    }

    #[track_caller]
    fn rest(&mut self, name: &str, mut reached: impl FnMut(&mut Sessions) -> bool) -> Step {
        wait_for(&format!("{name}: done, or blocked"), PATIENCE, || {
            if self.ended(name) {
                return Some(Step::Done);
            }
            if self.is_blocked(name) {
                return Some(Step::Blocked);
            }
            reached(self).then_some(Step::Reached)
        })
    }

    /// Waits for the end of a step that was started.
    #[track_caller]
    pub fn finish(&mut self, name: &str) {
        wait_for(&format!("{name}: the end of its step"), PATIENCE, || self.ended(name).then_some(()));
    }

    /// Takes a step that must fail, and returns its SQLSTATE.
    #[track_caller]
    pub fn failure(&mut self, name: &str, statement: &str) -> String {
        self.order(name, statement);
        self.finish_failing(name)
    }

    /// Waits for the end of a step that was started and must fail, and returns its SQLSTATE.
    #[track_caller]
    pub fn finish_failing(&mut self, name: &str) -> String {
        sqlstate(&self.error_of(name)).to_owned()
    }

    /// Ends the backend of a session that takes a step.
    #[track_caller]
    pub fn terminate(&mut self, name: &str) {
        let end = format!("SELECT pg_terminate_backend({})", self.pid(name));
        assert!(value::<bool>(&mut self.observer, &end));
        self.error_of(name);
    }

    #[track_caller]
    fn error_of(&mut self, name: &str) -> Error {
        let session = self.sessions.get_mut(name).expect("the session has begun");
        let step = session.step.take();
        match session.ends.recv().expect("the session's thread runs") {
            Ok(()) => panic!("{name}: {step:?}: succeeded"),
            Err(error) => error,
        }
    }

    /// The process id of a session's backend.
    pub fn pid(&self, name: &str) -> i32 {
        self.sessions[name].pid
    }

    /// The connection beside the sessions.
    pub fn observer(&mut self) -> &mut Client {
        &mut self.observer
    }

    /// Whether one of the queue's workers waits for a lock that one of the sessions has.
    pub fn block_the_queue(&mut self) -> bool {
        let query = "SELECT pid FROM clip_workers WHERE database = current_database()";
        let workers = self.observer.query(query, &[]).expect("a query");
        workers.iter().any(|worker| self.block(worker.get(0)))
    }

    #[track_caller]
    fn order(&mut self, name: &str, statement: &str) {
        let database = self.database;
        let session = self.sessions.entry(name.to_owned()).or_insert_with(|| Session::begin(database));
        assert!(session.step.is_none(), "{name} has not ended its step {:?}", session.step);
        session.step = Some(statement.to_owned());
        session.orders.send(statement.to_owned()).expect("the session's thread runs");
    }

    /// Whether the session has no step any more; panics where the step failed.
    #[track_caller]
    fn ended(&mut self, name: &str) -> bool {
        let session = self.sessions.get_mut(name).expect("the session has begun");
        let Some(step) = &session.step else { return true };
        match session.ends.try_recv() {
            Ok(Ok(())) => {
                session.step = None;
                true
            }
            Ok(Err(error)) => panic!("{name}: {step}: {error:?}"),
            Err(TryRecvError::Empty) => false,
            Err(TryRecvError::Disconnected) => panic!("{name}: {step}: its thread has ended"),
        }
    }

    /// Whether the session waits for a lock that another one of them has, directly or through other processes.
    fn is_blocked(&mut self, name: &str) -> bool {
        let pid = self.sessions[name].pid;
        self.block(pid)
    }

    fn block(&mut self, process: i32) -> bool {
        const QUERY: &str = "WITH RECURSIVE blocker (pid) AS (
                SELECT unnest(pg_blocking_pids($1))
                UNION SELECT unnest(pg_blocking_pids(pid)) FROM blocker)
            SELECT EXISTS (SELECT FROM blocker WHERE pid = ANY ($2) AND pid <> $1)";
        let pids: Vec<i32> = self.sessions.values().map(|session| session.pid).collect();
        self.observer.query_one(QUERY, &[&process, &pids]).expect("a query").get(0)
    }
}

impl Session {
    fn begin(database: &TestDatabase) -> Session {
        let mut client = database.connect();
        let pid = value(&mut client, "SELECT pg_backend_pid()");
        let (orders, taken) = mpsc::channel::<String>();
        let (done, ends) = mpsc::channel();
        // It ends with the channel, when the session is dropped.
        thread::spawn(move || {
            for statement in taken {
                if done.send(client.batch_execute(&statement)).is_err() {
                    break;
                }
            }
        });
        Session { pid, orders, ends, step: None }
    }
}

/// The differences between a table of photos and its table of embeddings: counts of rows, all 0 when all is well.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// A photo that can be embedded has no vector.
    pub missing: i64,
    /// The checksum is not that of the photo's bytes.
    pub stale: i64,
    /// The project is another than the photo's.
    pub misfiled: i64,
    /// The vector is not the model's vector of the photo's bytes.
    pub wrong: i64,
    /// A vector of no photo, or of one that cannot be embedded.
    pub orphaned: i64,
}

/// The bytes of a photo that no decoder takes: no vector is missed for it, and none may be there.
pub const BROKEN: &str = "broken";

impl Differences {
    /// Compares the table `source` (`id`, `project`, `image`) with `target`, whose vectors `model` has made. Nothing of
    /// pg_clip takes part but the function that embeds an image.
    pub fn between(client: &mut Client, source: &str, target: &str, model: &str) -> Differences {
        let query = format!(
            "SELECT count(*) FILTER (WHERE e.checksum IS NULL),
                count(*) FILTER (WHERE e.checksum <> sha256(photo.image)),
                count(*) FILTER (WHERE photo.image IS NOT NULL AND e.checksum IS NOT NULL
                    AND e.project IS DISTINCT FROM photo.project),
                count(*) FILTER (WHERE (e.embedding <=> clip_embed_image(photo.image, '{model}')) > 1e-3),
                count(*) FILTER (WHERE photo.image IS NULL)
            FROM (SELECT * FROM {source} WHERE image IS NOT NULL AND image <> '{BROKEN}') AS photo
            FULL JOIN {target} AS e ON e.image_id = photo.id"
        );
        let row = client.query_one(&query, &[]).expect("the reconciling query");
        Differences {
            missing: row.get(0),
            stale: row.get(1),
            misfiled: row.get(2),
            wrong: row.get(3),
            orphaned: row.get(4),
        }
    }

    pub fn is_empty(&self) -> bool {
        *self == Differences::default()
    }
}
