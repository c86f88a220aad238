//! Roles and tables beside one another: a transaction that is left open holds up the photos that it holds, and no others.

use std::fmt::Write;

use pg_clip_tests::isolation::{Sessions, Step};
use pg_clip_tests::{
    PATIENCE, Signal, TestCluster, TestDatabase, cluster_of_two_models, demo_photos, embedder, run, send,
    value, wait_until, working_worker,
};
use postgres::Client;

/// Two roles' tables that are watched in async mode, and the pictures to fill them.
fn two_roles(cluster: &TestCluster) -> TestDatabase {
    let database = cluster.database();
    let mut client = database.connect();
    run(
        &mut client,
        "CREATE TABLE pictures (number int PRIMARY KEY, image bytea); GRANT SELECT ON pictures TO PUBLIC",
    );
    let insert = "INSERT INTO pictures SELECT number - 1, image FROM unnest($1::bytea[]) WITH ORDINALITY AS t (image, number)";
    client.execute(insert, &[&&demo_photos()[..4]]).expect("the pictures are stored");
    let mut create = String::new();
    for role in ["first", "second"] {
        write!(
            create,
            "CREATE ROLE {role}; CREATE SCHEMA {role} AUTHORIZATION {role};
            GRANT ALL ON SCHEMA public TO {role}; SET ROLE {role};
            CREATE TABLE {role}.photos (id int PRIMARY KEY, project text, image bytea);
            SELECT clip_watch('{role}.photos', mode => 'async'); RESET ROLE;"
        )
        .expect("memory");
    }
    run(&mut client, &create);
    database
}

/// Stores photos of the other role, and waits for their vectors.
fn embed_of_second(client: &mut Client, from: i32, count: i32) {
    let last = from + count - 1;
    for id in from..=last {
        run(
            client,
            &format!("INSERT INTO second.photos SELECT {id}, 'p', image FROM pictures WHERE number = 1"),
        );
        wait_until("the second role's photo is embedded", PATIENCE, || {
            let query = format!("SELECT EXISTS (SELECT FROM second.image_embeddings WHERE image_id = {id})");
            value(client, &query)
        });
    }
}

#[test]
fn an_open_delete_of_claimed_photos_holds_up_no_other_photo() {
    // The log names each process that waits for a lock, so that waits can be counted.
    let cluster = TestCluster::preloaded_with(&[("log_lock_waits", "on"), ("deadlock_timeout", "10ms")]);
    let database = two_roles(&cluster);
    let mut client = database.connect();
    let embedder = embedder(&mut client);
    // The embedder is held so that the photos are claimed, and not embedded, when they are deleted.
    send(embedder, Signal::SIGSTOP);
    run(
        &mut client,
        "INSERT INTO first.photos SELECT id, 'p', image || int4send(id)
        FROM pictures, generate_series(1, 64) AS id WHERE number = 0",
    );
    working_worker(&mut client);
    let mut sessions = Sessions::new(&database);
    sessions.run("first", "BEGIN; SET ROLE first");
    let step = sessions.start("first", "DELETE FROM first.photos");
    assert_eq!(step, Step::Done);
    send(embedder, Signal::SIGCONT);
    embed_of_second(&mut client, 1, 3);
    // No session but the queue's worker has anything to wait for here.
    let waits = cluster.log().matches("still waiting for").count();
    assert!(waits <= 2, "the queue has waited {waits} times for one transaction");
    sessions.run("first", "COMMIT");
    drop(sessions);
    drop(client);
}

#[test]
fn a_job_that_is_locked_does_not_keep_the_worker_busy() {
    let cluster = TestCluster::preloaded();
    let database = two_roles(&cluster);
    let mut client = database.connect();
    let embedder = embedder(&mut client);
    send(embedder, Signal::SIGSTOP);
    run(
        &mut client,
        "INSERT INTO first.photos SELECT id, 'p', image FROM pictures, generate_series(1, 100) AS id WHERE number = 0",
    );
    let worker = working_worker(&mut client);
    // Jobs that are due while the worker is held, and locked until the end of this transaction.
    let mut sessions = Sessions::new(&database);
    sessions.run(
        "first",
        "BEGIN; UPDATE first.photos SET image = (SELECT image FROM pictures WHERE number = 2)
        WHERE id IN (SELECT key::int FROM clip_queue WHERE NOT claimed)",
    );
    let open = "SELECT count(*) FROM clip_queue WHERE NOT claimed AND source = 'first.photos'::regclass";
    let open: i64 = value(&mut client, open);
    assert!(open > 0, "no job is open");
    send(embedder, Signal::SIGCONT);
    embed_of_second(&mut client, 1, 1);
    wait_until("the other photos are embedded", PATIENCE, || {
        value::<i64>(&mut client, "SELECT count(*) FROM first.image_embeddings") == 100 - open
    });
    // Nothing is to be done now but to look again, once a second. On a slow machine looks come later, never earlier.
    let looked = format!(
        "SELECT extract(epoch FROM since)::float8 FROM clip_workers WHERE pid = {worker} AND state = 'idle'"
    );
    let mut looks: Vec<f64> = Vec::new();
    wait_until("the worker has looked four times", PATIENCE, || {
        let at: Option<f64> = client.query_opt(&looked, &[]).expect("a query").map(|row| row.get(0));
        looks.extend(at.filter(|at| looks.last() != Some(at)));
        looks.len() == 4
    });
    let seconds = looks[3] - looks[0];
    assert!(seconds > 1.5, "four looks within {seconds} seconds while nothing was to be done");
    sessions.run("first", "COMMIT");
    wait_until("the photos are embedded", PATIENCE, || {
        value::<i64>(&mut client, "SELECT count(*) FROM first.image_embeddings") == 100
    });
}

#[test]
fn the_first_photo_of_a_table_holds_up_no_other() {
    let cluster = TestCluster::shared();
    let database = cluster.database();
    let mut client = database.connect();
    run(
        &mut client,
        "CREATE TABLE photos (id int PRIMARY KEY, project text, image bytea); SELECT clip_watch('photos');
        CREATE TABLE pictures (number int PRIMARY KEY, image bytea)",
    );
    let insert = "INSERT INTO pictures SELECT number - 1, image FROM unnest($1::bytea[]) WITH ORDINALITY AS t (image, number)";
    client.execute(insert, &[&&demo_photos()[..4]]).expect("the pictures are stored");
    let mut sessions = Sessions::new(&database);
    sessions.run("first", "BEGIN; INSERT INTO photos SELECT 1, 'p', image FROM pictures WHERE number = 0");
    sessions.run("second", "INSERT INTO photos SELECT 2, 'p', image FROM pictures WHERE number = 1");
    sessions.run("third", "BEGIN; INSERT INTO photos SELECT 3, 'p', image FROM pictures WHERE number = 0");
    sessions.run("first", "ROLLBACK");
    sessions.run("third", "COMMIT");
    let keys = "SELECT array_agg(image_id ORDER BY image_id) FROM image_embeddings";
    assert_eq!(value::<Vec<i32>>(&mut client, keys), [2, 3]);
}

/// A watch that was made while the embedder did not answer does not know its model yet.
#[test]
fn the_first_photo_of_a_table_without_a_model_holds_up_no_other() {
    let cluster = cluster_of_two_models();
    let database = cluster.database();
    let mut client = database.connect();
    let insert = "INSERT INTO pictures SELECT number - 1, image FROM unnest($1::bytea[]) WITH ORDINALITY AS t (image, number)";
    run(
        &mut client,
        "CREATE TABLE photos (id int PRIMARY KEY, project text, image bytea); SELECT clip_watch('photos');
        CREATE TABLE pictures (number int PRIMARY KEY, image bytea); UPDATE clip_watches SET model = NULL",
    );
    client.execute(insert, &[&&demo_photos()[..4]]).expect("the pictures are stored");
    let photo =
        |id: i32| format!("INSERT INTO photos SELECT {id}, 'p', image FROM pictures WHERE number = {id} % 4");
    let known = "SELECT split_part(model, '@', 1) FROM clip_watches";
    let mut sessions = Sessions::new(&database);
    sessions.run("first", &format!("BEGIN; {}; {}", photo(1), photo(2)));
    sessions.run("second", &photo(3));
    assert_eq!(value::<Option<String>>(&mut client, known).as_deref(), Some("demo"));
    sessions.run("third", &format!("BEGIN; {}", photo(4)));
    sessions.run("first", "COMMIT");
    sessions.run("third", "ROLLBACK");
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 3);

    // Whoever commits first decides, and a savepoint that is given up decides nothing.
    run(&mut client, "DELETE FROM photos; UPDATE clip_watches SET model = NULL");
    sessions.run("first", "SET clip.model = 'other'");
    sessions.run("first", &format!("BEGIN; SAVEPOINT one; {}; ROLLBACK TO one", photo(1)));
    sessions.run("second", &photo(2));
    sessions.run("first", "COMMIT");
    run(&mut client, "DELETE FROM photos; UPDATE clip_watches SET model = NULL");
    sessions.run("first", &format!("BEGIN; {}", photo(1)));
    assert_eq!(sessions.failure("first", &format!("SET LOCAL clip.model = 'demo'; {}", photo(2))), "55000");
    sessions.run("first", &format!("ROLLBACK; BEGIN; {}", photo(1)));
    sessions.run("second", &photo(2));
    assert_eq!(sessions.failure("first", "COMMIT"), "55000");
    let models = "SELECT string_agg(DISTINCT split_part(model, '@', 1), ' ') FROM image_embeddings";
    assert_eq!(value::<String>(&mut client, models), "demo");
    assert_eq!(value::<Option<String>>(&mut client, known).as_deref(), Some("demo"));
}

#[test]
fn the_first_watch_of_a_database_holds_up_no_other() {
    let cluster = TestCluster::shared();
    let database = cluster.database();
    let mut client = database.connect();
    run(
        &mut client,
        "CREATE TABLE a (id int PRIMARY KEY, image bytea); CREATE TABLE b (LIKE a INCLUDING ALL)",
    );
    let known = "SELECT string_agg(model, ' ') FROM clip_database_model";
    let mut sessions = Sessions::new(&database);
    for (end, expected) in [("ROLLBACK", None), ("COMMIT", Some("demo".to_owned()))] {
        sessions.run("first", "BEGIN; SELECT clip_watch('a', 'ae')");
        sessions.run("second", "BEGIN; SELECT clip_watch('b', 'be')");
        sessions.run("first", end);
        assert_eq!(value::<Option<String>>(&mut client, known), expected, "{end}");
        sessions.run("second", "ROLLBACK");
    }
    run(&mut client, "SELECT clip_unwatch('a'); DELETE FROM clip_database_model");
    sessions.run("first", "BEGIN; SAVEPOINT one; SELECT clip_watch('a', 'ae'); ROLLBACK TO one; COMMIT");
    assert_eq!(value::<Option<String>>(&mut client, known), None, "nothing is watched");
    sessions.run("first", "BEGIN; SELECT clip_watch('a', 'ae')");
    sessions.run("second", "SELECT clip_watch('b', 'be')");
    assert_eq!(value::<Option<String>>(&mut client, known).as_deref(), Some("demo"));
    sessions.run("first", "COMMIT");
    assert_eq!(value::<Option<String>>(&mut client, known).as_deref(), Some("demo"));
}
