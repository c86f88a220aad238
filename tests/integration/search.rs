//! Searching as an application does it: a limit, a least similarity, a project; and labels for a photo.

use pg_clip_tests::{TestCluster, TestDatabase, demo_photo, failure, repository_file, run, value};
use postgres::Client;

/// The nearest of one project, as the README writes it.
const IN_PROJECT: &str = "SELECT image_id, 1 - distance AS similarity
    FROM (
        SELECT image_id, embedding <=> (SELECT clip_embed_text('something red')) AS distance
        FROM image_embeddings WHERE project = 'rare'
        ORDER BY distance LIMIT 10
    ) AS nearest";

/// The same, which the planner answers by the HNSW index even where another plan would be quicker: it takes the call
/// for one in each row.
const BY_HNSW: &str = "SELECT image_id FROM image_embeddings WHERE project = 'rare'
    ORDER BY embedding <=> clip_embed_text('something red') LIMIT 10";

#[test]
fn a_search_within_a_rare_project_returns_its_limit() {
    let cluster = TestCluster::shared();
    let (_database, mut client) = embeddings_of_10_000(&cluster);
    assert!(plan(&mut client, BY_HNSW).contains("Index Scan using by_embedding"));
    let without = client.query(BY_HNSW, &[]).expect("a search");
    assert!(without.len() < 10, "100 of 10,000 are not among the nearest 40: {}", without.len());

    run(&mut client, "SET hnsw.iterative_scan = strict_order");
    let found: Vec<i64> =
        client.query(BY_HNSW, &[]).expect("a search").iter().map(|row| row.get(0)).collect();
    assert_eq!(found.len(), 10);
    assert!(found.iter().all(|id| id % 100 == 0), "all are of the project: {found:?}");
    let many = BY_HNSW.replace("LIMIT 10", "LIMIT 50");
    assert_eq!(client.query(&many, &[]).expect("a search").len(), 50);
}

#[test]
fn the_planner_answers_exactly_where_the_project_is_small() {
    let cluster = TestCluster::shared();
    let (_database, mut client) = embeddings_of_10_000(&cluster);
    run(
        &mut client,
        "CREATE INDEX by_project ON image_embeddings (project); ANALYZE image_embeddings;
        SET hnsw.iterative_scan = strict_order",
    );
    assert!(plan(&mut client, IN_PROJECT).contains("by_project"));
    let found: Vec<i64> =
        client.query(IN_PROJECT, &[]).expect("a search").iter().map(|row| row.get(0)).collect();
    run(&mut client, "BEGIN; SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = off");
    let exact: Vec<i64> =
        client.query(IN_PROJECT, &[]).expect("a scan").iter().map(|row| row.get(0)).collect();
    run(&mut client, "COMMIT");
    assert_eq!(found, exact);

    let common = IN_PROJECT.replace("rare", "common");
    assert!(plan(&mut client, &common).contains("Index Scan using by_embedding"));
    assert_eq!(client.query(&common, &[]).expect("a search").len(), 10);
    let everywhere = IN_PROJECT.replace("WHERE project = 'rare'", "");
    assert!(plan(&mut client, &everywhere).contains("Index Scan using by_embedding"));
}

#[test]
fn a_least_similarity_cuts_off_the_rest() {
    let cluster = TestCluster::shared();
    let (_database, mut client) = embeddings_of_10_000(&cluster);
    let all = client.query(IN_PROJECT, &[]).expect("a search");
    let similarities: Vec<f64> = all.iter().map(|row| row.get(1)).collect();
    assert!(similarities.is_sorted_by(|one, other| one >= other), "{similarities:?}");

    run(
        &mut client,
        "PREPARE nearest (text, text, float8) AS
        SELECT image_id, 1 - distance AS similarity
        FROM (
            SELECT image_id, embedding <=> (SELECT clip_embed_text($1)) AS distance
            FROM image_embeddings WHERE project = $2
            ORDER BY distance LIMIT 10
        ) AS nearest
        WHERE 1 - distance >= $3",
    );
    let mut above = |least: f64| {
        let execute = format!("EXECUTE nearest('something red', 'rare', {least})");
        let rows = client.query(&execute, &[]).expect("a prepared search");
        rows.iter().map(|row| row.get(1)).collect::<Vec<f64>>()
    };
    assert_eq!(above(-1.0), similarities);
    assert_eq!(above(similarities[3]), similarities[..4]);
    assert!(above(1.01).is_empty());
}

#[test]
fn the_right_label_of_ten_wins() {
    let labels =
        ["pizza", "dog", "guitar", "bicycle", "cat", "rocket", "castle", "banana", "umbrella", "snowman"];
    let cluster = TestCluster::preloaded();
    let mut client = cluster.database().connect();
    let classify = "SELECT label, probability FROM clip_classify($1, $2)";
    let mut right = 0;
    let files = photos_of(&labels);
    for (label, file) in &files {
        let photo = repository_file(&format!("models/demo/photos/{file}"));
        let before = requests(&mut client);
        let rows = client.query(classify, &[&photo, &labels.as_slice()]).expect("labels with probabilities");
        assert_eq!(requests(&mut client) - before, 1 + 10, "the image once, and each text");
        let probabilities: Vec<f64> = rows.iter().map(|row| row.get(1)).collect();
        assert_eq!(probabilities.len(), 10);
        assert!(probabilities.is_sorted_by(|one, other| one >= other), "the likeliest first");
        assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-9, "they add up to 1");
        right += u32::from(rows[0].get::<_, &str>(0) == *label);
    }
    let all = u32::try_from(files.len()).expect("a few");
    assert!(all >= 20 && right * 10 >= all * 9, "{right} of {all}");
}

#[test]
fn a_probability_is_the_softmax_of_a_hundred_cosines() {
    let cluster = TestCluster::shared();
    let mut client = cluster.database().connect();
    // Vector's own operator and no shift of the exponents, unlike the function.
    let query = "WITH weights AS (
            SELECT label, exp(100 * (1 - (clip_embed_image($1) <=> clip_embed_text('one ' || label || ' here')))) AS weight
            FROM unnest($2::text[]) AS label
        )
        SELECT max(abs(probability - weight / (SELECT sum(weight) FROM weights))), count(*)
        FROM clip_classify($1, $2, 'one {} here') JOIN weights USING (label)";
    let labels: &[&str] = &["pizza", "sandwich", "taco", "it's \\ {}", "ピザ"];
    let row = client.query_one(query, &[&demo_photo(), &labels]).expect("two sets of probabilities");
    assert_eq!(row.get::<_, i64>(1), 5);
    assert!(row.get::<_, f64>(0) < 1e-4, "{}", row.get::<_, f64>(0));
}

#[test]
fn labels_are_kept_as_they_are_given() {
    let cluster = TestCluster::shared();
    let mut client = cluster.database().connect();
    let mut classify = |labels: &[Option<&str>]| {
        let rows = client.query("SELECT * FROM clip_classify($1, $2)", &[&demo_photo(), &labels])?;
        Ok::<_, postgres::Error>(
            rows.iter().map(|row| (row.get(0), row.get(1))).collect::<Vec<(String, f64)>>(),
        )
    };
    let twice = classify(&[Some("a"), Some("a")]).expect("a label twice");
    assert_eq!(twice, [("a".to_owned(), 0.5), ("a".to_owned(), 0.5)]);
    assert_eq!(classify(&[]).expect("no label"), []);
    assert_eq!(classify(&[Some("alone")]).expect("one label"), [("alone".to_owned(), 1.0)]);
    let error = classify(&[Some("a"), None]).expect_err("a NULL label");
    assert_eq!(pg_clip_tests::sqlstate(&error), "22004");

    let classify = "SELECT * FROM clip_classify($1, ARRAY['a', 'b'], $2)";
    assert_eq!(failure(&mut client, classify, &[&demo_photo(), &"no place"]), "22023");
    assert_eq!(failure(&mut client, classify, &[&&b"no photo"[..], &"{}"]), "22P03");
    let nothing = "SELECT count(*) FROM clip_classify(NULL, ARRAY['a'])";
    assert_eq!(value::<i64>(&mut client, nothing), 0);
}

#[test]
fn classifying_finds_its_functions_in_any_schema() {
    let cluster = TestCluster::shared();
    let mut client = cluster.empty_database().connect();
    run(
        &mut client,
        r#"CREATE SCHEMA "Vector Space"; CREATE SCHEMA "Clip Art";
        CREATE EXTENSION vector SCHEMA "Vector Space"; CREATE EXTENSION pg_clip SCHEMA "Clip Art";
        CREATE FUNCTION public.exp(float8) RETURNS float8 LANGUAGE sql AS 'SELECT 0::float8';
        SET search_path = public, pg_catalog"#,
    );
    let query = r#"SELECT label FROM "Clip Art".clip_classify($1, ARRAY['dog', 'pizza']) LIMIT 1"#;
    let pizza = repository_file("models/demo/photos/pizza-1.jpg");
    assert_eq!(client.query_one(query, &[&pizza]).expect("a label").get::<_, &str>(0), "pizza");
}

/// The demo's photos of these things, each with its label.
fn photos_of<'a>(labels: &[&'a str]) -> Vec<(&'a str, String)> {
    let manifest = repository_file("models/demo/photos/manifest.json");
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("a manifest");
    let photos = manifest.as_array().expect("a list").iter().filter_map(|photo| {
        let label = labels.iter().find(|&&label| photo["concept"] == label)?;
        Some((*label, photo["file"].as_str()?.to_owned()))
    });
    photos.collect()
}

/// Vectors that no model made, one of a hundred in the rare project, with the index of a watch.
fn embeddings_of_10_000(cluster: &TestCluster) -> (TestDatabase, Client) {
    let database = cluster.database();
    let mut client = database.connect();
    run(
        &mut client,
        "CREATE TABLE image_embeddings (image_id bigint PRIMARY KEY, project text, embedding vector(512) NOT NULL);
        SELECT setseed(0.5);
        INSERT INTO image_embeddings
        SELECT i, CASE WHEN i % 100 = 0 THEN 'rare' ELSE 'common' END, ARRAY(
            SELECT random() - 0.5 + 0 * i FROM generate_series(1, 512))::vector
        FROM generate_series(1, 10000) AS i;
        CREATE INDEX by_embedding ON image_embeddings USING hnsw (embedding vector_cosine_ops)
            WITH (m = 8, ef_construction = 32);
        ANALYZE image_embeddings",
    );
    (database, client)
}

fn plan(client: &mut Client, query: &str) -> String {
    let rows = client.query(&format!("EXPLAIN {query}"), &[]).expect("an explanation");
    rows.iter().map(|row| row.get::<_, &str>(0)).collect::<Vec<&str>>().join("\n")
}

/// Images and texts that the embedder was asked for.
fn requests(client: &mut Client) -> i64 {
    value(client, "SELECT text_requests + image_requests FROM clip_status")
}
