//! A photo that cannot be embedded is set aside with its reason, and holds up nothing else.

use pg_clip_tests::{
    PATIENCE, TestCluster, WRONG, demo_photos, failure, pixel_flood, run, store, value, wait_for,
    wait_for_the_queue, wait_until, watched_async,
};

#[test]
fn poison_among_photos_is_set_aside_and_can_be_repaired() {
    let cluster = TestCluster::preloaded();
    let (_database, mut client) = watched_async(&cluster);
    let good = demo_photos();
    let mut photos = good[..190].to_vec();
    let poison = [
        (b"broken".to_vec(), "22P03"),
        (good[0][..good[0].len() / 3].to_vec(), "22P03"),
        (pixel_flood(), "54000"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>".to_vec(), "0A000"),
        (Vec::new(), "22023"),
    ];
    for (number, (bytes, _)) in poison.iter().chain(&poison).enumerate() {
        photos.insert(19 * number, bytes.clone());
    }
    store(&mut client, &photos);
    wait_for_the_queue(&mut client);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 190);
    let mut expected: Vec<&str> = poison.iter().chain(&poison).map(|(_, state)| *state).collect();
    expected.sort_unstable();
    let states = "SELECT array_agg(sqlstate ORDER BY sqlstate COLLATE \"C\") FROM clip_failures
        WHERE dead AND attempts = 1 AND message <> '' AND failed_at <= now() AND retry_at IS NULL";
    assert_eq!(value::<Vec<String>>(&mut client, states), expected);

    // A dead job stays dead until the photo changes or a role retries it.
    assert_eq!(value::<i64>(&mut client, "SELECT clip_retry('photos', '1')"), 1);
    wait_for_the_queue(&mut client);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM clip_failures"), 10);
    client.execute("UPDATE photos SET image = $1 WHERE id = 1", &[&good[200]]).expect("a repair");
    wait_for_the_queue(&mut client);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM clip_failures"), 9);

    // Repaired without firing the trigger.
    run(&mut client, "SET session_replication_role = replica");
    client
        .execute(
            "UPDATE photos SET image = $1 WHERE id::text IN (SELECT key FROM clip_failures)",
            &[&good[201]],
        )
        .expect("a repair");
    run(&mut client, "RESET session_replication_role");
    assert_eq!(value::<i64>(&mut client, "SELECT clip_retry()"), 9);
    wait_for_the_queue(&mut client);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM clip_failures"), 0);
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
}

#[test]
fn an_embedder_that_is_away_costs_no_attempt() {
    let cluster = TestCluster::preloaded();
    let (_database, mut client) = watched_async(&cluster);
    run(&mut client, "ALTER SYSTEM SET clip.models_directory = '/nowhere'");
    run(&mut client, "SELECT pg_reload_conf()");
    wait_until("no model is installed", PATIENCE, || {
        client.query("SELECT clip_embed_text('x')", &[]).is_err()
    });
    store(&mut client, &demo_photos()[..40]);
    wait_until("the queue waits", PATIENCE, || cluster.log().contains("the queue waits for the embedder"));
    let waiting = "SELECT count(*) FROM clip_queue WHERE attempts = 0 AND NOT dead AND sqlstate IS NULL";
    wait_until("no job is claimed", PATIENCE, || value::<i64>(&mut client, waiting) == 40);
    run(&mut client, "ALTER SYSTEM RESET clip.models_directory");
    run(&mut client, "SELECT pg_reload_conf()");
    wait_for_the_queue(&mut client);
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
    assert_eq!(cluster.log().matches("the queue waits for the embedder").count(), 1, "{}", cluster.log());
}

#[test]
fn a_target_that_is_gone_or_refuses_is_reported_and_tried_again() {
    let cluster = TestCluster::preloaded();
    let (_database, mut client) = watched_async(&cluster);
    run(&mut client, "ALTER TABLE image_embeddings ADD CONSTRAINT none CHECK (image_id <> 2)");
    store(&mut client, &demo_photos()[..3]);
    wait_for("the refusal", PATIENCE, || {
        let query =
            "SELECT sqlstate FROM clip_failures WHERE key = '2' AND NOT dead AND retry_at > failed_at";
        let row = client.query_opt(query, &[]).expect("a query");
        row.map(|row| assert_eq!(row.get::<_, &str>(0), "23514"))
    });
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 2);
    run(&mut client, "ALTER TABLE image_embeddings DROP CONSTRAINT none");
    wait_for_the_queue(&mut client);
    assert_eq!(value::<i64>(&mut client, WRONG), 0);

    run(&mut client, "ALTER TABLE image_embeddings RENAME checksum TO digest");
    store(&mut client, &demo_photos()[3..4]);
    // An error of the table is no photo's fault: the photo waits, its owner sees why, and it goes on by itself.
    wait_until("the reason is shown", PATIENCE, || {
        let query =
            "SELECT count(*) FROM clip_failures WHERE sqlstate = '42703' AND NOT dead AND attempts = 0
            AND message LIKE '%\"checksum\"%' AND retry_at > failed_at";
        value::<i64>(&mut client, query) == 1
    });
    run(&mut client, "ALTER TABLE image_embeddings RENAME digest TO checksum");
    wait_for_the_queue(&mut client);
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
    assert!(!cluster.log().contains("reinitializing"));
}

/// `cargo xtask bench disk` fills a disk; here a trigger says what PostgreSQL says then.
#[test]
fn a_full_disk_costs_no_attempt() {
    let cluster = TestCluster::shared();
    let (state, message) = ("53100", "could not extend file");
    let (_database, mut client) = watched_async(&cluster);
    run(
            &mut client,
            &format!(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
                    $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{state}', MESSAGE = '{message}'; END $$;
                CREATE TRIGGER refuse BEFORE INSERT ON image_embeddings FOR EACH ROW EXECUTE FUNCTION refuse()"
            ),
        );
    store(&mut client, &demo_photos()[..3]);
    wait_until("the reason is shown", PATIENCE, || {
        let query = format!(
            "SELECT count(*) FROM clip_failures WHERE sqlstate = '{state}' AND NOT dead AND attempts = 0
                AND message LIKE '%{message}%' AND retry_at > failed_at"
        );
        value::<i64>(&mut client, &query) == 3
    });
    run(&mut client, "DROP TRIGGER refuse ON image_embeddings");
    wait_for_the_queue(&mut client);
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
}

#[test]
fn a_locked_target_is_waited_for() {
    let cluster = TestCluster::shared();
    let (database, mut client) = watched_async(&cluster);
    let mut locker = database.connect();
    run(&mut locker, "BEGIN; LOCK TABLE image_embeddings");
    store(&mut client, &demo_photos()[..3]);
    let given_back =
        "SELECT count(*) FROM clip_queue WHERE NOT claimed AND attempts = 0 AND run_at > enqueued_at";
    wait_until("the photos are put off", PATIENCE, || value::<i64>(&mut client, given_back) == 3);
    run(&mut locker, "COMMIT");
    wait_for_the_queue(&mut client);
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
}

#[test]
fn a_retry_of_all_tables_waits_for_no_open_transaction() {
    let cluster = TestCluster::shared();
    let (database, mut client) = watched_async(&cluster);
    store(&mut client, &[b"broken".to_vec(), b"broken too".to_vec()]);
    wait_for_the_queue(&mut client);
    let mut holder = database.connect();
    run(&mut holder, "BEGIN; UPDATE photos SET image = image || '\\x00' WHERE id = 1");
    run(&mut client, "SET lock_timeout = '5s'");
    assert_eq!(value::<i64>(&mut client, "SELECT clip_retry()"), 1, "the photo that is not locked");
    assert_eq!(
        failure(&mut client, "SELECT clip_retry('photos', '1')", &[]),
        "55P03",
        "a named one is waited for"
    );
    run(&mut holder, "ROLLBACK");
    assert_eq!(value::<i64>(&mut client, "SELECT clip_retry('photos', '1')"), 1);
    wait_for_the_queue(&mut client);
}

#[test]
fn a_model_that_is_no_name_costs_no_attempt() {
    let cluster = TestCluster::preloaded();
    let (database, mut client) = watched_async(&cluster);
    run(&mut client, &format!("ALTER DATABASE {} SET clip.model = '../x'", database.name()));
    store(&mut client, &demo_photos()[..1]);
    wait_until("the queue waits", PATIENCE, || cluster.log().contains("\"../x\" is not the name of a model"));
    let waiting = "SELECT count(*) FROM clip_queue WHERE attempts = 0 AND NOT claimed AND NOT dead";
    wait_until("the photo waits", PATIENCE, || value::<i64>(&mut client, waiting) == 1);
    run(&mut client, &format!("ALTER DATABASE {} RESET clip.model", database.name()));
    wait_for_the_queue(&mut client);
    let embedded = "SELECT count(*) FROM image_embeddings WHERE model LIKE 'demo@%'";
    assert_eq!(value::<i64>(&mut client, embedded), 1);
}

#[test]
fn a_project_column_that_was_renamed_is_named_while_its_photos_wait() {
    let cluster = TestCluster::shared();
    let (_database, mut client) = watched_async(&cluster);
    for (table, photo) in [("photos", 0), ("image_embeddings", 1)] {
        run(&mut client, &format!("ALTER TABLE {table} RENAME project TO album"));
        store(&mut client, &demo_photos()[photo..=photo]);
        wait_until("the reason is shown", PATIENCE, || {
            let query =
                "SELECT count(*) FROM clip_failures WHERE sqlstate = '42703' AND NOT dead AND attempts = 0
                AND message LIKE '%\"project\"%'";
            value::<i64>(&mut client, query) == 1
        });
        let pause = "SELECT count(*) FROM clip_coverage WHERE waits_for LIKE '%\"project\"%'";
        wait_until("and why the table waits", PATIENCE, || value::<i64>(&mut client, pause) == 1);
        run(&mut client, &format!("ALTER TABLE {table} RENAME album TO project; SELECT clip_retry()"));
        wait_for_the_queue(&mut client);
    }
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
}
