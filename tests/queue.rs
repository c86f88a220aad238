//! A watched table, and the state of its queue.

use std::time::Duration;

use postgres::Client;

use crate::cluster::TestCluster;
use crate::database::{TestDatabase, run, value};
use crate::wait::{wait_for, wait_until};

/// Far above what the queue needs for the photos of a test: a test is no place to measure.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Counts the photos whose embedding is missing or of other bytes, and the embeddings of no photo: none, when all is
/// well.
pub const WRONG: &str = "SELECT count(*) FROM photos FULL JOIN image_embeddings ON image_id = photos.id
    WHERE checksum IS DISTINCT FROM sha256(image) OR embedding IS DISTINCT FROM clip_embed_image(image)";

/// A new database with a table `photos` that is watched in a mode.
pub fn watched(cluster: &TestCluster, mode: &str) -> (TestDatabase, Client) {
    let database = cluster.database();
    let mut client = database.connect();
    run(
        &mut client,
        &format!(
            "CREATE TABLE photos (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, project text, image bytea);
            SELECT clip_watch('photos', mode => '{mode}')"
        ),
    );
    (database, client)
}

pub fn watched_async(cluster: &TestCluster) -> (TestDatabase, Client) {
    watched(cluster, "async")
}

/// Stores photos in one statement.
#[track_caller]
pub fn store(client: &mut Client, photos: &[Vec<u8>]) {
    let insert = "INSERT INTO photos (image) SELECT unnest($1::bytea[])";
    client.execute(insert, &[&photos]).expect("photos are stored");
}

/// Waits until no job is left but jobs that are given up.
#[track_caller]
pub fn wait_for_the_queue(client: &mut Client) {
    wait_until("the queue is empty", PATIENCE, || {
        value::<i64>(client, "SELECT count(*) FROM clip_queue WHERE NOT dead") == 0
    });
}

/// Waits until the queue workers of the client's database have left, which is when their counts are there to be seen.
#[track_caller]
pub fn wait_for_no_worker(client: &mut Client) {
    wait_until("no worker is left", PATIENCE, || {
        let workers = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND backend_type = 'pg_clip queue worker'";
        value::<i64>(client, workers) == 0
    });
}

/// Waits until the queue worker of the client's database has claimed photos, and returns its process id.
#[track_caller]
pub fn working_worker(client: &mut Client) -> u32 {
    let query = "SELECT pid FROM clip_workers
        WHERE database = current_database() AND EXISTS (SELECT FROM clip_queue WHERE claimed)";
    let pid: i32 = wait_for("the worker works", PATIENCE, || {
        client.query_opt(query, &[]).expect("a query").map(|row| row.get(0))
    });
    u32::try_from(pid).expect("a process id")
}

/// The embedder's process id.
#[track_caller]
pub fn embedder(client: &mut Client) -> u32 {
    run(client, "SELECT clip_embed_text('start')");
    u32::try_from(value::<i32>(client, "SELECT pid FROM clip_status")).expect("a process id")
}
