//! The feeder: brings the bytes of photos that lie elsewhere to a watched table of references.
//!
//! It runs beside the server or far from it, and speaks SQL: it claims photos of the queue, fetches what their rows refer to,
//! and hands the bytes over to be embedded. The queue is the only state: a feeder that is killed leaves claims that end
//! by themselves, and several feeders share the work. What a reader may rely on:
//!
//! * where a request goes is decided by the store's address, and never by a row or by an answer ([`key`], [`store`]);
//! * the bytes that are held at a time are bounded, in number and in sum ([`pipeline`]);
//! * no photo waits for another: each is handed over as soon as it is there, with whatever else is there then.

pub mod command_line;
pub mod database;
pub mod key;
mod log;
pub mod metrics;
pub mod pipeline;
mod progress;
pub mod store;
mod tls;
