//! A fill that builds the indexes of the vectors at its end, beside other sessions.
//!
//! A gate stops the queue between two photos: an advisory lock that one of the test's sessions holds until it has put the others
//! where it wants them.

use pg_clip_tests::isolation::{Sessions, Step};
use pg_clip_tests::{TestCluster, TestDatabase, WRONG, cluster_of_two_models, failure, run, value};
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
        CREATE INDEX named ON image_embeddings USING hnsw (embedding vector_cosine_ops) WITH (m = 30, ef_construction = 100);
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
    for is_killed in [true, false] {
        for next in ["CALL clip_backfill('photos')", FILL] {
            println!("{is_killed}, {next}");
            let (database, mut client) = prepared(&cluster);
            let shape: String = value(&mut client, SHAPE);
            {
                let mut sessions = Sessions::new(&database);
                start(&mut sessions, FILL);
                if is_killed {
                    sessions.terminate("filling");
                } else {
                    let cancel = format!("SELECT pg_cancel_backend({})", sessions.pid("filling"));
                    assert!(value::<bool>(&mut client, &cancel));
                    assert_eq!(sessions.finish_failing("filling"), "57014");
                }
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

/// A session has written to the table, so that the call, with all photos done, waits with the index before a row is read for it.
fn wait_with_the_index(sessions: &mut Sessions) {
    start(sessions, FILL);
    sessions.run("writer", "BEGIN; UPDATE image_embeddings SET project = 'p' WHERE image_id = 1");
    open(sessions);
    assert_eq!(sessions.settle("filling"), Step::Blocked);
    let building = "SELECT building::text FROM clip_backfills WHERE done = total";
    let built: String = value(sessions.observer(), building);
    assert_eq!(built, "image_embeddings_embedding_idx");
}

#[test]
fn indexes_of_each_kind_keep_all_that_they_have() {
    let cluster = TestCluster::preloaded();
    let (database, mut client) = prepared(&cluster);
    let space = format!("{}_space", database.name());
    run(&mut client, "SET allow_in_place_tablespaces = on");
    run(&mut client, &format!("CREATE TABLESPACE {space} LOCATION ''"));
    run(
        &mut client,
        &format!(
            "CREATE INDEX of_lists ON image_embeddings USING ivfflat (embedding vector_l2_ops) WITH (lists = 3)
                TABLESPACE {space};
            CREATE INDEX of_bits ON image_embeddings USING hnsw ((binary_quantize(embedding)::bit(512)) bit_hamming_ops);
            ALTER INDEX of_bits ALTER COLUMN 1 SET STATISTICS 7;
            CREATE INDEX of_a_part ON image_embeddings USING hnsw (embedding vector_cosine_ops) WHERE image_id > 100;
            CREATE INDEX of_norms ON image_embeddings (vector_norm(embedding))"
        ),
    );
    let shape: String = value(&mut client, SHAPE);
    let mut sessions = Sessions::new(&database);
    start(&mut sessions, FILL);
    let unfinished = "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_index
        JOIN pg_class ON pg_class.oid = indexrelid WHERE NOT indisready AND NOT indisvalid AND pg_relation_size(indexrelid) = 0";
    assert_eq!(
        value::<String>(&mut client, unfinished),
        "image_embeddings_embedding_idx of_a_part of_bits of_lists"
    );
    open(&mut sessions);
    sessions.finish("filling");
    assert_eq!(value::<String>(&mut client, SHAPE), shape);
    let statistics = "SELECT attstattarget::int FROM pg_attribute WHERE attrelid = 'of_bits'::regclass";
    assert_eq!(value::<i32>(&mut client, statistics), 7);
    run(&mut client, "DROP INDEX of_a_part");
    check(&mut client, "image_embeddings_embedding_idx", PHOTOS);
    drop(sessions);
    run(&mut client, "DROP INDEX of_lists");
    run(&mut client, &format!("DROP TABLESPACE {space}"));
}

#[test]
fn another_session_may_change_an_index_that_is_not_built_yet() {
    let cluster = TestCluster::preloaded();
    for command in [
        "DROP INDEX image_embeddings_embedding_idx",
        "REINDEX TABLE image_embeddings",
        "REINDEX INDEX CONCURRENTLY image_embeddings_embedding_idx",
        "VACUUM FULL image_embeddings",
        "ALTER TABLE image_embeddings ADD filler float8 DEFAULT random()",
        "ALTER INDEX image_embeddings_embedding_idx SET (m = 9)",
    ] {
        for during_the_fill in [true, false] {
            println!("{command}, {during_the_fill}");
            let (database, mut client) = prepared(&cluster);
            let mut sessions = Sessions::new(&database);
            if during_the_fill {
                start(&mut sessions, FILL);
                sessions.start("other", command);
                open(&mut sessions);
            } else {
                wait_with_the_index(&mut sessions);
                sessions.start("other", command);
                sessions.run("writer", "COMMIT");
            }
            sessions.finish("other");
            sessions.finish("filling");
            if command.starts_with("DROP") {
                assert_eq!(value::<i64>(&mut client, WRONG), 0);
                assert_eq!(value::<i64>(&mut client, LEFT), 0);
            } else {
                check(&mut client, "image_embeddings_embedding_idx", PHOTOS);
            }
        }
    }
}

#[test]
fn a_call_ends_with_a_clear_error_where_its_table_is_dropped() {
    let cluster = TestCluster::preloaded();
    let (database, mut client) = prepared(&cluster);
    let mut sessions = Sessions::new(&database);
    wait_with_the_index(&mut sessions);
    assert_eq!(sessions.start("other", "DROP TABLE image_embeddings"), Step::Blocked);
    sessions.run("writer", "COMMIT");
    sessions.finish("other");
    assert_eq!(sessions.finish_failing("filling"), "42P01");
    drop(sessions);
    let unfinished = "SELECT count(*) FROM pg_index WHERE NOT indisvalid";
    assert_eq!(value::<i64>(&mut client, unfinished), 0);
}

/// Whether a call waits until another one has emptied or built the indexes.
fn takes_turns(sessions: &mut Sessions, call: &str) -> bool {
    let waits = format!(
        "SELECT wait_event_type = 'Extension' AND query LIKE 'CALL%' FROM pg_stat_activity WHERE pid = {}",
        sessions.pid(call)
    );
    value::<Option<bool>>(sessions.observer(), &waits) == Some(true)
}

#[test]
fn a_call_that_is_killed_while_it_builds_is_finished_by_the_next_one() {
    is_finished_by_another_call(false);
}

#[test]
fn a_call_that_is_killed_while_it_builds_is_finished_by_one_that_waits() {
    is_finished_by_another_call(true);
}

fn is_finished_by_another_call(waits: bool) {
    let cluster = TestCluster::preloaded();
    let (database, mut client) = prepared(&cluster);
    // The first pages are written once the vectors do not fit into the memory for them.
    run(
        &mut client,
        "CREATE FUNCTION is_let_in(bigint) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$
        BEGIN
            IF pg_catalog.current_setting('gate.stop', true) = 'on' THEN
                PERFORM pg_catalog.pg_advisory_lock_shared($1), pg_catalog.pg_advisory_unlock_shared($1);
            END IF;
            RETURN true;
        END $$;
        DROP INDEX image_embeddings_embedding_idx;
        CREATE INDEX stopped ON image_embeddings USING hnsw (embedding vector_cosine_ops) WHERE is_let_in(image_id);
        INSERT INTO image_embeddings (image_id, embedding, checksum, model)
            SELECT -number, array_agg(random())::vector, '', '' FROM generate_series(1, 1000) AS number,
            generate_series(1, 512) GROUP BY number",
    );
    let shape: String = value(&mut client, SHAPE);
    let mut sessions = Sessions::new(&database);
    sessions.run("filling", "SET gate.stop = on; SET maintenance_work_mem = '1MB'");
    sessions.run("gate", "SELECT pg_advisory_lock(140)");
    assert_eq!(sessions.start("filling", FILL), Step::Blocked);
    assert!(value::<i64>(&mut client, "SELECT pg_relation_size('stopped')") > 0);
    if waits {
        let call = "CALL clip_backfill('photos')";
        assert_eq!(
            sessions.start_until("second", call, |sessions| takes_turns(sessions, "second")),
            Step::Reached
        );
        sessions.terminate("filling");
        sessions.finish("second");
    } else {
        sessions.terminate("filling");
        drop(sessions);
        assert!(value::<i64>(&mut client, "SELECT pg_relation_size('stopped')") > 0);
        run(&mut client, "CALL clip_backfill('photos')");
    }
    assert_eq!(value::<String>(&mut client, SHAPE), shape);
    assert_eq!(value::<i64>(&mut client, LEFT), 0);
    // What the first call wrote is not in the file any more.
    let pages = "SELECT pg_relation_size('stopped')";
    let built: i64 = value(&mut client, pages);
    run(&mut client, "REINDEX INDEX stopped");
    let built_at_once: i64 = value(&mut client, pages);
    assert!(built * 4 < built_at_once * 5, "{built} and {built_at_once} bytes");
}

#[test]
fn two_calls_build_an_index_beside_each_other() {
    let cluster = TestCluster::preloaded();
    let (database, mut client) = prepared(&cluster);
    let shape: String = value(&mut client, SHAPE);
    let mut sessions = Sessions::new(&database);
    wait_with_the_index(&mut sessions);
    for (call, statement) in [("second", FILL), ("third", "CALL clip_backfill('photos')")] {
        assert_eq!(
            sessions.start_until(call, statement, |sessions| takes_turns(sessions, call)),
            Step::Reached
        );
    }
    sessions.run("writer", "COMMIT");
    for call in ["filling", "second", "third"] {
        sessions.finish(call);
    }
    drop(sessions);
    assert_eq!(value::<String>(&mut client, SHAPE), shape);
    check(&mut client, "image_embeddings_embedding_idx", PHOTOS);
}

#[test]
fn no_session_waits_behind_a_call_that_waits_for_a_reader() {
    let cluster = TestCluster::preloaded();
    let (database, mut client) = unfilled(&cluster, "async", 10);
    run(&mut client, "DELETE FROM photos WHERE image IS NULL");
    let mut sessions = Sessions::new(&database);
    sessions.run("reader", "BEGIN; SELECT FROM image_embeddings");
    assert_eq!(sessions.start("filling", FILL), Step::Blocked);
    for statement in ["SELECT FROM image_embeddings", "UPDATE image_embeddings SET project = 'p'"] {
        sessions.start("other", statement);
        sessions.finish("other");
    }
    assert_eq!(value::<i64>(&mut client, LEFT), 0);
    sessions.run("reader", "COMMIT");
    sessions.finish("filling");
    check(&mut client, "image_embeddings_embedding_idx", 10);
}

#[test]
fn only_the_indexes_of_a_table_with_photos_to_fill_in_are_touched() {
    let cluster = TestCluster::preloaded();
    let (_database, mut client) = unfilled(&cluster, "async", 10);
    // As CREATE INDEX CONCURRENTLY leaves one that fails.
    run(
        &mut client,
        "CREATE INDEX a_half ON image_embeddings USING hnsw (embedding vector_ip_ops);
        UPDATE pg_index SET indisvalid = false, indisready = false WHERE indexrelid = 'a_half'::regclass",
    );
    let (shape, half): (String, String) =
        (value(&mut client, SHAPE), value(&mut client, "SELECT pg_relation_filepath('a_half')"));
    run(&mut client, "INSERT INTO photos (image) SELECT 'no photo'; DELETE FROM photos WHERE image IS NULL");
    run(&mut client, FILL);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM clip_failures"), 1);
    assert_eq!(value::<String>(&mut client, SHAPE), shape);
    assert_eq!(value::<String>(&mut client, "SELECT pg_relation_filepath('a_half')"), half);
    run(&mut client, "DELETE FROM photos WHERE image = 'no photo'");
    let file = "SELECT pg_relation_filepath('image_embeddings_embedding_idx')";
    let before: String = value(&mut client, file);
    run(&mut client, "CALL clip_backfill('photos', index_last => true)");
    run(&mut client, "CALL clip_backfill('photos', verify => true, index_last => true)");
    assert_eq!(value::<String>(&mut client, file), before);
    run(&mut client, "DROP INDEX a_half");
    check(&mut client, "image_embeddings_embedding_idx", 10);

    run(&mut client, "DELETE FROM image_embeddings; DROP INDEX image_embeddings_embedding_idx");
    run(&mut client, FILL);
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
    let of_vectors =
        "SELECT count(*) FROM pg_indexes WHERE tablename = 'image_embeddings' AND indexdef LIKE '%hnsw%'";
    assert_eq!(value::<i64>(&mut client, of_vectors), 0);
}

#[test]
fn an_owner_that_is_no_superuser_has_an_index_built_last() {
    let cluster = TestCluster::preloaded();
    let (database, mut client) = prepared(&cluster);
    run(
        &mut client,
        "CREATE ROLE seller LOGIN; CREATE ROLE stranger LOGIN; GRANT CREATE ON SCHEMA public TO seller;
        ALTER TABLE photos OWNER TO seller; ALTER TABLE image_embeddings OWNER TO seller;
        GRANT ALL ON photos, image_embeddings TO stranger",
    );
    let shape: String = value(&mut client, SHAPE);
    let mut stranger = database.connect_as("stranger");
    assert_eq!(failure(&mut stranger, FILL, &[]), "42501");
    for refused in
        ["SELECT * FROM clip_indexes_to_build", "INSERT INTO clip_indexes_to_build VALUES ('photos_pkey')"]
    {
        assert_eq!(failure(&mut stranger, refused, &[]), "42501", "{refused}");
    }
    drop(stranger);
    let mut seller = database.connect_as("seller");
    run(&mut seller, "BEGIN");
    assert_eq!(failure(&mut seller, FILL, &[]), "2D000");
    run(&mut seller, "ROLLBACK");
    run(&mut seller, FILL);
    drop(seller);
    assert_eq!(value::<String>(&mut client, SHAPE), shape);
    check(&mut client, "image_embeddings_embedding_idx", PHOTOS);
    run(&mut client, "DROP OWNED BY seller, stranger CASCADE; DROP ROLE seller, stranger");
}

#[test]
fn a_target_with_partitions_is_refused() {
    let cluster = TestCluster::preloaded();
    let database = cluster.database();
    let mut client = database.connect();
    run(
        &mut client,
        "CREATE TABLE photos (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, image bytea);
        CREATE TABLE parts (image_id bigint PRIMARY KEY, embedding vector(512), checksum bytea, model text)
            PARTITION BY HASH (image_id);
        CREATE TABLE part PARTITION OF parts FOR VALUES WITH (MODULUS 1, REMAINDER 0);
        SET clip.enabled = off; SELECT clip_watch('photos', target => 'parts', mode => 'async')",
    );
    pg_clip_tests::store(&mut client, &pg_clip_tests::demo_jpegs()[..3]);
    run(&mut client, FILL);
    run(&mut client, "CREATE INDEX ON parts USING hnsw (embedding vector_cosine_ops); DELETE FROM parts");
    assert_eq!(failure(&mut client, FILL, &[]), "0A000");
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM parts"), 0);
    run(&mut client, "CALL clip_backfill('photos')");
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM parts"), 3);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM pg_index WHERE NOT indisvalid"), 0);
}

#[test]
fn a_migration_takes_an_index_that_a_call_left() {
    let cluster = cluster_of_two_models();
    let (database, mut client) = prepared(&cluster);
    let definition = "SELECT pg_get_indexdef('image_embeddings_embedding_idx'::regclass)";
    let before: String = value(&mut client, definition);
    let mut sessions = Sessions::new(&database);
    start(&mut sessions, FILL);
    sessions.terminate("filling");
    open(&mut sessions);
    drop(sessions);
    pg_clip_tests::wait_for_the_queue(&mut client);
    assert_eq!(value::<i64>(&mut client, LEFT), 1);
    run(&mut client, "CALL clip_migrate('image_embeddings', 'other')");
    assert_eq!(value::<String>(&mut client, definition), before);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM pg_index WHERE NOT indisvalid"), 0);
    run(&mut client, "CALL clip_backfill('photos')");
    let mut client = database.connect();
    check(&mut client, "image_embeddings_embedding_idx", PHOTOS);
}
