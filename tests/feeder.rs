//! A watched table of references, and feeders of it.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use postgres::Client;
use xtask::places::Places;

use crate::cluster::TestCluster;
use crate::database::{TestDatabase, run};
use crate::wait::wait_for;

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

/// Counts the embeddings that are not those of the bytes under their photo's key, and the keys without an embedding.
pub fn wrongly_fed(client: &mut Client, photos: &[(String, Vec<u8>)]) -> i64 {
    let (keys, images): (Vec<&str>, Vec<&[u8]>) =
        photos.iter().map(|(key, image)| (key.as_str(), image.as_slice())).unzip();
    let query = "SELECT count(*) FROM unnest($1::text[], $2::bytea[]) AS stored (key, bytes)
        JOIN photos ON storage_path = key FULL JOIN image_embeddings ON image_id = photos.id
        WHERE checksum IS DISTINCT FROM sha256(bytes) OR embedding IS DISTINCT FROM clip_embed_image(bytes)
            OR image_embeddings.project IS DISTINCT FROM photos.project";
    client.query_one(query, &[&keys, &images]).expect("a count").get(0)
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
    let url = format!(
        "postgres://{role}@localhost/{}?host={}&port={}",
        database.name(),
        percent_encoded(cluster.server.sockets()),
        xtask::cluster::PORT
    );
    feeder_of(cluster, &url, store)
}

/// The command of a feeder that reaches the database by this address.
pub fn feeder_of(cluster: &TestCluster, url: &str, store: &str) -> Command {
    let mut feeder = Command::new(cluster.server.postgres().program("pg_clip_feeder"));
    feeder.args(["run", "--database", url, "--store", store]).stdin(Stdio::null());
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
    said: Arc<Mutex<Vec<u8>>>,
}

impl RunningFeeder {
    pub fn start(feeder: &mut Command) -> RunningFeeder {
        let feeder = feeder.args(["--poll", "50ms"]).stderr(Stdio::piped());
        let mut process = feeder.spawn().expect("the feeder runs");
        let mut stderr = process.stderr.take().expect("it was piped");
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = said.clone();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = stderr.read(&mut bytes) {
                heard.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&bytes[..length]);
            }
        });
        RunningFeeder { process, said }
    }

    /// What it has said so far.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&self.said.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Waits until it has said a line that holds `words`, and returns that line.
    #[track_caller]
    pub fn wait_for_line(&self, words: &str, deadline: Duration) -> String {
        wait_for(&format!("the feeder says: {words}"), deadline, || {
            let said = self.said();
            // The last line may not be whole yet.
            let whole = &said[..said.rfind('\n')?];
            whole.lines().find(|line| line.contains(words)).map(str::to_owned)
        })
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
