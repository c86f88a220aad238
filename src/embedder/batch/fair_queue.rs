//! A queue that gives everybody a turn.
//!
//! Parties take turns, and within a party its connections; what one connection has asked for stays in its order. So what
//! a request waits for grows with the number of others that wait, and not with how much they have asked for.

use std::collections::VecDeque;

use pg_clip_wire::Party;

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Source {
    pub party: Party,
    /// The number of the connection, which is never given again.
    pub connection: u64,
}

/// What waits, by party and connection. None of the inner queues is empty; whose turn is next stands first.
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
        self.take(|_| true, |_| true).map(|(_, item)| item)
    }

    /// Takes the next one and those that are the `same` as it: one of each connection, at most `limit` of them, and then
    /// more in turn for as long as they are fewer than `fill`.
    pub(super) fn pop_batch(
        &mut self,
        bounds: impl FnOnce(&T) -> Bounds,
        same: impl Fn(&T, &T) -> bool,
    ) -> Vec<T> {
        let Some((source, first)) = self.take(|_| true, |_| true) else { return Vec::new() };
        let Bounds { limit, fill } = bounds(&first);
        let (mut batch, mut taken) = (vec![first], vec![source.connection]);
        while batch.len() < limit {
            let next = self.take(|connection| !taken.contains(&connection), |item| same(&batch[0], item));
            let Some((source, item)) = next else { break };
            taken.push(source.connection);
            batch.push(item);
        }
        while batch.len() < fill.min(limit) {
            let Some((_, item)) = self.take(|_| true, |item| same(&batch[0], item)) else { break };
            batch.push(item);
        }
        batch
    }

    /// Takes the first one that fits of the first connection that may have one, which ends the turn of both the
    /// connection and its party.
    fn take(&mut self, may: impl Fn(u64) -> bool, fits: impl Fn(&T) -> bool) -> Option<(Source, T)> {
        let find = |connection: &Line<u64, VecDeque<T>>| {
            if may(connection.key) { connection.waiting.iter().position(&fits) } else { None }
        };
        let (party, connection, place) = self.parties.iter().enumerate().find_map(|(party, line)| {
            let found = line.waiting.iter().enumerate();
            let (connection, place) = found.filter_map(|(at, line)| Some((at, find(line)?))).next()?;
            Some((party, connection, place))
        })?;
        let mut of_party = self.parties.remove(party)?;
        let mut of_connection = of_party.waiting.remove(connection)?;
        let item = of_connection.waiting.remove(place)?;
        self.length -= 1;
        let source = Source { party: of_party.key, connection: of_connection.key };
        if !of_connection.waiting.is_empty() {
            of_party.waiting.push_back(of_connection);
        }
        if !of_party.waiting.is_empty() {
            self.parties.push_back(of_party);
        }
        Some((source, item))
    }
}

/// How large a batch may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// With one request of each connection.
    pub limit: usize,
    /// With several of one.
    pub fill: usize,
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
            (0..8).for_each(|copy| queue.push(source(1, copy), "copy"));
        }
        queue.push(source(1, 8), "search");
        let mut batch = || queue.pop_batch(|_| Bounds { limit: 16, fill: 4 }, |_, _| true);
        let first = batch();
        assert_eq!((first.len(), first[8]), (9, "search"));
        assert_eq!(batch(), ["copy"; 8]);
    }

    #[test]
    fn a_batch_of_one_connection_is_filled_up_and_no_more() {
        let mut queue = FairQueue::default();
        for image in ["x1", "y1", "x2", "x3", "x4", "y2"] {
            queue.push(source(1, 1), image);
        }
        let mut batch = || {
            queue
                .pop_batch(|_| Bounds { limit: 16, fill: 3 }, |a, b| a.starts_with('x') == b.starts_with('x'))
        };
        assert_eq!(batch(), ["x1", "x2", "x3"]);
        assert_eq!(batch(), ["y1", "y2"]);
        assert_eq!(batch(), ["x4"]);
        assert!(batch().is_empty());
    }
}
