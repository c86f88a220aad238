//! A queue in which parties and connections take turns.
//!
//! Parties take turns, and within a party its connections; the requests of one connection stay in their order. So
//! the wait of a request grows with the number of parties and connections that wait, and not with the number of
//! their requests.

use std::collections::VecDeque;

use pg_clip_wire::Party;

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Source {
    pub party: Party,
    /// The number of the connection, which is never given again.
    pub connection: u64,
}

/// The waiting requests, by party and connection. None of the inner queues is empty; the one with the next turn
/// stands first.
#[derive(Debug)]
pub(super) struct FairQueue<T> {
    parties: Lines<Party, Lines<u64, VecDeque<T>>>,
    length: usize,
}

type Lines<Key, Waiting> = VecDeque<Line<Key, Waiting>>;

#[derive(Debug)]
struct Line<Key, Waiting> {
    key: Key,
    waiting: Waiting,
}

impl<T> FairQueue<T> {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(super) fn push(&mut self, source: Source, item: T) {
        let connections = line(&mut self.parties, source.party);
        line(connections, source.connection).push_back(item);
        self.length += 1;
    }

    /// Takes the next one.
    pub(super) fn pop(&mut self) -> Option<T> {
        self.take(|_| true)
    }

    /// Takes the next one, and in turn more that are the `same` as it, up to the `limit` of the first.
    pub(super) fn pop_batch(
        &mut self,
        limit: impl FnOnce(&T) -> usize,
        same: impl Fn(&T, &T) -> bool,
    ) -> Vec<T> {
        let mut batch: Vec<T> = self.pop().into_iter().collect();
        let limit = batch.first().map_or(0, limit);
        while batch.len() < limit
            && let Some(next) = self.take(|item| same(&batch[0], item))
        {
            batch.push(next);
        }
        batch
    }

    /// Takes the first fitting one of the first connection that has one. That ends the turn of the connection and
    /// of its party.
    fn take(&mut self, fits: impl Fn(&T) -> bool) -> Option<T> {
        let find = |connection: &Line<u64, VecDeque<T>>| connection.waiting.iter().position(&fits);
        let (party, connection, place) = self.parties.iter().enumerate().find_map(|(party, line)| {
            let mut connections = line.waiting.iter().enumerate();
            let (connection, place) = connections.find_map(|(at, line)| Some((at, find(line)?)))?;
            Some((party, connection, place))
        })?;
        let mut of_party = self.parties.remove(party)?;
        let mut of_connection = of_party.waiting.remove(connection)?;
        let item = of_connection.waiting.remove(place)?;
        self.length -= 1;
        if !of_connection.waiting.is_empty() {
            of_party.waiting.push_back(of_connection);
        }
        if !of_party.waiting.is_empty() {
            self.parties.push_back(of_party);
        }
        Some(item)
    }
}

fn line<Key: PartialEq, Waiting: Default>(lines: &mut Lines<Key, Waiting>, key: Key) -> &mut Waiting {
    let place = lines.iter().position(|line| line.key == key).unwrap_or_else(|| {
        lines.push_back(Line { key, waiting: Waiting::default() });
        lines.len() - 1
    });
    &mut lines[place].waiting
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        FairQueue { parties: VecDeque::new(), length: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(role: u32, connection: u64) -> Source {
        Source { party: Party { database: 1, role }, connection }
    }

    fn all(queue: &mut FairQueue<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn connections_of_a_party_take_turns() {
        let mut queue = FairQueue::default();
        for image in ["a1", "a2", "a3"] {
            queue.push(source(1, 1), image);
        }
        queue.push(source(1, 2), "b1");
        queue.push(source(1, 3), "c1");
        queue.push(source(1, 3), "c2");
        assert_eq!(queue.len(), 6);
        assert_eq!(all(&mut queue), ["a1", "b1", "c1", "a2", "c2", "a3"]);
        assert!(queue.is_empty() && queue.pop().is_none());
    }

    #[test]
    fn a_party_gets_no_more_turns_by_more_connections() {
        let mut queue = FairQueue::default();
        for connection in 0..90 {
            queue.push(source(1, connection), "many");
        }
        queue.push(source(2, 90), "one");
        queue.push(source(2, 90), "two");
        assert_eq!(all(&mut queue)[..5], ["many", "one", "many", "two", "many"]);
    }

    #[test]
    fn a_batch_has_one_of_each_connection_before_more_of_any() {
        let mut queue = FairQueue::default();
        for _ in 0..32 {
            (0..4).for_each(|copy| queue.push(source(1, copy), "copy"));
        }
        queue.push(source(1, 4), "search");
        let batch = queue.pop_batch(|_| 8, |_, _| true);
        assert_eq!((batch.len(), batch[4]), (8, "search"));
    }

    #[test]
    fn a_batch_has_equal_work_in_its_order() {
        let mut queue = FairQueue::default();
        for image in ["x1", "y1", "x2", "x3", "x4", "y2"] {
            queue.push(source(1, 1), image);
        }
        let mut batch = || queue.pop_batch(|_| 3, |a, b| a.starts_with('x') == b.starts_with('x'));
        assert_eq!(batch(), ["x1", "x2", "x3"]);
        assert_eq!(batch(), ["y1", "y2"]);
        assert_eq!(batch(), ["x4"]);
        assert!(batch().is_empty());
    }
}
