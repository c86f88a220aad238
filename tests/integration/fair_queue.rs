//! One table's photos never hold up those of another.

use pg_clip_tests::{
    PATIENCE, Signal, TestCluster, WRONG, demo_photos, run, send, value, wait_for, wait_for_the_queue,
    wait_until,
};
use postgres::Client;

/// A table in a schema of its own, in async mode.
fn shop(client: &mut Client, name: &str) {
    run(
        client,
        &format!(
            "CREATE SCHEMA {name}; CREATE TABLE {name}.photos (id serial PRIMARY KEY, image bytea);
            SELECT clip_watch('{name}.photos', mode => 'async')"
        ),
    );
}

fn store(client: &mut Client, name: &str, photos: &[Vec<u8>]) {
    let insert = format!("INSERT INTO {name}.photos (image) SELECT unnest($1::bytea[])");
    client.execute(&insert, &[&photos]).expect("photos are stored");
}

fn embedded(client: &mut Client, name: &str) -> i64 {
    value(client, &format!("SELECT count(*) FROM {name}.image_embeddings"))
}

fn waiting(client: &mut Client, name: &str) -> i64 {
    value(
        client,
        &format!("SELECT count(*) FROM clip_queue WHERE source = '{name}.photos'::regclass AND NOT dead"),
    )
}

#[test]
fn tables_take_turns() {
    let cluster = TestCluster::shared();
    let database = cluster.database();
    let mut client = database.connect();
    shop(&mut client, "large");
    shop(&mut client, "small");
    let photos = demo_photos();
    let many: Vec<Vec<u8>> = (0..6)
        .flat_map(|round: u8| photos.iter().map(move |photo| [photo.as_slice(), &[round]].concat()))
        .collect();
    store(&mut client, "large", &many);
    wait_until("the large table's turn", PATIENCE, || embedded(&mut client, "large") > 0);
    store(&mut client, "small", &photos[..1]);
    wait_until("the small table's photo", PATIENCE, || embedded(&mut client, "small") == 1);
    assert!(waiting(&mut client, "large") > 500, "it did not wait for all of the large table's");
    run(&mut client, "TRUNCATE large.photos");
}

#[test]
fn a_sleeping_trigger_delays_its_own_table_only() {
    let cluster = TestCluster::preloaded();
    let database = cluster.database();
    let mut client = database.connect();
    for (name, body) in [
        ("sleepy", "PERFORM pg_catalog.pg_sleep(1)"),
        // A cancel alone does not end this one.
        (
            "stubborn",
            "LOOP BEGIN PERFORM pg_catalog.pg_sleep(3600); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP",
        ),
    ] {
        shop(&mut client, name);
        run(
            &mut client,
            &format!(
                "CREATE FUNCTION {name}.wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body}; RETURN NULL; END $$;
                CREATE TRIGGER wait AFTER INSERT ON {name}.image_embeddings FOR EACH ROW EXECUTE FUNCTION {name}.wait()"
            ),
        );
    }
    shop(&mut client, "prompt");
    let photos = demo_photos();
    store(&mut client, "stubborn", &photos[..40]);
    store(&mut client, "sleepy", &photos[40..44]);
    wait_until("the slow tables are known", PATIENCE, || {
        value::<i64>(&mut client, "SELECT count(*) FROM clip_queue_pauses WHERE slow_until > now()") == 2
    });
    for round in 0..10 {
        store(&mut client, "prompt", &photos[100 + 10 * round..110 + 10 * round]);
        let expected = 10 * (i64::try_from(round).expect("small") + 1);
        wait_until("the prompt table's photos", PATIENCE, || embedded(&mut client, "prompt") == expected);
        assert_eq!(embedded(&mut client, "stubborn"), 0);
    }
    // The server never restarted, and slow tables are embedded as well.
    assert!(!cluster.log().contains("reinitializing"));
    run(&mut client, "DROP TABLE stubborn.photos");
    wait_until("the sleepy table's photos", PATIENCE, || embedded(&mut client, "sleepy") == 4);
    wait_for_the_queue(&mut client);
}

/// The worker that a stubborn trigger ends leaves its claims to the next one. A role can lock these jobs in between.
#[test]
fn jobs_that_are_locked_when_a_worker_ends_delay_no_other_table() {
    let cluster = TestCluster::preloaded();
    let database = cluster.database();
    let (mut client, mut holder) = (database.connect(), database.connect());
    shop(&mut client, "stubborn");
    shop(&mut client, "prompt");
    let wait = |body: &str| {
        format!(
            "CREATE OR REPLACE FUNCTION stubborn.wait() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN {body} RETURN NULL; END $$"
        )
    };
    let stubborn = "LOOP BEGIN PERFORM pg_catalog.pg_sleep(3600); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP;";
    run(&mut client, &wait(stubborn));
    run(
        &mut client,
        "CREATE TRIGGER wait AFTER INSERT ON stubborn.image_embeddings FOR EACH ROW EXECUTE FUNCTION stubborn.wait()",
    );
    let photos = demo_photos();
    store(&mut client, "stubborn", &photos[..40]);
    wait_until("the trigger runs", PATIENCE, || {
        let sleeps = "SELECT count(*) FROM pg_stat_activity
            WHERE backend_type = 'pg_clip queue worker' AND wait_event = 'PgSleep'";
        value::<i64>(&mut client, sleeps) > 0
    });
    // It waits for the worker, and has the jobs before the next one comes.
    run(&mut holder, "BEGIN; UPDATE stubborn.photos SET image = image || '\\x00'");
    store(&mut client, "prompt", &photos[100..110]);
    wait_until("the prompt table's photos", PATIENCE, || embedded(&mut client, "prompt") == 10);
    let slow = "SELECT count(*) FROM clip_queue_pauses WHERE slow_until > now()";
    assert_eq!(value::<i64>(&mut client, slow), 1, "it is known which table held the worker up");
    let claimed = "SELECT count(*) FROM clip_queue WHERE claimed AND NOT slow";
    assert!(value::<i64>(&mut client, claimed) > 0, "the claims are locked");
    run(&mut holder, "ROLLBACK");
    // Long before the claims would have ended by themselves.
    wait_until("the claims are given up", PATIENCE, || value::<i64>(&mut client, claimed) == 0);
    run(&mut client, &wait(""));
    wait_for_the_queue(&mut client);
    assert_eq!(embedded(&mut client, "stubborn"), 40);
}

#[test]
fn locked_rows_jobs_and_tables_delay_no_other_table() {
    let cluster = TestCluster::preloaded();
    let database = cluster.database();
    let mut client = database.connect();
    for name in ["rows", "jobs", "target", "source", "free"] {
        shop(&mut client, name);
    }
    let photos = demo_photos();
    let mut holders = Vec::new();
    for (name, first, second) in [
        ("rows", "BEGIN", "DELETE FROM rows.photos"),
        ("jobs", "BEGIN", "UPDATE jobs.photos SET image = image || '\\x00'"),
        ("target", "BEGIN; LOCK TABLE target.image_embeddings", ""),
        ("source", "BEGIN", "LOCK TABLE source.photos"),
    ] {
        let mut holder = database.connect();
        run(&mut holder, first);
        store(&mut client, name, &photos[..40]);
        run(&mut holder, second);
        holders.push(holder);
    }
    store(&mut client, "free", &photos[..40]);
    wait_until("the free table's photos", PATIENCE, || embedded(&mut client, "free") == 40);
    // The owner of a table sees why its photos wait. The pauses grow, and until then the worker has not looked at
    // the queue without end.
    wait_until("a long pause", PATIENCE, || {
        let long = "SELECT count(*) FROM clip_queue_pauses JOIN clip_coverage USING (source)
            WHERE until > now() + '3 seconds'::interval AND source = 'target.photos'::regclass
                AND waits_for LIKE '%target.image_embeddings%'";
        value::<i64>(&mut client, long) == 1
    });
    let transactions =
        "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()";
    let all = value::<i64>(&mut client, transactions);
    assert!(all < 2_000, "{all} transactions");
    for mut holder in holders {
        run(&mut holder, "COMMIT");
    }
    run(&mut client, "SELECT clip_retry()");
    wait_for_the_queue(&mut client);
    for (name, count) in [("rows", 0), ("jobs", 40), ("target", 40), ("source", 40)] {
        assert_eq!(embedded(&mut client, name), count, "{name}");
        run(&mut client, &format!("SET search_path = {name}, public"));
        assert_eq!(value::<i64>(&mut client, WRONG), 0, "{name}");
        run(&mut client, "RESET search_path");
    }
}

/// At the end of a long queue, a photo that changes again and again would never have its turn.
#[test]
fn a_photo_that_changes_keeps_its_place() {
    let cluster = TestCluster::shared();
    let database = cluster.database();
    let mut client = database.connect();
    shop(&mut client, "shop");
    store(&mut client, "shop", &demo_photos()[..2]);
    wait_for_the_queue(&mut client);
    for claimed in [false, true] {
        let mut transaction = client.transaction().expect("a transaction");
        transaction
            .batch_execute(&format!(
                "INSERT INTO clip_queue (source, key, enqueued_at, run_at, claimed) VALUES
                    ('shop.photos'::regclass, '1', now() - interval '2 min', now() + interval '5 min', {claimed}),
                    ('shop.photos'::regclass, '2', now() - interval '1 min', now() - interval '1 min', false);
                UPDATE shop.photos SET image = image || '\\x00' WHERE id = 1"
            ))
            .expect("a photo is changed while it waits");
        let first = "SELECT key FROM clip_queue ORDER BY run_at LIMIT 1";
        assert_eq!(transaction.query_one(first, &[]).expect("a job").get::<_, String>(0), "1");
        transaction.commit().expect("a commit");
        wait_for_the_queue(&mut client);
    }
}
/// A batch that takes longer than the prompt lane has time for is written in parts.
#[test]
fn a_table_whose_photos_take_long_only_together_is_not_slow() {
    let cluster = TestCluster::preloaded();
    let database = cluster.database();
    let mut client = database.connect();
    shop(&mut client, "careful");
    run(
        &mut client,
        "CREATE FUNCTION careful.wait() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_catalog.pg_sleep(0.03); RETURN NULL; END $$;
        CREATE TRIGGER wait AFTER INSERT ON careful.image_embeddings FOR EACH ROW EXECUTE FUNCTION careful.wait()",
    );
    let inferences = "SELECT image_inferences FROM clip_status";
    let before: i64 = value(&mut client, inferences);
    store(&mut client, "careful", &demo_photos()[..96]);
    wait_for_the_queue(&mut client);
    assert_eq!(embedded(&mut client, "careful"), 96);
    let slow = "SELECT count(*) FROM clip_queue_pauses WHERE slow_until IS NOT NULL";
    assert_eq!(value::<i64>(&mut client, slow), 0, "it never went to the slow lane");
    assert_eq!(value::<i64>(&mut client, inferences) - before, 96, "and no vector was lost");
}

/// In the slow lane, tables take turns by the time that they take.
#[test]
fn a_slower_table_leaves_the_slow_lane_to_other_tables() {
    let cluster = TestCluster::preloaded();
    let database = cluster.database();
    let mut client = database.connect();
    for (name, seconds) in [("slower", "3"), ("slow", "0.01")] {
        shop(&mut client, name);
        run(
            &mut client,
            &format!(
                "CREATE FUNCTION {name}.wait() RETURNS trigger LANGUAGE plpgsql AS
                    $$ BEGIN PERFORM pg_catalog.pg_sleep({seconds}); RETURN NULL; END $$;
                CREATE TRIGGER wait AFTER INSERT ON {name}.image_embeddings FOR EACH STATEMENT
                EXECUTE FUNCTION {name}.wait();
                INSERT INTO clip_queue_pauses (source, slow_until)
                VALUES ('{name}.photos'::regclass, 'infinity')"
            ),
        );
    }
    let photos = demo_photos();
    store(&mut client, "slower", &photos[..40]);
    wait_until("the slower table's turn", PATIENCE, || embedded(&mut client, "slower") > 0);
    store(&mut client, "slow", &photos[40..140]);
    wait_until("the other table's photos", PATIENCE, || embedded(&mut client, "slow") == 100);
    let meanwhile = embedded(&mut client, "slower");
    assert!(meanwhile < 24, "{meanwhile} of the slower table's came before 25 batches of the other");
    run(&mut client, "DROP TABLE slower.photos");
}

/// The clock goes on while a machine stands still. The worker's photos are not lost then, nor is their table slow.
#[test]
fn a_worker_that_stood_still_goes_on() {
    let cluster = TestCluster::preloaded();
    let database = cluster.database();
    let (mut client, mut holder) = (database.connect(), database.connect());
    shop(&mut client, "shop");
    run(
        &mut client,
        "CREATE FUNCTION shop.wait() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_catalog.pg_advisory_xact_lock_shared(42); RETURN NULL; END $$;
        CREATE TRIGGER wait AFTER INSERT ON shop.image_embeddings FOR EACH ROW EXECUTE FUNCTION shop.wait()",
    );
    run(&mut holder, "SELECT pg_advisory_lock(42)");
    let inferences = "SELECT image_inferences FROM clip_status";
    let before: i64 = value(&mut client, inferences);
    store(&mut client, "shop", &demo_photos()[..8]);
    let waits = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
    // It gives up after half a second, and is there again.
    let worker: i32 = wait_for("the worker waits, and stands still", PATIENCE, || {
        let worker: i32 = client.query_opt(waits, &[]).expect("a query")?.get(0);
        send(u32::try_from(worker).expect("a process id"), Signal::SIGSTOP);
        if client.query_opt(waits, &[]).expect("a query").is_some() {
            return Some(worker);
        }
        send(u32::try_from(worker).expect("a process id"), Signal::SIGCONT);
        None
    });
    let passed = format!(
        "SELECT clock_timestamp() - xact_start > '2 seconds' FROM pg_stat_activity WHERE pid = {worker}"
    );
    wait_until("its time is over", PATIENCE, || value::<bool>(&mut client, &passed));
    run(&mut holder, "SELECT pg_advisory_unlock(42)");
    send(u32::try_from(worker).expect("a process id"), Signal::SIGCONT);
    wait_for_the_queue(&mut client);
    assert_eq!(embedded(&mut client, "shop"), 8);
    assert_eq!(value::<i64>(&mut client, inferences) - before, 8, "no vector was lost");
    assert!(!cluster.log().contains("terminating background worker"), "{}", cluster.log());
    let slow = "SELECT count(*) FROM clip_queue_pauses WHERE slow_until IS NOT NULL";
    assert_eq!(value::<i64>(&mut client, slow), 0);
}
