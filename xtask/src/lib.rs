//! The tasks of the checkout, as a library: the command line in `main.rs` and the tests both stand on it.
//!
//! Everything it makes lies under one folder, [`places::Places::base`], inside the target folder: `cargo clean` is
//! the way to be rid of it. Nothing is left half made: what takes long is made beside and renamed, or carries a
//! stamp that is written last. SQL goes through psql, so that what the demo shows is what a user would type.

mod abandoned;
pub mod account;
pub mod bench;
pub mod build;
pub mod clients;
pub mod cluster;
pub mod command;
mod deb;
pub mod debian;
pub mod demo;
pub mod environment;
pub mod fuzz;
pub mod gallery;
pub mod install;
pub mod layout;
pub mod lint;
pub mod lock;
pub mod node_package;
pub mod package;
pub mod peers;
pub mod pg_upgrade;
pub mod places;
pub mod playground;
pub mod postgres;
mod postgres_fdw;
pub mod progress;
pub mod psql;
mod schema;
mod sql_statement;
pub mod template;
pub mod test_run;
mod upgrade_script;
pub mod workspace;
