//! The feeder: brings the bytes of photos that lie elsewhere to a watched table of references.
//!
//! It runs beside the server or far from it, and speaks SQL: it claims photos of the queue, fetches the files that
//! their rows refer to, and hands the bytes over to be embedded. The queue is the only state: a feeder that is
//! killed leaves claims that end by themselves, and several feeders share the work. Always true:
//!
//! * the store's address decides where a request goes, and never a row or an answer ([`key`], [`store`]);
//! * the bytes that are held at a time are bounded, in number and in sum ([`pipeline`]);
//! * no photo waits for another: each is handed over as soon as it is there, with the other photos that are there
//!   then.

pub mod command_line;
pub mod database;
pub mod key;
mod log;
mod memory;
pub mod metrics;
pub mod pipeline;
mod progress;
pub mod store;
pub mod tls;
