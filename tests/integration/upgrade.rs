//! `ALTER EXTENSION pg_clip UPDATE` in a database that release 0.1.0 made: see tests/data/upgrade/README.md.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Output, Stdio};

use pg_clip_tests::{
    OTHER_MODEL, PATIENCE, TestCluster, TestDatabase, cluster_of_two_models, demo_photos, failure,
    repository_file, run, store, value, wait_until,
};
use postgres::Client;
use xtask::psql::client;

const UPDATE: &str = "ALTER EXTENSION pg_clip UPDATE";

/// The photos of tables in async mode that wait.
const WAITING: &str =
    "SELECT count(*) FROM clip_queue WHERE NOT dead AND source::text = ANY ('{uploads, portraits, scans}')";

#[test]
fn an_updated_database_has_the_catalogs_of_a_new_one() {
    let cluster = cluster_of_two_models();
    let updated = made_by_0_1_0(&cluster);
    let mut client = updated.connect();
    run(&mut client, UPDATE);

    // Privileges that an administrator granted and revoked are kept, and do not count as the extension's own.
    let queue = "SELECT has_table_privilege('archivist', 'clip_queue', 'SELECT')";
    assert!(value::<bool>(&mut client, queue));
    let classify =
        "SELECT has_function_privilege('archivist', 'clip_classify(bytea, text[], text)', 'EXECUTE')";
    assert!(!value::<bool>(&mut client, classify));
    run(
        &mut client,
        "REVOKE SELECT ON clip_queue FROM archivist;
        REVOKE EXECUTE ON FUNCTION clip_classify(bytea, text[], text) FROM photographer;
        GRANT EXECUTE ON FUNCTION clip_classify(bytea, text[], text) TO PUBLIC",
    );

    let new = cluster.database();
    let found = catalog(&mut client);
    let expected = catalog(&mut new.connect());
    assert!(expected.len() > 500, "{} lines", expected.len());
    let missing: Vec<&String> = expected.difference(&found).collect();
    let left_over: Vec<&String> = found.difference(&expected).collect();
    assert!(missing.is_empty() && left_over.is_empty(), "missing: {missing:#?}\nleft over: {left_over:#?}");
}

#[test]
fn an_updated_database_has_the_watches_and_migrations_of_a_new_one() {
    let cluster = cluster_of_two_models();
    let updated = made_by_0_1_0(&cluster);
    run(&mut updated.connect(), UPDATE);

    let new = cluster.database();
    let mut client = new.connect();
    run(
        &mut client,
        "CREATE TABLE photos (id bigint PRIMARY KEY, project text, image bytea);
        CREATE TABLE uploads (id bigint PRIMARY KEY, image bytea);
        CREATE TABLE moved (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, image bytea);
        CREATE TABLE albums (id int PRIMARY KEY, project text, image bytea) PARTITION BY RANGE (id);
        CREATE TABLE albums_1 PARTITION OF albums FOR VALUES FROM (0) TO (100);
        CREATE TABLE albums_2 PARTITION OF albums FOR VALUES FROM (100) TO (300) PARTITION BY RANGE (id);
        CREATE TABLE albums_2_1 PARTITION OF albums_2 FOR VALUES FROM (100) TO (200);
        SELECT clip_watch('photos'), clip_watch('uploads', target => 'upload_embeddings', mode => 'async'),
            clip_watch('moved', target => 'moved_embeddings'), clip_watch('albums', target => 'album_embeddings')",
    );
    client
        .execute("INSERT INTO moved (image) SELECT unnest($1::bytea[])", &[&&demo_photos()[..2]])
        .expect("photos are inserted");
    run(
        &mut client,
        "ALTER TABLE moved DISABLE TRIGGER USER; DELETE FROM moved WHERE id = 2; ALTER TABLE moved ENABLE TRIGGER USER",
    );
    let migrate = format!("CALL clip_migrate('moved_embeddings', '{OTHER_MODEL}', false)");
    assert_eq!(failure(&mut client, &migrate, &[]), "55000");

    let of = |database: &TestDatabase| -> BTreeSet<String> {
        texts(&mut database.connect(), WATCHES).into_iter().collect()
    };
    let expected = of(&new);
    assert!(expected.len() > 40, "{expected:#?}");
    let found = of(&updated);
    let (missing, more): (Vec<_>, Vec<_>) =
        (expected.difference(&found).collect(), found.difference(&expected).collect());
    assert!(missing.is_empty() && more.is_empty(), "missing: {missing:#?}\nleft over: {more:#?}");
}

/// The triggers of watches and of a migration, the columns and indexes of their targets, and their rows in the
/// extension's tables. An update builds no index: `clip_watch` makes the one on the project for new targets, and a
/// migration builds the indexes of new vectors at its end.
const WATCHES: &str = "
    SELECT line FROM (
        SELECT pg_get_triggerdef(oid) || tgenabled::text AS line, tgrelid AS relation FROM pg_trigger WHERE NOT tgisinternal
        UNION ALL
        SELECT format('%s %s %s %s %s', attrelid::regclass, attname, format_type(atttypid, atttypmod), attnotnull,
            pg_get_expr(adbin, adrelid)), attrelid
        FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
        WHERE attnum > 0 AND NOT attisdropped AND attrelid::regclass::text LIKE '%\\_embeddings'
        UNION ALL
        SELECT pg_get_indexdef(indexrelid), indrelid FROM pg_index WHERE indrelid::regclass::text LIKE '%\\_embeddings'
            AND pg_get_indexdef(indexrelid) !~ '(project|clip_next_embedding vector_cosine_ops)'
        UNION ALL
        SELECT to_jsonb(watch)::text, source FROM clip_watches AS watch
        UNION ALL
        SELECT model, 'photos'::regclass FROM clip_database_model
    ) AS lines
    WHERE relation::regclass::text = ANY ('{photos, uploads, moved, albums, albums_1, albums_2, albums_2_1,
        image_embeddings, upload_embeddings, moved_embeddings, album_embeddings}')";

#[test]
fn watches_of_0_1_0_go_on_after_the_update() {
    let cluster = cluster_of_two_models();
    let database = made_by_0_1_0(&cluster);
    let mut client = database.connect();
    assert_waits_for_the_update(&mut client);

    let update = psql(&cluster, &database, UPDATE.as_bytes());
    let told = String::from_utf8_lossy(&update.stderr).into_owned();
    assert!(update.status.success(), "{told}");
    for expected in [
        "WARNING:  table public.portraits and its target public.portrait_embeddings have different owners",
        "HINT:  ALTER TABLE public.portrait_embeddings OWNER TO photographer\n",
        "WARNING:  column \"id\" of table public.scans is of type integer, and column \"image_id\" of its target public.scan_embeddings of type bigint",
        "HINT:  ALTER TABLE public.scan_embeddings ALTER COLUMN image_id TYPE integer\n",
        "HINT:  ALTER TABLE public.scan_embeddings ALTER COLUMN project TYPE text\n",
        "WARNING:  column \"film\" of table public.frames is not unique",
        "HINT:  ALTER TABLE public.frames ADD UNIQUE (film)\n",
        "WARNING:  table public.selves takes the embeddings of its own photos",
        "WARNING:  photos that were written to partition public.albums_1 by its own name have no embedding yet",
        "HINT:  CALL clip_backfill('public.albums')\n",
    ] {
        assert!(told.contains(expected), "{expected}\nis not in\n{told}");
    }
    assert_eq!(told.matches("WARNING").count(), 8, "{told}");

    // A watch that fits is embedded at once; any other, once the hint has been followed.
    run(
        &mut client,
        "ALTER TABLE public.portrait_embeddings OWNER TO photographer;
        ALTER TABLE public.scan_embeddings ALTER COLUMN image_id TYPE integer;
        ALTER TABLE public.scan_embeddings ALTER COLUMN project TYPE text;
        ALTER TABLE public.frames ADD UNIQUE (film);
        SELECT clip_unwatch('public.selves');
        SELECT clip_watch('public.selves', target => 'selves_embeddings')",
    );
    run(&mut client, "SELECT clip_retry()");
    wait_until("the queue of 0.1.0 is worked off", PATIENCE, || value::<i64>(&mut client, WAITING) == 0);
    for (source, target) in [
        ("photos", "image_embeddings"),
        ("uploads", "upload_embeddings"),
        ("portraits", "portrait_embeddings"),
        ("scans", "scan_embeddings"),
    ] {
        assert_eq!(wrong(&mut client, source, target), 0, "{source}");
    }
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM upload_embeddings"), 4);
    let dead = "SELECT concat_ws(' ', source, key, sqlstate) FROM clip_failures WHERE dead";
    assert_eq!(texts(&mut client, dead), ["uploads 3 22P03"]);

    // The partitions.
    run(&mut client, "CALL clip_backfill('albums')");
    let insert = "INSERT INTO albums_2_1 (id, image) VALUES (150, $1)";
    client.execute(insert, &[&demo_photos()[7]]).expect("a photo is inserted");
    assert_eq!(wrong(&mut client, "albums", "album_embeddings"), 0);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM album_embeddings"), 4);

    // A watch in sync mode, and a trigger that was written by hand.
    store(&mut client, &demo_photos()[..2]);
    run(&mut client, "DELETE FROM photos WHERE id = 1");
    assert_eq!(wrong(&mut client, "photos", "image_embeddings"), 0);
    let insert = "INSERT INTO handmade (id, image) VALUES (2, $1)";
    client.execute(insert, &[&demo_photos()[7]]).expect("a photo is inserted");
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM handmade_embeddings"), 2);

    // The migration goes on where it was.
    let inferences = "SELECT image_inferences FROM clip_status";
    let before: i64 = value(&mut client, inferences);
    assert_eq!(value::<i64>(&mut client, "SELECT done FROM clip_migrations"), 2);
    run(&mut client, "DELETE FROM moved_embeddings WHERE image_id NOT IN (SELECT id FROM moved)");
    run(&mut client, &format!("CALL clip_migrate('moved_embeddings', '{OTHER_MODEL}', false)"));
    assert_eq!(value::<i64>(&mut client, inferences), before);
    let models = "SELECT DISTINCT split_part(model, '@', 1) FROM moved_embeddings";
    assert_eq!(texts(&mut client, models), [OTHER_MODEL]);

    // Users' objects on views, and a generated column.
    run(&mut client, "TABLE dashboard; TABLE latencies; TABLE fills; TABLE moves; TABLE phrases");
    assert_eq!(value::<String>(&mut client, "SHOW clip.model"), "demo");
}

/// Between the installation of the files and the update, the error of every call names the remedy, and photos wait.
fn assert_waits_for_the_update(client: &mut Client) {
    for statement in [
        "INSERT INTO photos (image) VALUES ('x')",
        "DELETE FROM photos",
        "SELECT clip_watch('uploads', target => 'upload_embeddings')",
        "SELECT clip_unwatch('uploads')",
        "CALL clip_backfill('uploads')",
        "CALL clip_migrate('moved_embeddings', 'other', false)",
        "SELECT clip_retry()",
        "SELECT clip_embed_text('a cat')",
    ] {
        let error = client.batch_execute(statement).expect_err(statement);
        let error = error.as_db_error().expect(statement);
        assert_eq!(error.code().code(), "55000", "{statement}: {error}");
        assert!(error.message().ends_with("the extension of version 0.1.0"), "{statement}: {error}");
        assert!(error.hint().is_some_and(|hint| hint.contains(UPDATE)), "{statement}: {error:?}");
    }
    assert_eq!(value::<i64>(client, WAITING), 5);
    run(client, "SELECT clip_embed_text('a cat', 'demo')");
}

/// Photos without the vector of their bytes, and vectors of no photo. Another processor computed the vectors of the
/// dump, whose last digits differ: 1e-6 is far below the distance of two photos, and of one photo in two models.
fn wrong(client: &mut Client, source: &str, target: &str) -> i64 {
    let query = format!(
        "SELECT count(*) FROM (SELECT id, image FROM {source} WHERE image <> 'no photo') AS s
        FULL JOIN {target} ON image_id = s.id
        WHERE checksum IS DISTINCT FROM sha256(image)
            OR (embedding <=> clip_embed_image(image) < 1e-6) IS NOT TRUE"
    );
    value(client, &query)
}

fn catalog(client: &mut Client) -> BTreeSet<String> {
    let query = String::from_utf8(repository_file("tests/data/upgrade/catalog.sql")).expect("UTF-8");
    texts(client, &query).into_iter().collect()
}

fn texts(client: &mut Client, query: &str) -> Vec<String> {
    client.query(query, &[]).expect(query).iter().map(|row| row.get(0)).collect()
}

/// A database that release 0.1.0 made, with its SQL and this library.
fn made_by_0_1_0(cluster: &TestCluster) -> TestDatabase {
    let database = cluster.empty_database();
    run(&mut database.connect(), "CREATE ROLE photographer; CREATE ROLE archivist");
    let restored = psql(cluster, &database, &repository_file("tests/data/upgrade/0.1.0.sql"));
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    database
}

fn psql(cluster: &TestCluster, database: &TestDatabase, input: &[u8]) -> Output {
    let mut psql = client(&cluster.server, "psql", database.name());
    psql.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"]);
    let piped = || Stdio::piped();
    let mut child = psql.stdin(piped()).stdout(piped()).stderr(piped()).spawn().expect("psql runs");
    let mut stdin = child.stdin.take().expect("its input");
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).expect("psql reads"));
        child.wait_with_output().expect("psql ends")
    })
}
