//! An ordinary role that does what it likes for as long as it likes, in one database with a role that uses pg_clip.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

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
}

impl Trial {
    /// The ordinary role is called `stranger`, the other one `neighbour`; each owns a schema of its name.
    pub fn begin() -> Trial {
        let ground = Ground::new();
        let database = ground.database("trial");
        let catalog = Catalog::read(&mut database.connect());
        Trial { ground, database, catalog }
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
                *states.entry(state_of(error.as_ref())).or_default() += 1;
                if error.is_some() && client.batch_execute("ROLLBACK").is_err() {
                    client = connect();
                }
            }
        }
        states
    }

    /// What the role has broken or gained so far; nothing, where all holds.
    pub fn broken(&mut self, round: i32) -> Vec<String> {
        let mut broken: Vec<String> = self.ground.embeds(&self.database, round).err().into_iter().collect();
        let gained = self.ground.gains(&self.database);
        broken.extend(gained.map(|gained| format!("the ordinary role has gained: {gained}")));
        broken.extend(self.ground.complaints());
        broken
    }
}
