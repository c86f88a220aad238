//! Moving a target to another model while it stays searchable: `clip_migrate`.
//!
//! The vectors of the new model are collected in a second column of the target, which takes the place of the first in
//! one transaction, together with clip.model. Always true until then: a vector in the second column is that of the bytes
//! whose checksum is in its row. What a migration needs to know stands in its trigger's arguments, so that it is rolled
//! back, dropped and dumped with the table.
//!
//! Between its transactions it keeps other migrations away, and writers at the end ([`hold`]); and it waits for other
//! transactions without a lock that sessions would queue behind ([`wait`]): both as CREATE INDEX CONCURRENTLY does it.
//! Each step is a transaction ([`steps`]) that looks the tables up anew.

mod abandon;
mod batch;
mod check;
mod column;
mod hold;
mod progress;
mod run;
mod switch;
mod task;
mod wait;
