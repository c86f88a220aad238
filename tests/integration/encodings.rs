//! Names, keys and projects with accents, in a database whose encoding is not UTF-8.

use pg_clip_tests::{
    PATIENCE, TestCluster, TestDatabase, demo_photos, run, value, wait_for, wait_for_the_queue,
};
use postgres::Client;
use postgres::error::DbError;

#[test]
fn photos_in_async_mode_have_keys_with_accents_in_a_latin1_database() {
    let cluster = TestCluster::preloaded();
    let mut client = latin1(&cluster).connect();
    let photos = demo_photos();
    run(
        &mut client,
        r#"CREATE TABLE "Bücher" ("schlüssel" text PRIMARY KEY, project text, "bild_ü" bytea);
        SELECT clip_watch('"Bücher"', target => '"Schätze"', mode => 'async', image_column => 'bild_ü')"#,
    );
    put(&mut client, "café", &photos[0]);
    put(&mut client, "naïve", &photos[1]);
    put(&mut client, "été", b"broken");
    wait_for_the_queue(&mut client);
    assert_eq!(keys(&mut client), ["café", "naïve"]);
    let nearest =
        "SELECT image_id FROM \"Schätze\" ORDER BY embedding <=> (SELECT clip_embed_image($1)) LIMIT 1";
    let found: String = client.query_one(nearest, &[&photos[1]]).expect("a search").get(0);
    assert_eq!(found, "naïve");
    assert_eq!(value::<String>(&mut client, "SELECT key FROM clip_failures"), "été");
    assert_eq!(value::<String>(&mut client, "SELECT source::text FROM clip_coverage"), "\"Bücher\"");
    let comment = r#"SELECT obj_description('"Schätze"'::regclass)"#;
    assert_eq!(
        value::<String>(&mut client, comment),
        "embeddings of the photos in public.\"Bücher\", kept by clip_watch"
    );

    // A failed photo is retried by its key, and its job goes once the photo is repaired.
    assert_eq!(value::<i64>(&mut client, r#"SELECT clip_retry('"Bücher"', 'été')"#), 1);
    wait_for_the_queue(&mut client);
    assert_eq!(value::<String>(&mut client, "SELECT key FROM clip_failures"), "été");
    put(&mut client, "été", &photos[2]);
    wait_for_the_queue(&mut client);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM clip_failures"), 0);
    assert_eq!(value::<Vec<i64>>(&mut client, VERIFIED), [3, 3, 0, 0, 0, 0]);

    run(
        &mut client,
        r#"UPDATE "Bücher" SET "schlüssel" = 'crêpe' WHERE "schlüssel" = 'café';
        UPDATE "Bücher" SET project = 'Größe'; DELETE FROM "Bücher" WHERE "schlüssel" = 'naïve'"#,
    );
    put(&mut client, "été", &photos[3]);
    wait_for_the_queue(&mut client);
    assert_eq!(keys(&mut client), ["crêpe", "été"]);
    let projects = "SELECT array_agg(DISTINCT project) FROM \"Schätze\"";
    assert_eq!(value::<Vec<String>>(&mut client, projects), ["Größe"]);
    assert_eq!(value::<Vec<i64>>(&mut client, VERIFIED), [2, 2, 0, 0, 0, 0]);

    run(&mut client, "SET clip.enabled = off");
    put(&mut client, "ñandú", &photos[4]);
    run(&mut client, r#"RESET clip.enabled; SET client_min_messages = error"#);
    run(&mut client, r#"CALL clip_backfill('"Bücher"', verify => true)"#);
    assert_eq!(keys(&mut client), ["crêpe", "été", "ñandú"]);
    run(&mut client, r#"DELETE FROM "Bücher""#);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM \"Schätze\""), 0);
}

#[test]
fn errors_and_notices_are_in_the_encoding_of_the_database() {
    let cluster = TestCluster::preloaded();
    for (encoding, key) in [("LATIN1", "été"), ("EUC_JP", "写真"), ("SQL_ASCII", "été"), ("UTF8", "été")]
    {
        let mut client = database_of(&cluster, encoding).connect();
        run(
            &mut client,
            "CREATE TABLE photos (id text PRIMARY KEY, image bytea); SELECT clip_watch('photos')",
        );
        let insert = format!("INSERT INTO photos VALUES ('{key}', 'broken')");
        let error = refusal(&mut client, &insert);
        assert_eq!(error.code().code(), "22P03", "{encoding}");
        let detail = error.detail().unwrap_or_default();
        assert!(detail.contains(&format!("The photo is that of key {key} in table")), "{encoding}: {detail}");
        // A client in UTF-8 can name characters that the encoding of the database lacks.
        let error = refusal(&mut client, &format!("SELECT clip_embed_text('x', '{key}')"));
        assert_eq!(error.code().code(), "22023", "{encoding}");
        assert_eq!(error.message(), format!("\"{key}\" is not the name of a model"), "{encoding}");
    }
}

#[test]
fn an_error_of_a_trigger_keeps_its_sqlstate_in_a_latin1_database() {
    let cluster = TestCluster::preloaded();
    let mut client = latin1(&cluster).connect();
    run(
        &mut client,
        "CREATE TABLE photos (id text PRIMARY KEY, project text, image bytea); SELECT clip_watch('photos');
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'Größe fehlt' USING ERRCODE = '23514'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON image_embeddings
            FOR EACH ROW WHEN (new.project = 'schön') EXECUTE FUNCTION refuse()",
    );
    let insert = "INSERT INTO photos VALUES ($1, 'schön', $2)";
    let photo = &demo_photos()[0];
    let error = client.execute(insert, &[&"été", photo]).expect_err("the trigger refuses the row");
    let error = error.as_db_error().unwrap_or_else(|| panic!("{error:?} {}", cluster.log()));
    assert_eq!((error.code().code(), error.message()), ("23514", "Größe fehlt"));

    run(&mut client, "SELECT clip_watch('photos', mode => 'async')");
    client.execute(insert, &[&"été", photo]).expect("the photo is stored");
    let failure = "SELECT key || ': ' || sqlstate || ' ' || message FROM clip_failures";
    let failure = wait_for("the failure is written down", PATIENCE, || {
        client.query_opt(failure, &[]).expect("a query").map(|row| row.get::<_, String>(0))
    });
    assert_eq!(failure, "été: 23514 Größe fehlt");
    run(&mut client, "DROP TRIGGER refuse ON image_embeddings; SELECT clip_retry()");
    wait_for_the_queue(&mut client);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 1);
}

const VERIFIED: &str = r#"SELECT ARRAY[photos, embedded, missing, stale, orphaned, other_project]
    FROM clip_verify('"Bücher"')"#;

fn latin1(cluster: &TestCluster) -> TestDatabase {
    database_of(cluster, "LATIN1")
}

/// A new database of an encoding that has the extension. Its clients send and receive UTF-8.
fn database_of(cluster: &TestCluster, encoding: &str) -> TestDatabase {
    let name = encoding.to_lowercase();
    let create = format!("CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0");
    run(&mut cluster.existing_database("postgres").connect(), &create);
    let database = cluster.existing_database(&name);
    run(&mut database.connect(), "CREATE EXTENSION vector; CREATE EXTENSION pg_clip");
    database
}

/// Stores a photo under a key, in place of the one that is there.
fn put(client: &mut Client, key: &str, image: &[u8]) {
    let upsert = r#"INSERT INTO "Bücher" ("schlüssel", "bild_ü") VALUES ($1, $2)
        ON CONFLICT ("schlüssel") DO UPDATE SET "bild_ü" = excluded."bild_ü""#;
    client.execute(upsert, &[&key, &image]).expect("a photo is stored");
}

#[track_caller]
fn refusal(client: &mut Client, statement: &str) -> DbError {
    let error = client.batch_execute(statement).expect_err(statement);
    error.as_db_error().expect("an error of the server").clone()
}

/// The keys whose vector is that of the photo's bytes.
fn keys(client: &mut Client) -> Vec<String> {
    let keys = r#"SELECT array_agg(image_id ORDER BY image_id COLLATE "C")
        FROM "Schätze" JOIN "Bücher" ON "schlüssel" = image_id
        WHERE checksum = sha256("bild_ü") AND embedding = clip_embed_image("bild_ü")"#;
    value(client, keys)
}
