//! A table moves to a model with another number of dimensions, and back.

use pg_clip_tests::{cluster_of_models, demo_photos, run, store, value, wait_for_the_queue, watched};
use postgres::Client;

const TYPE: &str = "SELECT format_type(atttypid, atttypmod) FROM pg_attribute
    WHERE attrelid = 'image_embeddings'::regclass AND attname = 'embedding'";

const INDEX: &str =
    "SELECT count(*) FROM pg_index JOIN pg_am ON true JOIN pg_class ON pg_class.oid = indexrelid
    WHERE indrelid = 'image_embeddings'::regclass AND relam = pg_am.oid AND amname = 'hnsw' AND indisvalid";

const WRONG: &str = "SELECT count(*) FROM photos FULL JOIN image_embeddings ON image_id = photos.id
    WHERE checksum IS DISTINCT FROM sha256(image) OR embedding::text IS DISTINCT FROM clip_embed_image(image)::text
        OR split_part(model, '@', 1) IS DISTINCT FROM current_setting('clip.model')";

/// The photo's own bytes find it, by the index.
const NEAREST: &str = "SELECT image_id FROM image_embeddings
    ORDER BY embedding <=> (SELECT clip_embed_image(image) FROM photos WHERE id = 7) LIMIT 1";

#[track_caller]
fn assert_of(client: &mut Client, model: &str, dimensions: i32, photos: i64) {
    assert_eq!(value::<String>(client, "SHOW clip.model"), model);
    assert_eq!(value::<String>(client, TYPE), format!("vector({dimensions})"));
    assert_eq!(value::<i64>(client, INDEX), 1, "{model}");
    assert_eq!(value::<i64>(client, WRONG), 0, "{model}");
    assert_eq!(value::<i64>(client, "SELECT count(*) FROM image_embeddings"), photos);
    run(client, "SET enable_seqscan = off");
    assert_eq!(value::<i64>(client, NEAREST), 7, "{model}");
    let plan = client.query(&format!("EXPLAIN {NEAREST}"), &[]).expect("a plan");
    let uses_index =
        |line: &postgres::Row| line.get::<_, &str>(0).contains("Index Scan using image_embeddings");
    assert!(plan.iter().any(uses_index), "{plan:?}");
    run(client, "RESET enable_seqscan");
}

#[test]
fn the_columns_type_index_searches_and_watch_follow() {
    let cluster = cluster_of_models(&["vit_l14", "siglip"], &[]);
    for mode in ["sync", "async"] {
        let (database, mut client) = watched(&cluster, mode);
        let photos = demo_photos();
        store(&mut client, &photos[..20]);
        wait_for_the_queue(&mut client);
        let mut open = database.connect();
        assert_of(&mut open, "demo", 512, 20);

        let moves = [("vit_l14", 768), ("demo", 512), ("siglip", 16), ("vit_l14", 768)];
        for (count, (model, dimensions)) in (20i64..).zip(moves) {
            run(&mut client, &format!("CALL clip_migrate('image_embeddings', '{model}')"));
            assert_of(&mut open, model, dimensions, count);
            let next = usize::try_from(count).expect("a few");
            store(&mut open, &photos[next..=next]);
            wait_for_the_queue(&mut client);
            assert_of(&mut open, model, dimensions, count + 1);
        }
    }
}
