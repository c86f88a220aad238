//! The lane of texts: one thread.
//!
//! Tokenizing takes microseconds and stays on the lane. Only texts of equally many tokens share a run, so that none is
//! padded for another; equal texts are computed once.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};
use std::{io, thread};

use pg_clip_wire::Failure;
use tokio::sync::OwnedSemaphorePermit;

use super::{Embedding, Reply, answer, same_model, split_group};
use crate::model::Model;
use crate::text::Cache;

/// A text to embed.
#[derive(Debug)]
pub(crate) struct TextJob {
    pub model: Arc<Model>,
    pub text: String,
    pub reply: Reply,
    /// The share of the memory for texts; given back when the job is dropped.
    pub memory: OwnedSemaphorePermit,
}

/// Where texts go. The thread ends when this is dropped.
#[derive(Debug)]
pub(crate) struct TextLane(Sender<TextJob>);

/// How many requests are looked at together to find equal lengths.
const LOOKAHEAD: usize = 64;

impl TextLane {
    pub(crate) fn start() -> io::Result<TextLane> {
        let (sender, queue) = mpsc::channel();
        thread::Builder::new().name("text".to_owned()).spawn(move || work(&queue))?;
        Ok(TextLane(sender))
    }

    pub(crate) fn submit(&self, job: TextJob) {
        // A lane that is gone drops the reply, which is an answer.
        let _ = self.0.send(job);
    }
}

fn work(queue: &Receiver<TextJob>) {
    let mut cache = Cache::new();
    while let Some(jobs) = pull(queue, LOOKAHEAD) {
        // A panic drops the replies, which answers them; the cache holds whole entries only.
        let _ = panic::catch_unwind(AssertUnwindSafe(|| embed(jobs, &mut cache)));
    }
}

/// Waits for one and takes what else is there, at most `limit`. None when the other end is gone.
fn pull<T>(queue: &Receiver<T>, limit: usize) -> Option<Vec<T>> {
    let first = queue.recv().ok()?;
    Some(std::iter::once(first).chain(queue.try_iter()).take(limit).collect())
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
