//! Where the answer to a request goes, and where it is counted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pg_clip_wire::Failure;
use tokio::sync::oneshot;

use super::Embedding;
use crate::error::Error;
use crate::stats::Meter;

/// The end of a request that answers it. It is answered in any case: one that is dropped was lost in a panic.
#[derive(Debug)]
pub(crate) struct Reply {
    /// None once it has answered.
    sender: Option<Sender>,
    asked: Instant,
    pub(super) meter: Arc<Meter>,
}

type Sender = oneshot::Sender<Result<Embedding, Failure>>;

impl Reply {
    /// A reply to a request that was `asked` then, and is counted from now on.
    pub(crate) fn new(sender: Sender, asked: Instant, meter: Arc<Meter>) -> Reply {
        meter.requested();
        Reply { sender: Some(sender), asked, meter }
    }

    /// Whether nobody waits for the answer any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.sender.as_ref().is_some_and(oneshot::Sender::is_closed)
    }

    /// The time since the request came.
    pub(crate) fn age(&self) -> Duration {
        self.asked.elapsed()
    }

    pub(crate) fn send(mut self, answer: Result<Embedding, Failure>) {
        self.finish(answer);
    }

    fn finish(&mut self, answer: Result<Embedding, Failure>) {
        let Some(sender) = self.sender.take() else { return };
        if sender.is_closed() {
            self.meter.abandoned();
        } else {
            self.meter.answered(answer.as_ref().err().map(|failure| failure.kind), self.age());
            let _ = sender.send(answer);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if self.sender.is_some() {
            self.finish(Err(Error::Internal("the request was lost in a panic".to_owned()).into()));
        }
    }
}
