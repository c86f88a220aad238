//! A watched table of references, and feeders of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use postgres::Client;
use xtask::places::Places;

use crate::cluster::TestCluster;
use crate::database::{TestDatabase, run};

/// A role that may feed one table, and log in.
pub const FEEDER: &str = "feeder";

/// A new database with a table `photos` of references that the role [`FEEDER`] may feed.
pub fn watched_by_reference(cluster: &TestCluster) -> (TestDatabase, Client) {
    let database = cluster.database();
    let mut client = database.connect();
    run(
        &mut client,
        &format!(
            "DO $$ BEGIN CREATE ROLE {FEEDER} LOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN END $$;
            CREATE TABLE photos (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, storage_path text,
                storage_url text, thumbnail_url text, project text);
            SELECT clip_watch('photos', reference_column => 'storage_path');
            SELECT clip_grant_feeder('photos', '{FEEDER}')"
        ),
    );
    (database, client)
}

/// Writes rows that refer to these keys, in one statement.
#[track_caller]
pub fn refer<T: AsRef<str>>(client: &mut Client, keys: &[T]) {
    let keys: Vec<&str> = keys.iter().map(AsRef::as_ref).collect();
    let insert = "INSERT INTO photos (storage_path) SELECT unnest($1::text[])";
    client.execute(insert, &[&keys]).expect("references are stored");
}

/// A folder with photos, gone when dropped.
pub struct PhotoFolder {
    path: PathBuf,
}

impl PhotoFolder {
    pub fn new() -> PhotoFolder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let places = Places::find().expect("the target folder is found");
        let path = places.base.join(format!("photos-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder");
        PhotoFolder { path }
    }

    pub fn store(&self, key: &str, bytes: &[u8]) {
        let path = self.path.join(key);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, bytes).expect("a photo is written");
    }

    pub fn remove(&self, key: &str) {
        fs::remove_file(self.path.join(key)).expect("a photo is removed");
    }

    /// As `--store` has it.
    pub fn address(&self) -> String {
        format!("file://{}", self.path.display())
    }
}

impl Default for PhotoFolder {
    fn default() -> PhotoFolder {
        PhotoFolder::new()
    }
}

impl Drop for PhotoFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// The feeder's command, as the role [`FEEDER`], which is to be given options.
pub fn feeder(cluster: &TestCluster, database: &TestDatabase, store: &str) -> Command {
    feeder_as(cluster, database, store, FEEDER)
}

pub fn feeder_as(cluster: &TestCluster, database: &TestDatabase, store: &str, role: &str) -> Command {
    let mut feeder = Command::new(cluster.server.postgres().program("pg_clip_feeder"));
    let url = format!(
        "postgres://{role}@localhost/{}?host={}&port={}",
        database.name(),
        percent_encoded(cluster.server.sockets()),
        xtask::cluster::PORT
    );
    feeder.args(["run", "--database", &url, "--store", store]).stdin(Stdio::null());
    feeder
}

/// Feeds until nothing waits; returns the feeder's output.
#[track_caller]
pub fn drain(feeder: &mut Command) -> String {
    let Output { status, stderr, .. } =
        feeder.args(["--drain", "--poll", "50ms"]).output().expect("the feeder runs");
    let said = String::from_utf8_lossy(&stderr).into_owned();
    assert!(status.success(), "{said}");
    said
}

/// A feeder that runs until it is dropped.
pub struct RunningFeeder {
    process: Child,
}

impl RunningFeeder {
    pub fn start(feeder: &mut Command) -> RunningFeeder {
        let process = feeder.args(["--poll", "50ms"]).stderr(Stdio::null()).spawn().expect("the feeder runs");
        RunningFeeder { process }
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Ends it without a warning.
    pub fn kill(mut self) {
        self.process.kill().expect("the feeder runs");
        self.process.wait().expect("the feeder ends");
    }

    /// Waits until it has ended by itself; returns whether it succeeded.
    pub fn wait(mut self) -> bool {
        self.process.wait().expect("the feeder ends").success()
    }
}

impl Drop for RunningFeeder {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn percent_encoded(path: &Path) -> String {
    path.as_os_str().as_encoded_bytes().iter().map(|byte| format!("%{byte:02x}")).collect()
}
