//! Photos that are done cost nothing: the size of pg_clip's own tables, and the blocks read for the next photo, are
//! the same beside ten times as many of them.

use std::collections::BTreeMap;

use pg_clip_tests::{
    TestCluster, TestDatabase, blocks_of, demo_photo, run, value, wait_for_no_worker, wait_for_the_queue,
    watched_async,
};
use postgres::Client;

/// Rows that are made up: no model runs for them.
const FEWER: i64 = 5_000;
const MORE: i64 = 50_000;

/// Each level of a btree is a block more to go through. Here are those of the keys of source and target, of the checksums and
/// of the queue, for each of the photos of a step.
const LEVELS: i64 = 4;

/// A table of pg_clip's own: its rows, and its bytes.
fn own_tables(client: &mut Client) -> BTreeMap<String, (i64, i64)> {
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

#[test]
fn photos_that_are_done_leave_nothing_in_the_extensions_tables() {
    const STEP: i64 = 100;
    let cluster = TestCluster::preloaded();
    let (_database, mut client) = watched_async(&cluster);
    let photo = demo_photo();
    let mut embed = |steps: i64| {
        for _ in 0..steps {
            let insert = "INSERT INTO photos (image) SELECT $1 FROM generate_series(1, $2::int8)";
            client.execute(insert, &[&photo, &STEP]).expect("photos are stored");
            wait_for_the_queue(&mut client);
        }
        wait_for_no_worker(&mut client);
        own_tables(&mut client)
    };
    let before = embed(3);
    let after = embed(27);
    println!("after 300 photos {before:?}\nafter 3,000 photos {after:?}");
    assert!(before.len() > 5, "{before:?}");
    for (name, (rows, bytes)) in after {
        let (rows_before, bytes_before) = before[&name];
        // A row for each worker that has counted, for ten minutes: one more has run since.
        let workers = i64::from(name == "clip_queue_rates");
        assert!(rows <= rows_before + workers, "{name}: {rows_before} rows, and then {rows}");
        // A step is as large as the ones before; a page more is a matter of when a worker looked.
        assert!(bytes <= bytes_before + 16 * 8192, "{name}: {bytes_before} bytes, and then {bytes}");
    }
}

#[test]
fn the_next_photo_costs_as_much_beside_ten_times_as_many_that_are_done() {
    const PHOTOS: i64 = 32;
    let cluster = TestCluster::preloaded_with(&[("autovacuum", "off")]);
    let (_database, mut client) = made_up(&cluster);
    let mut costs = Vec::new();
    for photos in [FEWER, MORE] {
        grow_to(&mut client, photos);
        // The first time fills caches of catalogs.
        step(&mut client, PHOTOS);
        wait_for_no_worker(&mut client);
        let (before, own_before) = (blocks_of_all(&mut client), blocks_of_own(&mut client));
        let enqueued = step(&mut client, PHOTOS);
        wait_for_no_worker(&mut client);
        let cost = Cost {
            enqueued,
            all: blocks_of_all(&mut client) - before,
            own: blocks_of_own(&mut client) - own_before,
            backlog: blocks_of(&mut client, "SELECT * FROM clip_backlog"),
            failures: blocks_of(&mut client, "SELECT * FROM clip_failures"),
        };
        println!("{cost:?} for {PHOTOS} photos beside {photos}");
        costs.push(cost);
    }
    let [few, many] = costs.as_slice() else { panic!("two sizes") };
    let more = LEVELS * PHOTOS;
    assert!(many.enqueued <= few.enqueued + more, "{few:?} {many:?}");
    assert!(many.all <= few.all + 2 * more, "{few:?} {many:?}");
    // The queue is as long at both sizes; how often the worker looks at it differs by a look or two.
    assert!(many.own <= few.own + few.own / 4, "{few:?} {many:?}");
    assert!(many.backlog <= few.backlog + 8 && many.failures <= few.failures + 8, "{few:?} {many:?}");
}

/// Numbers of blocks.
#[derive(Debug)]
struct Cost {
    /// The blocks of pg_clip's tables and the target that the INSERT reads: the rest is PostgreSQL's.
    enqueued: i64,
    /// The blocks of source, target and queue that backend and worker read, from the INSERT to the last vector.
    all: i64,
    /// The part of it that is of pg_clip's tables.
    own: i64,
    backlog: i64,
    failures: i64,
}

/// A watched table with a photo of the demo, whose bytes all other photos have.
fn made_up(cluster: &TestCluster) -> (TestDatabase, Client) {
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
fn grow_to(client: &mut Client, photos: i64) {
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
