//! Moving a target to another model while it stays searchable: `clip_migrate`.
//!
//! The vectors of the new model are collected in a second column of the target, which takes the place of the first
//! in one transaction, together with clip.model. Always true until then: a vector in the second column belongs to
//! the bytes whose checksum is in its row. The arguments of the migration's trigger hold its state, so that it is
//! rolled back, dropped and dumped with the table.
//!
//! From the moment that the column is there, triggers and the queue worker write both vectors
//! ([`crate::watch::next`]). So the rows without the second one grow fewer, and the migration ends however fast
//! other sessions write. It never waits for a lock on a row, and only shortly for a lock on the table: no
//! transaction becomes the victim of a deadlock with it.
//!
//! It keeps other migrations away between its transactions ([`hold`]), and waits for other transactions without a
//! queue forming behind it ([`crate::wait`], [`crate::alone`]): both as CREATE INDEX CONCURRENTLY does it. Each step is a transaction
//! ([`crate::procedure`]) that looks the tables up anew.

mod abandon;
mod batch;
mod by_number;
mod by_reference;
mod check;
mod column;
mod gaps;
mod left_over;
mod progress;
mod required;
mod run;
mod stale;
mod switch;
mod task;
