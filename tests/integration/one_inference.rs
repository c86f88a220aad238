//! A query embeds its search term once, and planning it embeds nothing.

use pg_clip_tests::{TestCluster, demo_photo, run, value};
use postgres::Client;

const SEARCH: &str = "SELECT image_id, 1 - (embedding <=> clip_embed_text('a slice of pizza')) AS similarity
    FROM image_embeddings ORDER BY embedding <=> clip_embed_text('a slice of pizza') LIMIT 10";

#[test]
fn a_search_without_an_index_costs_one_inference() {
    let cluster = TestCluster::preloaded();
    let mut client = cluster.database().connect();
    table_of_10_000(&mut client);
    let before = inferences(&mut client);
    let rows = client.query(SEARCH, &[]).expect("a search without an index");
    assert_eq!(rows.len(), 10);
    assert_eq!(inferences(&mut client) - before, 1);

    let before = inferences(&mut client);
    let search = "SELECT image_id FROM image_embeddings ORDER BY embedding <=> clip_embed_image($1) LIMIT 10";
    run(&mut client, "SET plan_cache_mode = force_generic_plan");
    client.query(search, &[&demo_photo()]).expect("a search by a parameter of a generic plan");
    assert_eq!(inferences(&mut client) - before, 1);
}

#[test]
fn a_search_uses_the_hnsw_index_and_explaining_it_infers_nothing() {
    let cluster = TestCluster::preloaded();
    let mut client = cluster.database().connect();
    table_of_10_000(&mut client);
    run(
        &mut client,
        "CREATE INDEX by_embedding ON image_embeddings USING hnsw (embedding vector_cosine_ops)
            WITH (m = 4, ef_construction = 16);
        ANALYZE image_embeddings",
    );
    // The first report also tells that the embedder runs.
    let before = inferences(&mut client);
    let plan = client.query(&format!("EXPLAIN {SEARCH}"), &[]).expect("an explanation");
    let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
    let plan = plan.join("\n");
    assert!(plan.contains("Index Scan using by_embedding"), "{plan}");
    assert_eq!(inferences(&mut client), before);
    client.query(SEARCH, &[]).expect("a search by index");
    assert_eq!(inferences(&mut client) - before, 1);
}

#[test]
fn a_loop_of_plpgsql_sees_each_of_its_values() {
    let cluster = TestCluster::shared();
    let mut client = cluster.database().connect();
    run(
        &mut client,
        "CREATE FUNCTION embed_all(queries text[]) RETURNS SETOF vector LANGUAGE plpgsql AS $$
        DECLARE
            query text;
            embedding vector;
        BEGIN
            FOREACH query IN ARRAY queries LOOP
                embedding := clip_embed_text(query);
                RETURN NEXT embedding;
            END LOOP;
        END $$",
    );
    let query = "SELECT array_agg(v) = clip_embed_texts(ARRAY['a', 'b', 'a']) FROM embed_all(ARRAY['a', 'b', 'a']) AS v";
    assert!(value::<bool>(&mut client, query));
}

#[test]
fn the_same_text_is_embedded_once_for_all_sessions() {
    let cluster = TestCluster::preloaded();
    let database = cluster.database();
    let mut client = database.connect();
    run(&mut client, "SELECT clip_embed_text('a photo of two dogs')");
    let before = inferences(&mut client);
    run(&mut database.connect(), "SELECT clip_embed_text('a photo of two dogs')");
    run(&mut client, "SELECT clip_embed_text('  A photo of\ttwo dogs ')");
    assert_eq!(inferences(&mut client), before);
    assert_eq!(value::<i64>(&mut client, "SELECT text_cache_hits FROM clip_status"), 2);
}

/// Vectors that no model made.
fn table_of_10_000(client: &mut Client) {
    run(
        client,
        "CREATE TABLE image_embeddings (image_id bigint PRIMARY KEY, embedding vector(512) NOT NULL);
        INSERT INTO image_embeddings
        SELECT i, ARRAY(SELECT sin(i * 7 + j * (i % 31 + 1)) FROM generate_series(1, 512) AS j)::vector
        FROM generate_series(1, 10000) AS i",
    );
}

fn inferences(client: &mut Client) -> i64 {
    value(client, "SELECT text_inferences + image_inferences FROM clip_status")
}
