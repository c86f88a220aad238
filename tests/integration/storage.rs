//! How embeddings are stored: in their rows, and in 4 or 2 bytes a dimension.

use pg_clip_tests::{
    OTHER_MODEL, TestCluster, WRONG, cluster_of_two_models, demo_jpegs, failure, run, store, value,
    wait_for_the_queue, watched,
};
use postgres::Client;

/// The type of the embeddings, how they are stored, and the operator class of their index.
const STORED: &str = "SELECT concat_ws(' ', format_type(atttypid, atttypmod), attstorage, opcname)
    FROM pg_attribute JOIN pg_index ON indrelid = attrelid AND attnum = ANY (indkey) AND indisvalid
    JOIN pg_opclass ON pg_opclass.oid = indclass[0]
    WHERE attrelid = 'image_embeddings'::regclass AND attname = 'embedding'";

/// Photos whose embedding is not that of their bytes, as far as halves of floats tell.
const FAR: &str = "SELECT count(*) FROM photos FULL JOIN image_embeddings ON image_id = photos.id
    WHERE checksum IS DISTINCT FROM sha256(image)
        OR coalesce(embedding::vector <=> clip_embed_image(image), 1) > 1e-5";

#[test]
fn a_new_target_keeps_whole_rows_and_has_an_index_on_the_project() {
    let cluster = TestCluster::shared();
    let (_database, mut client) = watched(&cluster, "sync");
    run(&mut client, "ALTER TABLE photos ALTER project SET DEFAULT repeat('a project of many words, ', 4)");
    store(&mut client, &demo_jpegs()[..10]);
    assert_eq!(value::<String>(&mut client, STORED), "vector(512) p vector_cosine_ops");
    let outside =
        "SELECT pg_relation_size(reltoastrelid) FROM pg_class WHERE oid = 'image_embeddings'::regclass";
    assert_eq!(value::<i64>(&mut client, outside), 0, "no column is moved out of its row");
    let by_project = "SELECT count(*) FROM pg_indexes WHERE tablename = 'image_embeddings'
        AND indexdef LIKE '%USING btree (project)'";
    assert_eq!(value::<i64>(&mut client, by_project), 1);
    // A project that is larger than a page is one still.
    run(&mut client, "UPDATE photos SET project = repeat(md5(id::text), 60) WHERE id = 1");
    run(
        &mut client,
        "DROP INDEX image_embeddings_project_idx; UPDATE photos SET project = repeat('x', 100000)",
    );
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
}

#[test]
fn a_target_of_halves_is_filled_and_searched_as_other_targets() {
    let cluster = TestCluster::preloaded();
    for mode in ["sync", "async"] {
        let (_database, mut client) = halves(&cluster, mode);
        assert_eq!(value::<String>(&mut client, STORED), "halfvec(512) p halfvec_cosine_ops");
        store(&mut client, &demo_jpegs()[..20]);
        wait_for_the_queue(&mut client);
        assert_eq!(value::<i64>(&mut client, FAR), 0, "{mode}");
        let inferences = "SELECT image_inferences FROM clip_status";
        let before: i64 = value(&mut client, inferences);
        store(&mut client, &demo_jpegs()[..20]);
        wait_for_the_queue(&mut client);
        assert_eq!(value::<i64>(&mut client, inferences), before, "{mode}: the same bytes are copied");
        let same = "SELECT count(DISTINCT embedding) FROM image_embeddings";
        assert_eq!(value::<i64>(&mut client, same), 20, "{mode}: as they are");
        let row = "SELECT embedding <=> (SELECT embedding::vector FROM image_embeddings WHERE image_id = 1)
            FROM photos, clip_embedding_row(image, 'image_embeddings') WHERE id = 1";
        assert!(value::<f64>(&mut client, row) < 1e-6, "{mode}");
        run(&mut client, "SET enable_seqscan = off");
        let search = "SELECT image_id FROM image_embeddings
            ORDER BY embedding <=> (SELECT clip_embed_image(image) FROM photos WHERE id = 3) LIMIT 2";
        let plan = client.query(&format!("EXPLAIN {search}"), &[]).expect("a plan");
        let plan: Vec<&str> = plan.iter().map(|row| row.get(0)).collect();
        assert!(plan.join("\n").contains("image_embeddings_embedding_idx"), "{plan:?}");
        let found: Vec<i64> =
            client.query(search, &[]).expect("a search").iter().map(|row| row.get(0)).collect();
        assert!(found.contains(&3) && found.contains(&23), "{found:?}");
    }
}

fn halves(cluster: &TestCluster, mode: &str) -> (pg_clip_tests::TestDatabase, Client) {
    let database = cluster.database();
    let mut client = database.connect();
    run(
        &mut client,
        &format!(
            "CREATE TABLE photos (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, project text, image bytea);
            SELECT clip_watch('photos', mode => '{mode}', storage => 'halfvec')"
        ),
    );
    (database, client)
}

#[test]
fn a_target_moves_between_storages_without_an_inference() {
    let cluster = cluster_of_two_models();
    let (database, mut client) = halves(&cluster, "sync");
    store(&mut client, &demo_jpegs()[..30]);
    let inferences = "SELECT image_inferences FROM clip_status";
    let before: i64 = value(&mut client, inferences);
    for (storage, stored) in
        [("vector", "vector(512) p vector_cosine_ops"), ("halfvec", "halfvec(512) p halfvec_cosine_ops")]
    {
        run(&mut client, &format!("CALL clip_migrate('image_embeddings', 'demo', storage => '{storage}')"));
        client = database.connect();
        assert_eq!(value::<String>(&mut client, STORED), stored);
    }
    assert_eq!(value::<i64>(&mut client, inferences), before);
    assert_eq!(value::<i64>(&mut client, FAR), 0);
    // Model and storage at once; later photos follow.
    run(&mut client, &format!("CALL clip_migrate('image_embeddings', '{OTHER_MODEL}', storage => 'vector')"));
    let mut client = database.connect();
    store(&mut client, &demo_jpegs()[30..40]);
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
    assert_eq!(value::<String>(&mut client, STORED), "vector(512) p vector_cosine_ops");
}

#[test]
fn an_unknown_or_another_storage_is_refused() {
    let cluster = TestCluster::shared();
    let (_database, mut client) = watched(&cluster, "sync");
    assert_eq!(failure(&mut client, "SELECT clip_watch('photos', storage => 'bit')", &[]), "22023");
    assert_eq!(failure(&mut client, "SELECT clip_watch('photos', storage => 'halfvec')", &[]), "42804");
    run(&mut client, "SELECT clip_watch('photos', storage => 'vector'); SELECT clip_watch('photos')");
    let migrate = "CALL clip_migrate('image_embeddings', 'demo', storage => 'bit')";
    assert_eq!(failure(&mut client, migrate, &[]), "22023");
}
