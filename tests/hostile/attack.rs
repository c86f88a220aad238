//! A run: batches of statements, and the checks after each.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use postgres::Client;

use super::calls::{Catalog, Place};
use super::feeding::feeding;
use super::ground::{Ground, connected};
use super::objects::{Owned, Role};
use super::planted;
use super::random::Random;
use super::related::related;
use super::rows;
use crate::database::TestDatabase;

/// About so many statements in one batch: a batch that fails can still be read.
const BATCH: usize = 100;

/// The outcome of a run.
#[derive(Default)]
pub struct Outcome {
    pub statements: u64,
    pub batches: u64,
    /// How many statements ended with which SQLSTATE; 00000 stands for success.
    pub states: BTreeMap<String, u64>,
    pub broken: Vec<Broken>,
}

/// A batch after which something did not hold.
pub struct Broken {
    pub seed: u64,
    pub what: Vec<String>,
    /// The statements of the batch, each with the role that sent it and its outcome.
    pub statements: Vec<String>,
}

impl Display for Broken {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        writeln!(f, "-- seed {}: cargo xtask fuzz sql --statements 1 --seed {}", self.seed, self.seed)?;
        for statement in &self.statements {
            writeln!(f, "{statement}")?;
        }
        for what in &self.what {
            writeln!(f, "-- seed {}: {what}", self.seed)?;
        }
        Ok(())
    }
}

impl Display for Outcome {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        writeln!(f, "{} statements in {} batches", self.statements, self.batches)?;
        for (state, count) in &self.states {
            writeln!(f, "{state} {count:8}")?;
        }
        write!(f, "{} batches broke something", self.broken.len())
    }
}

/// Sends at least so many statements, in whole batches with the seeds from `seed` on. `after` sees each batch's end, and
/// says whether to go on.
pub fn attack(statements: u64, seed: u64, mut after: impl FnMut(&Outcome) -> bool) -> Outcome {
    let mut ground = Ground::new();
    let mut outcome = Outcome::default();
    while outcome.statements < statements {
        let seed = seed + outcome.batches;
        let broken = Batch::new(&ground, seed).run(&mut ground, &mut outcome);
        outcome.broken.extend(broken);
        outcome.batches += 1;
        if !after(&outcome) {
            break;
        }
    }
    outcome
}

struct Batch {
    seed: u64,
    database: TestDatabase,
    sessions: [Option<Client>; 2],
    sent: Vec<String>,
    what: Vec<String>,
}

/// Waiting is the other sessions' business; a statement that waits tells nothing.
const SESSION: &str =
    "SET statement_timeout = '600ms'; SET lock_timeout = '100ms'; SET client_min_messages = error;
    SET idle_in_transaction_session_timeout = '5s'";

const STRANGERS_PATH: &str = "stranger, public";

/// The statements that a session of the ordinary role begins with.
pub(super) fn strangers_session() -> String {
    format!("{SESSION}; SET search_path = {STRANGERS_PATH}")
}

impl Batch {
    fn new(ground: &Ground, seed: u64) -> Batch {
        let database = ground.database(&format!("hostile_{seed}"));
        Batch { seed, database, sessions: [None, None], sent: Vec::new(), what: Vec::new() }
    }

    fn run(mut self, ground: &mut Ground, outcome: &mut Outcome) -> Option<Broken> {
        let catalog = Catalog::read(&mut self.database.connect());
        for (role, statement) in statements(self.seed, &catalog) {
            outcome.statements += 1;
            let state = self.send(role, statement);
            let is_over = state.starts_with("XX") || state == LOST;
            *outcome.states.entry(state).or_default() += 1;
            if is_over {
                break;
            }
        }
        self.check_session();
        self.sessions = [None, None];
        let round = i32::try_from(outcome.batches % 1_000_000).expect("a million fits");
        if let Err(complaint) = ground.embeds(&self.database, 10 * round) {
            self.what.push(complaint);
        }
        self.what.extend(
            ground.gains(&self.database).map(|gained| format!("the ordinary role has gained: {gained}")),
        );
        ground.drop(&self.database);
        self.what.extend(ground.complaints());
        (!self.what.is_empty()).then_some(Broken { seed: self.seed, what: self.what, statements: self.sent })
    }

    /// Sends a statement; returns its SQLSTATE.
    fn send(&mut self, role: Role, statement: String) -> String {
        let (index, user, path) = match role {
            Role::Superuser => (0, "postgres", "su"),
            Role::Stranger => (1, "stranger", STRANGERS_PATH),
        };
        let client = self.sessions[index].get_or_insert_with(|| {
            let set = format!("{SESSION}; SET search_path = {path}");
            connected("the role", || self.database.try_connect_as(user), &set)
        });
        let error = client.batch_execute(&statement).err();
        let state = state_of(error.as_ref());
        // A statement of several may have left a transaction behind. Where there is none, ROLLBACK only warns.
        if error.is_some() && client.batch_execute("ROLLBACK").is_err() {
            self.sessions[index] = None;
        }
        if let Some(error) = error.as_ref().filter(|_| state.starts_with("XX") || state == LOST) {
            self.what.push(format!("{statement}: {error:?}"));
        }
        self.sent.push(format!("/* {user} {state} */ {statement};"));
        state
    }

    /// Whether the superuser's session is its own still. Another check reports a lost one.
    fn check_session(&mut self) {
        let Some(client) = &mut self.sessions[0] else { return };
        let query =
            "SELECT concat_ws(' ', current_user, session_user, pg_catalog.current_setting('search_path'))";
        let rows =
            client.batch_execute("SET statement_timeout = 0").and_then(|()| client.query_one(query, &[]));
        if let Ok(row) = rows {
            let is: String = row.get(0);
            if is != "postgres postgres su" {
                self.what.push(format!("the superuser's session has become: {is}"));
            }
        }
    }
}

/// The SQLSTATE of a statement that may have failed.
pub(super) fn state_of(error: Option<&postgres::Error>) -> String {
    match error {
        None => "00000".to_owned(),
        Some(error) => error.code().map_or(LOST.to_owned(), |state| state.code().to_owned()),
    }
}

/// Stands for an SQLSTATE where the server gave none.
const LOST: &str = "lost connection";

/// The statements of a batch: they follow from the seed and from the extension's objects.
pub(super) fn statements(seed: u64, catalog: &Catalog) -> Vec<(Role, String)> {
    let mut random = Random::new(seed);
    let (mut su, mut stranger) = (Owned::new(Role::Superuser), Owned::new(Role::Stranger));
    let mut sent = Vec::new();
    for owned in [&mut su, &mut stranger] {
        for _ in 0..3 {
            sent.push((owned.role, owned.create_source(&mut random)));
        }
        sent.push((owned.role, owned.create_target(&mut random)));
    }
    while sent.len() < BATCH {
        let is_stranger = random.chance(65);
        let act = random.weighted(&ACTS);
        let (owned, other) = if is_stranger { (&mut stranger, &su) } else { (&mut su, &stranger) };
        let role = owned.role;
        match act {
            Act::Feeding => sent.extend(feeding(&mut random, owned, catalog)),
            Act::Related => sent.extend(related(&mut random, owned, other, catalog)),
            Act::CreateSource => sent.push((role, owned.create_source(&mut random))),
            Act::CreateTarget => sent.push((role, owned.create_target(&mut random))),
            act => {
                let made = made(&mut random, act, &Place { own: owned, other }, catalog);
                sent.extend(made.into_iter().map(|statement| (role, statement)));
            }
        }
    }
    sent
}

#[derive(Clone, Copy)]
enum Act {
    Feeding,
    Related,
    Call,
    Watch,
    Register,
    CreateSource,
    CreateTarget,
    CreateOther,
    Trigger,
    Alter,
    Write,
    Monitor,
    Set,
    Plant,
    OnExtension,
    Transaction,
}

const ACTS: [(u32, Act); 16] = [
    (6, Act::Feeding),
    (14, Act::Related),
    (20, Act::Call),
    (12, Act::Watch),
    (4, Act::Register),
    (4, Act::CreateSource),
    (4, Act::CreateTarget),
    (5, Act::CreateOther),
    (7, Act::Trigger),
    (12, Act::Alter),
    (34, Act::Write),
    (8, Act::Monitor),
    (2, Act::Set),
    (8, Act::Plant),
    (4, Act::OnExtension),
    (5, Act::Transaction),
];

fn made(random: &mut Random, act: Act, place: &Place, catalog: &Catalog) -> Vec<String> {
    let own = place.own;
    vec![match act {
        Act::Call => place.any(random, catalog),
        Act::Watch => place.watch(random),
        Act::Register => place.watch_what_does_not_fit(random),
        Act::CreateOther => own.create_other(random),
        Act::Trigger => place.trigger(random),
        Act::Alter => own.alter(random),
        Act::Monitor => rows::monitor(random, catalog),
        Act::Set => rows::set(random),
        Act::Plant if own.role == Role::Stranger && random.chance(25) => planted::for_everybody(random),
        Act::Plant if own.role == Role::Stranger => {
            let source = own.source(random);
            let table = if random.chance(60) { source.table.clone() } else { own.target(random) };
            planted::on_table(random, &table, &source)
        }
        Act::OnExtension => place.on_extension(random, catalog),
        Act::Transaction => return rows::transaction(random, place, catalog),
        Act::Write | Act::Plant | Act::Feeding | Act::Related | Act::CreateSource | Act::CreateTarget => {
            rows::write(random, own)
        }
    }]
}
