//! Photos that have no embedding get one, beside other work.

use std::sync::atomic::{AtomicBool, Ordering};

use pg_clip_tests::{
    PATIENCE, Signal, StopOnDrop, TestCluster, TestDatabase, WRONG, demo_jpegs, embedder, failure, run, send,
    store, value, variant, wait_for, wait_until, watched,
};
use postgres::Client;

/// A watched table with so many photos that came while embedding was off, each with bytes of its own.
pub(crate) fn unfilled(cluster: &TestCluster, mode: &str, count: u32) -> (TestDatabase, Client) {
    let (database, mut client) = watched(cluster, mode);
    run(&mut client, "SET clip.enabled = off");
    let jpegs = demo_jpegs();
    let photos: Vec<Vec<u8>> =
        (0..count).map(|number| variant(&jpegs[number as usize % jpegs.len()], number)).collect();
    store(&mut client, &photos);
    run(&mut client, "INSERT INTO photos (image) VALUES (NULL); RESET clip.enabled");
    (database, client)
}

fn embedded(client: &mut Client) -> i64 {
    value(client, "SELECT count(*) FROM image_embeddings")
}

#[test]
fn two_thousand_photos_are_filled_in_under_traffic_kills_and_poison() {
    let cluster = TestCluster::preloaded();
    let (database, mut client) = unfilled(&cluster, "async", 2000);
    run(&mut client, "SET clip.enabled = off");
    store(&mut client, &[b"poison".to_vec(), b"more poison".to_vec()]);
    run(&mut client, "RESET clip.enabled");
    let (stop, oldest) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        let traffic = scope.spawn(|| {
            let mut client = database.connect();
            let jpegs = demo_jpegs();
            for number in 10_000.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                store(&mut client, &[variant(&jpegs[number as usize % 7], number)]);
                run(&mut client, &format!("DELETE FROM photos WHERE id = {}", number - 9_000));
                // Photo by photo: the queue is to be shared, not filled.
                run(&mut client, "SELECT pg_sleep(0.05)");
            }
        });
        for signal in [Signal::SIGINT, Signal::SIGTERM] {
            let mut filling = database.connect();
            let pid: i32 = value(&mut filling, "SELECT pg_backend_pid()");
            let before = embedded(&mut client);
            let call = scope.spawn(move || filling.batch_execute("CALL clip_backfill('photos')"));
            wait_until("some are filled in", PATIENCE, || embedded(&mut client) > before + 100);
            let progress = "SELECT done BETWEEN 1 AND total AND rate > 0 AND eta > now() FROM clip_backfills";
            wait_until("its progress is written down", PATIENCE, || value::<bool>(&mut client, progress));
            // No job waits behind more than a few batches, and no transaction of the call's lasts.
            assert!(value::<i64>(&mut client, "SELECT count(*) FROM clip_queue WHERE NOT dead") < 500);
            let age = format!(
                "SELECT coalesce(max(clock_timestamp() - xact_start) > '5 seconds', false) FROM pg_stat_activity
                WHERE pid = {pid}"
            );
            oldest.fetch_or(value::<bool>(&mut client, &age), Ordering::Relaxed);
            send(u32::try_from(pid).expect("a pid"), signal);
            call.join().expect("the call ends").expect_err("the call was cut short");
            wait_until("the call is no longer listed", PATIENCE, || {
                value::<i64>(&mut client, "SELECT count(*) FROM clip_backfills") == 0
            });
        }
        let twice = [(); 2].map(|()| {
            let mut filling = database.connect();
            scope.spawn(move || filling.batch_execute("CALL clip_backfill('photos')"))
        });
        for call in twice {
            call.join().expect("the call ends").expect("it fills all in");
        }
        stop.store(true, Ordering::Relaxed);
        traffic.join().expect("the traffic");
    });
    assert!(!oldest.load(Ordering::Relaxed), "a transaction is not open for longer than a batch");
    wait_until("the last live photos are embedded", PATIENCE, || {
        value::<i64>(&mut client, "SELECT count(*) FROM clip_queue WHERE NOT dead") == 0
    });
    let unembedded = "SELECT count(*) FROM photos LEFT JOIN image_embeddings ON image_id = photos.id
        WHERE image IS NOT NULL AND image_id IS NULL";
    assert_eq!(value::<i64>(&mut client, unembedded), 2, "the poison");
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM clip_failures"), 2);
    run(&mut client, "DELETE FROM photos WHERE octet_length(image) < 100 OR image IS NULL");
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
}

#[test]
fn a_table_in_sync_mode_is_filled_in_and_verified() {
    let cluster = TestCluster::preloaded();
    let (database, mut client) = unfilled(&cluster, "sync", 40);
    run(&mut client, "CALL clip_backfill('photos')");
    run(&mut client, "DELETE FROM photos WHERE image IS NULL");
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
    let jobs = "SELECT count(*) FROM clip_queue";
    assert_eq!(value::<i64>(&mut client, jobs), 0);
    // Bytes that changed without a trigger are found by reading them.
    run(
        &mut client,
        "ALTER TABLE photos DISABLE TRIGGER ALL; UPDATE photos SET image = image || '\\x01' WHERE id <= 3;
        ALTER TABLE photos ENABLE TRIGGER ALL",
    );
    run(&mut client, "CALL clip_backfill('photos')");
    let outdated = "SELECT count(*) FROM photos JOIN image_embeddings ON image_id = photos.id
        WHERE checksum <> sha256(image)";
    assert_eq!(value::<i64>(&mut client, outdated), 3);
    run(&mut client, "CALL clip_backfill('photos', verify => true)");
    assert_eq!(value::<i64>(&mut client, outdated), 0);

    run(
        &mut client,
        "CREATE ROLE stranger LOGIN; GRANT ALL ON photos TO stranger; CREATE TABLE others (id int PRIMARY KEY)",
    );
    let mut stranger = database.connect_as("stranger");
    for refused in
        ["CALL clip_backfill('photos')", "SELECT clip_verify('photos')", "SELECT * FROM clip_backfill_notes"]
    {
        assert_eq!(failure(&mut stranger, refused, &[]), "42501", "{refused}");
    }
    assert_eq!(value::<i64>(&mut stranger, "SELECT count(*) FROM clip_backfills"), 0);
    drop(stranger);
    assert_eq!(failure(&mut client, "CALL clip_backfill('others')", &[]), "55000");
    assert_eq!(failure(&mut client, "CALL clip_backfill(NULL)", &[]), "22004");
    run(&mut client, "DROP OWNED BY stranger; DROP ROLE stranger");
}

#[test]
fn a_killed_backend_loses_nothing() {
    // Otherwise the crash would take the last commits.
    let cluster = TestCluster::preloaded_with(&[("synchronous_commit", "on")]);
    let (database, mut client) = unfilled(&cluster, "async", 300);
    let mut filling = database.connect();
    let pid: i32 = value(&mut filling, "SELECT pg_backend_pid()");
    std::thread::scope(|scope| {
        let call = scope.spawn(move || filling.batch_execute("CALL clip_backfill('photos')"));
        wait_until("some are filled in", PATIENCE, || embedded(&mut client) > 20);
        send(u32::try_from(pid).expect("a pid"), Signal::SIGKILL);
        call.join().expect("the call ends").expect_err("its backend is gone");
    });
    wait_until("all connections are gone", PATIENCE, || client.is_valid(PATIENCE).is_err());
    let mut client = wait_for("the server takes connections", PATIENCE, || database.try_connect().ok());
    run(&mut client, "CALL clip_backfill('photos')");
    run(&mut client, "DELETE FROM photos WHERE image IS NULL");
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
    assert_eq!(embedded(&mut client), 300);
}

/// The call's count and the number of embeddings, both as one statement sees them.
fn progress(client: &mut Client, embedded_before: i64) -> Option<(i64, i64, i64)> {
    let query = "SELECT done, total, (SELECT count(*) FROM image_embeddings) FROM clip_backfills";
    let row = client.query_opt(query, &[]).expect("a query")?;
    Some((row.get(0), row.get(1), row.get::<_, i64>(2) - embedded_before))
}

#[test]
fn the_progress_is_that_of_photos_that_are_embedded() {
    const MISSING: i64 = 160;
    let cluster = TestCluster::preloaded();
    let (database, mut client) = watched(&cluster, "sync");
    let jpegs = demo_jpegs();
    store(&mut client, &jpegs[..40]);
    run(&mut client, "SET clip.enabled = off");
    let photos: Vec<Vec<u8>> =
        (0..MISSING as u32).map(|number| variant(&jpegs[number as usize % jpegs.len()], number)).collect();
    store(&mut client, &photos);
    run(&mut client, "RESET clip.enabled");
    let stopped = embedder(&mut client);
    std::thread::scope(|scope| {
        send(stopped, Signal::SIGSTOP);
        let call = scope.spawn(|| database.connect().batch_execute("CALL clip_backfill('photos')"));
        let first = wait_for("the call is listed", PATIENCE, || progress(&mut client, 40));
        wait_until("the worker works", PATIENCE, || {
            value::<i64>(&mut client, "SELECT count(*) FROM clip_queue WHERE claimed") > 0
        });
        let then = progress(&mut client, 40);
        let is_unknown = value::<bool>(&mut client, "SELECT rate = 0 AND eta IS NULL FROM clip_backfills");
        // Before anything is asserted: the call must end.
        send(stopped, Signal::SIGCONT);
        assert_eq!(first, (0, MISSING, 0), "what is looked at is not done");
        assert_eq!(then, Some((0, MISSING, 0)), "nor is what waits");
        assert!(is_unknown, "when all will be");
        let (mut before, mut seen) = (0, 0);
        while let Some((done, total, embedded)) = progress(&mut client, 40) {
            assert_eq!(total, MISSING);
            assert!((before..=embedded).contains(&done), "{before} <= {done} <= {embedded}");
            seen += i64::from(done > before);
            before = done;
        }
        assert!(seen > 1, "it was seen to go on");
        call.join().expect("the call ends").expect("it fills all in");
    });
    let verified = "SELECT ARRAY[photos, embedded] FROM clip_verify('photos')";
    assert_eq!(value::<Vec<i64>>(&mut client, verified), [40 + MISSING, 40 + MISSING]);
}

const VERIFIED: &str =
    "SELECT ARRAY[photos, embedded, missing, stale, orphaned, other_project] FROM clip_verify('photos')";

#[test]
fn verify_counts_and_mends_wrong_rows() {
    let cluster = TestCluster::preloaded();
    for mode in ["sync", "async"] {
        let (_database, mut client) = watched(&cluster, mode);
        store(&mut client, &demo_jpegs()[..40]);
        wait_until("all are embedded", PATIENCE, || embedded(&mut client) == 40);
        assert_eq!(value::<Vec<i64>>(&mut client, VERIFIED), [40, 40, 0, 0, 0, 0], "{mode}");
        run(
            &mut client,
            "ALTER TABLE photos DISABLE TRIGGER USER; DELETE FROM photos WHERE id <= 3;
            UPDATE photos SET image = NULL WHERE id = 4; UPDATE photos SET image = image || '\\x01' WHERE id IN (5, 6);
            UPDATE photos SET project = 'garden' WHERE id BETWEEN 7 AND 11; ALTER TABLE photos ENABLE TRIGGER USER;
            DELETE FROM image_embeddings WHERE image_id IN (12, 13)",
        );
        let wrong = [36, 32, 2, 2, 4, 5];
        assert_eq!(value::<Vec<i64>>(&mut client, VERIFIED), wrong, "{mode}");
        assert_eq!(value::<Vec<i64>>(&mut client, VERIFIED), wrong, "counting mends nothing");
        run(&mut client, "CALL clip_backfill('photos')");
        assert_eq!(value::<Vec<i64>>(&mut client, VERIFIED), [36, 34, 0, 2, 4, 5], "{mode}");
        run(&mut client, "CALL clip_backfill('photos', verify => true)");
        assert_eq!(value::<Vec<i64>>(&mut client, VERIFIED), [36, 36, 0, 0, 0, 0], "{mode}");
    }
}

#[test]
fn what_is_null_in_a_target_is_found_and_mended() {
    let cluster = TestCluster::shared();
    let mut client = cluster.database().connect();
    run(
        &mut client,
        "CREATE TABLE photos (id int PRIMARY KEY, image bytea);
        CREATE TABLE image_embeddings (image_id int UNIQUE, embedding vector(512), checksum bytea, model text);
        SELECT clip_watch('photos')",
    );
    let insert = "INSERT INTO photos SELECT number, image FROM unnest($1::bytea[]) WITH ORDINALITY AS t (image, number)";
    client.execute(insert, &[&&demo_jpegs()[..3]]).expect("photos are stored");
    let coverage = "SELECT ARRAY[photos, embedded, missing, stale] FROM ";
    for (column, verified, counted) in [
        ("checksum", [3, 2, 0, 1, 0, 0], [3, 3, 0, 0]),
        ("model", [3, 2, 0, 1, 0, 0], [3, 3, 0, 1]),
        ("embedding", [3, 2, 1, 0, 0, 0], [3, 2, 1, 0]),
    ] {
        for verify in [true, false] {
            if column == "checksum" && !verify {
                continue;
            }
            run(&mut client, &format!("UPDATE image_embeddings SET {column} = NULL WHERE image_id = 1"));
            assert_eq!(value::<Vec<i64>>(&mut client, VERIFIED), verified, "{column}");
            for counts in ["clip_coverage", "clip_count('photos')"] {
                let counts = format!("{coverage}{counts}");
                assert_eq!(value::<Vec<i64>>(&mut client, &counts), counted, "{column}");
            }
            run(&mut client, &format!("CALL clip_backfill('photos', verify => {verify})"));
            assert_eq!(value::<Vec<i64>>(&mut client, VERIFIED), [3, 3, 0, 0, 0, 0], "{column}");
        }
    }
}

/// A photo that cannot be embedded is not searchable by what it was before.
#[test]
fn a_vector_of_unknown_bytes_goes_with_a_photo_that_cannot_be_embedded() {
    let cluster = TestCluster::shared();
    let mut client = cluster.database().connect();
    run(
        &mut client,
        "CREATE TABLE photos (id int PRIMARY KEY, image bytea);
        CREATE TABLE image_embeddings (image_id int UNIQUE, embedding vector(512), checksum bytea, model text);
        SELECT clip_watch('photos', mode => 'async')",
    );
    client.execute("INSERT INTO photos VALUES (1, $1)", &[&demo_jpegs()[0]]).expect("a photo is stored");
    wait_until("it is embedded", PATIENCE, || embedded(&mut client) == 1);
    run(&mut client, "UPDATE image_embeddings SET checksum = NULL; UPDATE photos SET image = 'broken'");
    wait_until("it has failed", PATIENCE, || {
        value::<i64>(&mut client, "SELECT count(*) FROM clip_failures WHERE dead") == 1
    });
    assert_eq!(embedded(&mut client), 0);
}

#[test]
fn keys_of_many_types_are_found_whatever_the_session_prints() {
    let cluster = TestCluster::preloaded();
    let (_database, mut client) = watched(&cluster, "async");
    run(
        &mut client,
        "CREATE TYPE size AS ENUM ('10', '9', '8'); CREATE DOMAIN plate AS text CHECK (value <> '');
        CREATE TYPE place AS (row int, shelf text)",
    );
    let keys = [
        ("date", "date '2024-03-04' + n"),
        ("timestamptz", "timestamptz '2024-10-27 00:30:00+00' + n * interval '1 hour'"),
        ("timestamp", "timestamp '2024-03-04 05:06:07.123456' + n * interval '1 day'"),
        ("interval", "n * interval '-1 day 02:03:04.5'"),
        ("float8", "0.1 + n / 3.0"),
        ("numeric", "n::numeric / 7"),
        ("bytea", "sha256(n::text::bytea)"),
        ("bool", "n % 2 = 0"),
        ("size", "((ARRAY['10', '9', '8'])[n])::size"),
        ("plate", "'a ''\\\"' || n"),
        ("int[]", "ARRAY[n, NULL]"),
        ("place", "ROW(n, 'a, b')::place"),
        ("daterange", "daterange(date '2024-03-04', date '2024-03-04' + n)"),
        ("oid", "n::oid"),
        ("varchar(20)", "n::text"),
    ];
    let count = |key_type: &str| if key_type == "bool" { 2_i64 } else { 3 };
    for (number, (key_type, key)) in keys.iter().enumerate() {
        run(
            &mut client,
            &format!(
                "CREATE TABLE photos_{number} (id {key_type} PRIMARY KEY, image bytea);
                SELECT clip_watch('photos_{number}', 'embeddings_{number}', mode => 'async'); SET clip.enabled = off"
            ),
        );
        let insert = format!(
            "INSERT INTO photos_{number} SELECT {key}, image FROM unnest($1::bytea[]) WITH ORDINALITY AS t (image, place),
                LATERAL (SELECT place::int) AS numbered (n) WHERE n <= {}",
            count(key_type)
        );
        client.execute(&insert, &[&&demo_jpegs()[..3]]).expect(key_type);
        run(
            &mut client,
            "RESET clip.enabled; SET DateStyle = 'SQL, DMY'; SET TimeZone = 'Europe/Berlin';
            SET IntervalStyle = sql_standard; SET extra_float_digits = -3; SET bytea_output = escape;
            SET default_transaction_isolation = serializable",
        );
        for verify in [false, true] {
            run(&mut client, &format!("CALL clip_backfill('photos_{number}', verify => {verify})"));
        }
        let verified = format!("SELECT ARRAY[photos, embedded] FROM clip_verify('photos_{number}')");
        assert_eq!(value::<Vec<i64>>(&mut client, &verified), [count(key_type); 2], "{key_type}");
    }
}

/// As those of citext and ltree.
#[test]
fn keys_whose_operators_are_not_in_pg_catalog_are_compared_by_them() {
    let cluster = TestCluster::preloaded();
    let mut client = cluster.database().connect();
    let operators: String = [("<", "lt"), ("<=", "le"), ("=", "eq"), (">=", "ge"), (">", "gt")]
        .map(|(operator, name)| {
            format!(
                "CREATE FUNCTION label_{name}(label, label) RETURNS bool AS 'text_{name}' LANGUAGE internal IMMUTABLE STRICT;
                CREATE OPERATOR {operator} (LEFTARG = label, RIGHTARG = label, FUNCTION = label_{name}, {});",
                if name == "eq" { "MERGES, COMMUTATOR = =" } else { "RESTRICT = scalarltsel" }
            )
        })
        .concat()
        .replace("'text_eq'", "'texteq'");
    run(
        &mut client,
        &format!(
            "CREATE SCHEMA labels; SET search_path = labels, public; CREATE TYPE label;
            CREATE FUNCTION label_in(cstring) RETURNS label AS 'textin' LANGUAGE internal IMMUTABLE STRICT;
            CREATE FUNCTION label_out(label) RETURNS cstring AS 'textout' LANGUAGE internal IMMUTABLE STRICT;
            CREATE TYPE label (INPUT = label_in, OUTPUT = label_out, LIKE = text, COLLATABLE = true); {operators}
            CREATE FUNCTION label_compare(label, label) RETURNS int AS 'bttextcmp' LANGUAGE internal IMMUTABLE STRICT;
            CREATE OPERATOR CLASS label_ops DEFAULT FOR TYPE label USING btree AS
                OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 label_compare(label, label);
            RESET search_path"
        ),
    );
    for mode in ["sync", "async"] {
        run(
            &mut client,
            &format!(
                "CREATE TABLE photos (id labels.label PRIMARY KEY, project labels.label, image bytea);
                SELECT clip_watch('photos', mode => '{mode}'); SET clip.enabled = off"
            ),
        );
        let insert = "INSERT INTO photos SELECT ('Top.' || place)::labels.label, 'Garden', image
            FROM unnest($1::bytea[]) WITH ORDINALITY AS t (image, place)";
        client.execute(insert, &[&&demo_jpegs()[..5]]).expect("photos are stored");
        run(&mut client, "RESET clip.enabled");
        run(&mut client, "CALL clip_backfill('photos', verify => true)");
        assert_eq!(value::<Vec<i64>>(&mut client, VERIFIED), [5, 5, 0, 0, 0, 0], "{mode}");
        run(&mut client, "DROP TABLE photos, image_embeddings");
    }
}
