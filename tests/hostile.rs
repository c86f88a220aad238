//! Random SQL against everything that pg_clip adds to a database, and what must hold after it.
//!
//! Two roles send the statements: a superuser, and an ordinary role that may create objects where the extension lies.
//! A run is a row of batches. Each batch has a database of its own and a seed of its own, and what it sends follows from
//! that seed alone, so that a batch that failed can be run again without the batches before it.
//!
//! Always true, after each batch: no process of the server has crashed · no statement and no line of the log has an
//! SQLSTATE of class XX · code that the ordinary role wrote has run with no rights but its own · the superuser's table
//! is what it was · the photos of a third role are embedded, with the right vectors.
//!
//! The superuser does nothing that runs an ordinary role's code in PostgreSQL itself: it writes to no table of theirs
//! and reads none of their views. What it does is call pg_clip on their objects and read pg_clip's views.

mod attack;
mod calls;
mod feeding;
mod ground;
mod objects;
mod planted;
mod random;
mod related;
mod rows;
mod trial;
mod values;

pub use self::attack::{Broken, Outcome, attack};
pub use self::trial::Trial;
