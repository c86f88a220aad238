//! A watched table's embeddings follow its photos.

use std::io::Write;

use pg_clip_tests::{TestCluster, WRONG, demo_photo, demo_photos, run, value, watched};
use postgres::Client;

#[test]
fn one_insert_of_200_photos_equals_200_inserts() {
    let cluster = TestCluster::preloaded();
    let (_database, mut client) = watched(&cluster, "sync");
    let photos = &demo_photos()[..200];
    let before: i64 = value(&mut client, "SELECT image_inferences FROM clip_status");
    client
        .execute("INSERT INTO photos (image) SELECT unnest($1::bytea[])", &[&photos])
        .expect("200 photos in one statement");
    let after: i64 = value(&mut client, "SELECT image_inferences FROM clip_status");
    assert_eq!(after - before, 200);
    assert!(
        value::<i64>(&mut client, "SELECT image_batches FROM clip_status") < 200,
        "they travel in batches"
    );
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 200);
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
}

#[test]
fn copy_is_embedded() {
    let cluster = TestCluster::shared();
    let (_database, mut client) = watched(&cluster, "sync");
    let mut copy = client.copy_in("COPY photos (project, image) FROM STDIN").expect("a COPY starts");
    for photo in &demo_photos()[..200] {
        let hex: String = photo.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(copy, "kitchen\t\\\\x{hex}").expect("a row is sent");
    }
    assert_eq!(copy.finish().expect("the COPY ends"), 200);
    assert_eq!(
        value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings WHERE project = 'kitchen'"),
        200
    );
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
}

#[test]
fn the_same_bytes_cost_one_inference() {
    let cluster = TestCluster::preloaded();
    let (_database, mut client) = watched(&cluster, "sync");
    let photo = demo_photo();
    let twice = [photo.clone(), photo.clone()];
    client
        .execute("INSERT INTO photos (image) SELECT unnest($1::bytea[])", &[&twice.as_slice()])
        .expect("a photo twice in one statement");
    client.execute("INSERT INTO photos (image) VALUES ($1)", &[&photo]).expect("and once more");
    assert_eq!(value::<i64>(&mut client, "SELECT image_inferences FROM clip_status"), 1);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 3);
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
}

#[test]
fn updates_embed_changed_bytes_only() {
    let cluster = TestCluster::preloaded();
    let (_database, mut client) = watched(&cluster, "sync");
    let photos = demo_photos();
    for photo in &photos[..5] {
        client
            .execute("INSERT INTO photos (project, image) VALUES ('kitchen', $1)", &[photo])
            .expect("a photo is inserted");
    }
    let count = |client: &mut Client| -> i64 { value(client, "SELECT image_inferences FROM clip_status") };
    assert_eq!(count(&mut client), 5);

    run(
        &mut client,
        "UPDATE photos SET project = 'garden' WHERE id <= 3; UPDATE photos SET image = image || ''",
    );
    assert_eq!(count(&mut client), 5, "no bytes changed");
    let gardens = "SELECT count(*) FROM image_embeddings WHERE project = 'garden'";
    assert_eq!(value::<i64>(&mut client, gardens), 3, "the project is carried over");

    client.execute("UPDATE photos SET image = $1 WHERE id = 1", &[&photos[5]]).expect("new bytes");
    assert_eq!(count(&mut client), 6);
    assert_eq!(value::<i64>(&mut client, WRONG), 0);

    run(&mut client, "UPDATE photos SET image = NULL WHERE id = 2");
    assert_eq!(
        value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"),
        4,
        "a NULL photo has no row"
    );
    client.execute("UPDATE photos SET image = $1 WHERE id = 2", &[&photos[6]]).expect("bytes again");
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 5);

    let before = count(&mut client);
    run(&mut client, "ALTER TABLE photos ALTER id DROP IDENTITY; UPDATE photos SET id = id + 100");
    assert_eq!(count(&mut client), before, "a key that changes takes its vector along");
    assert_eq!(value::<i64>(&mut client, "SELECT min(image_id) FROM image_embeddings"), 101);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 5);
    let wrong = "SELECT count(*) FROM photos FULL JOIN image_embeddings ON image_id = photos.id
        WHERE checksum IS DISTINCT FROM sha256(image)";
    assert_eq!(value::<i64>(&mut client, wrong), 0);
}

#[test]
fn deletes_and_truncates_leave_no_orphans() {
    let cluster = TestCluster::shared();
    let (_database, mut client) = watched(&cluster, "sync");
    client
        .execute("INSERT INTO photos (image) SELECT unnest($1::bytea[])", &[&&demo_photos()[..10]])
        .expect("photos are inserted");
    run(&mut client, "DELETE FROM photos WHERE id > 6");
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 6);
    run(&mut client, "TRUNCATE photos");
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 0);
}

#[test]
fn insert_on_conflict_and_merge_are_embedded() {
    let cluster = TestCluster::shared();
    let (_database, mut client) = watched(&cluster, "sync");
    let photos = demo_photos();
    for photo in &photos[..2] {
        client
            .execute(
                "INSERT INTO photos (id, image) OVERRIDING SYSTEM VALUE VALUES (1, $1)
                ON CONFLICT (id) DO UPDATE SET image = EXCLUDED.image",
                &[photo],
            )
            .expect("an upsert");
        assert_eq!(value::<i64>(&mut client, WRONG), 0);
    }
    client
        .execute(
            "MERGE INTO photos USING (SELECT i, $1::bytea AS image FROM generate_series(1, 2) AS i) AS new
            ON photos.id = new.i
            WHEN MATCHED THEN UPDATE SET image = new.image
            WHEN NOT MATCHED THEN INSERT (id, image) OVERRIDING SYSTEM VALUE VALUES (new.i, new.image)",
            &[&photos[2]],
        )
        .expect("a MERGE");
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 2);
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
}

#[test]
fn keys_of_many_types_and_names_that_need_quotes() {
    let cluster = TestCluster::shared();
    let database = cluster.database();
    let mut client = database.connect();
    let photo = demo_photo();
    let keys = [
        ("uuid", "gen_random_uuid()"),
        ("bigint", "9007199254740993"),
        ("int", "7"),
        ("text", "'a \"key\"'"),
    ];
    for (number, (key_type, key)) in keys.into_iter().enumerate() {
        run(
            &mut client,
            &format!(
                r#"CREATE SCHEMA "Shop ""{number}""";
                CREATE TABLE "Shop ""{number}"""."Customer's photos; --" (
                    "the key" {key_type} PRIMARY KEY DEFAULT {key}, "Project" text, "the ""image""" bytea);
                SELECT clip_watch(
                    '"Shop ""{number}"""."Customer''s photos; --"', target => '"Its ""embeddings"""',
                    image_column => 'the "image"', project_column => 'Project')"#
            ),
        );
        let insert = format!(
            r#"INSERT INTO "Shop ""{number}"""."Customer's photos; --" ("Project", "the ""image""") VALUES ('p', $1)"#
        );
        client.execute(&insert, &[&photo]).expect("a photo is inserted");
        let query = format!(
            r#"SELECT count(*) FROM "Shop ""{number}"""."Customer's photos; --"
            JOIN "Shop ""{number}"""."Its ""embeddings""" AS e ON e.image_id = "the key" AND e.project = "Project"
            WHERE pg_typeof(image_id)::text = pg_typeof("the key")::text AND model LIKE 'demo@%'"#
        );
        assert_eq!(value::<i64>(&mut client, &query), 1, "{key_type}");
    }
}

#[test]
fn a_table_that_is_there_already_is_filled() {
    let cluster = TestCluster::shared();
    let mut client = cluster.database().connect();
    run(
        &mut client,
        "CREATE TABLE photos (id int PRIMARY KEY, project text, image bytea);
        CREATE TABLE vectors (photo int UNIQUE, vec vector(512), digest bytea, by text, extra int DEFAULT 1)",
    );
    let watch =
        "SELECT clip_watch('photos', 'vectors', target_key_column => 'photo', embedding_column => 'vec',
        checksum_column => 'digest', model_column => 'by')::text";
    assert_eq!(value::<String>(&mut client, watch), "vectors");
    client.execute("INSERT INTO photos VALUES (1, 'p', $1)", &[&demo_photo()]).expect("a photo is inserted");
    let query = "SELECT count(*) FROM vectors JOIN photos ON photo = id
        WHERE vec = clip_embed_image(image) AND digest = sha256(image) AND extra = 1";
    assert_eq!(value::<i64>(&mut client, query), 1);

    run(
        &mut client,
        "CREATE TABLE lacking (image_id int UNIQUE, embedding vector(512)); SELECT clip_unwatch('photos')",
    );
    let error = client.query("SELECT clip_watch('photos', 'lacking')", &[]).expect_err("columns are missing");
    let error = error.as_db_error().expect("an error of the server");
    assert_eq!(error.code().code(), "42703");
    assert_eq!(error.detail(), Some("Missing: checksum bytea, model text."));
}

#[test]
fn a_broken_photo_fails_the_insert_and_is_named() {
    let cluster = TestCluster::shared();
    let (_database, mut client) = watched(&cluster, "sync");
    let mut photos = demo_photos()[..50].to_vec();
    photos[41] = b"broken".to_vec();
    let error = client
        .execute("INSERT INTO photos (image) SELECT unnest($1::bytea[])", &[&photos])
        .expect_err("one photo is broken");
    let error = error.as_db_error().expect("an error of the server");
    assert_eq!(error.code().code(), "22P03");
    let detail = error.detail().expect("the photo is named");
    assert!(detail.contains("key 42 in table public.photos"), "{detail}");
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM photos"), 0);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 0);
}

#[test]
fn the_flag_turns_embedding_off_for_a_role() {
    let cluster = TestCluster::shared();
    let (database, mut client) = watched(&cluster, "sync");
    run(
        &mut client,
        "CREATE ROLE careful LOGIN; GRANT INSERT, SELECT ON photos TO careful;
        ALTER ROLE careful SET clip.enabled = off",
    );
    let insert = "INSERT INTO photos (image) VALUES ($1)";
    database.connect_as("careful").execute(insert, &[&demo_photo()]).expect("a photo is stored");
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 0);
    run(&mut client, "ALTER ROLE careful RESET clip.enabled");
    database.connect_as("careful").execute(insert, &[&demo_photo()]).expect("a photo is embedded");
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 1);
    run(&mut client, "DROP OWNED BY careful; DROP ROLE careful");
}

#[test]
fn watching_again_replaces_and_unwatching_ends() {
    let cluster = TestCluster::shared();
    let (_database, mut client) = watched(&cluster, "sync");
    run(&mut client, "SELECT clip_watch('photos'); SELECT clip_watch('photos')");
    client.execute("INSERT INTO photos (image) VALUES ($1)", &[&demo_photo()]).expect("a photo is embedded");
    run(&mut client, "SELECT clip_unwatch('photos')");
    client.execute("INSERT INTO photos (image) VALUES ($1)", &[&demo_photo()]).expect("a photo is stored");
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 1);
    assert_eq!(pg_clip_tests::failure(&mut client, "SELECT clip_unwatch('photos')", &[]), "55000");
    run(&mut client, "CREATE TABLE others (id int PRIMARY KEY, image bytea); SELECT clip_watch('photos')");
    let shared = pg_clip_tests::failure(&mut client, "SELECT clip_watch('others')", &[]);
    assert_eq!(shared, "55000", "a target takes the photos of one table");
}

#[test]
fn a_trigger_written_by_hand_works() {
    let cluster = TestCluster::shared();
    let mut client = cluster.database().connect();
    run(
        &mut client,
        "CREATE TABLE photos (id int PRIMARY KEY, picture bytea);
        CREATE TABLE image_embeddings (image_id int PRIMARY KEY, embedding vector(512), checksum bytea, model text);
        CREATE TRIGGER embed AFTER INSERT ON photos REFERENCING NEW TABLE AS added
            FOR EACH STATEMENT EXECUTE FUNCTION clip_fill_image_embeddings('image_column=picture')",
    );
    client.execute("INSERT INTO photos VALUES (1, $1)", &[&demo_photo()]).expect("a photo is embedded");
    let query = "SELECT count(*) FROM image_embeddings JOIN photos ON id = image_id
        WHERE embedding = clip_embed_image(picture)";
    assert_eq!(value::<i64>(&mut client, query), 1);

    run(
        &mut client,
        "CREATE TABLE rows (id int PRIMARY KEY, image bytea);
        CREATE TRIGGER embed AFTER INSERT ON rows FOR EACH ROW EXECUTE FUNCTION clip_fill_image_embeddings()",
    );
    let per_row = pg_clip_tests::failure(&mut client, "INSERT INTO rows VALUES (1, '')", &[]);
    assert_eq!(per_row, "39P01", "a trigger for each row would embed one by one");
}
