//! The queue of watched tables in async mode: photos are stored at once and embedded by a background worker.
//!
//! A trigger writes a job into `clip_queue` in the photo's own transaction ([`enqueue`]): one job a photo, however
//! often it changes. When that commits, the worker is woken ([`wake`]). The launcher starts a worker in each database that has
//! work ([`launcher`]); the worker claims jobs, embeds the photos, and writes each vector and retires its job in one
//! transaction ([`worker`]). While the embedder has one batch, the worker reads the next one ([`batch`]). Always true:
//!
//! * a photo is embedded from the bytes that it has when its vector is written, or its job stays;
//! * a photo's row is locked while its vector is written; a row or a table that another transaction has locked is left
//!   for later, and so is a table that is slow or broken: nothing that a user does holds up the photos of another;
//! * no transaction waits for the embedder;
//! * an attempt is committed before the photo is sent, so that the attempt counts even if the photo ends processes;
//! * photos are read as the owner of their table, vectors are written as the owner of theirs, in restricted
//!   operations: the worker itself runs no code of a user's;
//! * photos of a table of references are left to a feeder, a program outside the server ([`feeding`]);
//! * a worker leaves within a second when another session waits to drop, rename or copy its database.

pub(crate) mod backfill;
mod batch;
mod begun;
mod claim;
pub(crate) mod count;
pub(crate) mod enqueue;
mod failure;
mod feeding;
mod finish;
mod known;
mod lane;
mod launcher;
mod message;
mod pause;
mod place;
mod rate;
mod read;
mod retry;
mod spent;
mod sql;
mod transaction;
mod wake;
mod wakeup_socket;
mod worker;

pub(crate) use self::launcher::register_at_server_start;
