//! The lane of texts: as many threads as there are processors, each of which runs a group of texts.
//!
//! Parties and connections take turns, see [`super::fair_queue`]. A thread looks at the texts that wait, tokenizes them,
//! which takes microseconds, and makes groups of them: only texts of equally many tokens share a run, so that none is
//! padded for another. It runs one group and leaves the others to the threads that are idle. Where there are fewer texts
//! than threads each text is a group, and a lone text has all processors: see [`crate::onnxruntime::SharedSession`].
//! Equal texts are computed once: one that comes while another is being computed waits for that one's vector.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use pg_clip_wire::{Failure, Fingerprint, Work};

use super::fair_queue::{FairQueue, Source};
use super::{Embedding, Reply, same_model, share, split_group};
use crate::model::Model;
use crate::server::Memory;
use crate::text::Cache;
use crate::watchdog::Watchdog;

/// A text to embed.
#[derive(Debug)]
pub(crate) struct TextJob {
    pub model: Arc<Model>,
    pub text: String,
    pub reply: Reply,
    /// The share of the memory for texts; given back when the job is dropped.
    pub memory: Memory,
}

/// Where texts go. The threads end when this is dropped.
#[derive(Debug)]
pub(crate) struct TextLane(Arc<Lane>);

/// The state that the threads of the lane share.
#[derive(Debug)]
struct Lane {
    threads: NonZeroUsize,
    queue: Mutex<Queue>,
    /// Something is there, or the lane is gone.
    changed: Condvar,
    known: Mutex<Known>,
    watchdog: Arc<Watchdog>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: FairQueue<TextJob>,
    /// Texts that wait for nothing but a thread.
    groups: VecDeque<Vec<Asked>>,
    closed: bool,
}

/// The computed vectors, and the requests that wait for a vector that is being computed.
#[derive(Debug)]
struct Known {
    vectors: Cache,
    /// The requests that came after the first of a text, until that one has its vector.
    computing: HashMap<(Fingerprint, Arc<[u32]>), Vec<Reply>>,
}

/// How many requests are looked at together to find equal lengths.
const LOOKAHEAD: usize = 16;

impl TextLane {
    /// Starts the threads.
    pub(crate) fn start(threads: NonZeroUsize, watchdog: Arc<Watchdog>) -> io::Result<TextLane> {
        let known = Known { vectors: Cache::new(), computing: HashMap::new() };
        let (queue, changed, known) = (Mutex::default(), Condvar::new(), Mutex::new(known));
        let lane = TextLane(Arc::new(Lane { threads, queue, changed, known, watchdog }));
        for number in 0..threads.get() {
            let lane = Arc::clone(&lane.0);
            thread::Builder::new().name(format!("text {number}")).spawn(move || lane.work())?;
        }
        Ok(lane)
    }

    pub(crate) fn submit(&self, source: Source, job: TextJob) {
        lock(&self.0.queue).waiting.push(source, job);
        self.0.changed.notify_one();
    }
}

impl Drop for TextLane {
    fn drop(&mut self) {
        *lock(&self.0.queue) = Queue { closed: true, ..Queue::default() };
        self.0.changed.notify_all();
    }
}

/// The request for a text that is to be computed.
#[derive(Debug)]
struct Asked {
    model: Arc<Model>,
    ids: Arc<[u32]>,
    /// How long it took to tokenize the text.
    tokenizing: Duration,
    reply: Reply,
}

impl Lane {
    fn work(&self) {
        while let Some(group) = self.next_group() {
            let _busy = self.watchdog.busy("embedding a batch of texts");
            let keys: Vec<_> = group.iter().map(Asked::key).collect();
            // A panic drops the replies, which answers them.
            let _ = panic::catch_unwind(AssertUnwindSafe(|| self.run(group)));
            // The texts that are left were lost in a panic, and so are the requests that waited for them.
            let mut known = lock(&self.known);
            keys.iter().for_each(|key| drop(known.computing.remove(key)));
        }
    }

    /// Waits for texts to run together. None when the lane is gone.
    fn next_group(&self) -> Option<Vec<Asked>> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.closed {
                return None;
            }
            if let Some(group) = queue.groups.pop_front() {
                return Some(group);
            }
            if queue.waiting.is_empty() {
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let jobs = queue.waiting.pop_batch(|_| LOOKAHEAD, |_, _| true);
            drop(queue);
            let groups = self.groups(jobs);
            queue = lock(&self.queue);
            if !queue.closed {
                queue.groups.extend(groups);
            }
            (1..queue.groups.len()).for_each(|_| self.changed.notify_one());
        }
    }

    /// Answers requests whose vectors are known, and makes groups of the rest.
    fn groups(&self, jobs: Vec<TextJob>) -> Vec<Vec<Asked>> {
        // A panic drops the reply, which answers it.
        let ask = |job| panic::catch_unwind(AssertUnwindSafe(|| self.ask(job))).ok().flatten();
        let mut asked: Vec<Asked> = jobs.into_iter().filter_map(ask).collect();
        let each = asked.len().div_ceil(self.threads.get());
        let mut groups = Vec::new();
        while let Some(first) = asked.first() {
            let limit = first.model.text_batch.min(each);
            let same = |a: &Asked, b: &Asked| same_model(&a.model, &b.model) && a.ids.len() == b.ids.len();
            groups.push(split_group(&mut asked, limit, same));
        }
        groups
    }

    /// The text of a request that is to be computed; None where it is answered, or waits for an equal text.
    fn ask(&self, job: TextJob) -> Option<Asked> {
        let TextJob { model, text, reply, memory } = job;
        if reply.is_abandoned() {
            return None;
        }
        let start = Instant::now();
        let ids = model.tokenizer.encode(&text);
        let tokenizing = start.elapsed();
        reply.meter.tokenized(tokenizing);
        let ids: Arc<[u32]> = match ids {
            Ok(ids) => ids.into(),
            Err(error) => {
                reply.send(Err(error.into()));
                return None;
            }
        };
        drop((text, memory));
        let asked = Asked { model, ids, tokenizing, reply };
        let mut known = lock(&self.known);
        if let Some(vector) = known.vectors.get(asked.model.fingerprint, &asked.ids) {
            drop(known);
            asked.reply.meter.hit(asked.reply.age());
            let (fingerprint, work) = (asked.model.fingerprint, Work::new(tokenizing, None));
            asked.reply.send(Ok(Embedding { fingerprint, work, vector }));
            return None;
        }
        if let Some(waiting) = known.computing.get_mut(&asked.key()) {
            asked.reply.meter.hit(asked.reply.age());
            waiting.push(asked.reply);
            return None;
        }
        known.computing.insert(asked.key(), Vec::new());
        Some(asked)
    }

    fn run(&self, group: Vec<Asked>) {
        let Some(first) = group.first() else { return };
        let model = Arc::clone(&first.model);
        let texts: Vec<&[u32]> = group.iter().map(|asked| &*asked.ids).collect();
        let waited: Vec<Duration> = group.iter().map(|asked| asked.reply.age()).collect();
        let start = Instant::now();
        let rows = model.embed_texts(&texts);
        let time = start.elapsed();
        if rows.is_ok() {
            first.reply.meter.ran(&waited, time);
        }
        let share = share(time, group.len());
        let rows = match rows {
            Ok(rows) => rows.into_iter().map(|row| row.map_err(Failure::from)).collect(),
            Err(error) => vec![Err(Failure::from(&error)); group.len()],
        };
        for (asked, row) in group.into_iter().zip(rows) {
            let mut known = lock(&self.known);
            if let Ok(vector) = &row {
                known.vectors.put(model.fingerprint, Arc::clone(&asked.ids), vector.clone());
            }
            let waiting = known.computing.remove(&asked.key()).unwrap_or_default();
            drop(known);
            let embedding = |row: Result<_, _>, inference| {
                let (fingerprint, work) = (model.fingerprint, Work::new(asked.tokenizing, inference));
                row.map(|vector| Embedding { fingerprint, work, vector })
            };
            waiting.into_iter().for_each(|reply| reply.send(embedding(row.clone(), None)));
            asked.reply.send(embedding(row, Some(share)));
        }
    }
}

impl Asked {
    fn key(&self) -> (Fingerprint, Arc<[u32]>) {
        (self.model.fingerprint, Arc::clone(&self.ids))
    }
}

/// No step under a lock leaves its content half changed, so that a panic leaves nothing behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
