//! A table moves to another model.

use std::time::Duration;

use pg_clip_tests::{
    OTHER_MODEL, Signal, TestCluster, TestDatabase, cluster_of_two_models, demo_jpegs, demo_photos, failure,
    run, send, store, value, variant, wait_for, wait_until, watched,
};
use postgres::Client;

const PATIENCE: Duration = Duration::from_secs(60);

/// Rows whose vector is not that of their photo and of the model that searches.
const WRONG: &str = "SELECT count(*) FROM photos FULL JOIN image_embeddings ON image_id = photos.id
    WHERE checksum IS DISTINCT FROM sha256(image) OR embedding IS DISTINCT FROM clip_embed_image(image)
        OR split_part(model, '@', 1) IS DISTINCT FROM current_setting('clip.model')";

/// The shape of a table that a migration must leave as it was.
const SHAPE: &str = "SELECT string_agg(line, E'\\n' ORDER BY line) FROM (
    SELECT format('%s %s %s %s', attname, format_type(atttypid, atttypmod), attnotnull, attstorage)
        || coalesce(' ' || col_description(attrelid, attnum), '') || coalesce(' ' || attacl::text, '') AS line
    FROM pg_attribute WHERE attrelid = 'image_embeddings'::regclass AND attnum > 0 AND NOT attisdropped
    UNION ALL SELECT indexdef FROM pg_indexes WHERE tablename = 'image_embeddings'
    UNION ALL SELECT tgname FROM pg_trigger WHERE tgrelid = 'image_embeddings'::regclass) AS lines";

fn watched_with(cluster: &TestCluster, photos: &[Vec<u8>]) -> (TestDatabase, Client) {
    let (database, mut client) = watched(cluster, "sync");
    store(&mut client, photos);
    (database, client)
}

#[test]
fn a_table_moves_with_everything_that_its_columns_have() {
    let cluster = cluster_of_two_models();
    let mut photos = demo_photos()[..70].to_vec();
    photos.extend_from_slice(&demo_photos()[..10]);
    let (database, mut client) = watched_with(&cluster, &photos);
    run(
        &mut client,
        "COMMENT ON COLUMN image_embeddings.embedding IS 'it''s a vector'; CREATE ROLE searcher;
        GRANT SELECT (image_id, embedding) ON image_embeddings TO searcher;
        ALTER TABLE image_embeddings ALTER embedding SET STORAGE PLAIN;
        CREATE INDEX \"Halves; --\" ON image_embeddings USING hnsw ((embedding::halfvec(512)) halfvec_l2_ops)
            WITH (m = 8) WHERE project IS NULL",
    );
    let shape: String = value(&mut client, SHAPE);
    let mut open = database.connect();
    assert_eq!(value::<i64>(&mut open, WRONG), 0);
    let before: i64 = value(&mut client, "SELECT image_inferences FROM clip_status");
    run(&mut client, "CALL clip_migrate('image_embeddings', 'other')");
    let after: i64 = value(&mut client, "SELECT image_inferences FROM clip_status");
    assert_eq!(after - before, 70, "the same bytes cost one inference");
    assert_eq!(value::<String>(&mut open, "SHOW clip.model"), OTHER_MODEL);
    assert_eq!(value::<i64>(&mut open, WRONG), 0);
    assert_eq!(value::<String>(&mut client, SHAPE), shape);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 80);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM clip_migrations"), 0);
    open.execute("INSERT INTO photos (image) VALUES ($1)", &[&demo_photos()[100]]).expect("a photo");
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
    run(&mut client, "CALL clip_migrate('image_embeddings', 'other')");
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
    run(&mut client, "CALL clip_migrate('image_embeddings', 'demo')");
    assert_eq!(value::<i64>(&mut open, WRONG), 0);
    assert_eq!(value::<String>(&mut client, SHAPE), shape);
    run(&mut client, "DROP OWNED BY searcher; DROP ROLE searcher");
    assert_eq!(failure(&mut client, "SELECT clip_abandon_migration('image_embeddings')", &[]), "55000");
}

#[test]
fn a_table_that_cannot_be_migrated_is_refused_with_a_reason() {
    let cluster = cluster_of_two_models();
    let (_database, mut client) = watched_with(&cluster, &demo_photos()[..3]);
    let mut refused = |call: &str| failure(&mut client, call, &[]);
    assert_eq!(refused("CALL clip_migrate('photos', 'other')"), "55000");
    assert_eq!(refused("CALL clip_migrate('image_embeddings', 'nobody')"), "22023");
    assert_eq!(refused("CALL clip_migrate('image_embeddings', '../demo')"), "22023");
    assert_eq!(refused("CALL clip_migrate('image_embeddings', NULL)"), "22004");
    let wrapped = "DO $$ BEGIN CALL clip_migrate('image_embeddings', 'other'); EXCEPTION WHEN division_by_zero THEN END $$";
    assert_eq!(refused(wrapped), "2D000", "a procedure that commits is called by itself");
    run(&mut client, "CREATE VIEW shown AS SELECT image_id, embedding FROM image_embeddings");
    let error =
        client.batch_execute("CALL clip_migrate('image_embeddings', 'other')").expect_err("a view depends");
    let error = error.as_db_error().expect("an error of the server");
    assert_eq!(error.code().code(), "2BP01");
    assert_eq!(error.detail(), Some("Dependent: rule _RETURN on view public.shown."));
    run(
        &mut client,
        "DROP VIEW shown; CREATE INDEX by_model ON image_embeddings (model);
        ALTER TABLE image_embeddings ADD small halfvec(512) GENERATED ALWAYS AS (embedding::halfvec(512)) STORED",
    );
    let error =
        client.batch_execute("CALL clip_migrate('image_embeddings', 'other')").expect_err("both depend");
    let detail = error.as_db_error().and_then(|error| error.detail()).expect("a detail");
    assert_eq!(
        detail,
        "Dependent: default value for column small of table public.image_embeddings, index public.by_model."
    );
    run(&mut client, "DROP INDEX by_model; ALTER TABLE image_embeddings DROP small");

    // Rows whose photo is not there any more, or has other bytes.
    run(
        &mut client,
        "ALTER TABLE photos DISABLE TRIGGER ALL; DELETE FROM photos WHERE id = 1;
        UPDATE photos SET image = image || '\\x00' WHERE id = 2; ALTER TABLE photos ENABLE TRIGGER ALL",
    );
    let error =
        client.batch_execute("CALL clip_migrate('image_embeddings', 'other')").expect_err("no photos");
    let error = error.as_db_error().expect("an error of the server");
    assert_eq!(error.code().code(), "55000");
    assert_eq!(error.message(), "2 rows of table public.image_embeddings have no photo with their checksum");
    assert_eq!(value::<String>(&mut client, "SHOW clip.model"), "demo");
    let progress = "SELECT format('%s %s %s %s', target, split_part(to_model, '@', 1), done, total) FROM clip_migrations";
    assert_eq!(value::<String>(&mut client, progress), "image_embeddings other 1 3");
    assert_eq!(failure(&mut client, "CALL clip_migrate('image_embeddings', 'demo')", &[]), "55000");
    run(
        &mut client,
        "DELETE FROM image_embeddings WHERE image_id <= 2; UPDATE photos SET image = image || '\\x01'",
    );
    run(&mut client, "CALL clip_migrate('image_embeddings', 'other')");
    assert_eq!(value::<i64>(&mut client, &format!("{WRONG} AND photos.id <> 2")), 0);
}

#[test]
fn the_owner_of_the_tables_migrates_them() {
    let cluster = cluster_of_two_models();
    let database = cluster.database();
    let mut superuser = database.connect();
    run(
        &mut superuser,
        "CREATE ROLE shopkeeper LOGIN; CREATE ROLE stranger LOGIN;
        CREATE SCHEMA \"The \"\"Shop\" AUTHORIZATION shopkeeper; CREATE SCHEMA evil AUTHORIZATION shopkeeper",
    );
    let mut shopkeeper = database.connect_as("shopkeeper");
    run(
        &mut shopkeeper,
        r#"CREATE TABLE "The ""Shop"."Photos; --" ("the 'key'" uuid PRIMARY KEY DEFAULT gen_random_uuid(), image bytea);
        SELECT clip_watch('"The ""Shop"."Photos; --"', '"Their vectors"', embedding_column => 'The vector',
            model_column => 'By "model"', target_key_column => 'Photo', checksum_column => 'Check; sum');
        CREATE FUNCTION evil.never(uuid, uuid) RETURNS bool LANGUAGE sql AS 'SELECT false';
        CREATE OPERATOR evil.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = evil.never);
        CREATE FUNCTION evil.format(text, VARIADIC anyarray) RETURNS text LANGUAGE sql AS 'SELECT ''DROP TABLE x''';
        SET search_path = evil, pg_catalog, public"#,
    );
    let insert = r#"INSERT INTO "The ""Shop"."Photos; --" (image) SELECT unnest($1::bytea[])"#;
    shopkeeper.execute(insert, &[&&demo_photos()[..40]]).expect("photos");
    let target = r#"'"The ""Shop"."Their vectors"'"#;
    let migrate = format!("CALL public.clip_migrate({target}, 'other')");
    assert_eq!(failure(&mut database.connect_as("stranger"), &migrate, &[]), "42501");
    assert_eq!(failure(&mut shopkeeper, &migrate, &[]), "42501", "the database is not theirs");
    let abandon = format!("SELECT clip_abandon_migration({target})");
    assert_eq!(failure(&mut database.connect_as("stranger"), &abandon, &[]), "42501");
    run(&mut shopkeeper, &format!("CALL public.clip_migrate({target}, 'other', set_default => false)"));
    let wrong = r#"SELECT count(*) FROM "The ""Shop"."Photos; --" FULL JOIN "The ""Shop"."Their vectors"
        ON "Photo" OPERATOR(pg_catalog.=) "the 'key'"
        WHERE "The vector" IS DISTINCT FROM public.clip_embed_image(image, 'other') OR "By ""model""" NOT LIKE 'other@%'"#;
    run(&mut shopkeeper, "SET search_path = pg_catalog, public");
    assert_eq!(value::<i64>(&mut shopkeeper, wrong), 0);
    assert_eq!(value::<String>(&mut shopkeeper, "SHOW clip.model"), "demo");
    drop(shopkeeper);
    run(&mut superuser, "DROP OWNED BY shopkeeper CASCADE; DROP ROLE shopkeeper; DROP ROLE stranger");
}

#[test]
fn a_migration_goes_on_where_it_ended_or_is_abandoned() {
    let cluster = cluster_of_two_models();
    let jpegs = demo_jpegs();
    let photos: Vec<Vec<u8>> = (0..400).map(|number| variant(&jpegs[number % 50], number as u32)).collect();
    let (database, mut client) = watched_with(&cluster, &photos);
    let shape: String = value(&mut client, SHAPE);
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        let before = done(&mut client);
        let mut migrating = database.connect();
        let pid: i32 = value(&mut migrating, "SELECT pg_backend_pid()");
        let cut_short = std::thread::scope(|scope| {
            let call =
                scope.spawn(|| migrating.batch_execute("CALL clip_migrate('image_embeddings', 'other')"));
            wait_until("some rows are done", PATIENCE, || done(&mut client) > before + 20);
            let beside = failure(&mut client, "CALL clip_migrate('image_embeddings', 'other')", &[]);
            assert_eq!(beside, "55006", "one at a time");
            send(u32::try_from(pid).expect("a pid"), signal);
            call.join().expect("the call ends")
        });
        cut_short.expect_err("the call was cut short");
        if signal == Signal::SIGKILL {
            wait_until("all connections are gone", PATIENCE, || client.is_valid(PATIENCE).is_err());
        }
        client = wait_for("the server takes connections", PATIENCE, || database.try_connect().ok());
        assert!(done(&mut client) >= before, "nothing is lost");
        assert_eq!(value::<i64>(&mut client, WRONG), 0, "the table is as it was");
    }
    // Photos that change and come meanwhile have no vector of the bytes before.
    client.execute("UPDATE photos SET image = $1 WHERE id <= 30", &[&jpegs[60]]).expect("photos change");
    run(
        &mut client,
        "DELETE FROM photos WHERE id = 31; UPDATE image_embeddings SET project = 'p' WHERE image_id = 40",
    );
    run(&mut client, "CALL clip_migrate('image_embeddings', 'other')");
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
    assert_eq!(value::<String>(&mut client, SHAPE), shape);

    let mut migrating = database.connect();
    let abandoned = std::thread::scope(|scope| {
        let call =
            scope.spawn(|| failure(&mut migrating, "CALL clip_migrate('image_embeddings', 'demo')", &[]));
        wait_until("some rows are done", PATIENCE, || done(&mut client) > 20);
        run(&mut client, "SELECT clip_abandon_migration('image_embeddings')");
        call.join().expect("the call ends")
    });
    assert_eq!(abandoned, "55000");
    assert_eq!(value::<String>(&mut client, SHAPE), shape);
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
    run(&mut client, "CALL clip_migrate('image_embeddings', 'demo')");
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
}

fn done(client: &mut Client) -> i64 {
    value(client, "SELECT coalesce(sum(done), 0)::bigint FROM clip_migrations")
}
