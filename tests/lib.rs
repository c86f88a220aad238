//! The foundation of the integration tests: clusters of their own, real clients, and a look at the server's
//! processes.
//!
//! `cargo xtask test` builds and installs pg_clip and names the PostgreSQL to run. A test that meets an obstacle
//! panics and names it: nothing here skips. Nothing here sleeps to let something happen either: [`wait_for`] and
//! [`wait_until`] wait for a condition, which has a name and a deadline.

mod account;
mod cluster;
mod database;
mod done_photos;
mod explain;
mod fed_from_s3;
mod feeder;
pub mod hostile;
pub mod isolation;
mod later_release;
mod memory;
mod models;
mod node;
mod pages;
mod parallel;
mod photos;
mod pooler;
mod process;
mod queue;
mod replication;
mod s3;
mod server_copy;
mod stop;
mod tls;
mod truth;
mod wait;

pub use account::as_servers_user;
pub use cluster::{TestCluster, cargo_of_the_checkout, places, tested_postgres};
pub use database::{TestDatabase, failure, run, sqlstate, value};
pub use done_photos::{Cost, cost_of_the_next, grow_to, made_up, own_tables};
pub use explain::blocks_of;
pub use fed_from_s3::{Fed, Feeding, feed_from_s3};
pub use feeder::{
    FEEDER, PhotoFolder, RunningFeeder, drain, feeder, feeder_as, feeder_of, refer, watched_by_reference,
    wrongly_fed,
};
pub use memory::pss_of_embedding;
pub use models::{OTHER_MODEL, cluster_of_models, cluster_of_two_models, copy_model, models_of, test_model};
pub use node::{node_output, node_tests};
pub use pages::{Block, Page, README};
pub use parallel::{prefer_workers, wait_for_workers};
pub use photos::{
    demo_jpegs, demo_photo, demo_photos, named_demo_photos, pixel_flood, repository, repository_file, variant,
};
pub use pooler::Pooler;
pub use process::{Process, Signal, descendants, is_alive, send, try_send};
pub use queue::{
    PATIENCE, WRONG, embedder, store, wait_for_no_worker, wait_for_the_queue, watched, watched_async,
    working_worker,
};
pub use replication::{ORIGIN, REPLICATING, catch_up, has_origin, subscribe, wait_until_equal};
pub use s3::S3Server;
pub use server_copy::ServerCopy;
pub use stop::StopOnDrop;
pub use tls::{Certificate, TlsFront};
pub use truth::{ROUND, Truth, rows};
pub use wait::{wait_for, wait_until};
pub use xtask::cluster::Stop;
