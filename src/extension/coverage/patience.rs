//! How long the reader of a view waits for tables that cannot be counted.
//!
//! Another session may have locked a table, and code of its owner may run while it is counted: PostgreSQL calls functions in the
//! conditions of its indexes while it plans. What is too long for one table, a statement's other tables of the same owner
//! have less of. So what a statement waits for does not grow with their number, and no owner takes time from another.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use pgrx::pg_sys;

/// A reader waits for a lock at most so long.
const LOCK: Duration = Duration::from_secs(1);
/// How long all tables of an owner may take beyond what a table takes at least.
const MOST: Duration = Duration::from_secs(5);
/// What a table may take in any case.
const LEAST: Duration = Duration::from_millis(100);
/// No more tables of an owner are counted after so long.
const MOST_IN_ALL: Duration = Duration::from_secs(30);

/// How long one table may take.
pub(super) struct Patience {
    owner: pg_sys::Oid,
    pub(super) limit: Duration,
}

/// What a statement has spent on the tables of an owner.
#[derive(Clone, Copy, Default)]
struct Spent {
    all: Duration,
    /// Beyond [`LEAST`] for each of them.
    beyond: Duration,
}

thread_local! {
    /// The start of the statement, and what it has spent.
    static SPENT: RefCell<(pg_sys::TimestampTz, HashMap<pg_sys::Oid, Spent>)> = RefCell::default();
}

impl Patience {
    /// What is left for a table of an owner; nothing where no time is.
    pub(super) fn with(owner: pg_sys::Oid) -> Option<Patience> {
        // SAFETY: a plain read of this backend's state.
        let statement = unsafe { pg_sys::GetCurrentStatementStartTimestamp() };
        let spent = SPENT.with_borrow_mut(|(of, spent)| {
            if *of != statement {
                *of = statement;
                spent.clear();
            }
            spent.get(&owner).copied().unwrap_or_default()
        });
        let limit = MOST.saturating_sub(spent.beyond).max(LEAST);
        (spent.all < MOST_IN_ALL).then_some(Patience { owner, limit })
    }

    /// In milliseconds.
    pub(super) fn lock_timeout(&self) -> u32 {
        u32::try_from(self.limit.min(LOCK).as_millis()).expect("a second")
    }

    /// Notes how long the table took.
    pub(super) fn spend(self, time: Duration) {
        SPENT.with_borrow_mut(|(_, spent)| {
            let spent = spent.entry(self.owner).or_default();
            spent.all += time;
            spent.beyond += time.saturating_sub(LEAST);
        });
    }
}
