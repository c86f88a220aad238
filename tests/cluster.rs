//! Clusters for tests: started on demand, gone when dropped.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use postgres::Config;
use xtask::cluster::{Cluster, PORT, Setting};
use xtask::places::Places;
use xtask::postgres::Postgres;
use xtask::test_run::PG_CONFIG_VARIABLE;

use crate::database::TestDatabase;
use crate::process::{Process, descendants};
use crate::server_copy::ServerCopy;

/// A cluster with pg_clip installed.
pub struct TestCluster {
    pub server: Cluster,
    databases: AtomicU32,
}

impl TestCluster {
    /// A cluster whose server has loaded the library at its start.
    pub fn preloaded() -> TestCluster {
        TestCluster::preloaded_with(&[])
    }

    pub fn preloaded_with(settings: &[Setting]) -> TestCluster {
        TestCluster::new(&[&PRELOADED, settings].concat())
    }

    /// A cluster where the first call loads the library.
    pub fn not_preloaded() -> TestCluster {
        TestCluster::not_preloaded_with(&[])
    }

    pub fn not_preloaded_with(settings: &[Setting]) -> TestCluster {
        TestCluster::new(settings)
    }

    /// A preloaded cluster shared by the tests that run at the same time, each in a database of its own.
    ///
    /// Not for tests that stop it, signal its processes, or change its settings.
    pub fn shared() -> Arc<TestCluster> {
        // Held weakly: a static is never dropped, and the cluster has to go with the last test.
        static SHARED: Mutex<Weak<TestCluster>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let cluster = Arc::new(TestCluster::preloaded());
            *shared = Arc::downgrade(&cluster);
            cluster
        })
    }

    /// A preloaded hot standby of this cluster, which follows it until it is promoted.
    pub fn standby(&self) -> TestCluster {
        self.standby_with(&PRELOADED)
    }

    /// A hot standby of this cluster where the first call loads the library.
    pub fn standby_not_preloaded(&self) -> TestCluster {
        self.standby_with(&[])
    }

    fn standby_with(&self, settings: &[Setting]) -> TestCluster {
        let (places, _) = &*GROUND;
        match self.server.standby(places, settings) {
            Ok(server) => TestCluster { server, databases: AtomicU32::new(0) },
            Err(error) => panic!("{error:#}"),
        }
    }

    /// A new database with pgvector and pg_clip.
    pub fn database(&self) -> TestDatabase {
        let database = self.empty_database();
        let extensions = "CREATE EXTENSION vector; CREATE EXTENSION pg_clip";
        database.connect().batch_execute(extensions).expect("the extensions are created");
        database
    }

    /// A new database with nothing in it.
    pub fn empty_database(&self) -> TestDatabase {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{number}");
        let create = format!("CREATE DATABASE {name}");
        self.existing_database("postgres").connect().batch_execute(&create).expect("a database is created");
        self.existing_database(&name)
    }

    pub fn existing_database(&self, name: &str) -> TestDatabase {
        let mut config = Config::new();
        config.host_path(self.server.sockets()).port(PORT).user("postgres").dbname(name);
        TestDatabase::new(config)
    }

    pub fn postmaster_pid(&self) -> u32 {
        self.server.postmaster_pid().expect("the server runs")
    }

    /// The server's processes, without the postmaster, their own children included.
    pub fn processes(&self) -> Vec<Process> {
        descendants(self.postmaster_pid())
    }

    /// The server's log so far.
    pub fn log(&self) -> String {
        self.server.log().expect("the server's log is read")
    }

    fn new(settings: &[Setting]) -> TestCluster {
        TestCluster::on(&GROUND.1, settings)
    }

    /// A cluster of this server.
    pub fn on(postgres: &Postgres, settings: &[Setting]) -> TestCluster {
        let (places, _) = &*GROUND;
        let server = match Cluster::temporary(places, postgres, settings) {
            Ok(server) => server,
            Err(error) => panic!("{error:#}"),
        };
        TestCluster { server, databases: AtomicU32::new(0) }
    }
}

impl ServerCopy {
    /// A copy of the server to test.
    pub fn of_the_tested(name: &str) -> ServerCopy {
        let (places, postgres) = &*GROUND;
        ServerCopy::new(places, postgres, name)
    }

    /// Cargo's target folder.
    pub fn target() -> PathBuf {
        GROUND.0.workspace.target.clone()
    }
}

/// A program that runs cargo, in the checkout. The variables that cargo and the runner of the tests set would make
/// it build everything anew.
pub fn cargo_of_the_checkout(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let is_cargos = name.as_encoded_bytes().starts_with(b"CARGO_");
        if is_cargos && !["CARGO_HOME", "CARGO_TARGET_DIR"].iter().any(|kept| name == *kept) {
            command.env_remove(name);
        }
    }
    command.current_dir(&GROUND.0.workspace.root).env_remove(PG_CONFIG_VARIABLE);
    command
}

/// Where the checkout, its target folder and the environment are.
pub fn places() -> &'static Places {
    &GROUND.0
}

/// The PostgreSQL to test.
pub fn tested_postgres() -> &'static Postgres {
    &GROUND.1
}

static GROUND: LazyLock<(Places, Postgres)> = LazyLock::new(ground);

const PRELOADED: [Setting; 1] = [("shared_preload_libraries", "pg_clip")];

fn ground() -> (Places, Postgres) {
    let Some(pg_config) = env::var_os(PG_CONFIG_VARIABLE) else {
        panic!("{PG_CONFIG_VARIABLE} is not set: run the tests with cargo xtask test");
    };
    let places = Places::find().expect("the target folder is found");
    let postgres = Postgres::from_config(Path::new(&pg_config)).expect("the PostgreSQL to test is found");
    (places, postgres)
}
