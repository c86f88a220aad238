//! Where the answer to a request goes, and where it is counted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pg_clip_wire::Failure;
use tokio::sync::oneshot;

use super::Embedding;
use crate::error::Error;
use crate::stats::Meter;

/// The end of a request that answers it. It is answered in any case: a reply that is dropped was lost in a panic.
#[derive(Debug)]
pub(crate) struct Reply {
    /// None once it has answered.
    sender: Option<Sender>,
    asked: Instant,
    pub(super) meter: Arc<Meter>,
}

type Sender = oneshot::Sender<Answered>;

/// The answer to a request.
#[derive(Debug)]
pub(crate) struct Answered {
    pub outcome: Result<Embedding, Failure>,
    pub ready: Instant,
    /// Where it is counted.
    pub meter: Arc<Meter>,
}

impl Reply {
    /// A reply to a request that was `asked` then, and is counted from now on.
    pub(crate) fn new(sender: Sender, asked: Instant, meter: Arc<Meter>) -> Reply {
        meter.requested();
        Reply { sender: Some(sender), asked, meter }
    }

    /// Whether no client waits for the answer any more.
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
            let _ = sender.send(Answered {
                outcome: answer,
                ready: Instant::now(),
                meter: Arc::clone(&self.meter),
            });
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

#[cfg(test)]
mod tests {
    use pg_clip_wire::{FailureKind, Work};
    use serde_json::json;

    use super::*;
    use crate::stats::{Lane, Stats};

    #[test]
    fn a_reply_that_is_lost_is_an_answer_and_counted() {
        let stats = Stats::default();
        let (sender, mut answer) = oneshot::channel();
        drop(Reply::new(sender, Instant::now(), stats.meter(Lane::Text, "demo")));
        assert_eq!(answer.try_recv().unwrap().outcome.unwrap_err().kind, FailureKind::Internal);
        assert_eq!(stats.rows()[0]["failures"], json!({ "10": 1 }));
    }

    #[test]
    fn a_reply_without_a_waiting_client_is_counted_as_abandoned() {
        let stats = Stats::default();
        for answers in [true, false] {
            let (sender, answer) = oneshot::channel();
            let reply = Reply::new(sender, Instant::now(), stats.meter(Lane::BulkImage, "demo"));
            assert!(!reply.is_abandoned());
            drop(answer);
            assert!(reply.is_abandoned());
            if answers {
                let (fingerprint, work) = ([0; 32], Work::default());
                reply.send(Ok(Embedding { fingerprint, work, vector: vec![1.0] }));
            }
        }
        let row = &stats.rows()[0];
        let counts = ["requests", "abandoned", "answers"].map(|name| &row[name]);
        assert_eq!((counts, &row["failures"]), ([&json!(2), &json!(2), &json!(0)], &json!({})));
    }
}
