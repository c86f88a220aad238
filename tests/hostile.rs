//! Random SQL against everything that pg_clip adds to a database, and the checks after it.
//!
//! Two roles send the statements: a superuser, and an ordinary role that may create objects where the extension
//! lies. A run is a row of batches. Each batch has a database of its own and a seed of its own, and its statements
//! follow from that seed alone, so that a batch that failed can be run again without the batches before it.
//!
//! Always true, after each batch: no process of the server has crashed · no statement and no line of the log has an
//! SQLSTATE of class XX · code that the ordinary role wrote has run with no rights but its own · the superuser's
//! table is unchanged · the photos of a third role are embedded, with the right vectors.
//!
//! The superuser does nothing that runs an ordinary role's code in PostgreSQL itself: it writes to no table of
//! these roles and reads none of their views. It only calls pg_clip on their objects and reads pg_clip's views.

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
