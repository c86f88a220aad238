//! A migration keeps other sessions away for moments that do not grow with the table: no row is read meanwhile.

use std::time::Duration;

use pg_clip_tests::{
    cluster_of_two_models, demo_jpegs, failure, run, store, value, variant, wait_until, watched,
};

const PATIENCE: Duration = Duration::from_secs(120);
const PHOTOS: u32 = 200;

/// Writes down, before and after each DDL command of the migration, which locks it has on the target, and how many of its
/// rows it has read so far.
const WATCH_LOCKS: &str = "
    CREATE TABLE commands (transaction xid8, command text, mode text, tuples bigint);
    CREATE FUNCTION note_command() RETURNS event_trigger LANGUAGE plpgsql SET search_path = public, pg_catalog AS $$
    BEGIN
        INSERT INTO commands
        SELECT pg_current_xact_id(), tg_tag, lock.mode,
            pg_stat_get_xact_tuples_returned(lock.relation) + pg_stat_get_xact_tuples_fetched(lock.relation)
        FROM pg_locks AS lock WHERE pid = pg_backend_pid() AND lock.relation = 'public.image_embeddings'::regclass;
    END $$;
    CREATE EVENT TRIGGER note_begins ON ddl_command_start EXECUTE FUNCTION note_command();
    CREATE EVENT TRIGGER note_ends ON ddl_command_end EXECUTE FUNCTION note_command()";

/// Locks that keep writers away, or readers too.
const KEEPING_AWAY: &str =
    "mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')";

#[test]
fn no_row_is_read_while_other_sessions_wait() {
    let cluster = cluster_of_two_models();
    let pictures = demo_jpegs();
    let photos: Vec<Vec<u8>> =
        (0..PHOTOS).map(|number| variant(&pictures[number as usize % pictures.len()], number)).collect();
    for required in [true, false] {
        let (database, mut client) = watched(&cluster, "sync");
        if !required {
            run(&mut client, "ALTER TABLE image_embeddings ALTER embedding DROP NOT NULL");
        }
        store(&mut client, &photos);
        let indexes = "SELECT array_agg(indexdef ORDER BY indexdef) FROM pg_indexes WHERE tablename = 'image_embeddings'";
        let before: Vec<String> = value(&mut client, indexes);
        run(&mut client, WATCH_LOCKS);
        run(&mut client, "CALL clip_migrate('image_embeddings', 'other')");
        // The transactions with such locks, and the transactions that have read so many rows under them.
        let count = |locks: &str, rows: u32| {
            format!(
                "SELECT count(*) FROM (
                    SELECT FROM commands WHERE {locks} GROUP BY transaction
                    HAVING max(tuples) - min(tuples) >= {rows}) AS transactions"
            )
        };
        let alone: i64 = value(&mut client, &count(KEEPING_AWAY, 0));
        assert!(alone >= 3, "the column, the indexes and the switch: {alone}");
        assert_eq!(value::<i64>(&mut client, &count(KEEPING_AWAY, 1)), 0);
        let mut client = database.connect();
        assert_eq!(value::<Vec<String>>(&mut client, indexes), before);
        let state = "SELECT concat_ws(' ', attnotnull,
                (SELECT count(*) FROM pg_constraint WHERE conrelid = attrelid AND contype = 'c'),
                (SELECT count(*) FROM pg_index WHERE indrelid = attrelid AND NOT (indisvalid AND indisready)),
                (SELECT count(*) FROM pg_trigger WHERE tgrelid = attrelid AND NOT tgisinternal))
            FROM pg_attribute WHERE attrelid = 'image_embeddings'::regclass AND attname = 'embedding'";
        let expected = if required { "t 0 0 0" } else { "f 0 0 0" };
        assert_eq!(value::<String>(&mut client, state), expected);
        // All rows are in the new index.
        run(&mut client, "SET enable_seqscan = off; SET hnsw.ef_search = 1000");
        let found = "SELECT count(*) FROM (SELECT FROM image_embeddings
            ORDER BY embedding <=> clip_embed_text('a dog', 'other') LIMIT 1000) AS nearest";
        assert_eq!(value::<i64>(&mut client, found), i64::from(PHOTOS));
        let wrong = "SELECT count(*) FROM photos FULL JOIN image_embeddings ON image_id = photos.id
            WHERE embedding IS DISTINCT FROM clip_embed_image(image, 'other')";
        assert_eq!(value::<i64>(&mut client, wrong), 0);
    }
}

#[test]
fn a_migration_that_was_killed_while_it_built_an_index_builds_it_anew() {
    let cluster = cluster_of_two_models();
    let (database, mut client) = watched(&cluster, "sync");
    store(&mut client, &demo_jpegs()[..8]);
    let mut reader = database.connect();
    run(&mut reader, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class");
    std::thread::scope(|scope| {
        // A failure below lets the migration go on.
        let mut reader = reader;
        let migration = scope.spawn(|| {
            failure(&mut database.connect(), "CALL clip_migrate('image_embeddings', 'other')", &[])
        });
        let unfinished = "SELECT count(*) FROM pg_index WHERE indrelid = 'image_embeddings'::regclass
            AND NOT indisvalid";
        let waiting = "SELECT count(*) FROM pg_stat_activity
            WHERE wait_event = 'virtualxid' AND datname = current_database()";
        wait_until("an index waits for the reader", PATIENCE, || {
            value::<i64>(&mut client, unfinished) == 1 && value::<i64>(&mut client, waiting) == 1
        });
        store(&mut client, &demo_jpegs()[8..9]);
        let kill = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'CALL clip_migrate%'";
        run(&mut client, kill);
        assert_eq!(migration.join().expect("the migration ends"), "57014");
        run(&mut reader, "COMMIT");
        run(&mut client, "CALL clip_migrate('image_embeddings', 'other')");
        assert_eq!(value::<i64>(&mut client, unfinished), 0);
        let mut client = database.connect();
        let hnsw =
            "SELECT count(*) FROM pg_indexes WHERE tablename = 'image_embeddings' AND indexdef LIKE '%hnsw%'";
        assert_eq!(value::<i64>(&mut client, hnsw), 1);
        let wrong = "SELECT count(*) FROM photos FULL JOIN image_embeddings ON image_id = photos.id
            WHERE embedding IS DISTINCT FROM clip_embed_image(image, 'other')";
        assert_eq!(value::<i64>(&mut client, wrong), 0);
    });
}
