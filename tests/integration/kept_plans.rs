//! Plans that a session and the queue worker keep follow changes of the catalogs.

use pg_clip_tests::{
    PATIENCE, Signal, TestCluster, WRONG, demo_photo, demo_photos, embedder, run, send, value,
    wait_for_the_queue, wait_until,
};
use postgres::Client;

const INSERT: &str = "INSERT INTO photos (image) VALUES ($1)";

#[track_caller]
fn insert(client: &mut Client, photo: &[u8]) {
    client.execute(INSERT, &[&photo]).expect("a photo is stored");
    wait_for_the_queue(client);
}

/// Has the tables of this name change places.
fn swap(table: &str) -> String {
    format!(
        "ALTER TABLE one.{table} RENAME TO other; ALTER TABLE one.other SET SCHEMA public;
        ALTER TABLE two.{table} SET SCHEMA one;
        ALTER TABLE public.other SET SCHEMA two; ALTER TABLE two.other RENAME TO {table};"
    )
}

#[test]
fn a_session_follows_tables_and_schemas_that_change_places() {
    let cluster = TestCluster::preloaded();
    for mode in ["sync", "async"] {
        let database = cluster.database();
        let mut client = database.connect();
        for schema in ["one", "two"] {
            run(
                &mut client,
                &format!(
                    "CREATE SCHEMA {schema}; SET search_path = {schema}, public;
                    CREATE TABLE photos (id serial PRIMARY KEY, project text, image bytea);
                    SELECT clip_watch('photos', mode => '{mode}')"
                ),
            );
        }
        let photos = demo_photos();
        let mut photos = photos.iter();
        let swapped = swap("photos") + &swap("image_embeddings");
        // Each change is made by another session, and then photos are stored where the names lead now.
        let changes = [
            "SELECT 1",
            "ALTER SCHEMA one RENAME TO three; ALTER SCHEMA two RENAME TO one; ALTER SCHEMA three RENAME TO two",
            &swapped,
            "ALTER TABLE one.photos ALTER id TYPE bigint; ALTER TABLE one.image_embeddings ALTER image_id TYPE bigint",
            "ALTER TABLE two.photos DROP COLUMN project; ALTER TABLE two.photos ADD project text",
            "ALTER TABLE one.photos ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
            "CREATE ROLE keeper; GRANT CREATE ON SCHEMA two TO keeper; GRANT USAGE ON SCHEMA two TO keeper;
            ALTER TABLE two.photos OWNER TO keeper; ALTER TABLE two.image_embeddings OWNER TO keeper",
        ];
        let mut other = database.connect();
        for change in changes {
            run(&mut other, change);
            for schema in ["one", "two"] {
                run(&mut client, &format!("SET search_path = {schema}, public"));
                for _ in 0..2 {
                    insert(&mut client, photos.next().expect("enough photos"));
                }
                assert_eq!(value::<i64>(&mut client, WRONG), 0, "{mode}: {change}");
            }
        }
        run(&mut other, "DROP OWNED BY keeper CASCADE; DROP ROLE keeper");
    }
}

#[test]
fn an_extension_that_is_made_anew_is_found() {
    let cluster = TestCluster::preloaded();
    let database = cluster.database();
    let mut client = database.connect();
    for schema in ["one", "two", "one"] {
        run(
            &mut client,
            &format!(
                "DROP EXTENSION pg_clip CASCADE; DROP TABLE IF EXISTS photos, image_embeddings;
                CREATE SCHEMA IF NOT EXISTS {schema};
                CREATE EXTENSION pg_clip SCHEMA {schema}; SET search_path = public, {schema};
                CREATE TABLE photos (id serial PRIMARY KEY, image bytea);
                SELECT clip_watch('photos', mode => 'async')"
            ),
        );
        insert(&mut client, &demo_photo());
        assert_eq!(value::<i64>(&mut client, WRONG), 0, "{schema}");
    }
}

#[test]
fn a_session_that_writes_to_many_tables_keeps_few_plans() {
    const TABLES: i32 = 200;
    let cluster = TestCluster::preloaded();
    let database = cluster.database();
    let mut client = database.connect();
    run(
        &mut client,
        &format!(
            "DO $$ BEGIN
                FOR n IN 1..{TABLES} LOOP
                    EXECUTE format('CREATE TABLE photos_%s (id int PRIMARY KEY, image bytea)', n);
                    PERFORM clip_watch(format('photos_%s', n)::regclass, format('vectors_%s', n), mode => 'async');
                END LOOP;
            END $$"
        ),
    );
    let mut writer = database.connect();
    let plans = "SELECT count(*) FROM pg_backend_memory_contexts WHERE name = 'CachedPlanSource'";
    let stopped = embedder(&mut client);
    send(stopped, Signal::SIGSTOP);
    let write = |writer: &mut Client, key: i32| {
        for number in 1..=TABLES {
            run(writer, &format!("INSERT INTO photos_{number} VALUES ({key}, 'x')"));
        }
        value::<i64>(writer, plans)
    };
    let first = write(&mut writer, 1);
    assert!(first < 150, "{first} plans");
    let second = write(&mut writer, 2);
    assert!(second <= first + 1, "{first} plans, then {second}");
    send(stopped, Signal::SIGCONT);
    wait_until("the photos were tried", PATIENCE, || {
        value::<i64>(&mut client, "SELECT count(*) FROM clip_queue WHERE dead") == 2 * i64::from(TABLES)
    });
}
