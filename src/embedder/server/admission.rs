//! How many requests the embedder takes on, from each party and connection.
//!
//! Requests that wait are counted, texts, interactive images and bulk images apart, so that no text is refused for
//! images and no search for a backfill. A party has half of the backlog at most, and where the backlog is full an
//! equal share. Requests beyond that are refused, but for a connection that has few requests waiting: so a party
//! with many requests is refused, and a connection with few is taken on, even where the sum then exceeds the
//! backlog.
//!
//! The bytes of requests are budgeted in the same classes. A party has half of a budget at most; a request that
//! finds no room waits on its socket, and so does its backend. A connection waits for room with one request at a
//! time, in the order in which they came.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pg_clip_wire::Party;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::batch::Source;
use crate::error::Error;
use crate::stats::Lane;

/// The bounds that hold for all connections together.
#[derive(Debug)]
pub(super) struct Admission {
    backlog: usize,
    budgets: Budgets,
    parties: Mutex<BTreeMap<Party, Known>>,
    waiting: [Mutex<WaitingCounts>; Lane::ALL.len()],
}

/// A connection of a party, for as long as it is open.
#[derive(Debug)]
pub(super) struct Member {
    admission: Arc<Admission>,
    source: Source,
    budgets: Arc<Budgets>,
}

/// A request that was taken on; it counts until this is dropped.
#[derive(Debug)]
pub(super) struct Waiting {
    admission: Arc<Admission>,
    lane: Lane,
    source: Source,
}

/// The room of a request's bytes, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Memory {
    _of_party: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

/// A party with connections.
#[derive(Debug)]
struct Known {
    connections: usize,
    budgets: Arc<Budgets>,
}

/// How many requests of one class wait, by party and connection; none of the numbers is 0.
#[derive(Debug, Default)]
struct WaitingCounts {
    all: usize,
    parties: BTreeMap<Party, BTreeMap<u64, usize>>,
}

/// A budget of bytes for each class.
#[derive(Debug)]
struct Budgets([Arc<Semaphore>; Lane::ALL.len()]);

/// The requests that a connection may have waiting where its party has its share, if an equal part of that is as
/// much.
const FEW: usize = 16;

/// The bytes of all images of one priority that are not decoded yet.
const IMAGE_BYTES: usize = 256 << 20;
const TEXT_BYTES: usize = 64 << 20;

/// The part of a budget that a party has at most. A single larger image takes it whole.
const PARTYS_SHARE: usize = 2;

impl Admission {
    pub(super) fn new(backlog: usize) -> Admission {
        Admission {
            backlog,
            budgets: Budgets::new(1),
            parties: Mutex::default(),
            waiting: Default::default(),
        }
    }

    /// Counts a connection in.
    pub(super) fn join(self: &Arc<Self>, source: Source) -> Member {
        let mut parties = lock(&self.parties);
        let known = parties
            .entry(source.party)
            .or_insert_with(|| Known { connections: 0, budgets: Arc::new(Budgets::new(PARTYS_SHARE)) });
        known.connections += 1;
        Member { admission: Arc::clone(self), source, budgets: Arc::clone(&known.budgets) }
    }

    fn counts(&self, lane: Lane) -> MutexGuard<'_, WaitingCounts> {
        lock(&self.waiting[lane as usize])
    }
}

impl Member {
    pub(super) fn source(&self) -> Source {
        self.source
    }

    /// Takes a request on, or refuses it because too many of its kind wait already.
    pub(super) fn admit(&self, lane: Lane) -> Result<Waiting, Error> {
        let mut counts = self.admission.counts(lane);
        if !counts.has_room_for(self.source, self.admission.backlog) {
            return Err(Error::Overloaded { limit: self.admission.backlog });
        }
        counts.add(self.source);
        Ok(Waiting { admission: Arc::clone(&self.admission), lane, source: self.source })
    }

    /// Waits for room for a request of so many bytes.
    pub(super) async fn room(&self, lane: Lane, length: usize) -> Memory {
        let bytes = length.min(bytes_of(lane) / PARTYS_SHARE);
        let of_party = self.budgets.acquire(lane, bytes).await;
        Memory { _of_party: of_party, _of_all: self.admission.budgets.acquire(lane, bytes).await }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut parties = lock(&self.admission.parties);
        if let Some(known) = parties.get_mut(&self.source.party) {
            known.connections -= 1;
            if known.connections == 0 {
                parties.remove(&self.source.party);
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.admission.counts(self.lane).remove(self.source);
    }
}

impl WaitingCounts {
    fn has_room_for(&self, source: Source, backlog: usize) -> bool {
        let Some(party) = self.parties.get(&source.party) else {
            return backlog > 0;
        };
        let of_party: usize = party.values().sum();
        let is_full = self.all >= backlog;
        let partys_share = if is_full { backlog / self.parties.len() } else { backlog.div_ceil(2) };
        if of_party < partys_share {
            return true;
        }
        let of_connection = party.get(&source.connection).copied().unwrap_or(0);
        let others = party.len() - usize::from(of_connection > 0);
        of_connection < (partys_share / (others + 1)).clamp(1, FEW).min(backlog)
    }

    fn add(&mut self, source: Source) {
        self.all += 1;
        *self.parties.entry(source.party).or_default().entry(source.connection).or_default() += 1;
    }

    fn remove(&mut self, source: Source) {
        let Some(party) = self.parties.get_mut(&source.party) else { return };
        let Some(waiting) = party.get_mut(&source.connection) else { return };
        self.all -= 1;
        *waiting -= 1;
        if *waiting == 0 {
            party.remove(&source.connection);
        }
        if party.is_empty() {
            self.parties.remove(&source.party);
        }
    }
}

impl Budgets {
    fn new(shares: usize) -> Budgets {
        Budgets(Lane::ALL.map(|lane| Arc::new(Semaphore::new(bytes_of(lane) / shares))))
    }

    async fn acquire(&self, lane: Lane, bytes: usize) -> OwnedSemaphorePermit {
        let bytes = u32::try_from(bytes).expect("every budget fits in 32 bits");
        let room = Arc::clone(&self.0[lane as usize]);
        room.acquire_many_owned(bytes).await.expect("the budgets are never closed")
    }
}

fn bytes_of(lane: Lane) -> usize {
    match lane {
        Lane::Text => TEXT_BYTES,
        Lane::InteractiveImage | Lane::BulkImage => IMAGE_BYTES,
    }
}

/// No step under these locks leaves a number half changed, so that a panic leaves nothing behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn member(admission: &Arc<Admission>, role: u32, connection: u64) -> Member {
        admission.join(Source { party: Party { database: 1, role }, connection })
    }

    /// Everything of the class that is taken on when the member asks so often.
    fn ask(member: &Member, lane: Lane, times: usize) -> Vec<Waiting> {
        (0..times).filter_map(|_| member.admit(lane).ok()).collect()
    }

    #[test]
    fn a_party_has_half_of_the_backlog_and_gets_it_back() {
        let admission = Arc::new(Admission::new(8));
        let one = member(&admission, 1, 1);
        let mut held = ask(&one, Lane::Text, 8);
        assert_eq!(held.len(), 4);
        assert!(matches!(one.admit(Lane::Text), Err(Error::Overloaded { limit: 8 })));
        held.pop();
        assert!(one.admit(Lane::Text).is_ok());
        assert_eq!(ask(&member(&Arc::new(Admission::new(0)), 1, 1), Lane::Text, 1).len(), 0);
    }

    #[test]
    fn ninety_connections_of_a_role_refuse_neither_another_role_nor_a_connection_of_their_own() {
        let admission = Arc::new(Admission::new(4096));
        let many: Vec<Member> = (0..90).map(|connection| member(&admission, 1, connection)).collect();
        let held: Vec<_> = many.iter().map(|one| ask(one, Lane::InteractiveImage, 100)).collect();
        assert!(held.iter().all(|held| !held.is_empty()), "a connection was refused altogether");
        assert!(held.iter().flatten().count() <= 2048 + 90 * FEW);
        let other = member(&admission, 2, 90);
        assert_eq!(ask(&other, Lane::InteractiveImage, 200).len(), 200);
        let own = member(&admission, 1, 91);
        assert_eq!(ask(&own, Lane::InteractiveImage, 200).len(), FEW);
        assert_eq!(ask(&own, Lane::Text, 200).len(), 200, "a text is not refused for images");
    }

    #[test]
    fn where_parties_fill_the_backlog_another_gets_an_equal_share() {
        let admission = Arc::new(Admission::new(60));
        let held: Vec<_> = (1..=5)
            .map(|role| ask(&member(&admission, role, u64::from(role)), Lane::BulkImage, 64))
            .collect();
        assert!(held.iter().flatten().count() >= 60);
        let other = member(&admission, 6, 6);
        let taken = ask(&other, Lane::BulkImage, 64);
        assert!((8..=12).contains(&taken.len()), "{}", taken.len());
    }

    #[test]
    fn a_partys_bytes_leave_room_for_anothers() {
        let admission = Arc::new(Admission::new(8));
        let (one, other) = (member(&admission, 1, 1), member(&admission, 2, 2));
        let take = |member: &Member, bytes| now_or_never(member.room(Lane::InteractiveImage, bytes));
        let held = take(&one, IMAGE_BYTES);
        assert!(held.is_some() && take(&one, 1).is_none());
        assert!(take(&other, IMAGE_BYTES).is_some());
        drop(held);
        assert!(take(&one, 1).is_some());
    }

    /// The result of a future that need not wait.
    fn now_or_never<T>(future: impl Future<Output = T>) -> Option<T> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_party_without_connections_is_forgotten() {
        let admission = Arc::new(Admission::new(8));
        drop((member(&admission, 1, 1), member(&admission, 1, 2)));
        assert!(lock(&admission.parties).is_empty());
    }
}
