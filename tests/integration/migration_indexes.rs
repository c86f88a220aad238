//! The indexes that a migration builds, beside sessions that build or drop them, and after a backend that died over them.
//!
//! Gates stop the migrating session, and no other: advisory locks that one of the test's sessions holds until it has put the
//! others where it wants them.

use pg_clip_tests::isolation::{Sessions, Step};
use pg_clip_tests::{
    PATIENCE, Signal, TestDatabase, cluster_of_two_models, demo_jpegs, run, send, store, value, wait_for,
    wait_until, watched,
};
use postgres::Client;

const MIGRATE: &str = "CALL clip_migrate('image_embeddings', 'other')";

/// The gates: before the entries of the indexes are committed, before a row is read for the first index, before one is
/// added to an index that is ready, and before the switch is committed.
const DEFINE: i32 = 1;
const READ: i32 = 2;
const ADD: i32 = 3;
const SWITCH: i32 = 4;

const GATES: &str = "
    CREATE FUNCTION wait_at(gate bigint) RETURNS void LANGUAGE plpgsql SET lock_timeout = 0 AS $$
    BEGIN
        IF current_setting('gates.stop', true) = 'on' THEN
            PERFORM pg_advisory_lock_shared(gate);
            PERFORM pg_advisory_unlock_shared(gate);
        END IF;
    END $$;
    CREATE FUNCTION is_let_in(bigint) RETURNS bool LANGUAGE plpgsql IMMUTABLE
        SET search_path = public, pg_catalog AS $$
    BEGIN
        PERFORM wait_at(2);
        IF EXISTS (SELECT FROM pg_index WHERE indrelid = 'image_embeddings'::regclass AND indisready AND NOT indisvalid) THEN
            PERFORM wait_at(3);
        END IF;
        RETURN true;
    END $$;
    CREATE FUNCTION wait_over_indexes() RETURNS event_trigger LANGUAGE plpgsql
        SET search_path = public, pg_catalog AS $$
    BEGIN
        IF EXISTS (SELECT FROM pg_attribute
            WHERE attrelid = 'image_embeddings'::regclass AND attname = 'clip_first_embedding') THEN
            PERFORM wait_at(1);
        END IF;
        IF EXISTS (SELECT FROM pg_constraint WHERE conname = 'clip_migrated_not_null' AND NOT convalidated) THEN
            PERFORM wait_at(4);
        END IF;
    END $$;
    CREATE EVENT TRIGGER wait_over_indexes ON ddl_command_end WHEN TAG IN ('ALTER TABLE')
        EXECUTE FUNCTION wait_over_indexes();
    CREATE INDEX a_part ON image_embeddings USING hnsw (embedding vector_cosine_ops) WHERE is_let_in(image_id)";

const NORMS: &str = "CREATE INDEX norms ON image_embeddings (vector_norm(embedding))";

/// The first unfinished index, as a command names it.
const UNFINISHED: &str = "SELECT indexrelid::regclass::text FROM pg_index
    WHERE indrelid = 'image_embeddings'::regclass AND NOT indisvalid ORDER BY 1 LIMIT 1";

const SHAPE: &str =
    "SELECT array_agg(indexdef ORDER BY indexdef) FROM pg_indexes WHERE tablename = 'image_embeddings'";

/// A table that was watched, with photos and an index that stops a migration; its indexes' definitions.
fn prepared(database: &TestDatabase, client: &mut Client, indexes: &str) -> Vec<String> {
    run(client, GATES);
    run(client, indexes);
    // A deadlock is found at once.
    run(client, &format!("ALTER DATABASE {} SET deadlock_timeout = '20ms'", database.name()));
    store(client, &demo_jpegs()[..30]);
    value(client, SHAPE)
}

fn close(sessions: &mut Sessions, gate: i32) {
    sessions.run("gates", &format!("SELECT pg_advisory_lock({gate})"));
}

fn open(sessions: &mut Sessions, gate: i32) {
    sessions.run("gates", &format!("SELECT pg_advisory_unlock({gate})"));
}

/// Starts a migration that comes to the gate before the indexes.
fn start(sessions: &mut Sessions) {
    close(sessions, DEFINE);
    sessions.run("migration", "SET gates.stop = on");
    assert_eq!(sessions.start("migration", MIGRATE), Step::Blocked);
}

/// Has a writer begin once the entries of the indexes are there: the migration waits for its end.
fn write_after_define(sessions: &mut Sessions) {
    sessions.run("writer", "BEGIN");
    let write = "UPDATE image_embeddings SET project = 'p' WHERE image_id = 1";
    assert_eq!(sessions.start("writer", write), Step::Blocked);
    open(sessions, DEFINE);
    sessions.finish("writer");
    assert_eq!(sessions.settle("migration"), Step::Blocked);
}

/// All indexes are whole and those of before, and every row is found in each of them.
#[track_caller]
fn check(database: &TestDatabase, shape: &[String], what: &str) {
    let mut client = database.connect();
    assert_eq!(value::<Vec<String>>(&mut client, SHAPE), shape, "{what}");
    let unfinished = "SELECT count(*) FROM pg_index WHERE NOT (indisvalid AND indisready AND indislive)";
    assert_eq!(value::<i64>(&mut client, unfinished), 0, "{what}");
    let wrong = "SELECT count(*) FROM photos JOIN image_embeddings ON image_id = photos.id
        WHERE embedding IS DISTINCT FROM clip_embed_image(image, 'other')";
    assert_eq!(value::<i64>(&mut client, wrong), 0, "{what}");
    run(&mut client, "SET enable_seqscan = off; SET enable_sort = off; SET hnsw.ef_search = 1000");
    let rows: i64 = value(&mut client, "SELECT count(*) FROM image_embeddings");
    assert!(rows > 0, "{what}");
    let nearest = |condition: &str| {
        format!(
            "SELECT image_id FROM image_embeddings {condition}
            ORDER BY embedding <=> clip_embed_text('a dog', 'other') LIMIT 1000"
        )
    };
    let mut searches = vec![
        ("a_part", nearest("WHERE is_let_in(image_id)")),
        ("image_embeddings_embedding_idx", nearest("")),
    ];
    if shape.iter().any(|definition| definition.contains(" norms ")) {
        searches.push((
            "norms",
            "SELECT image_id FROM image_embeddings WHERE vector_norm(embedding) > 0
                ORDER BY vector_norm(embedding)"
                .to_owned(),
        ));
    }
    for (index, search) in searches {
        let plan: Vec<String> = client
            .query(&format!("EXPLAIN {search}"), &[])
            .expect("a plan")
            .iter()
            .map(|line| line.get(0))
            .collect();
        let scan = format!("Index Scan using {index} ");
        assert!(plan.iter().any(|line| line.contains(&scan)), "{what}: {index}: {plan:#?}");
        let found: i64 = value(&mut client, &format!("SELECT count(*) FROM ({search}) AS found"));
        assert_eq!(found, rows, "{what}: rows in {index}");
    }
}

/// Runs a command that comes behind a writer that the migration waits for; `{index}` is an unfinished index.
fn behind_a_writer(command: &str, indexes: &str) {
    println!("{command}");
    let cluster = cluster_of_two_models();
    let (database, mut client) = watched(&cluster, "sync");
    let shape = prepared(&database, &mut client, indexes);
    let mut sessions = Sessions::new(&database);
    start(&mut sessions);
    close(&mut sessions, READ);
    write_after_define(&mut sessions);
    let unfinished: String = value(&mut client, UNFINISHED);
    let command = command.replace("{index}", &unfinished);
    assert_eq!(sessions.start("other", &command), Step::Blocked, "{command}");
    sessions.run("writer", "COMMIT");
    // Not at the gate yet where it waits for the other session, for which it is none.
    wait_until("the command is done, or waits for the migration", PATIENCE, || {
        sessions.settle("other") == Step::Done || sessions.settle("migration") == Step::Blocked
    });
    sessions.settle("migration");
    // Where the migration reads rows for an index now, these come into it meanwhile.
    store(&mut client, &demo_jpegs()[30..40]);
    open(&mut sessions, READ);
    sessions.finish("other");
    sessions.finish("migration");
    run(&mut client, "DROP INDEX IF EXISTS extra");
    check(&database, &shape, &command);
}

#[test]
fn indexes_that_another_session_has_reindexed_are_left_as_they_are() {
    behind_a_writer("REINDEX TABLE image_embeddings", "");
    behind_a_writer("REINDEX TABLE image_embeddings", NORMS);
}

#[test]
fn indexes_that_a_full_vacuum_has_built_are_left_as_they_are() {
    behind_a_writer("VACUUM FULL image_embeddings", "");
    behind_a_writer("VACUUM FULL image_embeddings", NORMS);
}

#[test]
fn indexes_of_a_table_that_was_truncated_are_left_as_they_are() {
    behind_a_writer("TRUNCATE image_embeddings", "");
    behind_a_writer("TRUNCATE image_embeddings", NORMS);
}

#[test]
fn indexes_of_a_table_that_was_written_anew_are_left_as_they_are() {
    behind_a_writer("CLUSTER image_embeddings USING image_embeddings_pkey", "");
    behind_a_writer("ALTER TABLE image_embeddings ADD filler float8 DEFAULT random()", NORMS);
}

#[test]
fn an_index_that_another_session_has_dropped_is_made_anew() {
    behind_a_writer("DROP INDEX {index}", NORMS);
}

#[test]
fn an_index_that_another_session_has_replaced_counts() {
    behind_a_writer("REINDEX INDEX CONCURRENTLY {index}", NORMS);
}

#[test]
fn two_sessions_build_indexes_beside_each_other() {
    behind_a_writer("CREATE INDEX CONCURRENTLY extra ON image_embeddings (project)", NORMS);
}

#[test]
fn a_migration_that_waits_holds_up_no_index_of_another_table() {
    let cluster = cluster_of_two_models();
    let (database, mut client) = watched(&cluster, "sync");
    let shape = prepared(&database, &mut client, "");
    let mut sessions = Sessions::new(&database);
    start(&mut sessions);
    write_after_define(&mut sessions);
    // It waits for the snapshots of all sessions.
    sessions.run("other", "CREATE INDEX CONCURRENTLY ON photos (project)");
    assert_eq!(sessions.settle("migration"), Step::Blocked);
    sessions.run("writer", "COMMIT");
    sessions.finish("migration");
    check(&database, &shape, "an index of another table");
}

/// How far a migration has come with its first index when its backend dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Define,
    FirstWriters,
    Read,
    SecondWriters,
    Add,
    Snapshots,
}

/// Brings a migration into the phase; it waits there for another session.
fn reach(sessions: &mut Sessions, client: &mut Client, phase: Phase) {
    if phase == Phase::Snapshots {
        sessions.run("reader", "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class");
    }
    start(sessions);
    close(sessions, READ);
    close(sessions, ADD);
    match phase {
        Phase::Define => return,
        Phase::FirstWriters => return write_after_define(sessions),
        _ => open(sessions, DEFINE),
    }
    assert_eq!(sessions.settle("migration"), Step::Blocked);
    if phase == Phase::Read {
        return;
    }
    if phase == Phase::SecondWriters {
        sessions.run("writer", "BEGIN; UPDATE image_embeddings SET project = 'p' WHERE image_id = 1");
    } else {
        // The index lacks these.
        store(client, &demo_jpegs()[30..40]);
    }
    if phase == Phase::Snapshots {
        open(sessions, ADD);
    }
    open(sessions, READ);
    assert_eq!(sessions.settle("migration"), Step::Blocked);
}

#[test]
fn an_index_may_be_built_or_dropped_by_another_session_at_any_wait() {
    let cluster = cluster_of_two_models();
    for phase in [Phase::SecondWriters, Phase::Snapshots] {
        for command in ["REINDEX TABLE image_embeddings", "DROP INDEX {index}"] {
            println!("{phase:?} {command}");
            let (database, mut client) = watched(&cluster, "sync");
            let shape = prepared(&database, &mut client, NORMS);
            let mut sessions = Sessions::new(&database);
            reach(&mut sessions, &mut client, phase);
            let command = command.replace("{index}", &value::<String>(&mut client, UNFINISHED));
            let (holder, expected) = match phase {
                Phase::SecondWriters => ("writer", Step::Blocked),
                _ => ("reader", Step::Done),
            };
            assert_eq!(sessions.start("other", &command), expected);
            sessions.run(holder, "COMMIT");
            sessions.finish("other");
            sessions.run("gates", "SELECT pg_advisory_unlock_all()");
            sessions.finish("migration");
            check(&database, &shape, &format!("{phase:?} {command}"));
        }
    }
}

#[test]
fn a_migration_whose_backend_died_over_an_index_is_finished_by_the_next_call() {
    let cluster = cluster_of_two_models();
    for phase in
        [Phase::Define, Phase::FirstWriters, Phase::Read, Phase::SecondWriters, Phase::Add, Phase::Snapshots]
    {
        // Where half an index is left, it may be built before the next call.
        let commands = if phase == Phase::Read { &["", "REINDEX TABLE image_embeddings"][..] } else { &[""] };
        for command in commands {
            println!("{phase:?} {command}");
            let (database, mut client) = watched(&cluster, "sync");
            let shape = prepared(&database, &mut client, NORMS);
            let mut sessions = Sessions::new(&database);
            reach(&mut sessions, &mut client, phase);
            let state = "SELECT string_agg(DISTINCT concat(indisready, indisvalid), ' ' ORDER BY concat(indisready, indisvalid))
                FROM pg_index WHERE indrelid = 'image_embeddings'::regclass AND NOT indisvalid";
            let expected = match phase {
                Phase::Define => None,
                Phase::FirstWriters | Phase::Read => Some("ff"),
                Phase::SecondWriters | Phase::Add | Phase::Snapshots => Some("ff tf"),
            };
            assert_eq!(value::<Option<String>>(&mut client, state).as_deref(), expected, "{phase:?}");
            send(u32::try_from(sessions.pid("migration")).expect("a pid"), Signal::SIGKILL);
            wait_until("all connections are gone", PATIENCE, || client.is_valid(PATIENCE).is_err());
            drop(sessions);
            client = wait_for("the server takes connections", PATIENCE, || database.try_connect().ok());
            run(&mut client, command);
            store(&mut client, &demo_jpegs()[40..45]);
            run(&mut client, MIGRATE);
            check(&database, &shape, &format!("{phase:?} {command}"));
        }
    }
}

/// Brings a migration to its last wait: all indexes are built, and a reader uses the table.
fn wait_before_the_switch(sessions: &mut Sessions, client: &mut Client) {
    start(sessions);
    close(sessions, READ);
    open(sessions, DEFINE);
    assert_eq!(sessions.settle("migration"), Step::Blocked);
    sessions.run("reader", "BEGIN");
    sessions.run("reader", "SELECT FROM image_embeddings");
    open(sessions, READ);
    wait_until("the migration waits for the reader", PATIENCE, || {
        sessions.settle("migration") == Step::Blocked
            && value::<bool>(
                client,
                "SELECT NOT EXISTS (SELECT FROM pg_index
                    WHERE indrelid = 'image_embeddings'::regclass AND NOT indisready)",
            )
    });
}

#[test]
fn an_index_that_another_session_makes_late_is_not_lost() {
    let cluster = cluster_of_two_models();
    let (database, mut client) = watched(&cluster, "sync");
    let mut shape = prepared(&database, &mut client, "");
    let mut sessions = Sessions::new(&database);
    wait_before_the_switch(&mut sessions, &mut client);
    run(&mut client, NORMS);
    sessions.run("reader", "COMMIT");
    sessions.finish("migration");
    shape.push(value(&mut client, "SELECT indexdef FROM pg_indexes WHERE indexname = 'norms'"));
    shape.sort();
    check(&database, &shape, "an index that comes late");
}

/// It waits for the switch, and what comes after the switch waits for it.
#[test]
fn an_index_that_another_session_builds_behind_the_switch_is_built() {
    let cluster = cluster_of_two_models();
    let (database, mut client) = watched(&cluster, "sync");
    let mut shape = prepared(&database, &mut client, "");
    let mut sessions = Sessions::new(&database);
    close(&mut sessions, SWITCH);
    sessions.run("migration", "SET gates.stop = on");
    sessions.start("migration", MIGRATE);
    let is_there = format!(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = {SWITCH} AND NOT granted)"
    );
    wait_until("the migration is at the gate", PATIENCE, || value(&mut client, &is_there));
    let build = "CREATE INDEX CONCURRENTLY late ON image_embeddings (project)";
    assert_eq!(sessions.start("other", build), Step::Blocked);
    open(&mut sessions, SWITCH);
    sessions.finish("other");
    sessions.finish("migration");
    shape.push(value(&mut client, "SELECT indexdef FROM pg_indexes WHERE indexname = 'late'"));
    shape.sort();
    check(&database, &shape, "an index behind the switch");
}

/// Of one index the copy, and of another one the first: as many are left of the new column as of the old one.
#[test]
fn an_index_that_another_session_drops_late_is_made_again() {
    let cluster = cluster_of_two_models();
    let (database, mut client) = watched(&cluster, "sync");
    let shape = prepared(&database, &mut client, NORMS);
    run(&mut client, "CREATE INDEX gone ON image_embeddings (vector_dims(embedding))");
    let mut sessions = Sessions::new(&database);
    wait_before_the_switch(&mut sessions, &mut client);
    let second: String = value(
        &mut client,
        "SELECT indexname::text FROM pg_indexes WHERE indexdef LIKE '%vector_norm(clip_next_embedding)%'",
    );
    assert_eq!(sessions.start("other", &format!("DROP INDEX gone, {second}")), Step::Blocked);
    sessions.run("reader", "COMMIT");
    sessions.finish("other");
    sessions.finish("migration");
    check(&database, &shape, "indexes that go late");
}

/// As CREATE INDEX CONCURRENTLY or REINDEX CONCURRENTLY leaves one that fails.
#[test]
fn an_index_that_is_not_valid_gets_no_valid_twin() {
    let cluster = cluster_of_two_models();
    let (database, mut client) = watched(&cluster, "sync");
    let shape = prepared(&database, &mut client, NORMS);
    run(&mut client, "CREATE INDEX a_half ON image_embeddings USING hnsw (embedding vector_ip_ops)");
    run(&mut client, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'a_half'::regclass");
    // Of the same definition as a valid one, whose name stays.
    run(&mut client, "CREATE INDEX a_norm ON image_embeddings (vector_norm(embedding))");
    run(&mut client, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'a_norm'::regclass");
    run(&mut client, MIGRATE);
    check(&database, &shape, "indexes that are not valid");
}
