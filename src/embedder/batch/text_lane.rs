//! The lane of texts: one thread.
//!
//! Parties and connections take turns, see [`super::fair_queue`]. Tokenizing takes microseconds and stays on the lane. Only texts of equally many tokens share a run, so that none is
//! padded for another; equal texts are computed once.

use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use pg_clip_wire::Failure;

use super::fair_queue::{FairQueue, Source};
use super::{Embedding, Reply, answer, same_model, split_group};
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

/// Where texts go. The thread ends when this is dropped.
#[derive(Debug)]
pub(crate) struct TextLane(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    /// Something is there, or the lane is gone.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: FairQueue<TextJob>,
    closed: bool,
}

/// How many requests are looked at together to find equal lengths: a text that comes then waits for them.
const LOOKAHEAD: usize = 16;

impl TextLane {
    pub(crate) fn start(watchdog: Arc<Watchdog>) -> io::Result<TextLane> {
        let lane = TextLane(Arc::default());
        let queue = Arc::clone(&lane.0);
        thread::Builder::new().name("text".to_owned()).spawn(move || work(&queue, &watchdog))?;
        Ok(lane)
    }

    pub(crate) fn submit(&self, source: Source, job: TextJob) {
        self.0.lock().waiting.push(source, job);
        self.0.changed.notify_one();
    }
}

impl Drop for TextLane {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        *state = State { waiting: FairQueue::default(), closed: true };
        drop(state);
        self.0.changed.notify_one();
    }
}

impl Queue {
    /// Waits for one and takes what else is there, at most `limit`. None when the lane is gone.
    fn pull(&self, limit: usize) -> Option<Vec<TextJob>> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if !state.waiting.is_empty() {
                return Some(state.waiting.pop_batch(|_| limit, |_, _| true));
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// No step under the lock leaves the state half changed, so that a panic leaves nothing behind.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn work(queue: &Queue, watchdog: &Watchdog) {
    let mut cache = Cache::new();
    while let Some(jobs) = queue.pull(LOOKAHEAD) {
        let _busy = watchdog.busy("embedding a batch of texts");
        // A panic drops the replies, which answers them; the cache holds whole entries only.
        let _ = panic::catch_unwind(AssertUnwindSafe(|| embed(jobs, &mut cache)));
    }
}

/// The requests of one text.
struct Asked {
    model: Arc<Model>,
    ids: Arc<[u32]>,
    replies: Vec<Reply>,
}

fn embed(jobs: Vec<TextJob>, cache: &mut Cache) {
    let mut asked: Vec<Asked> = Vec::new();
    for TextJob { model, text, reply, memory } in jobs {
        if reply.is_abandoned() {
            continue;
        }
        let ids: Arc<[u32]> = match model.tokenizer.encode(&text) {
            Ok(ids) => ids.into(),
            Err(error) => {
                reply.send(Err(error.into()));
                continue;
            }
        };
        drop((text, memory));
        if let Some(vector) = cache.get(model.fingerprint, &ids) {
            reply.meter.hit(reply.age());
            reply.send(Ok(Embedding { fingerprint: model.fingerprint, vector }));
            continue;
        }
        match asked.iter_mut().find(|other| same_model(&other.model, &model) && other.ids == ids) {
            Some(same) => {
                reply.meter.hit(reply.age());
                same.replies.push(reply);
            }
            None => asked.push(Asked { model, ids, replies: vec![reply] }),
        }
    }
    while let Some(first) = asked.first() {
        let limit = first.model.text_batch;
        let same = |a: &Asked, b: &Asked| same_model(&a.model, &b.model) && a.ids.len() == b.ids.len();
        run(split_group(&mut asked, limit, same), cache);
    }
}

fn run(group: Vec<Asked>, cache: &mut Cache) {
    let Some(first) = group.first() else { return };
    let model = Arc::clone(&first.model);
    let texts: Vec<&[u32]> = group.iter().map(|asked| &*asked.ids).collect();
    let replies = group.iter().filter_map(|asked| asked.replies.first());
    let waited: Vec<Duration> = replies.map(Reply::age).collect();
    let start = Instant::now();
    let rows = match model.embed_texts(&texts) {
        Ok(rows) => rows,
        Err(error) => return answer(&model, group.into_iter().flat_map(|asked| asked.replies), Err(error)),
    };
    if let Some(reply) = first.replies.first() {
        reply.meter.ran(&waited, start.elapsed());
    }
    for (asked, row) in group.into_iter().zip(rows) {
        let row = row.map_err(Failure::from);
        if let Ok(vector) = &row {
            cache.put(model.fingerprint, asked.ids, vector.clone());
        }
        let embedding = row.map(|vector| Embedding { fingerprint: model.fingerprint, vector });
        asked.replies.into_iter().for_each(|reply| reply.send(embedding.clone()));
    }
}
