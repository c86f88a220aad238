//! Photos that are done: made-up ones, whose vectors no model made, and what the next photo costs beside them.

use std::collections::BTreeMap;

use postgres::Client;

use crate::cluster::TestCluster;
use crate::database::{TestDatabase, run, value};
use crate::explain::blocks_of;
use crate::photos::demo_photo;
use crate::queue::{wait_for_no_worker, wait_for_the_queue};

/// The tables of pg_clip's own: their rows, and their bytes.
pub fn own_tables(client: &mut Client) -> BTreeMap<String, (i64, i64)> {
    let tables = "SELECT relname::text, pg_total_relation_size(pg_class.oid) FROM pg_class
        JOIN pg_depend ON objid = pg_class.oid AND classid = 'pg_class'::regclass AND deptype = 'e'
        WHERE refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_clip') AND relkind = 'r'";
    let tables = client.query(tables, &[]).expect("the tables are listed");
    let sizes = tables.iter().map(|row| {
        let name: String = row.get(0);
        run(client, &format!("VACUUM {name}"));
        let rows = value(client, &format!("SELECT count(*) FROM {name}"));
        let bytes = value(client, &format!("SELECT pg_total_relation_size('{name}')"));
        (name, (rows, bytes))
    });
    sizes.collect()
}

/// Numbers of blocks.
#[derive(Debug)]
pub struct Cost {
    /// The blocks of pg_clip's tables and the target that the INSERT reads: the rest is PostgreSQL's.
    pub enqueued: i64,
    /// The blocks of source, target and queue that backend and worker read, from the INSERT to the last vector.
    pub all: i64,
    /// The part of it that is of pg_clip's tables.
    pub own: i64,
    /// Of a look at `clip_backlog`.
    pub backlog: i64,
    /// Of a look at `clip_failures`.
    pub failures: i64,
}

/// What so many more photos of known bytes cost.
pub fn cost_of_the_next(client: &mut Client, photos: i64) -> Cost {
    // The first time fills caches of catalogs.
    step(client, photos);
    wait_for_no_worker(client);
    let (before, own_before) = (blocks_of_all(client), blocks_of_own(client));
    let enqueued = step(client, photos);
    wait_for_no_worker(client);
    Cost {
        enqueued,
        all: blocks_of_all(client) - before,
        own: blocks_of_own(client) - own_before,
        backlog: blocks_of(client, "SELECT * FROM clip_backlog"),
        failures: blocks_of(client, "SELECT * FROM clip_failures"),
    }
}

/// A watched table with a photo of the demo, whose bytes all other photos have.
pub fn made_up(cluster: &TestCluster) -> (TestDatabase, Client) {
    let database = cluster.database();
    let mut client = database.connect();
    run(
        &mut client,
        "CREATE TABLE photos (id bigint PRIMARY KEY, image bytea);
        CREATE TABLE embeddings (image_id bigint PRIMARY KEY, embedding vector NOT NULL, checksum bytea, model text);
        CREATE INDEX ON embeddings (checksum);
        SELECT clip_watch('photos', target => 'embeddings', mode => 'async')",
    );
    client.execute("INSERT INTO photos VALUES (0, $1)", &[&demo_photo()]).expect("a photo is stored");
    wait_for_the_queue(&mut client);
    (database, client)
}

/// Photos that are none, with vectors that no model made.
pub fn grow_to(client: &mut Client, photos: i64) {
    run(
        client,
        &format!(
            "ALTER TABLE photos DISABLE TRIGGER USER;
            WITH added AS (
                INSERT INTO photos SELECT id, int8send(id) FROM generate_series(
                    (SELECT max(id) FROM photos) + 1, {photos}) AS id RETURNING id, image)
            INSERT INTO embeddings SELECT id, '[1,2,3]', sha256(image), model FROM added, clip_watches;
            ALTER TABLE photos ENABLE TRIGGER USER"
        ),
    );
    for table in ["photos", "embeddings", "clip_queue"] {
        run(client, &format!("VACUUM ANALYZE {table}"));
    }
}

/// Has more photos of the same bytes embedded; returns the blocks that the INSERT read.
fn step(client: &mut Client, photos: i64) -> i64 {
    const FETCHED: &str = "SELECT sum(pg_stat_get_xact_blocks_fetched(oid))::bigint FROM pg_class
        WHERE relname LIKE 'clip\\_%' OR relname LIKE 'embeddings%'";
    run(client, "BEGIN");
    run(
        client,
        &format!(
            "INSERT INTO photos SELECT (SELECT max(id) FROM photos) + n, (SELECT image FROM photos WHERE id = 0)
            FROM generate_series(1, {photos}) AS n"
        ),
    );
    let fetched = value(client, FETCHED);
    run(client, "COMMIT");
    wait_for_the_queue(client);
    fetched
}

fn blocks_of_all(client: &mut Client) -> i64 {
    blocks(client, "true")
}

fn blocks_of_own(client: &mut Client) -> i64 {
    blocks(client, "relname LIKE 'clip\\_%'")
}

/// The blocks of tables and their indexes that all sessions have read or found in the cache.
fn blocks(client: &mut Client, which: &str) -> i64 {
    run(client, "SELECT pg_stat_force_next_flush()");
    let blocks = "heap_blks_read + heap_blks_hit + coalesce(idx_blks_read + idx_blks_hit, 0)";
    value(client, &format!("SELECT sum({blocks})::bigint FROM pg_statio_user_tables WHERE {which}"))
}
