//! Batches of images that are embedded while their worker does something else.
//!
//! The images are sent one behind the other on a connection of their own and answered in their order, so that the
//! embedder has the next batch when it is done with one. An error on the way is an error of the first batch; the
//! batches behind it are sent again.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use pg_clip_wire::{Answer, Failure, Priority, Request};

use super::connection::{Connection, Outgoing};
use super::{Embedding, Input, embed, embedding_of, is_refused, take_ids};
use crate::error::Error;
use crate::settings;

/// The batches that are on their way.
#[derive(Default)]
pub(crate) struct Stream {
    line: Option<Line>,
    batches: VecDeque<Batch>,
    /// The answers to the first batches.
    answers: VecDeque<Answer>,
    failed: Option<Error>,
}

struct Batch {
    model: String,
    images: Vec<Rc<[u8]>>,
    /// Whether the connection was there before the batch: then the embedder may have been ending before it was asked.
    is_on_kept_line: bool,
}

/// A connection, and the frames to be sent and received on it.
struct Line {
    connection: Connection,
    outgoing: Outgoing<Rc<[u8]>>,
    expected: VecDeque<u32>,
}

impl Stream {
    /// Sends images behind the others, as far as the socket takes them.
    pub(crate) fn send(&mut self, model: String, images: Vec<Rc<[u8]>>) {
        if self.batches.is_empty() && self.line.as_ref().is_some_and(|line| !line.connection.is_idle()) {
            self.hang_up();
        }
        let batch = Batch { model, images, is_on_kept_line: self.line.is_some() };
        if let Some(line) = &mut self.line
            && let Err(error) = line.add(&batch)
        {
            self.failed = Some(error);
        }
        self.batches.push_back(batch);
        self.advance();
    }

    /// Sends and receives without waiting. Returns whether a byte was sent or received.
    pub(crate) fn advance(&mut self) -> bool {
        let Some(line) = self.line.as_mut().filter(|_| self.failed.is_none()) else {
            return false;
        };
        let mut answers = Vec::new();
        let advanced = line.connection.advance(&mut line.outgoing, &mut line.expected, &mut answers);
        self.answers.extend(answers);
        advanced.unwrap_or_else(|error| {
            self.failed = Some(error);
            false
        })
    }

    /// Whether [`Stream::finish`] would not wait.
    pub(crate) fn is_first_answered(&self) -> bool {
        self.batches.front().is_some_and(|first| self.answers.len() >= first.images.len())
    }

    /// Waits for the first batch: an answer for each of its images, in their order. `clip.request_timeout` is the longest wait
    /// without a byte sent or received.
    pub(crate) fn finish(&mut self) -> Result<Vec<Result<Embedding, Failure>>, Error> {
        let patience = settings::request_timeout();
        let waited = self.wait_for_first(patience);
        let batch = self.batches.pop_front().ok_or(Error::OutOfTurn)?;
        if let Err(error) = waited {
            self.hang_up();
            return Err(error);
        }
        let answers: Vec<Answer> = self.answers.drain(..batch.images.len()).collect();
        // Images beyond the role's share are sent again, fewer at a time.
        let mut refused: Vec<Input> = Vec::new();
        for (image, answer) in batch.images.iter().zip(&answers) {
            if is_refused(answer) {
                refused.push(Input::Image(image));
            }
        }
        let mut again = embed(&batch.model, &refused, Priority::Bulk)?.into_iter();
        answers
            .into_iter()
            .map(|answer| {
                if is_refused(&answer) { again.next().ok_or(Error::OutOfTurn) } else { embedding_of(answer) }
            })
            .collect()
    }

    fn wait_for_first(&mut self, patience: Duration) -> Result<(), Error> {
        let give_up = Instant::now() + patience;
        let mut deadline = give_up;
        while !self.is_first_answered() {
            if let Some(error) = self.failed.take() {
                let is_to_repeat = matches!(error, Error::Died) && self.may_be_sent_again(give_up);
                if !is_to_repeat {
                    return Err(error);
                }
                self.hang_up();
            }
            if self.line.is_none() {
                self.open(deadline, patience)?;
            }
            if self.advance() {
                deadline = Instant::now() + patience;
                pgrx::check_for_interrupts!();
            } else if let Some(line) = self.line.as_ref().filter(|_| self.failed.is_none()) {
                line.connection.wait(&line.outgoing, deadline, patience)?;
            }
        }
        Ok(())
    }

    /// Whether the embedder may have died before it was asked.
    fn may_be_sent_again(&self, give_up: Instant) -> bool {
        let is_welcomed = self.line.as_ref().is_some_and(|line| line.connection.is_welcomed());
        let is_on_kept_line = self.batches.front().is_some_and(|first| first.is_on_kept_line);
        // Without a welcome, no embedder has seen the requests.
        is_on_kept_line || !is_welcomed && Instant::now() < give_up
    }

    /// Connects, and has all batches sent from their beginning.
    fn open(&mut self, deadline: Instant, patience: Duration) -> Result<(), Error> {
        let connection = Connection::open(deadline, patience)?;
        let mut line = Line { connection, outgoing: Outgoing::default(), expected: VecDeque::new() };
        line.connection.greet(&mut line.outgoing)?;
        for batch in &mut self.batches {
            batch.is_on_kept_line = false;
            line.add(batch)?;
        }
        self.line = Some(line);
        Ok(())
    }

    /// The batches that are left are sent again.
    fn hang_up(&mut self) {
        self.line = None;
        self.failed = None;
        self.answers.clear();
    }
}

impl Line {
    fn add(&mut self, batch: &Batch) -> Result<(), Error> {
        let max_pixels = settings::max_image_pixels();
        let first = take_ids(batch.images.len());
        for (image, id) in batch.images.iter().zip((0..).map(|offset| first.wrapping_add(offset))) {
            let (model, priority) = (batch.model.as_str(), Priority::Bulk);
            let request = Request::EmbedImage { id, model, priority, max_pixels, image };
            self.outgoing.add(&request, Rc::clone(image))?;
            self.expected.push_back(id);
        }
        Ok(())
    }
}
