//! A backend's side of the socket.
//!
//! A backend has at most one connection to the embedder, made by its first call and used again by the next ones. It
//! is taken out of its place while a conversation runs, and put back only when the conversation ended well: an
//! error, a cancel or a timeout drops it, so that a late answer reaches no other call, and the embedder learns that
//! no backend waits.

mod connection;
mod stream;
mod usage;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::time::{Duration, Instant};

use pg_clip_wire::{Answer, Failure, FailureKind, Fingerprint, MAX_TEXT_BYTES, Priority, Request};

use self::connection::Connection;
pub(crate) use self::stream::Stream;
pub(crate) use self::usage::Usage;
use crate::error::Error;
use crate::settings;

/// An input that can be embedded.
#[derive(Clone, Copy)]
pub(crate) enum Input<'a> {
    Text(&'a str),
    Image(&'a [u8]),
}

/// An L2-normalised vector, and which model made it.
pub(crate) struct Embedding {
    pub(crate) vector: Vec<f32>,
    pub(crate) fingerprint: Fingerprint,
}

/// Embeds the inputs: an answer for each, in their order, with an error of its own for an input without an
/// embedding. The outer error is one of the transport. The priority counts for images; texts never wait for them.
pub(crate) fn embed(
    model: &str,
    inputs: &[Input],
    priority: Priority,
) -> Result<Vec<Result<Embedding, Failure>>, Error> {
    if inputs.is_empty() {
        return Ok(Vec::new());
    }
    let max_pixels = settings::max_image_pixels();
    let first = take_ids(inputs.len());
    let ids = (0..).map(|offset| first.wrapping_add(offset));
    let requests: Vec<Request> = inputs
        .iter()
        .zip(ids)
        .map(|(input, id)| match *input {
            Input::Text(text) => Request::EmbedText { id, model, text },
            Input::Image(image) => Request::EmbedImage { id, model, priority, max_pixels, image },
        })
        .collect();
    let start = Instant::now();
    let answers = converse_in_turns(&requests, settings::request_timeout());
    Usage::count_wait(start.elapsed());
    let answers = answers?;
    for (input, answer) in inputs.iter().zip(&answers) {
        if let Answer::Embedding { work, .. } = answer {
            Usage::count_embedding(*input, *work);
        }
    }
    answers.into_iter().map(embedding_of).collect()
}

fn embedding_of(answer: Answer) -> Result<Result<Embedding, Failure>, Error> {
    match answer {
        Answer::Embedding { vector, fingerprint, .. } => {
            check_normalised(&vector)?;
            check_dimensions(fingerprint, vector.len())?;
            Ok(Ok(Embedding { vector, fingerprint }))
        }
        Answer::Failed { failure, .. } => Ok(Err(failure)),
        _ => Err(Error::OutOfTurn),
    }
}

/// Embeds one input while a session waits.
pub(crate) fn embed_one(model: &str, input: Input) -> Result<Embedding, Error> {
    let mut answers = embed(model, &[input], Priority::Interactive)?;
    Ok(answers.pop().ok_or(Error::OutOfTurn)??)
}

/// The identity and the size of an installed model.
pub(crate) struct Description {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) dimensions: u16,
}

/// Asks for an installed model.
pub(crate) fn describe(model: &str) -> Result<Description, Error> {
    let id = take_ids(1);
    match converse(&[Request::Describe { id, model }], settings::request_timeout())?.pop() {
        Some(Answer::Description { fingerprint, dimensions, .. }) => {
            check_dimensions(fingerprint, dimensions.into())?;
            Ok(Description { fingerprint, dimensions })
        }
        Some(Answer::Failed { failure, .. }) => Err(failure.into()),
        _ => Err(Error::OutOfTurn),
    }
}

/// How many dimensions the vectors of a model have, where this process has asked for it.
pub(crate) fn known_dimensions(is_of_model: impl Fn(&Fingerprint) -> bool) -> Option<usize> {
    DIMENSIONS.with_borrow(|known| {
        known.iter().find(|(fingerprint, _)| is_of_model(fingerprint)).map(|(_, dimensions)| *dimensions)
    })
}

/// The embedder's status report, a JSON object.
pub(crate) fn status(patience: Duration) -> Result<String, Error> {
    match converse(&[Request::Status { id: take_ids(1) }], patience)?.pop() {
        Some(Answer::StatusReport { json, .. }) => Ok(json),
        _ => Err(Error::OutOfTurn),
    }
}

/// Refuses an image above `clip.max_image_bytes`.
pub(crate) fn check_image_size(bytes: usize) -> Result<(), Error> {
    let limit = settings::max_image_bytes();
    if bytes > limit { Err(Error::ImageTooLarge { bytes, limit }) } else { Ok(()) }
}

/// Refuses a text above the wire's limit.
pub(crate) fn check_text_size(bytes: usize) -> Result<(), Error> {
    if bytes > MAX_TEXT_BYTES { Err(Error::TextTooLong(bytes)) } else { Ok(()) }
}

thread_local! {
    static CONNECTION: RefCell<Option<Connection>> = const { RefCell::new(None) };
    static NEXT_ID: Cell<u32> = const { Cell::new(1) };
}

/// As [`converse`], and sends requests again, fewer at a time, that the embedder refused because too many wait:
/// requests beyond a role's share wait in the role's backends. The embedder refuses no connection its only request.
fn converse_in_turns(requests: &[Request], patience: Duration) -> Result<Vec<Answer>, Error> {
    let mut answers: Vec<Option<Answer>> = requests.iter().map(|_| None).collect();
    let mut left: Vec<usize> = (0..requests.len()).collect();
    let mut at_once = left.len();
    while !left.is_empty() {
        let later = left.split_off(at_once.min(left.len()));
        let turn: Vec<Request> = left.iter().map(|index| requests[*index].clone()).collect();
        let mut refused = Vec::new();
        for (index, answer) in left.iter().zip(converse(&turn, patience)?) {
            if at_once > 1 && is_refused(&answer) {
                refused.push(*index);
            } else {
                answers[*index] = Some(answer);
            }
        }
        if !refused.is_empty() {
            at_once = (left.len() - refused.len()).clamp(1, at_once / 2);
        }
        left = [refused, later].concat();
    }
    answers.into_iter().map(|answer| answer.ok_or(Error::OutOfTurn)).collect()
}

fn is_refused(answer: &Answer) -> bool {
    matches!(answer, Answer::Failed { failure, .. } if failure.kind == FailureKind::Overloaded)
}

fn converse(requests: &[Request], patience: Duration) -> Result<Vec<Answer>, Error> {
    if let Some(mut kept) = CONNECTION.take().filter(Connection::is_idle) {
        match kept.converse(requests, patience) {
            // The embedder may have been dying before it was asked: ask the next one, once.
            Err(Error::Died) => {}
            ended => return ended.inspect(|_| CONNECTION.set(Some(kept))),
        }
    }
    let deadline = Instant::now() + patience;
    loop {
        let mut connection = Connection::open(deadline, patience)?;
        match connection.converse(requests, patience) {
            // It waited to be accepted by an embedder that is no more: no embedder has seen the requests.
            Err(Error::Died) if !connection.is_welcomed() && Instant::now() < deadline => {}
            ended => return ended.inspect(|_| CONNECTION.set(Some(connection))),
        }
    }
}

fn take_ids(count: usize) -> u32 {
    let count = u32::try_from(count).expect("an array has fewer than 2^32 elements");
    NEXT_ID.replace(NEXT_ID.get().wrapping_add(count))
}

thread_local! {
    /// The dimensions of models' vectors, as the embedder said them first.
    static DIMENSIONS: RefCell<HashMap<Fingerprint, usize>> = RefCell::default();
}

/// Refuses a vector that is longer or shorter than others of its model.
fn check_dimensions(fingerprint: Fingerprint, found: usize) -> Result<(), Error> {
    const MOST_MODELS: usize = 64;
    let known = DIMENSIONS.with_borrow_mut(|known| {
        if known.len() >= MOST_MODELS {
            known.clear();
        }
        *known.entry(fingerprint).or_insert(found)
    });
    if found == known { Ok(()) } else { Err(Error::OtherDimensions { found, known }) }
}

fn check_normalised(vector: &[f32]) -> Result<(), Error> {
    const TOLERANCE: f32 = 1e-3;
    let square: f32 = vector.iter().map(|value| value * value).sum();
    // Written so that a NaN is refused too.
    if (square - 1.0).abs() < TOLERANCE { Ok(()) } else { Err(Error::NotNormalised) }
}
