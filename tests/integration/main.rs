//! The integration tests: one binary, a module for each behaviour.

mod bad_input;
mod crashes;
mod current_model;
mod embedding;
mod golden;
mod inheritance;
mod lifecycle;
mod many_connections;
mod migration;
mod migration_under_search;
mod one_inference;
mod pid_one;
mod queue;
mod readme;
mod rights;
mod schemas;
mod transactions;
mod watch;
