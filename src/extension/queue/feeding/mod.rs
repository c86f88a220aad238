//! Feeding a table of references: its photos lie elsewhere, and a program outside the server brings their bytes.
//!
//! A trigger queues keys as in async mode ([`super::enqueue`]). The queue worker leaves these jobs alone. A feeder
//! claims some ([`claim`]), which is a lease: any feeder may claim a job whose lease has ended. It fetches what the
//! references name, and hands over the bytes, or the reason why there are none ([`feed`]). Always true:
//!
//! * no process of the server opens a connection to where the photos lie;
//! * a feeder's role needs, and gains, no right on the table, its target or the queue: it names a table whose owner has
//!   granted it to feed ([`grant`]), learns the keys and the references of claimed jobs, and ends these. Rows are read
//!   and written as their owner, in restricted operations, as the queue worker does it: the role runs no code of the
//!   owner's, and the owner's code never runs as the role;
//! * a vector is written only if the row has the reference that was fetched and the job is the one that was claimed, by
//!   the code that finishes the worker's jobs ([`super::finish`]);
//! * no transaction is open while the embedder works.

mod arrays;
mod claim;
mod embed;
mod feed;
mod grant;
mod sql;
