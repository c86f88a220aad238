//! Keys are compared by their type: no setting of a session, and no other spelling of an equal key, loses a vector
//! or leaves one behind.

use pg_clip_tests::isolation::Sessions;
use pg_clip_tests::{
    PATIENCE, Signal, TestCluster, embedder, failure, run, send, value, wait_for_the_queue, wait_until,
    working_worker,
};
use postgres::Client;

use super::pairs::database;

/// A table with a key of this type, filled and embedded by a backfill in a session with these settings.
fn backfilled(cluster: &TestCluster, key_type: &str, mode: &str, keys: &str, settings: &str) -> Client {
    let mut client = database(cluster).connect();
    run(
        &mut client,
        &format!(
            "CREATE TABLE photos (id {key_type} PRIMARY KEY, image bytea);
            INSERT INTO photos SELECT key::{key_type}, image FROM pictures, unnest(ARRAY[{keys}]) AS key WHERE number = 0;
            SELECT clip_watch('photos', mode => '{mode}'); {settings}"
        ),
    );
    run(&mut client, "CALL clip_backfill('photos')");
    client
}

/// Photos without a vector, vectors without a photo, and vectors that are not of their photo.
/// Two joins and no full one, which not each type's `=` allows.
const WRONG: &str = "SELECT
    (SELECT count(*) FROM photos LEFT JOIN image_embeddings AS e ON e.image_id = photos.id
        WHERE checksum IS DISTINCT FROM sha256(image))
    + (SELECT count(*) FROM image_embeddings AS e LEFT JOIN photos ON e.image_id = photos.id
        WHERE checksum IS DISTINCT FROM sha256(image))";

#[track_caller]
fn check(client: &mut Client, embedded: i64) {
    wait_for_the_queue(client);
    assert_eq!(value::<i64>(client, WRONG), 0, "photos and vectors that do not fit");
    assert_eq!(value::<i64>(client, "SELECT count(*) FROM image_embeddings"), embedded);
}

#[test]
fn dates_are_keys_in_every_style() {
    let cluster = TestCluster::shared();
    for mode in ["sync", "async"] {
        for style in ["SQL, DMY", "SQL, MDY", "Postgres, DMY", "German"] {
            let settings = format!("SET DateStyle = '{style}'");
            let mut client =
                backfilled(&cluster, "date", mode, "'2026-12-11', '2026-01-31', 'infinity'", &settings);
            check(&mut client, 3);
            run(
                &mut client,
                "UPDATE photos SET image = (SELECT image FROM pictures WHERE number = 1) WHERE id = make_date(2026, 12, 11);
                DELETE FROM photos WHERE id = make_date(2026, 1, 31)",
            );
            check(&mut client, 2);
        }
    }
}

#[test]
fn moments_are_keys_in_every_time_zone() {
    let cluster = TestCluster::shared();
    for mode in ["sync", "async"] {
        let mut client = backfilled(
            &cluster,
            "timestamptz",
            mode,
            "'2026-07-01 12:00:00+00', '2026-07-02 12:00:00+00'",
            "SET TimeZone = 'Asia/Kolkata'",
        );
        check(&mut client, 2);
        run(
            &mut client,
            "SET TimeZone = 'America/St_Johns'; SET DateStyle = 'SQL, DMY';
            INSERT INTO photos SELECT '2026-07-03 00:00:00+00', image FROM pictures WHERE number = 1;
            SET TimeZone = 'UTC'; DELETE FROM photos WHERE id < '2026-07-02 00:00:00+00' OR id > '2026-07-03 00:00:00-01'",
        );
        check(&mut client, 2);
        // The job is written under one time zone, and the photo deleted under another while it waits.
        run(
            &mut client,
            "BEGIN; SET LOCAL TimeZone = 'Asia/Kolkata';
            UPDATE photos SET image = (SELECT image FROM pictures WHERE number = 2);
            SET LOCAL TimeZone = 'UTC'; DELETE FROM photos WHERE id > '2026-07-02 13:00:00+00'; COMMIT",
        );
        check(&mut client, 1);
    }
}

#[test]
fn another_spelling_of_an_equal_key_keeps_the_vector() {
    let cluster = TestCluster::shared();
    for mode in ["sync", "async"] {
        for (key_type, key, other) in [
            ("numeric", "'1.0'", "'1.00'"),
            ("bpchar", "'a'", "'a  '"),
            ("interval", "'1 day'", "'24 hours'"),
            ("float8", "'0'", "'-0'"),
        ] {
            let mut client = backfilled(&cluster, key_type, mode, key, "");
            check(&mut client, 1);
            run(&mut client, &format!("UPDATE photos SET id = {other}"));
            check(&mut client, 1);
            run(
                &mut client,
                &format!(
                    "UPDATE photos SET id = {key}, image = (SELECT image FROM pictures WHERE number = 1)"
                ),
            );
            check(&mut client, 1);
            run(&mut client, &format!("DELETE FROM photos WHERE id = {other}"));
            check(&mut client, 0);
        }
    }
}

/// The worker has claimed a photo whose key has another spelling than it has where the photo is deleted.
#[test]
fn an_open_delete_keeps_the_worker_off_a_key_of_another_spelling() {
    let cluster = TestCluster::preloaded();
    for (key_type, key, respell) in [
        ("timestamptz", "2026-07-01 12:00:00+00", "SET TimeZone = 'Asia/Kolkata'"),
        ("date", "2026-12-11", "SET DateStyle = 'SQL, DMY'"),
        ("numeric", "1.0", "UPDATE photos SET id = 1.00"),
        ("bpchar", "a", "UPDATE photos SET id = 'a  '"),
    ] {
        let database = database(&cluster);
        let mut client = database.connect();
        run(
            &mut client,
            &format!(
                "SET TimeZone = 'UTC'; CREATE TABLE photos (id {key_type} PRIMARY KEY, image bytea);
                SELECT clip_watch('photos', mode => 'async')"
            ),
        );
        let embedder = embedder(&mut client);
        send(embedder, Signal::SIGSTOP);
        let insert = format!("INSERT INTO photos SELECT '{key}', image FROM pictures WHERE number = 0");
        run(&mut client, &insert);
        working_worker(&mut client);
        let mut sessions = Sessions::new(&database);
        sessions.run("other", respell);
        sessions.run("other", "BEGIN");
        sessions.run("other", "DELETE FROM photos");
        send(embedder, Signal::SIGCONT);
        // A photo that is stored after it, in another table, is embedded after it.
        let later: i64 =
            value(&mut client, "INSERT INTO later (image) SELECT image FROM pictures LIMIT 1 RETURNING id");
        wait_until("the queue has been at the photo", PATIENCE, || {
            value(
                &mut client,
                &format!("SELECT EXISTS (SELECT FROM later_embeddings WHERE image_id = {later})"),
            )
        });
        sessions.run("other", "COMMIT");
        check(&mut client, 0);
    }
}

/// pgvector's own type stands for the types of other extensions: its `=` is not in `pg_catalog`.
#[test]
fn a_key_may_be_of_an_extensions_type() {
    let cluster = TestCluster::shared();
    for mode in ["sync", "async"] {
        let mut client = backfilled(&cluster, "vector(2)", mode, "'[1,2]', '[3,4]'", "");
        check(&mut client, 2);
        run(
            &mut client,
            "UPDATE photos SET image = (SELECT image FROM pictures WHERE number = 1) WHERE id = '[1,2]';
            UPDATE photos SET id = '[5,6]' WHERE id = '[3,4]'",
        );
        check(&mut client, 2);
        run(&mut client, "DELETE FROM photos WHERE id = '[5,6]'");
        check(&mut client, 1);
    }
}

/// A type that takes no note of case, as citext does: its operators are in no schema of PostgreSQL's, and equal keys have
/// different texts.
const CASELESS: &str = "CREATE SCHEMA types; CREATE TYPE types.caseless;
    CREATE FUNCTION types.caseless_in(cstring) RETURNS types.caseless LANGUAGE internal IMMUTABLE STRICT AS 'textin';
    CREATE FUNCTION types.caseless_out(types.caseless) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
    CREATE TYPE types.caseless (INPUT = types.caseless_in, OUTPUT = types.caseless_out, LIKE = text);
    CREATE CAST (types.caseless AS text) WITHOUT FUNCTION;
    CREATE FUNCTION types.compare(types.caseless, types.caseless) RETURNS int LANGUAGE sql IMMUTABLE STRICT AS
        $$ SELECT pg_catalog.bttextcmp(pg_catalog.lower($1::text), pg_catalog.lower($2::text)) $$;
    CREATE FUNCTION types.lt(types.caseless, types.caseless) RETURNS bool LANGUAGE sql IMMUTABLE STRICT AS
        $$ SELECT types.compare($1, $2) < 0 $$;
    CREATE FUNCTION types.le(types.caseless, types.caseless) RETURNS bool LANGUAGE sql IMMUTABLE STRICT AS
        $$ SELECT types.compare($1, $2) <= 0 $$;
    CREATE FUNCTION types.eq(types.caseless, types.caseless) RETURNS bool LANGUAGE sql IMMUTABLE STRICT AS
        $$ SELECT types.compare($1, $2) = 0 $$;
    CREATE FUNCTION types.ge(types.caseless, types.caseless) RETURNS bool LANGUAGE sql IMMUTABLE STRICT AS
        $$ SELECT types.compare($1, $2) >= 0 $$;
    CREATE FUNCTION types.gt(types.caseless, types.caseless) RETURNS bool LANGUAGE sql IMMUTABLE STRICT AS
        $$ SELECT types.compare($1, $2) > 0 $$;
    CREATE OPERATOR types.< (FUNCTION = types.lt, LEFTARG = types.caseless, RIGHTARG = types.caseless);
    CREATE OPERATOR types.<= (FUNCTION = types.le, LEFTARG = types.caseless, RIGHTARG = types.caseless);
    CREATE OPERATOR types.= (FUNCTION = types.eq, LEFTARG = types.caseless, RIGHTARG = types.caseless, MERGES);
    CREATE OPERATOR types.>= (FUNCTION = types.ge, LEFTARG = types.caseless, RIGHTARG = types.caseless);
    CREATE OPERATOR types.> (FUNCTION = types.gt, LEFTARG = types.caseless, RIGHTARG = types.caseless);
    CREATE OPERATOR CLASS types.caseless_ops DEFAULT FOR TYPE types.caseless USING btree AS
        OPERATOR 1 types.<, OPERATOR 2 types.<=, OPERATOR 3 types.=, OPERATOR 4 types.>=, OPERATOR 5 types.>,
        FUNCTION 1 types.compare(types.caseless, types.caseless);";

#[test]
fn another_case_of_an_equal_key_keeps_the_vector() {
    let cluster = TestCluster::preloaded();
    for mode in ["sync", "async"] {
        let database = database(&cluster);
        let mut client = database.connect();
        run(&mut client, CASELESS);
        run(
            &mut client,
            &format!(
                "CREATE TABLE photos (id types.caseless PRIMARY KEY, image bytea);
                INSERT INTO photos SELECT 'Cafe', image FROM pictures WHERE number = 0;
                INSERT INTO photos SELECT 'Bar', image FROM pictures WHERE number = 1;
                SELECT clip_watch('photos', mode => '{mode}')"
            ),
        );
        run(&mut client, "CALL clip_backfill('photos')");
        wait_for_the_queue(&mut client);
        let wrong = WRONG.replace(" = photos.id", " OPERATOR(types.=) photos.id");
        let check = |client: &mut Client, what: &str, expected: i64| {
            wait_for_the_queue(client);
            assert_eq!(value::<i64>(client, &wrong), 0, "{mode}: {what}");
            assert_eq!(
                value::<i64>(client, "SELECT count(*) FROM image_embeddings"),
                expected,
                "{mode}: {what}"
            );
        };
        check(&mut client, "filled in", 2);
        run(&mut client, "UPDATE photos SET id = 'CAFE'::types.caseless WHERE id::text = 'Cafe'");
        check(&mut client, "another case", 2);
        run(
            &mut client,
            "UPDATE photos SET id = 'cafe', image = (SELECT image FROM pictures WHERE number = 1) WHERE id::text = 'CAFE';
            UPDATE photos SET image = (SELECT image FROM pictures WHERE number = 2) WHERE id::text = 'Bar'",
        );
        check(&mut client, "other bytes under another case", 2);
        // Both spellings have a job while the photo changes between them.
        run(
            &mut client,
            "BEGIN; UPDATE photos SET image = image || '\\x00', id = 'BAR' WHERE id::text = 'Bar';
            UPDATE photos SET image = image || '\\x01', id = 'bar' WHERE id::text = 'BAR'; COMMIT",
        );
        check(&mut client, "two spellings in one transaction", 2);
        run(
            &mut client,
            "DELETE FROM photos WHERE id OPERATOR(types.=) 'CaFE';
            INSERT INTO photos SELECT 'BAR', image FROM pictures WHERE number = 3
            ON CONFLICT (id) DO UPDATE SET image = EXCLUDED.image",
        );
        check(&mut client, "deleted, and an upsert", 1);
        run(&mut client, "CALL clip_backfill('photos', verify => true)");
        run(&mut client, "DELETE FROM photos");
        check(&mut client, "emptied", 0);
    }
}

#[test]
fn a_key_that_is_not_unique_is_refused() {
    let cluster = TestCluster::shared();
    let mut client = database(&cluster).connect();
    run(&mut client, "CREATE TABLE photos (id int PRIMARY KEY, album int, shelf int, image bytea)");
    let watch = "SELECT clip_watch('photos', key_column => 'album')";
    for almost in [
        "SELECT 1",
        "CREATE INDEX one ON photos (album)",
        "CREATE UNIQUE INDEX two ON photos (album, shelf)",
        "CREATE UNIQUE INDEX three ON photos (album) WHERE album > 0",
    ] {
        run(&mut client, almost);
        assert_eq!(failure(&mut client, watch, &[]), "55000", "after {almost}");
    }
    run(
        &mut client,
        "CREATE UNIQUE INDEX four ON photos (album); SELECT clip_watch('photos', key_column => 'album')",
    );
}

/// Of two keys that are equal, an index by another operator class may have both.
#[test]
fn a_key_that_is_unique_by_another_equality_is_refused() {
    let cluster = TestCluster::shared();
    let mut client = database(&cluster).connect();
    run(
        &mut client,
        "CREATE TYPE size AS (width numeric); CREATE TABLE photos (id size, image bytea);
        CREATE TABLE image_embeddings (image_id size, embedding vector(512), checksum bytea, model text);
        CREATE UNIQUE INDEX by_bytes ON photos (id record_image_ops);
        CREATE UNIQUE INDEX target_by_bytes ON image_embeddings (image_id record_image_ops);
        INSERT INTO photos VALUES (ROW(1.0), NULL), (ROW(1.00), NULL)",
    );
    let watch = "SELECT clip_watch('photos', key_column => 'id')";
    assert_eq!(failure(&mut client, watch, &[]), "55000", "the source's index");
    run(&mut client, "DELETE FROM photos; CREATE UNIQUE INDEX by_value ON photos (id)");
    assert_eq!(failure(&mut client, watch, &[]), "55000", "the target's index");
    run(&mut client, "CREATE UNIQUE INDEX target_by_value ON image_embeddings (image_id)");
    run(&mut client, watch);
    // What is changed afterwards counts as well.
    run(&mut client, "DROP INDEX by_value");
    let insert = "INSERT INTO photos SELECT ROW(1)::size, image FROM pictures WHERE number = 0";
    assert_eq!(failure(&mut client, insert, &[]), "55000");
    run(&mut client, "CREATE UNIQUE INDEX ON photos (id)");
    run(&mut client, insert);
    check(&mut client, 1);

    // Texts are equal by their bytes in each collation that is deterministic.
    for (number, index) in
        ["(id text_pattern_ops)", "(id COLLATE \"C\")", "(id COLLATE \"POSIX\" varchar_ops)"]
            .iter()
            .enumerate()
    {
        run(
            &mut client,
            &format!(
                "CREATE TABLE texts_{number} (id text, image bytea); CREATE UNIQUE INDEX ON texts_{number} {index};
                SELECT clip_watch('texts_{number}', 'texts_{number}_embeddings', key_column => 'id')"
            ),
        );
    }
}

#[test]
fn a_key_that_changes_its_collation_waits_until_both_tables_have_it() {
    let cluster = TestCluster::shared();
    let mut client = database(&cluster).connect();
    run(
        &mut client,
        "CREATE TABLE photos (id text PRIMARY KEY, image bytea); SELECT clip_watch('photos', mode => 'async');
        ALTER TABLE photos ALTER COLUMN id TYPE text COLLATE \"POSIX\";
        INSERT INTO photos SELECT 'a', image FROM pictures WHERE number = 0",
    );
    wait_until("its owner sees why it waits", PATIENCE, || {
        let why = "SELECT count(*) FROM clip_failures WHERE sqlstate = '42804' AND NOT dead AND attempts = 0
            AND message LIKE '%public.photos%public.image_embeddings%collation%'";
        value::<i64>(&mut client, why) == 1
    });
    assert_eq!(failure(&mut client, "DELETE FROM photos", &[]), "42804");
    run(
        &mut client,
        "ALTER TABLE image_embeddings ALTER COLUMN image_id TYPE text COLLATE \"POSIX\"; SELECT clip_retry()",
    );
    check(&mut client, 1);
    run(&mut client, "DELETE FROM photos");
    check(&mut client, 0);
}
