//! The words between a PostgreSQL backend and the embedder.
//!
//! A connection is a Unix stream socket. The backend sends [`Request`]s, the embedder sends one [`Answer`] to each,
//! in the order of the requests. A backend may send many requests before it reads an answer: that is how a batch
//! travels, with an error of its own for each photo. To give up on an answer, a backend closes the connection; so a
//! late answer can never be taken for the answer to a later request, and the `id` in each frame proves it.
//!
//! This crate does no I/O and allocates nothing on the word of a peer: [`FrameHeader::parse`] refuses a length that
//! its kind does not allow before the reader makes room for the body.
//!
//! Frame: `length: u32 LE` (of the body) · `kind: u8` · body. Integers are little-endian, strings are UTF-8.

#![forbid(unsafe_code)]

mod answer;
mod fields;
mod frame;
mod log;
mod model_name;
mod request;

pub use answer::{Answer, Failure, FailureKind, Fingerprint, Work};
pub use frame::{FrameHeader, Kind, WireError};
pub use log::{LogLines, MAX_LOG_LINE};
pub use model_name::{MAX_MODEL_NAME, is_model_name};
pub use request::{Party, Priority, Request};

/// The version of this protocol. Both sides must speak the same one; they are installed together.
pub const PROTOCOL: u16 = 4;

/// The first bytes of a `Hello`, so that a stray client is refused at its first frame.
pub const MAGIC: [u8; 8] = *b"pg_clip\0";

/// The longest text, in bytes: far beyond any model's context, so that a whole document is refused and not cut.
pub const MAX_TEXT_BYTES: usize = 1 << 16;

/// The largest image, in bytes: the most that PostgreSQL can hold in one `bytea`.
pub const MAX_IMAGE_BYTES: usize = 1 << 30;

/// The highest dimension of an embedding: pgvector's `VECTOR_MAX_DIM`.
pub const MAX_DIMENSIONS: usize = 16_000;

/// The longest status report, in bytes: far above that of the 64 models that the embedder counts apart.
pub const MAX_STATUS_BYTES: usize = 1 << 20;
