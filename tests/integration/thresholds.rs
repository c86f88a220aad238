//! The estimates of a threshold and the mean of several captions of `docs/searching.md`, as they stand there, on the
//! demo's photos.

use std::collections::BTreeSet;

use pg_clip_tests::{TestCluster, TestDatabase, repository, repository_file, run, value};
use postgres::Client;
use serde_json::Value;

/// How many pairs that do not belong together may be above an estimate for one in a hundred, in percent.
const MOST_ABOVE: f64 = 3.0;

/// How many pairs that do belong together must be above it, in percent.
const LEAST_ABOVE: f64 = 95.0;

/// Things of which the made-up table is full.
const ANIMALS: [&str; 10] =
    ["cat", "dog", "bear", "duck", "camel", "elephant", "chicken", "crocodile", "butterfly", "dolphin"];

#[test]
fn a_threshold_is_estimated_for_any_table() {
    let cluster = TestCluster::shared();
    let (_database, mut client) = photos_of_the_demo(&cluster);
    let [words, images] = blocks("### Which threshold?")[..] else { panic!("two queries") };
    check(&mut client, words, images);

    // A table of which nine in ten photos show animals.
    let animals = ANIMALS.map(|animal| format!("'{animal}'")).join(", ");
    run(
        &mut client,
        &format!(
            "DELETE FROM image_embeddings WHERE concept NOT IN ({animals})
                AND image_id % 10 > 0;
            INSERT INTO image_embeddings (image_id, concept, embedding)
            SELECT image_id + 1000 * round, concept, embedding FROM image_embeddings, generate_series(1, 12) AS round
            WHERE concept IN ({animals})"
        ),
    );
    let share = format!(
        "SELECT 100 * count(*) FILTER (WHERE concept IN ({animals})) / count(*) FROM image_embeddings"
    );
    assert!((85..95).contains(&value::<i64>(&mut client, &share)));
    check(&mut client, words, images);
}

/// Compares both estimates with the pairs that are known to belong together or not.
fn check(client: &mut Client, words: &str, images: &str) {
    let above = |client: &mut Client, pairs: &str, threshold: f64, belong: bool| -> f64 {
        let query = format!(
            "SELECT (100.0 * count(*) FILTER (WHERE similarity > {threshold}) / count(*))::float8
            FROM ({pairs}) AS pair WHERE belong = {belong}"
        );
        value(client, &query)
    };
    let of_words = "SELECT 1 - (photo.embedding <=> search.embedding) AS similarity, photo.concept = search.concept AS belong
        FROM image_embeddings AS photo, searches AS search";
    let of_images = "SELECT 1 - (one.embedding <=> other.embedding) AS similarity, one.concept = other.concept AS belong
        FROM image_embeddings AS one JOIN image_embeddings AS other ON one.image_id % 1000 < other.image_id % 1000";
    for (what, query, pairs) in [("words", words, of_words), ("images", images, of_images)] {
        let threshold: f64 = value(client, query);
        let (apart, together) =
            (above(client, pairs, threshold, false), above(client, pairs, threshold, true));
        println!("{what}: {threshold:.3}, above it {apart:.2} % of others and {together:.1} % of matches");
        assert!(
            apart < MOST_ABOVE,
            "{what}: {apart} % of pairs that do not belong together are above {threshold}"
        );
        assert!(
            together > LEAST_ABOVE,
            "{what}: only {together} % of pairs that belong together are above {threshold}"
        );
    }
}

#[test]
fn several_captions_find_photos_that_one_of_them_may_miss() {
    let cluster = TestCluster::shared();
    let (_database, mut client) = photos_of_the_demo(&cluster);
    let [query] = blocks("## Several captions, one query")[..] else { panic!("one query") };
    let rows = client.query(query, &[]).expect("the query of the page");
    let similarities: Vec<f64> = rows.iter().map(|row| row.get(1)).collect();
    assert_eq!(similarities.len(), 10);
    let found: Vec<i32> = rows.iter().map(|row| row.get(0)).take(2).collect();
    let pizzas = "SELECT array_agg(image_id ORDER BY image_id) FROM image_embeddings WHERE concept = 'pizza'";
    let mut found = found;
    found.sort_unstable();
    assert_eq!(found, value::<Vec<i32>>(&mut client, pizzas));

    let (_, phrasings) = query.split_once("ARRAY[").expect("an array of captions");
    let phrasings: Vec<&str> = phrasings.split('\'').skip(1).step_by(2).collect();
    assert_eq!(phrasings.len(), 7);
    // For how many things a photo of it comes first.
    let mut first = |phrasings: &[&str]| -> i64 {
        let query = "SELECT count(*) FROM (SELECT DISTINCT concept FROM image_embeddings) AS thing
            WHERE thing.concept = (
                SELECT photo.concept FROM image_embeddings AS photo
                ORDER BY photo.embedding <=> (
                    SELECT l2_normalize(avg(caption))
                    FROM unnest(clip_embed_texts((
                        SELECT array_agg(replace(phrasing, 'pizza', thing.concept)) FROM unnest($1::text[]) AS phrasing
                    ))) AS caption
                ) LIMIT 1
            )";
        client.query_one(query, &[&phrasings]).expect("a count").get(0)
    };
    let alone: Vec<i64> = phrasings.iter().map(|phrasing| first(&[phrasing])).collect();
    let together = first(&phrasings);
    println!("first alone {alone:?}, together {together}");
    let mean = alone.iter().sum::<i64>() / 7;
    assert!(together > mean, "together {together}, alone {alone:?}");
    assert!(alone.iter().all(|alone| together >= *alone), "together {together}, alone {alone:?}");
}

/// The SQL below a heading of the page.
fn blocks(heading: &str) -> Vec<&'static str> {
    let page = String::from_utf8(repository_file("docs/searching.md")).expect("a text in UTF-8");
    let page: &'static str = page.leak();
    let (_, section) = page.split_once(&format!("\n{heading}\n")).expect("the section");
    let section = section.split("\n#").next().expect("a section");
    let blocks = section.split("```sql\n").skip(1);
    blocks.map(|block| block.split_once(";\n```").expect("a block ends").0).collect()
}

/// A database with the vectors of the demo's photos and of a caption for each thing on them.
fn photos_of_the_demo(cluster: &TestCluster) -> (TestDatabase, Client) {
    let database = cluster.database();
    let mut client = database.connect();
    run(
        &mut client,
        "CREATE TABLE image_embeddings (image_id int, concept text, embedding vector(512));
        CREATE TABLE searches (concept text, embedding vector(512))",
    );
    let manifest: Value =
        serde_json::from_slice(&repository_file("models/demo/photos/manifest.json")).expect("JSON");
    let photos: Vec<(&str, &str)> = manifest
        .as_array()
        .expect("a list")
        .iter()
        .map(|photo| (photo["file"].as_str().expect("a name"), photo["concept"].as_str().expect("a thing")))
        .collect();
    for (start, some) in photos.chunks(50).enumerate() {
        let bytes: Vec<Vec<u8>> = some
            .iter()
            .map(|(file, _)| {
                std::fs::read(repository().join("models/demo/photos").join(file)).expect("a photo is read")
            })
            .collect();
        let concepts: Vec<&str> = some.iter().map(|(_, concept)| *concept).collect();
        let first = i32::try_from(start * 50 + 1).expect("few photos");
        client
            .execute(
                "INSERT INTO image_embeddings
                SELECT $3 + number::int - 1, concept, embedding
                FROM unnest(clip_embed_images($1), $2::text[]) WITH ORDINALITY AS t (embedding, concept, number)",
                &[&bytes, &concepts, &first],
            )
            .expect("photos are embedded");
    }
    let concepts: BTreeSet<&str> = photos.iter().map(|(_, concept)| *concept).collect();
    let concepts: Vec<&str> = concepts.into_iter().collect();
    let query = "INSERT INTO searches SELECT concept, clip_embed_text('a photo of a ' || concept) FROM unnest($1::text[]) AS concept";
    client.execute(query, &[&concepts]).expect("captions are embedded");
    (database, client)
}
