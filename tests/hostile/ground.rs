//! The place of a run: a cluster, a database that each batch gets a copy of, and the checks afterwards.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::time::Duration;

use postgres::{Client, Error};

use super::planted::{self, SIGN};
use crate::cluster::TestCluster;
use crate::database::{TestDatabase, run, value};
use crate::photos::demo_photos;
use crate::queue::PATIENCE;
use crate::wait::{found_within, wait_for, wait_until};

/// Far above what two photos take beside all that the batch has left to the queue.
const NEIGHBOURS_PATIENCE: Duration = Duration::from_secs(60);

/// The database that is copied.
const TEMPLATE: &str = "ground";

const SETTINGS: [(&str, &str); 7] = [
    // Statements are known by their seed; the state tells a defect of ours from a refusal.
    ("log_line_prefix", "%m [%p] %e "),
    ("log_min_error_statement", "panic"),
    ("max_prepared_transactions", "4"),
    ("max_worker_processes", "24"),
    ("max_stack_depth", "1MB"),
    ("clip.request_timeout", "10s"),
    ("autovacuum_naptime", "1s"),
];

pub(super) struct Ground {
    pub(super) cluster: TestCluster,
    read: u64,
}

impl Ground {
    pub(super) fn new() -> Ground {
        let cluster = TestCluster::preloaded_with(&SETTINGS);
        let postgres = cluster.existing_database("postgres");
        let mut client = postgres.connect();
        run(&mut client, "CREATE ROLE stranger LOGIN; CREATE ROLE neighbour LOGIN");
        run(&mut client, "CREATE DATABASE ground");
        let template = cluster.existing_database(TEMPLATE);
        let mut client = template.connect();
        run(&mut client, OBJECTS);
        let insert = "INSERT INTO pictures
            SELECT number - 1, image, embedding
            FROM unnest($1::bytea[], clip_embed_images($1)) WITH ORDINALITY AS t (image, embedding, number)";
        client.execute(insert, &[&&demo_photos()[..6]]).expect("the pictures are stored");
        run(&mut template.connect_as("stranger"), planted::BASE);
        drop(client);
        run(&mut postgres.connect(), "ALTER DATABASE ground ALLOW_CONNECTIONS false");
        let mut ground = Ground { cluster, read: 0 };
        ground.complaints();
        ground
    }

    /// A new copy of the database.
    pub(super) fn database(&self, name: &str) -> TestDatabase {
        let mut client = self.cluster.existing_database("postgres").connect();
        // The queue's worker may be about to leave the template.
        wait_until("a database is copied", PATIENCE, || {
            client.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}")).is_ok()
        });
        run(&mut client, "ALTER ROLE stranger RESET ALL");
        self.cluster.existing_database(name)
    }

    pub(super) fn drop(&self, database: &TestDatabase) {
        let prepared = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()";
        let mut client = connected("the superuser", || database.try_connect(), "");
        for row in client.query(prepared, &[]).expect("prepared transactions are listed") {
            let gid: String = row.get(0);
            run(&mut client, &format!("ROLLBACK PREPARED '{gid}'"));
        }
        drop(client);
        let mut client = self.cluster.existing_database("postgres").connect();
        run(&mut client, &format!("DROP DATABASE {} WITH (FORCE)", database.name()));
    }

    /// The lines of the log since the last call that nothing explains but a defect.
    pub(super) fn complaints(&mut self) -> Vec<String> {
        let mut log = File::open(self.cluster.server.directory().join("log")).expect("the log is opened");
        log.seek(SeekFrom::Start(self.read)).expect("the log is read");
        let mut bytes = Vec::new();
        self.read += log.read_to_end(&mut bytes).expect("the log is read") as u64;
        let text = String::from_utf8_lossy(&bytes);
        let mut explained = false;
        let lines = text.lines().filter(|line| {
            // Where planted code was called from stands below, in lines that begin with a tab after the first.
            explained =
                is_complaint(line) || explained && (line.contains(" CONTEXT:  ") || line.starts_with('\t'));
            explained
        });
        lines.map(str::to_owned).collect()
    }

    /// The rights that the ordinary role has gained in the cluster, or in this database; they are taken away again.
    pub(super) fn gains(&self, database: &TestDatabase) -> Option<String> {
        let mut client =
            connected("the inspector", || database.try_connect(), "SET search_path = pg_catalog");
        let gained = client.query_opt(GAINS, &[]).expect("the roles are read").map(|row| row.get(0));
        run(
            &mut client,
            "ALTER ROLE stranger NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS;
            REVOKE postgres, neighbour, pg_read_all_data, pg_write_all_data FROM stranger",
        );
        gained
    }

    /// Whether the tables of the third role embed their photos, in both modes and rightly. `round` differs from
    /// call to call.
    pub(super) fn embeds(&self, database: &TestDatabase, round: i32) -> Result<(), String> {
        // Nothing of the ordinary role's is found by its name.
        let set = "SET search_path = pg_catalog; SET ROLE neighbour";
        let mut client = connected("the neighbour", || database.try_connect(), set);
        for table in ["photos", "async_photos"] {
            let insert = format!(
                "INSERT INTO neighbour.{table} SELECT {round} + number, image FROM public.pictures WHERE number < 2"
            );
            client.batch_execute(&insert).map_err(|error| format!("neighbour.{table}: {error:?}"))?;
        }
        // A query may fail while the server recovers from a crash that this is to find.
        let is_empty = || {
            let row = client.query_one(NEIGHBOURS_QUEUED, &[]).ok()?;
            (row.get::<_, i64>(0) == 0).then_some(())
        };
        if found_within(NEIGHBOURS_PATIENCE, is_empty).is_none() {
            return Err("the neighbour's queue is not worked off".to_owned());
        }
        match value::<i64>(&mut client, NEIGHBOURS_WRONG) {
            0 => Ok(()),
            wrong => Err(format!("{wrong} photos of the neighbour have no vector or a wrong one")),
        }
    }
}

/// A connection with these settings, also where the server has just crashed and recovers.
pub(super) fn connected(role: &str, connect: impl Fn() -> Result<Client, Error>, set: &str) -> Client {
    wait_for(&format!("{role} connects"), PATIENCE, || {
        let mut client = connect().ok()?;
        client.batch_execute(set).ok()?;
        Some(client)
    })
}

fn is_complaint(line: &str) -> bool {
    let after_prefix = line.split_once("] XX").is_some_and(|(_, rest)| {
        rest.len() > 3 && rest.as_bytes()[..3].iter().all(u8::is_ascii_alphanumeric)
    });
    after_prefix
        || line.contains("terminated by signal")
        || line.contains("reinitializing")
        || line.contains("PANIC:")
        || line.contains("panicked at")
        || line.contains(SIGN)
}

const OBJECTS: &str = "
CREATE EXTENSION vector;
CREATE EXTENSION pg_clip;
-- As it was for all roles before PostgreSQL 15.
GRANT CREATE ON SCHEMA public TO PUBLIC;
CREATE SCHEMA su;
CREATE SCHEMA stranger AUTHORIZATION stranger;
CREATE SCHEMA neighbour AUTHORIZATION neighbour;
CREATE TABLE pictures (number int PRIMARY KEY, image bytea, embedding vector(512));
GRANT SELECT ON pictures TO PUBLIC;
CREATE SCHEMA private;
GRANT USAGE ON SCHEMA private, neighbour TO PUBLIC;
CREATE TABLE private.secrets (id int PRIMARY KEY, image bytea, secret text);
INSERT INTO private.secrets VALUES (1, 'secret', 'secret');
SET ROLE neighbour;
CREATE TABLE neighbour.photos (id int PRIMARY KEY, image bytea);
CREATE TABLE neighbour.async_photos (id int PRIMARY KEY, image bytea);
SELECT clip_watch('neighbour.photos', target => 'neighbour.embeddings');
SELECT clip_watch('neighbour.async_photos', target => 'neighbour.async_embeddings', mode => 'async');
RESET ROLE;
";

/// The rights that the ordinary role has gained; no row where all is as it was.
const GAINS: &str = "
SELECT concat_ws(', ',
    CASE WHEN rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls THEN 'attributes' END,
    CASE WHEN EXISTS (SELECT FROM pg_auth_members WHERE member = role.oid) THEN 'memberships' END,
    CASE WHEN (SELECT md5(string_agg(s::text, ',')) FROM private.secrets AS s) IS DISTINCT FROM
        md5(ROW(1, 'secret'::bytea, 'secret')::text) THEN 'the secrets changed' END,
    CASE WHEN (SELECT relowner <> 10 OR relacl IS NOT NULL OR relhastriggers OR relrowsecurity
        FROM pg_class WHERE oid = 'private.secrets'::regclass) THEN 'the table of the secrets changed' END,
    CASE WHEN EXISTS (SELECT FROM pg_proc WHERE prosecdef AND proowner = role.oid AND pronamespace =
        'public'::regnamespace) THEN 'functions' END)
FROM pg_roles AS role
WHERE rolname = 'stranger' AND (
    rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls
    OR EXISTS (SELECT FROM pg_auth_members WHERE member = role.oid)
    OR (SELECT md5(string_agg(s::text, ',')) FROM private.secrets AS s) IS DISTINCT FROM
        md5(ROW(1, 'secret'::bytea, 'secret')::text)
    OR (SELECT relowner <> 10 OR relacl IS NOT NULL OR relhastriggers OR relrowsecurity
        FROM pg_class WHERE oid = 'private.secrets'::regclass))";

const NEIGHBOURS_QUEUED: &str = "SELECT queued FROM public.clip_coverage
    WHERE source = 'neighbour.async_photos'::regclass";

const NEIGHBOURS_WRONG: &str = "SELECT count(*) FROM (
    SELECT photo.id, photo.image, e.embedding, e.checksum FROM neighbour.photos AS photo
        FULL JOIN neighbour.embeddings AS e ON e.image_id = photo.id
    UNION ALL
    SELECT photo.id, photo.image, e.embedding, e.checksum FROM neighbour.async_photos AS photo
        FULL JOIN neighbour.async_embeddings AS e ON e.image_id = photo.id
) AS found LEFT JOIN public.pictures AS picture USING (image)
WHERE found.id IS NULL OR found.checksum IS DISTINCT FROM sha256(found.image)
    OR NOT COALESCE((found.embedding OPERATOR(public.<=>) picture.embedding) < 1e-3, false)";
