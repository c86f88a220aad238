//! The command line.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::database::{self, Address, Session};
use crate::metrics::{self, Counters};
use crate::pipeline::{Limits, Pipeline};
use crate::progress::Progress;
use crate::store::{self, BadAddress, Store};

/// Brings photos from object storage to tables that `clip_watch` watches by reference.
#[derive(Parser)]
#[command(name = "pg_clip_feeder", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fetches photos as they are queued, until it is told to end
    Run(Run),
}

#[derive(clap::Args)]
struct Run {
    /// The database, as postgres://ROLE@HOST/NAME; the password may stand in PGPASSWORD
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database: String,
    /// Where the photos lie: s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, https://HOST/PREFIX or
    /// file:///FOLDER; credentials are read from the environment
    #[arg(long)]
    store: String,
    /// A table to feed, with or without its schema; all that the role may feed where none is named
    #[arg(long = "table")]
    tables: Vec<String>,
    /// How many photos are fetched at once
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=512))]
    concurrency: u16,
    /// How long fetching a photo may take
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// For how long photos are claimed: the claims of a feeder that was killed are fetched again after it
    #[arg(long, default_value = "5m", value_parser = humantime::parse_duration)]
    lease: Duration,
    /// How often the queue is looked at while it is empty
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    poll: Duration,
    /// How often a line says how far the feeder is, where standard error is no terminal
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    progress: Duration,
    /// Ends when nothing is to be fetched any more
    #[arg(long)]
    drain: bool,
    /// Serves counters for Prometheus at http://ADDRESS/metrics
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Store(#[from] BadAddress),
    #[error(transparent)]
    Database(#[from] database::Error),
    #[error("cannot serve metrics at {0}: {1}")]
    Metrics(SocketAddr, std::io::Error),
    #[error("{0}")]
    System(#[from] std::io::Error),
}

pub fn run() -> ExitCode {
    let Arguments { command: Command::Run(run) } = Arguments::parse();
    // One is chosen for all of the process; it is the first and the only call.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.map_err(Error::from).and_then(|runtime| runtime.block_on(feed(run)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pg_clip_feeder: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn feed(run: Run) -> Result<(), Error> {
    let store = Store::open(&run.store.parse::<store::Address>()?, run.timeout)?;
    let address = Arc::new(Address::read(&run.database)?);
    let counters = Arc::new(Counters::default());
    if let Some(address) = run.metrics {
        let failed = |cause| Error::Metrics(address, cause);
        metrics::serve(address, counters.clone()).await.map_err(failed)?;
    }
    let session = Session::open(&address).await?;
    let tables = session.tables(&run.tables).await?;
    let limits =
        Limits { concurrency: run.concurrency.into(), lease: run.lease, poll: run.poll, drains: run.drain };
    drop(session);
    let progress = Progress::start(counters.clone(), run.progress);
    let pipeline = Pipeline::new(store, address, limits, counters, progress.waiting());
    let ended = pipeline.run(tables).await;
    progress.end();
    Ok(ended?)
}
