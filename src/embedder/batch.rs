//! Requests become batches.
//!
//! Texts and images have lanes of their own, so that a search never waits for a backfill. In the lane of images,
//! interactive images overtake bulk ones; in both lanes parties and connections take turns. A lane pulls when it is
//! idle and takes what is there: requests that come together are batched, a lone one never waits, and no timer decides.
//! A request whose backend has gone is dropped before it costs anything. An error or a panic is the answer to the
//! requests that it concerns and to no others, and the lane goes on.

mod decoder_memory;
mod fair_queue;
mod idle_memory;
mod image_lane;
mod image_queue;
mod reply;
mod text_lane;

use std::sync::Arc;
use std::time::Duration;

use pg_clip_wire::{Failure, Fingerprint, Work};

pub(crate) use self::fair_queue::Source;
pub(crate) use self::image_lane::{ImageJob, ImageLane};
pub(crate) use self::reply::{Answered, Reply};
pub(crate) use self::text_lane::{TextJob, TextLane};
use crate::error::Error;
use crate::model::Model;

/// A vector of length 1, the fingerprint of its model, and the times that it took.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Embedding {
    pub fingerprint: Fingerprint,
    pub work: Work,
    pub vector: Vec<f32>,
}

/// Takes the jobs of the first job's kind out of `jobs`, at most `limit`, in their order.
fn split_group<T>(jobs: &mut Vec<T>, limit: usize, same: impl Fn(&T, &T) -> bool) -> Vec<T> {
    let mut group: Vec<T> = Vec::new();
    let mut rest = Vec::new();
    for job in jobs.drain(..) {
        match group.first() {
            Some(first) if group.len() >= limit || !same(first, &job) => rest.push(job),
            _ => group.push(job),
        }
    }
    *jobs = rest;
    group
}

/// Answers each request of a batch with its own row, or all with the error that ended the run.
fn answer(model: &Model, requests: impl IntoIterator<Item = (Reply, Work)>, rows: Rows) {
    match rows {
        Ok(rows) => requests.into_iter().zip(rows).for_each(|((reply, work), row)| {
            let embedding = |vector| Embedding { fingerprint: model.fingerprint, work, vector };
            reply.send(row.map(embedding).map_err(Failure::from));
        }),
        Err(error) => requests.into_iter().for_each(|(reply, _)| reply.send(Err(Failure::from(&error)))),
    }
}

/// The part of a run that each of so many inputs took.
fn share(run: Duration, batch: usize) -> Duration {
    run / u32::try_from(batch).unwrap_or(u32::MAX).max(1)
}

/// The result of a run: a row for each input, or an error for all of them.
type Rows = Result<Vec<Result<Vec<f32>, Error>>, Error>;

fn same_model(a: &Arc<Model>, b: &Arc<Model>) -> bool {
    Arc::ptr_eq(a, b)
}
