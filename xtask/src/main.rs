//! `cargo xtask`: see `--help`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand};
use nix::sys::stat::{Mode, umask};

use xtask::cluster::{Cluster, PORT, Stop};
use xtask::debian::Debian;
use xtask::environment::{ALL_MAJORS, Environment, MAJORS};
use xtask::layout::{self, Layout};
use xtask::lock::Lock;
use xtask::places::Places;
use xtask::postgres::Postgres;
use xtask::{
    bench, build, debian, demo, fuzz, gallery, install, lint, package, peers, pg_upgrade, playground, psql,
    test_run,
};

/// The tasks of the pg_clip checkout
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(flatten)]
    server: Server,
    #[command(subcommand)]
    task: Task,
}

#[derive(Args)]
struct Server {
    /// The major version of PostgreSQL: the environment holds 16 and 18
    #[arg(long, global = true, value_name = "MAJOR", conflicts_with = "pg_config")]
    pg: Option<u32>,
    /// The pg_config of any PostgreSQL 15 to 18 that has pgvector
    #[arg(long, global = true, value_name = "PATH")]
    pg_config: Option<PathBuf>,
    /// ONNX Runtime's library, 1.24 or later; without it, a pinned one is fetched from the Python package index
    #[arg(long, global = true, value_name = "PATH")]
    onnxruntime: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Task {
    /// Set everything up, insert photos, and find them again
    Demo,
    /// Search the demo's photos in a browser, by words or by a picture
    Gallery {
        /// The port of this machine that the page is served on
        #[arg(long, default_value_t = 8017)]
        port: u16,
    },
    /// Run all the tests, or those whose names contain FILTER, on PostgreSQL 16 and 18
    Test {
        filter: Option<String>,
        /// On 15 and 17 as well, which the machine must have
        #[arg(long)]
        all: bool,
    },
    /// Measure the costs and the limits of pg_clip: all benches but the peers, or the bench NAME
    Bench {
        name: Option<String>,
        /// For the bench of the queue: the folder of a model, instead of the demo model; for the peers: a part of that bench
        #[arg(requires = "name")]
        of: Option<PathBuf>,
    },
    /// Send random inputs to the code that reads a user's bytes and SQL
    Fuzz {
        #[command(subcommand)]
        what: Fuzz,
    },
    /// Open psql on a throwaway cluster that has the extension
    Psql {
        /// Arguments for psql
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
    /// Start, stop or look at the throwaway cluster
    Cluster {
        #[command(subcommand)]
        action: Action,
    },
    /// Build the extension and install it into a PostgreSQL
    Install {
        /// A folder that stands for the root folder, such as that of a package
        #[arg(long, value_name = "DIR")]
        destdir: Option<PathBuf>,
    },
    /// Build, and make packages: of Debian, an archive, images of containers, the sources for PGXN
    Package {
        /// Build for the PostgreSQL of Debian 12 or 13, and make an image of its server; as root, with debootstrap
        #[arg(long, value_name = "RELEASE", conflicts_with_all = ["pg", "pg_config"])]
        debian: Option<u32>,
        /// Install and use the packages in a bare root of that Debian, and run the image
        #[arg(long = "try", requires = "debian")]
        tried: bool,
    },
    /// Move a cluster with watches and photos in the queue from PostgreSQL 16 to 18, and check the result
    PgUpgrade,
    /// Check formatting and run clippy on every crate
    Lint,
}

#[derive(Subcommand)]
enum Action {
    Start,
    Stop,
    Status,
}

#[derive(Subcommand)]
enum Fuzz {
    /// Random SQL of a superuser and an ordinary role against a throwaway cluster
    Sql {
        #[arg(long, default_value_t = 100_000)]
        statements: u64,
        /// A batch that failed says its seed
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// The frames between a backend and the embedder, with cargo-fuzz
    Wire(Duration),
    /// Image files, as far as the input of a model
    Image {
        #[command(flatten)]
        duration: Duration,
        /// Begins with the files of one format alone, by the end of their names: jpg, png, webp, gif, bmp, tif, heic or avif
        #[arg(long)]
        format: Option<String>,
    },
    /// Texts, as far as token ids
    Tokenizer(Duration),
    /// The files of a model that are read without ONNX Runtime
    Model(Duration),
}

#[derive(Args)]
struct Duration {
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

fn main() -> ExitCode {
    // The servers' user has to read what this program writes, whichever user runs it.
    umask(Mode::from_bits_truncate(0o022));
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(Arguments { server, task }: Arguments) -> Result<ExitCode> {
    let places = Places::find()?;
    // A target needs no PostgreSQL, and so no environment.
    if let Task::Fuzz { what } = &task
        && let Some((target, seconds)) = what.target()
    {
        fuzz::target(&places, target, seconds, what.format())?;
        return Ok(ExitCode::SUCCESS);
    }
    let environment = {
        let _lock = Lock::take(&places, "env")?;
        let onnxruntime = server.onnxruntime.as_deref();
        // A server that is there, or that Debian brings, needs none of ours.
        if server.pg_config.is_some() || matches!(task, Task::Package { debian: Some(_), .. }) {
            Environment::without_servers(&places, onnxruntime)?
        } else {
            Environment::with_servers(&places, onnxruntime)?
        }
    };
    let postgres = || server.choose(&environment);
    match task {
        Task::Demo => {
            let cluster = playground::ready(&places, &environment, &postgres()?)?;
            let page = demo::demo(&places, &cluster)?;
            println!("The same with pictures: {}", page.display());
            println!(
                "To try it yourself:     cargo xtask psql {}{}",
                server.arguments(),
                demo::psql_arguments()
            );
            println!("In a browser:           cargo xtask gallery {}", server.arguments());
        }
        Task::Gallery { port } => {
            let cluster = playground::ready(&places, &environment, &postgres()?)?;
            let error = gallery::server(&places, &cluster)?.env("PORT", port.to_string()).exec();
            bail!("cannot run node: {error}");
        }
        Task::Test { filter, all } => {
            let servers = server.choose_all(&environment, if all { &ALL_MAJORS } else { &MAJORS })?;
            if !test_run::test(&places, &environment, &servers, filter.as_deref())? {
                return Ok(ExitCode::FAILURE);
            }
        }
        Task::Bench { name, of } if name.as_deref() == Some("peers") => {
            peers::measure(&places, &environment, &postgres()?, of.as_deref())?;
        }
        Task::Bench { name, of } => {
            bench::bench(&places, &environment, &postgres()?, name.as_deref(), of.as_deref())?;
        }
        Task::Fuzz { what } => {
            if let Fuzz::Sql { statements, seed } = what {
                fuzz::sql(&places, &environment, &postgres()?, statements, seed)?;
            }
        }
        Task::Psql { arguments } => {
            let cluster = playground::ready(&places, &environment, &postgres()?)?;
            let error = psql::psql(&cluster, playground::DATABASE).args(arguments).exec();
            bail!("cannot run psql: {error}");
        }
        Task::Cluster { action: Action::Start } => {
            status(&playground::ready(&places, &environment, &postgres()?)?)?;
        }
        Task::Cluster { action: Action::Stop } => {
            let cluster = playground::find(&places, &postgres()?);
            if cluster.is_running()? {
                cluster.stop(Stop::Fast)?;
            }
        }
        Task::Cluster { action: Action::Status } => status(&playground::find(&places, &postgres()?))?,
        Task::Install { destdir } => {
            let postgres = postgres()?;
            let built = build::build(&places.workspace, &environment, &postgres)?;
            let root = destdir.unwrap_or_else(|| PathBuf::from("/"));
            let layout = Layout::of(&postgres);
            let entries = layout::of_both(&places.workspace, &built, environment.runtime(), &layout)?;
            install::put_all(&entries, &root)?;
            println!(
                "installed for {} of {} into {}",
                postgres.version,
                postgres.pg_config.display(),
                root.display()
            );
        }
        Task::Package { debian, tried } => {
            let debian = debian.map(|number| Debian::ready(&places, number)).transpose()?;
            let postgres = debian.as_ref().map_or_else(postgres, Debian::postgres)?;
            let built = build::build(&places.workspace, &environment, &postgres)?;
            let folder =
                package::package(&places.workspace, &environment, &postgres, &built, debian.as_ref())?;
            if let Some(debian) = debian.filter(|_| tried) {
                debian::try_packages(&places, &debian, &folder)?;
            }
            println!("made {}", folder.display());
        }
        Task::PgUpgrade => pg_upgrade::pg_upgrade(&places, &environment)?,
        Task::Lint => lint::lint(&places, &environment, &postgres()?)?,
    }
    Ok(ExitCode::SUCCESS)
}

impl Fuzz {
    fn format(&self) -> Option<&str> {
        match self {
            Fuzz::Image { format, .. } => format.as_deref(),
            _ => None,
        }
    }

    /// The target of cargo-fuzz, and for how many seconds it runs.
    fn target(&self) -> Option<(&'static str, u64)> {
        match self {
            Fuzz::Sql { .. } => None,
            Fuzz::Wire(duration) => Some(("wire", duration.seconds)),
            Fuzz::Image { duration, .. } => Some(("image", duration.seconds)),
            Fuzz::Tokenizer(duration) => Some(("tokenizer", duration.seconds)),
            Fuzz::Model(duration) => Some(("model", duration.seconds)),
        }
    }
}

impl Server {
    /// The arguments that choose the same server again.
    fn arguments(&self) -> String {
        match (&self.pg_config, self.pg) {
            (Some(pg_config), _) => format!("--pg-config '{}' ", pg_config.display()),
            (None, Some(major)) => format!("--pg {major} "),
            (None, None) => String::new(),
        }
    }

    fn choose(&self, environment: &Environment) -> Result<Postgres> {
        match &self.pg_config {
            Some(pg_config) => Postgres::from_config(pg_config),
            None => environment.postgres(self.pg.unwrap_or(MAJORS[MAJORS.len() - 1])),
        }
    }

    /// The one that was named, or else these.
    fn choose_all(&self, environment: &Environment, majors: &[u32]) -> Result<Vec<Postgres>> {
        if self.pg.is_some() || self.pg_config.is_some() {
            return Ok(vec![self.choose(environment)?]);
        }
        majors.iter().map(|&major| environment.postgres(major)).collect()
    }
}

fn status(cluster: &Cluster) -> Result<()> {
    println!("version: {}", cluster.postgres().version);
    println!("data:    {}", cluster.data().display());
    if cluster.is_running()? {
        println!("socket:  {}", cluster.sockets().display());
        println!("port:    {PORT}");
        println!("pid:     {}", cluster.postmaster_pid()?);
    } else {
        println!("the cluster does not run: cargo xtask cluster start");
    }
    Ok(())
}
