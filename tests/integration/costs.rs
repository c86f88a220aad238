//! The cost of a statement on a watched table, counted in blocks and not in time.

use pg_clip_tests::{
    PATIENCE, TestCluster, demo_photo, run, value, wait_for_no_worker, wait_for_the_queue, wait_until,
};
use postgres::Client;

/// The TOAST blocks of `photos` that have been read, in this session as in others.
fn toast_blocks(client: &mut Client) -> i64 {
    run(client, "SELECT pg_stat_force_next_flush()");
    value(
        client,
        "SELECT toast_blks_read + toast_blks_hit FROM pg_statio_all_tables WHERE relid = 'photos'::regclass",
    )
}

#[test]
fn statements_that_touch_no_image_read_none() {
    let cluster = TestCluster::shared();
    for mode in ["sync", "async"] {
        let database = cluster.database();
        let mut client = database.connect();
        run(
            &mut client,
            &format!(
                "CREATE TABLE photos (id int PRIMARY KEY, project text, note text, image bytea);
                ALTER TABLE photos ALTER image SET STORAGE EXTERNAL;
                SELECT clip_watch('photos', mode => '{mode}');
                SET clip.enabled = off;
                INSERT INTO photos SELECT n, 'p', '', convert_to(repeat('photo', 20000), 'UTF8')
                FROM generate_series(1, 300) AS n;
                RESET clip.enabled"
            ),
        );
        let mut costs_nothing = |statement: &str| {
            let before = toast_blocks(&mut client);
            run(&mut client, statement);
            assert_eq!(toast_blocks(&mut client) - before, 0, "{mode}: {statement}");
        };
        costs_nothing("UPDATE photos SET note = 'x'");
        costs_nothing("UPDATE photos SET project = 'q'");
        costs_nothing("UPDATE photos SET project = project, image = image");
        costs_nothing("INSERT INTO photos SELECT * FROM photos WHERE false");
        // A trigger that might change the image makes a look at it necessary, but not at its bytes.
        costs_nothing(
            "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
            CREATE TRIGGER keep BEFORE UPDATE ON photos FOR EACH ROW EXECUTE FUNCTION keep();
            UPDATE photos SET note = 'y'",
        );
        costs_nothing("SELECT count(*) FROM clip_coverage");
        // PostgreSQL itself deletes the chunks of an image.
        let mut cost = |statement: &str| {
            let before = toast_blocks(&mut client);
            run(&mut client, statement);
            toast_blocks(&mut client) - before
        };
        run(&mut database.connect(), "ALTER TABLE photos DISABLE TRIGGER USER");
        let unwatched = cost("DELETE FROM photos WHERE id <= 150");
        run(&mut database.connect(), "ALTER TABLE photos ENABLE TRIGGER USER");
        let watched = cost("DELETE FROM photos");
        assert!(
            watched <= unwatched + unwatched / 50,
            "{mode}: {unwatched} blocks unwatched, {watched} watched"
        );
        assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM clip_queue"), 0, "{mode}");
    }
}

/// The blocks of the queue and its indexes that have been read, in this session as in others.
fn queue_blocks(client: &mut Client) -> i64 {
    run(client, "SELECT pg_stat_force_next_flush()");
    value(
        client,
        "SELECT heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit
        FROM pg_statio_all_tables WHERE relid = 'clip_queue'::regclass",
    )
}

#[test]
fn finished_jobs_that_a_snapshot_keeps_cost_a_statement_nothing() {
    let cluster = TestCluster::shared();
    for mode in ["sync", "async"] {
        let database = cluster.database();
        let (mut client, mut dump) = (database.connect(), database.connect());
        run(
            &mut client,
            &format!(
                "CREATE TABLE photos (id int PRIMARY KEY, note text, image bytea);
                SELECT clip_watch('photos', mode => '{mode}')"
            ),
        );
        client.execute("INSERT INTO photos VALUES (1, '', $1)", &[&demo_photo()]).expect("a photo");
        wait_for_the_queue(&mut client);
        let statements =
            ["UPDATE photos SET note = 'x'", "DELETE FROM photos WHERE id = 2", "UPDATE photos SET id = 1"];
        let cost = |client: &mut Client| {
            let before = queue_blocks(client);
            for statement in statements {
                run(client, statement);
            }
            queue_blocks(client) - before
        };
        // The first ones fill caches.
        cost(&mut client);
        let before = cost(&mut client);
        run(&mut dump, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM photos");
        run(
            &mut client,
            "ALTER TABLE clip_queue SET (autovacuum_enabled = off);
            INSERT INTO clip_queue (source, key, run_at) SELECT 'photos'::regclass, n, 'infinity'
            FROM generate_series(10, 20000) AS n;
            DELETE FROM clip_queue",
        );
        let after = cost(&mut client);
        assert!(
            after <= before + 4,
            "{mode}: {before} blocks of the queue before, {after} after 20,000 jobs"
        );
        run(&mut dump, "COMMIT");
    }
}

/// Without an inference: the bytes of all photos are known.
#[test]
fn finished_jobs_that_a_snapshot_keeps_cost_the_queue_worker_next_to_nothing() {
    const PHOTOS: i64 = 1_600;
    let cluster = TestCluster::preloaded_with(&[("autovacuum", "off")]);
    let database = cluster.database();
    let (mut client, mut dump) = (database.connect(), database.connect());
    run(
        &mut client,
        "CREATE TABLE photos (id int PRIMARY KEY, image bytea);
        SELECT clip_watch('photos', mode => 'async')",
    );
    client.execute("INSERT INTO photos VALUES (0, $1)", &[&demo_photo()]).expect("a photo");
    wait_for_the_queue(&mut client);
    let cost = |client: &mut Client, first: i64| {
        let before = queue_blocks(client);
        let photos = "SELECT count(*) FROM image_embeddings";
        let embedded = value::<i64>(client, photos) + PHOTOS;
        let insert = "INSERT INTO photos SELECT n, (SELECT image FROM photos WHERE id = 0)
            FROM generate_series($1::int8, $1 + $2 - 1) AS n";
        client.execute(insert, &[&first, &PHOTOS]).expect("photos");
        wait_until("the photos have vectors", PATIENCE, || value::<i64>(client, photos) == embedded);
        wait_for_no_worker(client);
        queue_blocks(client) - before
    };
    let before = cost(&mut client, 10_000);
    run(&mut dump, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM photos");
    run(
        &mut client,
        "INSERT INTO clip_queue (source, key, run_at) SELECT 'photos'::regclass, n, '2000-01-01'
        FROM generate_series(100000, 150000) AS n;
        DELETE FROM clip_queue",
    );
    let dead = value::<i64>(&mut client, "SELECT pg_relation_size('clip_queue') / 8192");
    let after = cost(&mut client, 20_000);
    println!("{before} blocks of the queue before, {after} after 50,000 jobs in {dead} blocks");
    // A look at the whole queue reads the finished jobs twice, and there are 50 batches.
    assert!(after - before < 60 * dead, "{before} blocks before, {after} after 50,000 jobs in {dead} blocks");
    run(&mut dump, "COMMIT");
}

/// PostgreSQL writes a line for each plan that it makes.
#[test]
fn a_statement_that_is_repeated_is_planned_once() {
    // An ANALYZE has plans made anew.
    let cluster = TestCluster::preloaded_with(&[("autovacuum", "off")]);
    let plans = || cluster.log().matches("PLANNER STATISTICS").count();
    for mode in ["sync", "async"] {
        let database = cluster.database();
        let mut client = database.connect();
        run(
            &mut client,
            &format!(
                "CREATE TABLE photos (id int PRIMARY KEY, project text, note text, image bytea);
                SELECT clip_watch('photos', mode => '{mode}'); SET clip.request_timeout = '5min'"
            ),
        );
        let photo = demo_photo();
        let insert = client
            .prepare("INSERT INTO photos (id, project, image) VALUES ($1, 'p', $2)")
            .expect("an INSERT");
        let store = |client: &mut Client, key: i32| {
            client.execute(&insert, &[&key, &photo]).expect("a photo is stored");
        };
        for key in 0..40 {
            store(&mut client, key);
        }
        wait_for_the_queue(&mut client);
        for (what, statement) in [
            ("the photo", "UPDATE photos SET image = image || '\\x00' WHERE id = $1"),
            ("the project", "UPDATE photos SET project = project || 'x' WHERE id = $1"),
            ("another column", "UPDATE photos SET note = 'x' WHERE id = $1"),
            ("the key", "UPDATE photos SET id = id + 1000 WHERE id = $1"),
            ("no photo", "UPDATE photos SET image = NULL WHERE id = $1"),
            ("no row", "DELETE FROM photos WHERE id = $1"),
        ] {
            // Its plan is made for any key from the sixth time on.
            let statement = client.prepare(statement).expect("a statement");
            let change = |client: &mut Client, keys: std::ops::Range<i32>| {
                for key in keys {
                    client.execute(&statement, &[&key]).expect("a photo is changed");
                }
            };
            change(&mut client, 0..10);
            wait_for_the_queue(&mut client);
            run(&mut client, "SET log_planner_stats = on");
            let before = plans();
            change(&mut client, 10..30);
            let after = plans();
            run(&mut client, "SET log_planner_stats = off");
            assert_eq!(after - before, 0, "{mode}: {what}");
            run(&mut client, "UPDATE photos SET id = id - 1000 WHERE id >= 1000");
        }
    }
}
