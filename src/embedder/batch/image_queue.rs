//! The queue of the image lane, in front of its two stages: images that wait for a decoder, then images that are
//! decoded and wait for the network.
//!
//! Interactive images overtake bulk ones in front of both stages; among images of one priority, parties and
//! connections take turns, see [`super::fair_queue`]. A decoder takes an image only where there will be room for
//! the decoded one, so that prepared images never fill the memory and no decoder has to wait with a decoded image.
//! Each priority has room of its own: a backlog of bulk images leaves that of interactive ones free.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use pg_clip_wire::Priority;

use super::fair_queue::{FairQueue, Source};

/// A queue of `Raw` images, which decoders turn into `Ready` ones.
#[derive(Debug)]
pub(super) struct ImageQueue<Raw, Ready> {
    state: Mutex<State<Raw, Ready>>,
    /// Something may be there for a decoder that takes all images.
    decodable: Condvar,
    /// Something may be there for a decoder that takes interactive images only: bulk images do not wake it.
    interactive_decodable: Condvar,
    /// Something is there for a thread of the network that takes all images.
    ready: Condvar,
    /// Something is there for a thread of the network that takes interactive images only.
    interactive_ready: Condvar,
    /// How many images of one priority may be decoded and waiting, including the images that are being decoded.
    room: usize,
}

/// Which images a thread takes, of a decoder or of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    All,
    InteractiveOnly,
}

/// Room for one decoded image in front of the network, kept until this is dropped.
pub(super) struct Room<'a, Raw, Ready> {
    queue: &'a ImageQueue<Raw, Ready>,
    priority: Priority,
    source: Source,
}

#[derive(Debug)]
struct State<Raw, Ready> {
    interactive: Waiting<Raw, Ready>,
    bulk: Waiting<Raw, Ready>,
    decoders: Turns,
    network: Turns,
    /// Whether the thread of the network that takes interactive images only waits for one.
    interactive_idles: bool,
    closed: bool,
}

#[derive(Debug)]
struct Waiting<Raw, Ready> {
    raw: FairQueue<(Source, Raw)>,
    decoding: usize,
    ready: FairQueue<Ready>,
}

/// The turns of a stage: interactive work goes first, but bulk work gets a turn after so many turns of interactive
/// work.
#[derive(Debug, Default)]
struct Turns {
    turns_given: u32,
}

/// Bulk work that waits gets every 17th turn at least, so that it never waits for ever.
const MOST_TURNS_GIVEN: u32 = 16;

impl<Raw, Ready> ImageQueue<Raw, Ready> {
    pub(super) fn new(room: usize) -> ImageQueue<Raw, Ready> {
        let state = State {
            interactive: Waiting::default(),
            bulk: Waiting::default(),
            decoders: Turns::default(),
            network: Turns::default(),
            interactive_idles: false,
            closed: false,
        };
        ImageQueue {
            state: Mutex::new(state),
            decodable: Condvar::new(),
            interactive_decodable: Condvar::new(),
            ready: Condvar::new(),
            interactive_ready: Condvar::new(),
            room,
        }
    }

    pub(super) fn submit(&self, priority: Priority, source: Source, image: Raw) {
        self.lock().of(priority).raw.push(source, (source, image));
        self.wake_decoders(priority);
    }

    /// Waits for an image to decode, for which there is room. None when the queue is closed.
    pub(super) fn next_to_decode(&self, takes: Takes) -> Option<(Raw, Room<'_, Raw, Ready>)> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            let interactive = state.interactive.can_be_decoded(self.room);
            let bulk = takes == Takes::All && state.bulk.can_be_decoded(self.room);
            if let Some(priority) = state.decoders.next(interactive, bulk) {
                let waiting = state.of(priority);
                if let Some((source, image)) = waiting.raw.pop() {
                    waiting.decoding += 1;
                    return Some((image, Room { queue: self, priority, source }));
                }
            }
            let may_be_there = match takes {
                Takes::All => &self.decodable,
                Takes::InteractiveOnly => &self.interactive_decodable,
            };
            state = may_be_there.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for the network's next batch: images of one priority that are the `same` as the first, as many as the
    /// `limit` of that one allows. None when the queue is closed.
    ///
    /// An interactive image is left to the thread that takes interactive images only while that thread is idle: it
    /// comes after nothing.
    pub(super) fn next_batch(
        &self,
        takes: Takes,
        limit: impl Fn(Priority, &Ready) -> usize,
        same: impl Fn(&Ready, &Ready) -> bool,
    ) -> Option<Vec<Ready>> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            let only_interactive = takes == Takes::InteractiveOnly;
            let interactive =
                !state.interactive.ready.is_empty() && (only_interactive || !state.interactive_idles);
            let bulk = !state.bulk.ready.is_empty() && !only_interactive;
            let turn = if only_interactive {
                interactive.then_some(Priority::Interactive)
            } else {
                state.network.next(interactive, bulk)
            };
            if let Some(priority) = turn {
                let batch = state.of(priority).ready.pop_batch(|first| limit(priority, first), same);
                let left = !state.of(priority).ready.is_empty();
                drop(state);
                self.wake_decoders(priority);
                if left {
                    self.ready.notify_one();
                }
                return Some(batch);
            }
            state.interactive_idles |= only_interactive;
            let may_be_there = if only_interactive { &self.interactive_ready } else { &self.ready };
            state = may_be_there.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.interactive_idles &= !only_interactive;
        }
    }

    /// Drops the images that wait, and ends all waits.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        (state.interactive, state.bulk) = (Waiting::default(), Waiting::default());
        state.closed = true;
        drop(state);
        self.wake_decoders(Priority::Interactive);
        self.ready.notify_all();
        self.interactive_ready.notify_all();
    }

    /// Wakes the decoders that may have something to do, now that an image of this priority has come, or room for one.
    fn wake_decoders(&self, priority: Priority) {
        self.decodable.notify_all();
        if priority == Priority::Interactive {
            self.interactive_decodable.notify_all();
        }
    }

    /// No step under the lock leaves the state half changed, so that a panic leaves nothing behind.
    fn lock(&self) -> MutexGuard<'_, State<Raw, Ready>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<Raw, Ready> Room<'_, Raw, Ready> {
    /// Puts a decoded image into the room that was kept for it.
    pub(super) fn fill(self, image: Ready) {
        let mut state = self.queue.lock();
        if !state.closed {
            state.of(self.priority).ready.push(self.source, image);
        }
        let is_for_interactive = self.priority == Priority::Interactive && state.interactive_idles;
        drop(state);
        let ready = if is_for_interactive { &self.queue.interactive_ready } else { &self.queue.ready };
        ready.notify_one();
    }
}

impl<Raw, Ready> Drop for Room<'_, Raw, Ready> {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        let waiting = state.of(self.priority);
        waiting.decoding = waiting.decoding.saturating_sub(1);
        drop(state);
        self.queue.wake_decoders(self.priority);
    }
}

impl<Raw, Ready> State<Raw, Ready> {
    fn of(&mut self, priority: Priority) -> &mut Waiting<Raw, Ready> {
        match priority {
            Priority::Interactive => &mut self.interactive,
            Priority::Bulk => &mut self.bulk,
        }
    }
}

impl<Raw, Ready> Waiting<Raw, Ready> {
    fn can_be_decoded(&self, room: usize) -> bool {
        !self.raw.is_empty() && self.decoding + self.ready.len() < room
    }
}

impl<Raw, Ready> Default for Waiting<Raw, Ready> {
    fn default() -> Self {
        Waiting { raw: FairQueue::default(), decoding: 0, ready: FairQueue::default() }
    }
}

impl Turns {
    fn next(&mut self, interactive: bool, bulk: bool) -> Option<Priority> {
        match (interactive, bulk) {
            (true, true) if self.turns_given < MOST_TURNS_GIVEN => {
                self.turns_given += 1;
                Some(Priority::Interactive)
            }
            (_, true) => {
                self.turns_given = 0;
                Some(Priority::Bulk)
            }
            (true, false) => Some(Priority::Interactive),
            (false, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use pg_clip_wire::Party;

    use super::*;

    type Queue = ImageQueue<&'static str, &'static str>;

    fn source(connection: u64) -> Source {
        Source { party: Party::default(), connection }
    }

    fn decode(queue: &Queue) -> (Priority, &'static str) {
        let (image, room) = queue.next_to_decode(Takes::All).unwrap();
        let priority = room.priority;
        room.fill(image);
        (priority, image)
    }

    fn batch(queue: &Queue) -> Vec<&'static str> {
        let limit = |priority, _: &_| if priority == Priority::Bulk { 2 } else { 3 };
        queue.next_batch(Takes::All, limit, |a, b| a.starts_with('x') == b.starts_with('x')).unwrap()
    }

    #[test]
    fn an_interactive_image_overtakes_bulk_ones_at_both_stages() {
        let queue = Queue::new(3);
        for image in ["1", "2", "3", "4", "5", "6"] {
            queue.submit(Priority::Bulk, source(1), image);
        }
        for image in ["1", "2", "3"] {
            assert_eq!(decode(&queue), (Priority::Bulk, image));
        }
        // The network is busy with these while the interactive image arrives.
        assert_eq!(batch(&queue), ["1", "2"]);
        queue.submit(Priority::Interactive, source(1), "now");
        assert_eq!(decode(&queue), (Priority::Interactive, "now"));
        assert_eq!(decode(&queue), (Priority::Bulk, "4"));
        assert_eq!(batch(&queue), ["now"]);
        assert_eq!(batch(&queue), ["3", "4"]);
    }

    #[test]
    fn a_queue_full_of_bulk_images_leaves_room_for_an_interactive_one() {
        let queue = Queue::new(2);
        for image in ["1", "2", "3"] {
            queue.submit(Priority::Bulk, source(1), image);
        }
        decode(&queue);
        decode(&queue);
        thread::scope(|scope| {
            // There is no room for the third bulk image: the decoder waits until the interactive one comes, and
            // takes it.
            let waiting = scope.spawn(|| decode(&queue));
            queue.submit(Priority::Interactive, source(1), "now");
            assert_eq!(waiting.join().unwrap(), (Priority::Interactive, "now"));
        });
    }

    #[test]
    fn a_decoder_for_interactive_images_takes_no_other() {
        let queue = Queue::new(2);
        queue.submit(Priority::Bulk, source(1), "1");
        queue.submit(Priority::Interactive, source(1), "now");
        let interactive = || queue.next_to_decode(Takes::InteractiveOnly).map(|(image, _)| image);
        assert_eq!(interactive(), Some("now"));
        thread::scope(|scope| {
            let waiting = scope.spawn(interactive);
            assert_eq!(decode(&queue), (Priority::Bulk, "1"));
            queue.submit(Priority::Interactive, source(1), "next");
            assert_eq!(waiting.join().unwrap(), Some("next"));
        });
    }

    #[test]
    fn an_interactive_image_is_left_to_the_idle_thread_for_interactive_images() {
        let queue = Queue::new(8);
        let network = |takes| queue.next_batch(takes, |_, _| 1, |_, _| true);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| network(Takes::InteractiveOnly));
            while !queue.lock().interactive_idles {
                thread::yield_now();
            }
            queue.submit(Priority::Bulk, source(1), "1");
            decode(&queue);
            queue.submit(Priority::Interactive, source(1), "now");
            decode(&queue);
            assert_eq!(network(Takes::All), Some(vec!["1"]));
            assert_eq!(waiting.join().unwrap(), Some(vec!["now"]));
        });
        // That one is busy now: the others take interactive images too.
        queue.submit(Priority::Interactive, source(1), "next");
        decode(&queue);
        assert_eq!(network(Takes::All), Some(vec!["next"]));
    }

    #[test]
    fn a_connection_with_one_image_waits_for_no_more_than_its_turn_at_both_stages() {
        let queue = Queue::new(64);
        for _ in 0..32 {
            (0..8).for_each(|copy| queue.submit(Priority::Interactive, source(copy), "copy"));
        }
        for _ in 0..16 {
            decode(&queue);
        }
        queue.submit(Priority::Interactive, source(8), "search");
        let decoded: Vec<_> = (0..9).map(|_| decode(&queue).1).collect();
        assert!(decoded.contains(&"search"), "{decoded:?}");
        let network = || queue.next_batch(Takes::All, |_, _| 8, |_, _| true).unwrap();
        let batches = [network(), network()];
        assert!(batches.concat().contains(&"search"), "{batches:?}");
    }

    #[test]
    fn bulk_work_gets_a_turn_after_16_turns_of_interactive_work() {
        let mut turns = Turns::default();
        for _ in 0..2 {
            for _ in 0..16 {
                assert_eq!(turns.next(true, true), Some(Priority::Interactive));
            }
            assert_eq!(turns.next(true, true), Some(Priority::Bulk));
        }
        assert_eq!(turns.next(true, false), Some(Priority::Interactive));
        assert_eq!(turns.next(false, true), Some(Priority::Bulk));
        assert_eq!(turns.next(false, false), None);
    }

    #[test]
    fn an_image_that_is_refused_gives_its_room_back() {
        let queue = Queue::new(1);
        queue.submit(Priority::Bulk, source(1), "broken");
        queue.submit(Priority::Bulk, source(1), "good");
        let (_, room) = queue.next_to_decode(Takes::All).unwrap();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| decode(&queue));
            drop(room);
            assert_eq!(waiting.join().unwrap(), (Priority::Bulk, "good"));
        });
    }

    #[test]
    fn a_batch_holds_images_that_are_the_same_in_their_order() {
        let queue = Queue::new(8);
        for image in ["x1", "y1", "x2", "x3", "x4", "y2"] {
            queue.submit(Priority::Interactive, source(1), image);
            decode(&queue);
        }
        assert_eq!(batch(&queue), ["x1", "x2", "x3"]);
        assert_eq!(batch(&queue), ["y1", "y2"]);
        assert_eq!(batch(&queue), ["x4"]);
    }

    #[test]
    fn a_closed_queue_ends_all_waits() {
        let queue = Queue::new(1);
        thread::scope(|scope| {
            let decoder = scope.spawn(|| queue.next_to_decode(Takes::All).is_none());
            let network = scope.spawn(|| queue.next_batch(Takes::All, |_, _| 1, |_, _| true).is_none());
            queue.close();
            assert!(decoder.join().unwrap() && network.join().unwrap());
        });
        queue.submit(Priority::Interactive, source(1), "late");
        assert!(queue.next_to_decode(Takes::All).is_none());
    }
}
