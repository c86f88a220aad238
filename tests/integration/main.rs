//! The integration tests: one binary, a module for each behaviour.

mod backfill;
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
mod queue_databases;
mod queue_deaths;
mod queue_dump;
mod queue_failures;
mod queue_rights;
mod readme;
mod rights;
mod schemas;
mod statistics;
mod transactions;
mod watch;
