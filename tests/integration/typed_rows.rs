//! Types change between two transactions, and a value of one type is never read as another.

use pg_clip_tests::{
    PATIENCE, TestCluster, WRONG, demo_photo, demo_photos, failure, run, value, wait_for_the_queue,
    wait_until,
};
use postgres::Client;

/// A value that would crash a server that read it as an address.
const ADDRESS: &str = "4096";

#[test]
fn a_trigger_on_columns_of_other_types_is_refused() {
    let cluster = TestCluster::shared();
    let database = cluster.database();
    let mut client = database.connect();
    let mut other = database.connect();
    let columns = [
        (
            "id int PRIMARY KEY, image bigint",
            "image_id int UNIQUE, embedding vector, checksum bytea, model text",
        ),
        (
            "id int PRIMARY KEY, image bytea",
            "image_id bigint UNIQUE, embedding vector, checksum bytea, model text",
        ),
        (
            "id int PRIMARY KEY, image bytea",
            "image_id int UNIQUE, embedding sparsevec, checksum bytea, model text",
        ),
        (
            "id int PRIMARY KEY, image bytea",
            "image_id int UNIQUE, embedding bigint, checksum bytea, model text",
        ),
        (
            "id int PRIMARY KEY, image bytea",
            "image_id int UNIQUE, embedding vector, checksum bigint, model text",
        ),
        (
            "id int PRIMARY KEY, image bytea",
            "image_id int UNIQUE, embedding vector, checksum bytea, model bigint",
        ),
        (
            "id int PRIMARY KEY, image text",
            "image_id int UNIQUE, embedding vector, checksum bytea, model text",
        ),
    ];
    for (number, (source, target)) in columns.into_iter().enumerate() {
        run(
            &mut client,
            &format!(
                "CREATE TEMPORARY TABLE q{number} ({source}); CREATE TEMPORARY TABLE qe{number} ({target});
                CREATE TRIGGER t AFTER INSERT ON q{number} REFERENCING NEW TABLE AS n FOR EACH STATEMENT
                    EXECUTE FUNCTION clip_fill_image_embeddings('target=pg_temp.qe{number}')"
            ),
        );
        let image = if source.contains("bytea") { "'x'" } else { ADDRESS };
        let insert = format!("INSERT INTO q{number} VALUES (1, {image})");
        assert_eq!(failure(&mut client, &insert, &[]), "42804", "{source}, {target}");
    }
    // Other sessions did not notice.
    assert_eq!(value::<i32>(&mut other, "SELECT 1"), 1);
}

#[test]
fn columns_that_change_their_type_are_refused_until_both_have_it() {
    let cluster = TestCluster::shared();
    for mode in ["sync", "async"] {
        let database = cluster.database();
        let mut client = database.connect();
        run(&mut client, "CREATE TABLE photos (id int PRIMARY KEY, project text, image bytea)");
        run(&mut client, &format!("SELECT clip_watch('photos', mode => '{mode}')"));
        insert(&mut client, 1);
        wait_for_the_queue(&mut client);

        run(&mut client, &format!("ALTER TABLE photos ALTER project TYPE bigint USING {ADDRESS}"));
        refused(&mut client, mode, "UPDATE photos SET project = 2, image = image || '\\x00'", "42804");
        run(&mut client, "ALTER TABLE image_embeddings ALTER project TYPE bigint USING 0");
        run(&mut client, "UPDATE photos SET project = 3, image = image || '\\x00'");
        wait_for_the_queue(&mut client);
        let projects = "SELECT count(*) FROM photos JOIN image_embeddings e ON image_id = photos.id
            WHERE e.project = photos.project";
        assert_eq!(value::<i64>(&mut client, projects), 1);

        run(&mut client, "ALTER TABLE photos ALTER id TYPE text");
        refused(&mut client, mode, "UPDATE photos SET id = 'two'", "42804");
        run(&mut client, "ALTER TABLE image_embeddings ALTER image_id TYPE text");
        run(&mut client, "UPDATE photos SET id = 'two'");
        wait_for_the_queue(&mut client);
        assert_eq!(value::<i64>(&mut client, WRONG), 0);

        // The vector of the same bytes is looked for in a column that holds other vectors now.
        let embeddings = "SELECT format('DROP INDEX %s', indexrelid::regclass) FROM pg_index
            JOIN pg_am ON true JOIN pg_class c ON c.oid = indexrelid AND relam = pg_am.oid
            WHERE indrelid = 'image_embeddings'::regclass AND amname = 'hnsw'";
        let drop = value::<String>(&mut client, embeddings);
        run(&mut client, &drop);
        run(&mut client, "ALTER TABLE image_embeddings ALTER embedding TYPE sparsevec(512)");
        if mode == "sync" {
            let copy = "INSERT INTO photos SELECT 'three', project, image FROM photos";
            assert_eq!(failure(&mut client, copy, &[]), "42804");
            run(&mut client, "ALTER TABLE image_embeddings ALTER embedding TYPE vector(512)");
            run(&mut client, copy);
        } else {
            run(&mut client, "INSERT INTO photos SELECT 'three', project, image FROM photos");
            wait_until("the reason is shown", PATIENCE, || {
                let waits = "SELECT count(*) FROM clip_failures WHERE sqlstate = '42804' AND NOT dead";
                value::<i64>(&mut client, waits) == 1
            });
            run(&mut client, "ALTER TABLE image_embeddings ALTER embedding TYPE vector(512)");
        }
        wait_for_the_queue(&mut client);
        let right = "SELECT count(*) FROM photos JOIN image_embeddings ON image_id = photos.id
            WHERE checksum = sha256(image) AND embedding = clip_embed_image(image)";
        assert_eq!(value::<i64>(&mut client, right), 2);
        assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 2);
    }
}

/// A statement that would carry a value of one type into a column of another.
fn refused(client: &mut Client, mode: &str, statement: &str, state: &str) {
    assert_eq!(failure(client, statement, &[]), state, "{mode}: {statement}");
}

fn insert(client: &mut Client, id: i32) {
    client.execute("INSERT INTO photos (id, image) VALUES ($1, $2)", &[&id, &demo_photo()]).expect("a photo");
}

#[test]
fn a_table_that_changes_while_its_photos_are_embedded_costs_no_photo() {
    let cluster = TestCluster::shared();
    let database = cluster.database();
    let (mut client, mut changes) = (database.connect(), database.connect());
    run(
        &mut client,
        "CREATE TABLE photos (id int PRIMARY KEY, project text, image bytea);
        SELECT clip_watch('photos', mode => 'async')",
    );
    for round in 0..6 {
        client
            .execute(
                "INSERT INTO photos SELECT $2 + ordinality::int, '1', image
                FROM unnest($1::bytea[]) WITH ORDINALITY AS new (image, ordinality)",
                &[
                    &&demo_photos()[40 * round..40 * (round + 1)],
                    &i32::try_from(1000 * round).expect("small"),
                ],
            )
            .expect("photos");
        run(&mut changes, &format!("ALTER TABLE photos ALTER project TYPE bigint USING {ADDRESS}"));
        run(&mut changes, "ALTER TABLE image_embeddings ALTER project TYPE bigint USING 0");
        run(&mut changes, "ALTER TABLE photos ALTER project TYPE text");
        run(&mut changes, "ALTER TABLE image_embeddings ALTER project TYPE text");
        run(&mut changes, "ALTER TABLE photos RENAME project TO tenant");
        run(&mut changes, "ALTER TABLE photos RENAME tenant TO project");
    }
    run(&mut client, "SELECT clip_retry()");
    wait_for_the_queue(&mut client);
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 240);
    let projects = "SELECT count(*) FROM photos JOIN image_embeddings e ON image_id = photos.id
        WHERE e.project NOT IN ('1', '4096', '0')";
    assert_eq!(value::<i64>(&mut client, projects), 0);
}

/// A target that takes vectors of any length, filled with photos of the same bytes.
fn filled(cluster: &TestCluster) -> Client {
    let mut client = cluster.database().connect();
    run(
        &mut client,
        "CREATE TABLE photos (id int PRIMARY KEY, image bytea);
        CREATE TABLE image_embeddings (image_id int UNIQUE, embedding vector, checksum bytea, model text);
        SELECT clip_watch('photos')",
    );
    client.execute("INSERT INTO photos VALUES (1, $1)", &[&demo_photo()]).expect("a photo is embedded");
    client
}

const COPY: &str = "INSERT INTO photos SELECT 2, image FROM photos";

#[test]
fn a_stored_vector_that_is_none_is_not_read() {
    let cluster = TestCluster::shared();
    let mut client = filled(&cluster);
    run(&mut client, "CREATE CAST (bytea AS vector) WITHOUT FUNCTION");
    // No header, a header alone that says more, and one that says less.
    for bytes in ["", "00", "ffff0000", "00020000", "010000000000803f0000803f"] {
        run(&mut client, &format!("UPDATE image_embeddings SET embedding = '\\x{bytes}'::bytea::vector"));
        assert_eq!(failure(&mut client, COPY, &[]), "XX001", "{bytes}");
    }
    run(&mut client, "DELETE FROM image_embeddings");
    run(&mut client, COPY);
    assert_eq!(
        value::<i64>(&mut client, "SELECT min(vector_dims(embedding))::int8 FROM image_embeddings"),
        512
    );
}

#[test]
fn a_stored_vector_of_other_dimensions_is_not_copied() {
    let cluster = TestCluster::shared();
    let mut client = filled(&cluster);
    run(&mut client, "UPDATE image_embeddings SET embedding = '[1, 0, 0]'");
    run(&mut client, COPY);
    let copied = "SELECT vector_dims(embedding)::int8 FROM image_embeddings WHERE image_id = 2";
    assert_eq!(value::<i64>(&mut client, copied), 512);
}
