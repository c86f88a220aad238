//! The integration tests: one binary, a module for each behaviour.

mod analyst;
mod backfill;
mod bad_input;
mod crashes;
mod current_model;
mod deferred;
mod dump;
mod embedding;
mod golden;
mod hostile_sql;
mod inheritance;
mod isolation;
mod lifecycle;
mod many_connections;
mod migration;
mod migration_dimensions;
mod migration_under_search;
mod models;
mod one_inference;
mod pid_one;
#[cfg(feature = "pgbouncer")]
mod pooler;
#[cfg(feature = "node")]
mod prisma;
mod privileges;
mod provenance;
mod queue;
mod queue_databases;
mod queue_deaths;
mod queue_dump;
mod queue_failures;
mod queue_rights;
mod readme;
mod replication;
mod rights;
mod schemas;
mod search;
mod standby;
mod statistics;
mod transactions;
mod watch;
