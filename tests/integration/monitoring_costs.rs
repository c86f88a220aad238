//! The cost of looking at a watched table, counted in blocks: no more for a table that is larger.

use pg_clip_tests::{TestCluster, TestDatabase, blocks_of, run, value};
use postgres::Client;

/// Whole pages of a source: 8 photos each.
const SMALLER: i64 = 40_000;
const LARGER: i64 = 160_000;
/// The pages of a sample are drawn anew each time, about 125 of them: the mean of so many looks differs by about 2 %.
const LOOKS: i64 = 25;

/// A watched table whose photos, which are none, have embeddings that no model made.
fn watched(cluster: &TestCluster) -> (TestDatabase, Client) {
    let database = cluster.database();
    let mut client = database.connect();
    run(
        &mut client,
        "CREATE TABLE photos (id int PRIMARY KEY, filler text, image bytea);
        CREATE TABLE embeddings (image_id int PRIMARY KEY, embedding vector NOT NULL, checksum bytea, model text);
        CREATE INDEX ON embeddings (checksum);
        SELECT clip_watch('photos', target => 'embeddings', mode => 'async');
        ALTER TABLE photos DISABLE TRIGGER USER",
    );
    (database, client)
}

fn grow_to(client: &mut Client, photos: i64) {
    run(
        client,
        &format!(
            "WITH added AS (
                INSERT INTO photos SELECT id, repeat('x', 900), 'photo' FROM generate_series(
                    (SELECT count(*) FROM photos) + 1, {photos}) AS id RETURNING id)
            INSERT INTO embeddings SELECT id, '[1,2,3]', sha256('photo'), model FROM added, clip_watches"
        ),
    );
    run(client, "VACUUM ANALYZE photos");
    run(client, "VACUUM ANALYZE embeddings");
}

#[test]
fn coverage_of_a_large_table_reads_as_much_as_that_of_a_larger_one() {
    let cluster = TestCluster::shared();
    let (_database, mut client) = watched(&cluster);
    let coverage = "SELECT * FROM clip_coverage WHERE source = 'photos'::regclass";
    let counts = |client: &mut Client| -> Vec<i64> {
        value(client, "SELECT ARRAY[photos, embedded, missing, stale] FROM clip_coverage")
    };
    let is_estimate = |client: &mut Client| value::<bool>(client, "SELECT is_estimate FROM clip_coverage");
    grow_to(&mut client, 1000);
    assert!(!is_estimate(&mut client));
    run(&mut client, "DELETE FROM embeddings WHERE image_id <= 10");
    assert_eq!(counts(&mut client), [1000, 990, 10, 0]);
    run(
        &mut client,
        "INSERT INTO embeddings SELECT id, '[1,2,3]', sha256('photo'), model FROM photos, clip_watches
        ON CONFLICT DO NOTHING",
    );

    let mut costs = Vec::new();
    for photos in [SMALLER, LARGER] {
        grow_to(&mut client, photos);
        assert!(is_estimate(&mut client));
        let found = counts(&mut client);
        assert!((found[0] - photos).abs() <= photos / 20, "{found:?} of {photos}");
        assert_eq!(found, [found[0], found[0], 0, 0], "a table without gaps has none in each sample");
        costs.push((0..LOOKS).map(|_| blocks_of(&mut client, coverage)).sum::<i64>() / LOOKS);
    }
    println!("{costs:?} blocks for {SMALLER} and {LARGER} photos");
    // About 1,000 photos are looked up, by an index that has one more level where the table is larger.
    assert!(costs[1] <= costs[0] * 3 / 2 && costs[1] < 8000, "{costs:?}");
    let exact = "SELECT * FROM clip_count('photos')";
    assert!(blocks_of(&mut client, exact) > LARGER / 8, "an exact count reads the table");

    run(
        &mut client,
        "DELETE FROM embeddings WHERE image_id % 5 = 0; UPDATE embeddings SET model = 'x' WHERE image_id % 5 = 1",
    );
    let found = counts(&mut client);
    let is_near = |count: i64| (count - LARGER / 5).abs() < LARGER / 15;
    assert!(is_near(found[2]) && is_near(found[3]), "a fifth is missing, and a fifth stale: {found:?}");
    assert_eq!(found[0], found[1] + found[2]);
    let exact = "SELECT ARRAY[photos, embedded, missing, stale] FROM clip_count('photos')";
    assert_eq!(value::<Vec<i64>>(&mut client, exact), [LARGER, LARGER * 4 / 5, LARGER / 5, LARGER / 5]);
}

#[test]
fn counting_jobs_and_looking_for_failures_costs_no_more_where_more_jobs_wait() {
    let cluster = TestCluster::shared();
    let (_database, mut client) = watched(&cluster);
    run(&mut client, "ALTER TABLE clip_queue SET (autovacuum_enabled = off)");
    let mut costs = Vec::new();
    for jobs in [30_000_i64, 120_000] {
        // None of them is due.
        run(
            &mut client,
            &format!(
                "INSERT INTO clip_queue (source, key, enqueued_at, run_at)
                SELECT 'photos'::regclass, n, now() - interval '1 day', now() + n * interval '1 day'
                FROM generate_series((SELECT count(*) FROM clip_queue) + 1, {jobs}) AS n"
            ),
        );
        run(&mut client, "VACUUM ANALYZE clip_queue");
        let queued: i64 = value(&mut client, "SELECT queued FROM clip_coverage");
        assert!((queued - jobs).abs() <= jobs / 10, "{queued} of {jobs}");
        assert!(value::<bool>(
            &mut client,
            "SELECT oldest_waiting < now() - interval '20 hours' FROM clip_coverage"
        ));
        costs.push((
            blocks_of(&mut client, "SELECT queued, failed, oldest_waiting FROM clip_coverage"),
            blocks_of(&mut client, "SELECT * FROM clip_failures"),
        ));
    }
    println!("{costs:?} blocks for 30,000 and 120,000 jobs");
    assert!(costs[1].0 <= costs[0].0 * 5 / 4 && costs[1].1 <= costs[0].1 + 4, "{costs:?}");

    run(
        &mut client,
        "UPDATE clip_queue SET failed_at = now(), sqlstate = '22P03', dead = key = '7' WHERE key IN ('7', '8', '9')",
    );
    let failures = "SELECT count(*) FROM clip_failures WHERE source = 'photos'::regclass";
    assert_eq!(value::<i64>(&mut client, failures), 3);
    assert_eq!(value::<i64>(&mut client, "SELECT failed FROM clip_coverage"), 1);
    assert!(blocks_of(&mut client, "SELECT * FROM clip_failures") < 100);
    run(&mut client, "DELETE FROM clip_queue WHERE key::int > 10000");
    assert_eq!(value::<i64>(&mut client, "SELECT queued FROM clip_coverage"), 9999, "exact up to a bound");
}
