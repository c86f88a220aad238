//! A fill that builds the indexes of the vectors at its end, beside other sessions.
//!
//! A gate stops the queue between two photos: an advisory lock that one of the test's sessions holds until it has put the others
//! where it wants them.

use pg_clip_tests::isolation::{Sessions, Step};
use pg_clip_tests::{TestCluster, TestDatabase, WRONG, run, value};
use postgres::Client;

use crate::backfill::unfilled;

const FILL: &str = "CALL clip_backfill('photos', index_last => true)";
const PHOTOS: u32 = 150;

/// The queue writes the first photos, and waits before the others.
const GATE: &str = "
    CREATE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0 AS $$
        BEGIN
            PERFORM pg_catalog.pg_advisory_lock_shared(1);
            PERFORM pg_catalog.pg_advisory_unlock_shared(1);
            RETURN NEW;
        END $$;
    CREATE TRIGGER gate BEFORE INSERT ON image_embeddings FOR EACH ROW WHEN (NEW.image_id = 140)
        EXECUTE FUNCTION wait_at_gate()";

/// All that the catalogs say about the indexes.
const SHAPE: &str = "
    SELECT string_agg(concat_ws(' ', class.oid, pg_get_indexdef(class.oid), reltablespace, reloptions,
        obj_description(class.oid, 'pg_class'), indislive, indisready, indisvalid, indcheckxmin), chr(10) ORDER BY class.oid)
    FROM pg_index JOIN pg_class AS class ON class.oid = indexrelid
    WHERE indrelid = 'image_embeddings'::regclass";

const LEFT: &str = "SELECT count(*) FROM clip_indexes_to_build";
const SIZE: &str = "SELECT pg_relation_size('image_embeddings_embedding_idx')";

/// A table with photos to fill in, and its queue stopped at the gate.
fn prepared(cluster: &TestCluster) -> (TestDatabase, Client) {
    let (database, mut client) = unfilled(cluster, "async", PHOTOS);
    run(&mut client, "DELETE FROM photos WHERE image IS NULL");
    run(&mut client, GATE);
    (database, client)
}

/// Starts a call that comes to the gate.
fn start(sessions: &mut Sessions, call: &str) {
    sessions.run("gate", "SELECT pg_advisory_lock(1)");
    const WAITS: &str = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))";
    let step = sessions.start_until("filling", call, |sessions| value(sessions.observer(), WAITS));
    assert_eq!(step, Step::Reached);
}

fn open(sessions: &mut Sessions) {
    sessions.run("gate", "SELECT pg_advisory_unlock(1)");
}

/// Every row is found in the index that a search uses.
#[track_caller]
fn check(client: &mut Client, index: &str, rows: u32) {
    assert_eq!(value::<i64>(client, WRONG), 0);
    assert_eq!(value::<i64>(client, LEFT), 0);
    run(client, "SET enable_seqscan = off; SET enable_sort = off; SET hnsw.ef_search = 1000");
    let search =
        "SELECT image_id FROM image_embeddings ORDER BY embedding <=> clip_embed_text('a dog') LIMIT 1000";
    let plan: Vec<String> = client
        .query(&format!("EXPLAIN {search}"), &[])
        .expect("a plan")
        .iter()
        .map(|line| line.get(0))
        .collect();
    assert!(plan.iter().any(|line| line.contains(&format!("using {index} "))), "{plan:#?}");
    let found: i64 = value(client, &format!("SELECT count(*) FROM ({search}) AS found"));
    assert_eq!(found, i64::from(rows));
}

#[test]
fn an_index_is_built_once_after_the_last_photo() {
    let cluster = TestCluster::preloaded();
    let (database, mut client) = prepared(&cluster);
    run(
        &mut client,
        "DROP INDEX image_embeddings_embedding_idx;
        CREATE INDEX named ON image_embeddings USING hnsw (embedding vector_cosine_ops) WITH (m = 8, ef_construction = 32);
        COMMENT ON INDEX named IS 'that of the searches'",
    );
    let shape: String = value(&mut client, SHAPE);
    let mut sessions = Sessions::new(&database);
    start(&mut sessions, FILL);
    assert!(value::<i64>(&mut client, "SELECT pg_relation_size('image_embeddings')") > 0);
    assert_eq!(value::<i64>(&mut client, "SELECT pg_relation_size('named')"), 0);
    let state =
        "SELECT concat(indislive, indisready, indisvalid) FROM pg_index WHERE indexrelid = 'named'::regclass";
    assert_eq!(value::<String>(&mut client, state), "tff");
    // Of another session, meanwhile.
    run(&mut client, "INSERT INTO photos (image) SELECT image FROM photos LIMIT 1");
    open(&mut sessions);
    sessions.finish("filling");
    pg_clip_tests::wait_for_the_queue(&mut client);
    assert_eq!(value::<String>(&mut client, SHAPE), shape);
    check(&mut client, "named", PHOTOS + 1);
}

#[test]
fn a_call_that_is_killed_or_cancelled_leaves_the_index_to_the_next_one() {
    let cluster = TestCluster::preloaded();
    for end in ["pg_terminate_backend", "pg_cancel_backend"] {
        for next in ["CALL clip_backfill('photos')", FILL] {
            println!("{end}, {next}");
            let (database, mut client) = prepared(&cluster);
            let shape: String = value(&mut client, SHAPE);
            {
                let mut sessions = Sessions::new(&database);
                start(&mut sessions, FILL);
                let pid = sessions.pid("filling");
                assert!(value::<bool>(&mut client, &format!("SELECT {end}({pid})")));
                let expected = if end == "pg_terminate_backend" { "57P01" } else { "57014" };
                assert_eq!(sessions.finish_failing("filling"), expected);
                open(&mut sessions);
            }
            assert_eq!(value::<i64>(&mut client, SIZE), 0);
            assert_eq!(value::<i64>(&mut client, LEFT), 1);
            run(&mut client, next);
            assert_eq!(value::<String>(&mut client, SHAPE), shape);
            check(&mut client, "image_embeddings_embedding_idx", PHOTOS);
        }
    }
}
