//! An application that keeps the bytes elsewhere writes the row that a watch would, with one parameter.

use pg_clip_tests::{TestCluster, demo_photos, failure, run, value, variant, watched};
use postgres::Client;

const INSERT: &str = "INSERT INTO kept (image_id, project, embedding, checksum, model)
    SELECT $1, 'kitchen', photo.* FROM clip_embedding_row($2, 'kept') AS photo
    ON CONFLICT (image_id) DO UPDATE
    SET embedding = EXCLUDED.embedding, checksum = EXCLUDED.checksum, model = EXCLUDED.model";

fn inferences(client: &mut Client) -> i64 {
    value(client, "SELECT image_inferences FROM clip_status")
}

#[test]
fn the_row_is_that_of_a_watch_and_the_same_bytes_are_embedded_once() {
    let cluster = TestCluster::preloaded();
    let (_database, mut client) = watched(&cluster, "sync");
    run(&mut client, "CREATE TABLE kept (LIKE image_embeddings INCLUDING ALL)");
    let photos = demo_photos();
    client
        .execute("INSERT INTO photos (project, image) VALUES ('kitchen', $1)", &[&photos[0]])
        .expect("a photo");
    let before = inferences(&mut client);
    for id in [1_i64, 2] {
        assert_eq!(client.execute(INSERT, &[&id, &photos[0]]).expect("a row"), 1);
    }
    assert_eq!(inferences(&mut client), before + 1, "the second row is a copy");
    let same = "SELECT count(*) FROM kept JOIN image_embeddings AS watched ON watched.image_id = 1
        WHERE kept.embedding = watched.embedding AND kept.checksum = watched.checksum AND kept.model = watched.model
            AND kept.project = watched.project";
    assert_eq!(value::<i64>(&mut client, same), 2);
    client.execute(INSERT, &[&2_i64, &photos[1]]).expect("a row");
    assert_eq!(inferences(&mut client), before + 2);

    // Without a target there is nothing to copy from.
    let row = "SELECT embedding = clip_embed_image($1), checksum = sha256($1) FROM clip_embedding_row($1)";
    let row = client.query_one(row, &[&photos[0]]).expect("a row");
    assert!(row.get::<_, bool>(0) && row.get::<_, bool>(1));
    let none = "SELECT num_nulls(embedding, checksum, model) FROM clip_embedding_row(NULL, 'kept')";
    assert_eq!(value::<i32>(&mut client, none), 3);
    run(&mut client, "ALTER TABLE kept RENAME embedding TO vec; ALTER TABLE kept RENAME checksum TO sum");
    let named = "SELECT count(*) FROM clip_embedding_row($1, 'kept', embedding_column => 'vec', checksum_column => 'sum')";
    let before = inferences(&mut client);
    client.query_one(named, &[&photos[0]]).expect("a row");
    assert_eq!(inferences(&mut client), before);
}

#[test]
fn arguments_that_make_no_row_are_refused() {
    let cluster = TestCluster::preloaded();
    let database = cluster.database();
    let mut client = database.connect();
    run(
        &mut client,
        "CREATE ROLE reader LOGIN; CREATE TABLE kept (embedding vector, checksum bytea, model text);
        CREATE TABLE other (embedding text, checksum bytea, model text);
        CREATE VIEW seen AS SELECT * FROM kept",
    );
    let photo = &demo_photos()[0];
    let call = |target: &str| format!("SELECT * FROM clip_embedding_row($1, {target})");
    assert_eq!(failure(&mut client, &call("NULL"), &[&&photo[..100]]), "22P03");
    assert_eq!(failure(&mut client, &call("NULL"), &[&b"".as_slice()]), "22023");
    assert_eq!(failure(&mut client, &call("'seen'"), &[&photo]), "42809");
    assert_eq!(failure(&mut client, &call("12345::regclass"), &[&photo]), "42P01");
    assert_eq!(failure(&mut client, &call("'kept', checksum_column => 'none'"), &[&photo]), "42703");
    assert_eq!(failure(&mut client, &call("'kept', checksum_column => NULL"), &[&photo]), "22004");
    assert_eq!(failure(&mut database.connect_as("reader"), &call("'kept'"), &[&photo]), "42501");
    client.execute("INSERT INTO kept SELECT * FROM clip_embedding_row($1, 'kept')", &[photo]).expect("a row");
    run(&mut client, "UPDATE kept SET model = 'other@0'");
    assert_eq!(failure(&mut client, &call("'kept'"), &[&photo]), "55000", "vectors of two models");
    let insert = "INSERT INTO other (checksum, model) SELECT checksum, model FROM clip_embedding_row($1)";
    client.execute(insert, &[photo]).expect("a row");
    assert_eq!(failure(&mut client, &call("'other'"), &[&photo]), "42804");
    run(&mut client, "SET clip.max_image_bytes = 1000");
    assert_eq!(failure(&mut client, &call("NULL"), &[&variant(photo, 1)]), "54000");
}

#[test]
fn rows_that_the_caller_may_not_see_are_not_copied_from() {
    let cluster = TestCluster::preloaded();
    let database = cluster.database();
    let mut client = database.connect();
    run(
        &mut client,
        "CREATE ROLE tenant LOGIN; CREATE TABLE kept (embedding vector, checksum bytea, model text, tenant text);
        ALTER TABLE kept ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON kept USING (tenant = current_user);
        GRANT SELECT ON kept TO tenant",
    );
    let photo = &demo_photos()[0];
    client.execute("INSERT INTO kept SELECT * FROM clip_embedding_row($1, 'kept')", &[photo]).expect("a row");
    let before = inferences(&mut client);
    let mut tenant = database.connect_as("tenant");
    let call = "SELECT count(*) FROM clip_embedding_row($1, 'kept')";
    tenant.query_one(call, &[photo]).expect("a row");
    assert_eq!(inferences(&mut client), before + 1);
    client.query_one(call, &[photo]).expect("a row");
    assert_eq!(inferences(&mut client), before + 1);
}
