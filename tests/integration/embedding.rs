//! The results of the embedding functions.

use pg_clip_tests::{TestCluster, demo_photo, demo_photos, prefer_workers, run, value, wait_for_workers};

#[test]
fn a_vector_has_512_dimensions_and_length_1() {
    let cluster = TestCluster::shared();
    let mut client = cluster.database().connect();
    let photo = demo_photo();
    for vector in ["clip_embed_text('a red apple')", "clip_embed_image($1)"] {
        let query = format!("SELECT vector_dims({vector}), vector_norm({vector}), $1::bytea IS NULL");
        let row = client.query_one(&query, &[&photo]).expect("an embedding is made");
        assert_eq!(row.get::<_, i32>(0), 512);
        assert!((row.get::<_, f64>(1) - 1.0).abs() < 1e-5, "{vector}");
    }
}

#[test]
fn null_is_null() {
    let cluster = TestCluster::shared();
    let mut client = cluster.database().connect();
    let query = "SELECT clip_embed_text(NULL) IS NULL AND clip_embed_image(NULL) IS NULL
        AND clip_embed_text('x', NULL) IS NULL AND clip_embed_images(NULL) IS NULL";
    assert!(value::<bool>(&mut client, query));
}

#[test]
fn a_model_can_be_named_by_the_call_or_by_the_setting() {
    let cluster = TestCluster::shared();
    let mut client = cluster.database().connect();
    let query = "SELECT clip_embed_text('a dog') = clip_embed_text('a dog', 'demo')";
    assert!(value::<bool>(&mut client, query));
    run(&mut client, "SET clip.model = 'no-such-model'");
    let error = client.query("SELECT clip_embed_text('a dog')", &[]).expect_err("no such model");
    let error = error.as_db_error().expect("an error of the server");
    assert_eq!(error.code().code(), "22023");
    assert!(error.message().contains("no-such-model"), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("demo")), "{error:?}");
    run(&mut client, "RESET clip.model");
    assert!(value::<bool>(&mut client, query));
}

#[test]
fn a_generated_column_can_hold_an_embedding() {
    let cluster = TestCluster::shared();
    let mut client = cluster.database().connect();
    run(
        &mut client,
        "CREATE TABLE captions (caption text,
            embedding vector(512) GENERATED ALWAYS AS (clip_embed_text(caption, 'demo')) STORED);
        INSERT INTO captions VALUES ('a dog'), (NULL)",
    );
    let query = "SELECT count(*) FROM captions WHERE embedding = clip_embed_text('a dog')";
    assert_eq!(value::<i64>(&mut client, query), 1);
}

#[test]
fn arrays_keep_order_nulls_and_shape() {
    let cluster = TestCluster::shared();
    let mut client = cluster.database().connect();
    let query = "SELECT v[1] = clip_embed_text('one') AND v[2] IS NULL AND v[3] = clip_embed_text('three')
        FROM clip_embed_texts(ARRAY['one', NULL, 'three']) AS v";
    assert!(value::<bool>(&mut client, query));
    let query = "SELECT array_dims(clip_embed_texts('[2:3][0:1]={{a,b},{c,d}}'))";
    assert_eq!(value::<String>(&mut client, query), "[2:3][0:1]");
    assert!(value::<bool>(&mut client, "SELECT clip_embed_texts('{}') = '{}'"));
    assert!(value::<bool>(
        &mut client,
        "SELECT clip_embed_images(ARRAY[NULL]::bytea[]) = ARRAY[NULL]::vector[]"
    ));

    let photos = &demo_photos()[..40];
    let query = "SELECT bool_and(v = clip_embed_image(p))
        FROM unnest($1::bytea[], clip_embed_images($1)) AS t (p, v)";
    let row = client.query_one(query, &[&photos]).expect("photos are embedded");
    assert!(row.get::<_, bool>(0), "an embedding does not depend on what else is in the batch");
}

#[test]
fn a_bad_element_is_named() {
    let cluster = TestCluster::shared();
    let mut client = cluster.database().connect();
    let photos = [demo_photo(), b"no image".to_vec()];
    let error =
        client.query("SELECT clip_embed_images($1)", &[&photos.as_slice()]).expect_err("one is no image");
    let error = error.as_db_error().expect("an error of the server");
    assert_eq!(error.code().code(), "22P03");
    assert!(error.detail().is_some_and(|detail| detail.contains("element 2")), "{error:?}");
}

#[test]
fn parallel_workers_embed() {
    let cluster = TestCluster::shared();
    let mut client = cluster.database().connect();
    run(
        &mut client,
        "CREATE TABLE queries AS SELECT 'query ' || i % 50 AS query FROM generate_series(1, 5000) AS i",
    );
    prefer_workers(&mut client, "queries");
    let query = "SELECT count(DISTINCT clip_embed_text(query)::text) FROM queries";
    assert_eq!(value::<i64>(&mut client, query), 50);
    let filter = "SELECT count(*) FROM queries WHERE vector_dims(clip_embed_text(query)) = 512";
    assert_eq!(value::<i64>(&mut client, filter), 5000);
    wait_for_workers(&mut client, filter);
}

#[test]
fn texts_of_other_encodings_are_converted() {
    let cluster = TestCluster::shared();
    let mut utf8 = cluster.database().connect();
    let reference: Vec<f32> = value(&mut utf8, "SELECT clip_embed_text('café')::real[]");
    let name = "latin";
    run(&mut utf8, &format!("CREATE DATABASE {name} ENCODING latin1 LOCALE 'C' TEMPLATE template0"));
    let mut latin1 = cluster.existing_database(name).connect();
    run(&mut latin1, "CREATE EXTENSION vector; CREATE EXTENSION pg_clip");
    assert_eq!(value::<Vec<f32>>(&mut latin1, "SELECT clip_embed_text('café')::real[]"), reference);

    run(&mut utf8, "CREATE DATABASE ascii ENCODING sql_ascii LOCALE 'C' TEMPLATE template0");
    let mut ascii = cluster.existing_database("ascii").connect();
    run(&mut ascii, "CREATE EXTENSION vector; CREATE EXTENSION pg_clip");
    let invalid = "SELECT clip_embed_text(E'caf\\xe9')";
    assert_eq!(pg_clip_tests::failure(&mut ascii, invalid, &[]), "22021");
}
