//! In async mode photos are stored at once, and embedded after the commit.

use pg_clip_tests::{
    PATIENCE, Signal, TestCluster, WRONG, demo_photo, demo_photos, embedder, run, send, store, value,
    wait_for_the_queue, wait_until, watched_async, working_worker,
};
use postgres::Client;

#[test]
fn photos_of_eight_sessions_are_embedded_once() {
    let cluster = TestCluster::preloaded();
    let (database, mut client) = watched_async(&cluster);
    let photos = &demo_photos()[..200];
    std::thread::scope(|scope| {
        for some in photos.chunks(25) {
            let mut client = database.connect();
            scope.spawn(move || {
                for photo in some {
                    let insert = "INSERT INTO photos (project, image) VALUES ('kitchen', $1)";
                    client.execute(insert, &[photo]).expect("a photo is stored");
                }
            });
        }
    });
    wait_for_the_queue(&mut client);
    assert_eq!(value::<i64>(&mut client, "SELECT image_inferences FROM clip_status"), 200);
    let kitchens = "SELECT count(*) FROM image_embeddings WHERE project = 'kitchen'";
    assert_eq!(value::<i64>(&mut client, kitchens), 200);
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
}

#[test]
fn a_server_that_has_not_preloaded_the_library_embeds() {
    let cluster = TestCluster::not_preloaded();
    let (_database, mut client) = watched_async(&cluster);
    store(&mut client, &demo_photos()[..5]);
    wait_for_the_queue(&mut client);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 5);
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
}

#[test]
fn embeddings_follow_updates_and_deletes() {
    let cluster = TestCluster::preloaded();
    let (_database, mut client) = watched_async(&cluster);
    let photos = demo_photos();
    store(&mut client, &photos[..6]);
    wait_for_the_queue(&mut client);
    let before: i64 = value(&mut client, "SELECT image_inferences FROM clip_status");

    run(&mut client, "UPDATE photos SET project = 'garden'; UPDATE photos SET image = image || ''");
    assert_eq!(jobs(&mut client), 0, "no bytes changed");
    let gardens = "SELECT count(*) FROM image_embeddings WHERE project = 'garden'";
    assert_eq!(value::<i64>(&mut client, gardens), 6, "the project is carried over at once");

    run(&mut client, "ALTER TABLE photos ALTER id DROP IDENTITY; UPDATE photos SET id = id + 100");
    assert_eq!(jobs(&mut client), 0, "a key that changes takes its vector along");
    assert_eq!(value::<i64>(&mut client, "SELECT min(image_id) FROM image_embeddings"), 101);
    assert_eq!(value::<i64>(&mut client, "SELECT image_inferences FROM clip_status"), before);
    assert_eq!(value::<i64>(&mut client, WRONG), 0);

    client.execute("UPDATE photos SET image = $1 WHERE id = 101", &[&photos[7]]).expect("new bytes");
    wait_for_the_queue(&mut client);
    assert_eq!(value::<i64>(&mut client, WRONG), 0);

    run(&mut client, "UPDATE photos SET image = NULL WHERE id = 102; DELETE FROM photos WHERE id = 103");
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 4);
    run(&mut client, "TRUNCATE photos");
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 0);
}

#[test]
fn a_photo_that_changes_while_it_is_embedded_gets_the_vector_of_its_last_bytes() {
    let cluster = TestCluster::preloaded();
    let (_database, mut client) = watched_async(&cluster);
    let photos = demo_photos();
    run(&mut client, "ALTER TABLE photos ALTER id DROP IDENTITY");
    let insert = "INSERT INTO photos SELECT ordinality, 'kitchen', image
        FROM unnest($1::bytea[]) WITH ORDINALITY AS new (image, ordinality)";
    let stopped = embedder(&mut client);
    send(stopped, Signal::SIGSTOP);
    client.execute(insert, &[&&photos[..8]]).expect("photos are stored");
    working_worker(&mut client);
    client.execute("UPDATE photos SET image = $1 WHERE id = 1", &[&photos[9]]).expect("other bytes");
    run(
        &mut client,
        "UPDATE photos SET project = 'garden' WHERE id = 2;
        DELETE FROM photos WHERE id = 3;
        UPDATE photos SET image = NULL WHERE id = 4;
        UPDATE photos SET id = 50 WHERE id = 5;
        BEGIN; DELETE FROM photos WHERE id = 6; ROLLBACK",
    );
    client
        .execute("WITH gone AS (DELETE FROM photos WHERE id = 7) SELECT $1::bytea", &[&photos[10]])
        .expect("a photo is deleted");
    client.execute("INSERT INTO photos VALUES (7, 'again', $1)", &[&photos[10]]).expect("another comes");
    send(stopped, Signal::SIGCONT);
    wait_for_the_queue(&mut client);
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
    let orphans =
        "SELECT count(*) FROM image_embeddings LEFT JOIN photos ON photos.id = image_id WHERE image IS NULL";
    assert_eq!(value::<i64>(&mut client, orphans), 0);
    let projects = "SELECT count(*) FROM image_embeddings AS e JOIN photos AS p ON p.id = image_id
        WHERE e.project IS DISTINCT FROM p.project";
    assert_eq!(value::<i64>(&mut client, projects), 0);
}

#[test]
fn only_committed_photos_are_embedded() {
    let settings = [("max_prepared_transactions", "5"), ("clip.queue_poll_interval", "1s")];
    let cluster = TestCluster::preloaded_with(&settings);
    let (database, mut client) = watched_async(&cluster);
    let photos = demo_photos();

    let mut transaction = client.transaction().expect("a transaction");
    transaction.execute("INSERT INTO photos (image) VALUES ($1)", &[&photos[0]]).expect("a photo is stored");
    transaction.rollback().expect("a rollback");
    assert_eq!(jobs(&mut client), 0);

    let mut transaction = client.transaction().expect("a transaction");
    transaction.execute("INSERT INTO photos (image) VALUES ($1)", &[&photos[1]]).expect("a photo is stored");
    let mut savepoint = transaction.transaction().expect("a savepoint");
    savepoint.execute("INSERT INTO photos (image) VALUES ($1)", &[&photos[2]]).expect("a photo is stored");
    savepoint.rollback().expect("a rollback");
    transaction.commit().expect("a commit");
    wait_for_the_queue(&mut client);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 1);
    assert_eq!(value::<i64>(&mut client, WRONG), 0);

    let mut other = database.connect();
    run(&mut other, "BEGIN");
    store(&mut other, &photos[3..5]);
    run(&mut other, "PREPARE TRANSACTION 'two photos'");
    assert_eq!(jobs(&mut client), 0);
    run(&mut other, "COMMIT PREPARED 'two photos'");
    wait_for_the_queue(&mut client);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 3);
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
}

#[test]
fn a_photo_has_one_job_however_often_it_changes() {
    let cluster = TestCluster::preloaded();
    let (_database, mut client) = watched_async(&cluster);
    let photos = demo_photos();
    let stopped = embedder(&mut client);
    send(stopped, Signal::SIGSTOP);
    store(&mut client, &photos[..1]);
    for photo in &photos[..100] {
        client.execute("UPDATE photos SET image = $1", &[photo]).expect("other bytes");
    }
    assert_eq!(jobs(&mut client), 1);
    send(stopped, Signal::SIGCONT);
    wait_for_the_queue(&mut client);
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
    let inferences: i64 = value(&mut client, "SELECT image_inferences FROM clip_status");
    assert!(inferences <= 4, "{inferences} inferences for one photo");
}

#[test]
fn the_same_bytes_cost_one_inference() {
    let cluster = TestCluster::preloaded();
    let (_database, mut client) = watched_async(&cluster);
    let photo = demo_photo();
    // More than the embedder has at once.
    store(&mut client, &vec![photo.clone(); 200]);
    wait_for_the_queue(&mut client);
    store(&mut client, &[photo]);
    wait_for_the_queue(&mut client);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 201);
    assert_eq!(value::<i64>(&mut client, "SELECT image_inferences FROM clip_status"), 1);
}

#[test]
fn the_next_photos_are_read_while_the_embedder_has_a_batch() {
    /// The photos that the worker claims at once.
    const BATCH: i64 = 32;
    let cluster = TestCluster::preloaded();
    let (_database, mut client) = watched_async(&cluster);
    let stopped = embedder(&mut client);
    store(&mut client, &demo_photos()[..300]);
    wait_until("photos are embedded", PATIENCE, || {
        value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings") > 0
    });
    send(stopped, Signal::SIGSTOP);
    let claimed = "SELECT count(*) FROM clip_queue WHERE claimed";
    wait_until("a second batch is claimed", PATIENCE, || value::<i64>(&mut client, claimed) == 2 * BATCH);
    // Of both.
    run(
        &mut client,
        "WITH claimed AS (SELECT key::bigint AS id FROM clip_queue WHERE claimed)
        UPDATE photos SET image = image || '\\x00' FROM claimed WHERE photos.id = claimed.id AND photos.id % 3 = 0;
        WITH claimed AS (SELECT key::bigint AS id FROM clip_queue WHERE claimed)
        DELETE FROM photos USING claimed WHERE photos.id = claimed.id AND photos.id % 3 = 1",
    );
    send(stopped, Signal::SIGCONT);
    wait_for_the_queue(&mut client);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM clip_failures"), 0);
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
}

#[test]
fn keys_are_read_as_they_were_written() {
    let cluster = TestCluster::shared();
    let database = cluster.database();
    let mut client = database.connect();
    let keys = [
        ("uuid", "gen_random_uuid()"),
        ("text", "'a \"key\" = ''{1}'', \\ and more'"),
        ("date", "'2026-02-01'"),
        ("timestamptz", "'2026-02-01 03:04:05.678901+09'"),
        ("interval", "'1 month -2 days 3.5 seconds'"),
        ("float8", "0.1::float8 + 0.2"),
        ("bytea", "'\\x00ff5c'"),
    ];
    // As the caller has them, and the worker has not.
    run(
        &mut client,
        "SET datestyle = 'SQL, DMY'; SET intervalstyle = sql_standard; SET extra_float_digits = -5",
    );
    run(&mut client, "SET bytea_output = escape; SET timezone = 'America/St_Johns'");
    for (number, (key_type, key)) in keys.into_iter().enumerate() {
        run(
            &mut client,
            &format!(
                r#"CREATE SCHEMA "Shop ""{number}""";
                CREATE TABLE "Shop ""{number}"""."Customer's photos; --" (
                    "the key" {key_type} PRIMARY KEY DEFAULT {key}, "Project" text, "the ""image""" bytea);
                SELECT clip_watch(
                    '"Shop ""{number}"""."Customer''s photos; --"', target => '"Its ""embeddings"""', mode => 'async',
                    image_column => 'the "image"', project_column => 'Project')"#
            ),
        );
        let insert = format!(
            r#"INSERT INTO "Shop ""{number}"""."Customer's photos; --" ("Project", "the ""image""") VALUES ('p', $1)"#
        );
        client.execute(&insert, &[&demo_photo()]).expect("a photo is stored");
        wait_for_the_queue(&mut client);
        let query = format!(
            r#"SELECT count(*) FROM "Shop ""{number}"""."Customer's photos; --"
            JOIN "Shop ""{number}"""."Its ""embeddings""" AS e ON e.image_id = "the key" AND e.project = "Project"
            WHERE model LIKE 'demo@%'"#
        );
        assert_eq!(value::<i64>(&mut client, &query), 1, "{key_type}");
        let coverage = "SELECT count(*) FROM clip_coverage WHERE photos = 1 AND embedded = 1 AND missing = 0";
        assert_eq!(value::<i64>(&mut client, coverage), i64::try_from(number).expect("a few") + 1);
    }
}

#[test]
fn the_flag_turns_the_queue_off_and_leaves_nothing_stale() {
    let cluster = TestCluster::shared();
    let (_database, mut client) = watched_async(&cluster);
    let photos = demo_photos();
    store(&mut client, &photos[..4]);
    wait_for_the_queue(&mut client);
    run(&mut client, "SET clip.enabled = off");
    store(&mut client, &photos[4..6]);
    client.execute("UPDATE photos SET image = $1 WHERE id = 1", &[&photos[7]]).expect("other bytes");
    run(&mut client, "UPDATE photos SET project = 'garden' WHERE id = 2; DELETE FROM photos WHERE id = 3");
    assert_eq!(jobs(&mut client), 0);
    let embedded = "SELECT array_agg(image_id ORDER BY image_id) FROM image_embeddings";
    assert_eq!(value::<Vec<i64>>(&mut client, embedded), [2, 4]);
    let gardens = "SELECT count(*) FROM image_embeddings WHERE project = 'garden'";
    assert_eq!(value::<i64>(&mut client, gardens), 1);
    assert_eq!(value::<i64>(&mut client, "SELECT missing FROM clip_coverage"), 3);
}

#[test]
fn another_mode_or_no_watch_ends_the_queue() {
    let cluster = TestCluster::preloaded();
    let (_database, mut client) = watched_async(&cluster);
    let photos = demo_photos();
    let stopped = embedder(&mut client);
    send(stopped, Signal::SIGSTOP);
    store(&mut client, &photos[..5]);
    working_worker(&mut client);
    run(&mut client, "SELECT clip_watch('photos'); DELETE FROM photos WHERE id = 1");
    send(stopped, Signal::SIGCONT);
    store(&mut client, &photos[5..6]);
    wait_for_the_queue(&mut client);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 5);
    assert_eq!(value::<i64>(&mut client, WRONG), 0);

    run(&mut client, "SELECT clip_watch('photos', mode => 'async')");
    send(stopped, Signal::SIGSTOP);
    store(&mut client, &photos[6..8]);
    run(&mut client, "SELECT clip_unwatch('photos')");
    assert_eq!(jobs(&mut client), 0);
    send(stopped, Signal::SIGCONT);
}

#[test]
fn coverage_counts_embedded_and_waiting_photos() {
    let cluster = TestCluster::preloaded();
    let (_database, mut client) = watched_async(&cluster);
    let coverage = |client: &mut Client| -> Vec<i64> {
        value(client, "SELECT ARRAY[photos, embedded, missing, stale, queued, failed] FROM clip_coverage")
    };
    assert_eq!(coverage(&mut client), [0, 0, 0, 0, 0, 0]);
    let stopped = embedder(&mut client);
    send(stopped, Signal::SIGSTOP);
    let mut photos = demo_photos()[..9].to_vec();
    photos.push(b"broken".to_vec());
    store(&mut client, &photos);
    run(&mut client, "INSERT INTO photos (image) VALUES (NULL)");
    assert_eq!(coverage(&mut client), [10, 0, 10, 0, 10, 0]);
    assert!(value::<bool>(&mut client, "SELECT oldest_waiting <= now() FROM clip_coverage"));
    send(stopped, Signal::SIGCONT);
    wait_for_the_queue(&mut client);
    assert_eq!(coverage(&mut client), [10, 9, 1, 0, 0, 1]);
    assert!(value::<bool>(&mut client, "SELECT model LIKE 'demo@%' FROM clip_coverage"));
}

fn jobs(client: &mut Client) -> i64 {
    value(client, "SELECT count(*) FROM clip_queue")
}
