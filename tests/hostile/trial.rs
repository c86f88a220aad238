//! An ordinary role that does what it likes for as long as it likes, in one database with a role that uses pg_clip.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::attack::{state_of, statements, strangers_session};
use super::calls::Catalog;
use super::ground::{Ground, connected};
use super::objects::Role;
use crate::database::TestDatabase;

/// A server, and a database in which both roles may connect.
pub struct Trial {
    ground: Ground,
    database: TestDatabase,
    catalog: Catalog,
    internal_errors: Mutex<Vec<InternalError>>,
}

/// An error of SQLSTATE XX000 and the like that a session was told.
struct InternalError {
    message: String,
    statement: String,
    /// The functions and statements that it came through.
    context: Option<String>,
}

/// The messages of PostgreSQL where two sessions change or drop one object at the same time, without an SQLSTATE of
/// its own.
const RACES_OF_POSTGRESQL: [&str; 3] =
    ["tuple concurrently updated", "tuple concurrently deleted", "could not find tuple for constraint "];

impl InternalError {
    /// Whether PostgreSQL raised it in a statement that calls nothing of pg_clip's and fires no trigger.
    fn is_a_race_of_postgresql(&self) -> bool {
        self.context.is_none()
            && !self.statement.contains("clip_")
            && RACES_OF_POSTGRESQL.iter().any(|race| self.message.starts_with(race))
    }
}

impl Trial {
    /// The ordinary role is called `stranger`, the other one `neighbour`; each owns a schema of its name.
    pub fn begin() -> Trial {
        let ground = Ground::new();
        let database = ground.database("trial");
        let catalog = Catalog::read(&mut database.connect());
        Trial { ground, database, catalog, internal_errors: Mutex::default() }
    }

    pub fn database(&self) -> &TestDatabase {
        &self.database
    }

    /// Sends the random statements of the ordinary role, from a seed on, until it is told to stop: how many ended with which
    /// SQLSTATE. A session that was lost is replaced, and counted as "lost connection".
    pub fn attempt(&self, seed: u64, stop: &AtomicBool) -> BTreeMap<String, u64> {
        let mut states = BTreeMap::new();
        let set = strangers_session();
        let connect = || connected("the ordinary role", || self.database.try_connect_as("stranger"), &set);
        let mut client = connect();
        for batch in 0.. {
            for (role, statement) in statements(seed + batch, &self.catalog) {
                if stop.load(Ordering::Relaxed) {
                    return states;
                }
                if role != Role::Stranger {
                    continue;
                }
                let error = client.batch_execute(&statement).err();
                let state = state_of(error.as_ref());
                if let Some(told) = error.as_ref().and_then(postgres::Error::as_db_error)
                    && state.starts_with("XX")
                {
                    let (message, context) = (told.message().to_owned(), told.where_().map(str::to_owned));
                    let error = InternalError { message, statement, context };
                    self.internal_errors.lock().unwrap_or_else(PoisonError::into_inner).push(error);
                }
                *states.entry(state).or_default() += 1;
                if error.is_some() && client.batch_execute("ROLLBACK").is_err() {
                    client = connect();
                }
            }
        }
        states
    }

    /// The checks that the role has broken, and the rights that it has gained so far; nothing, where all holds.
    pub fn broken(&mut self, round: i32) -> Vec<String> {
        let mut broken: Vec<String> = self.ground.embeds(&self.database, round).err().into_iter().collect();
        let gained = self.ground.gains(&self.database);
        broken.extend(gained.map(|gained| format!("the ordinary role has gained: {gained}")));
        let internal_errors =
            self.internal_errors.get_mut().unwrap_or_else(PoisonError::into_inner).split_off(0);
        let (races, defects): (Vec<_>, Vec<_>) =
            internal_errors.into_iter().partition(InternalError::is_a_race_of_postgresql);
        broken.extend(defects.into_iter().map(|error| format!("{}: {}", error.statement, error.message)));
        let mut complaints = self.ground.complaints();
        for race in races {
            let line = complaints.iter().position(|line| line.ends_with(&race.message));
            line.map(|line| complaints.remove(line));
        }
        broken.extend(complaints);
        broken
    }
}
