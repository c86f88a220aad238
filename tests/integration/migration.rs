//! A table moves to another model.

use pg_clip_tests::{
    OTHER_MODEL, TestCluster, TestDatabase, cluster_of_two_models, demo_photos, failure, run, value,
};
use postgres::Client;

/// Rows whose vector is not that of their photo and of the model that searches.
const WRONG: &str = "SELECT count(*) FROM photos FULL JOIN image_embeddings ON image_id = photos.id
    WHERE checksum IS DISTINCT FROM sha256(image) OR embedding IS DISTINCT FROM clip_embed_image(image)
        OR split_part(model, '@', 1) IS DISTINCT FROM current_setting('clip.model')";

/// What a migration must leave as it was.
const SHAPE: &str = "SELECT string_agg(line, E'\\n' ORDER BY line) FROM (
    SELECT format('%s %s %s %s', attname, format_type(atttypid, atttypmod), attnotnull, attstorage)
        || coalesce(' ' || col_description(attrelid, attnum), '') || coalesce(' ' || attacl::text, '') AS line
    FROM pg_attribute WHERE attrelid = 'image_embeddings'::regclass AND attnum > 0 AND NOT attisdropped
    UNION ALL SELECT indexdef FROM pg_indexes WHERE tablename = 'image_embeddings'
    UNION ALL SELECT tgname FROM pg_trigger WHERE tgrelid = 'image_embeddings'::regclass) AS lines";

fn watched(cluster: &TestCluster, photos: &[Vec<u8>]) -> (TestDatabase, Client) {
    let database = cluster.database();
    let mut client = database.connect();
    run(
        &mut client,
        "CREATE TABLE photos (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, project text, image bytea);
        SELECT clip_watch('photos')",
    );
    client
        .execute("INSERT INTO photos (image) SELECT unnest($1::bytea[])", &[&photos])
        .expect("photos are inserted");
    (database, client)
}

#[test]
fn a_table_moves_with_everything_that_its_columns_have() {
    let cluster = cluster_of_two_models();
    let mut photos = demo_photos()[..70].to_vec();
    photos.extend_from_slice(&demo_photos()[..10]);
    let (database, mut client) = watched(&cluster, &photos);
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
