//! The vectors are those that PyTorch computes from the same weights (`models/demo/training/golden.py`).

use pg_clip_tests::{TestCluster, repository_file};
use serde_json::Value;

/// Of the cosine, for images and texts alike.
const LEAST_COSINE: f64 = 0.9999;

#[test]
fn images_and_texts_have_the_vectors_of_the_reference() {
    let golden: Value = serde_json::from_slice(&repository_file("tests/data/golden/demo.json"))
        .expect("the golden file is JSON");
    let cluster = TestCluster::shared();
    let mut client = cluster.database().connect();
    let mut compared = 0;
    for text in golden["texts"].as_array().expect("golden texts") {
        let query = "SELECT clip_embed_text($1)::real[]";
        let words = text["text"].as_str().expect("a text");
        let ours = client.query_one(query, &[&words]).expect("a text is embedded");
        assert_close(words, &ours.get::<_, Vec<f32>>(0), text);
        compared += 1;
    }
    for image in golden["images"].as_array().expect("golden images") {
        let file = image["file"].as_str().expect("a file");
        let query = "SELECT clip_embed_image($1)::real[]";
        let ours = client.query_one(query, &[&repository_file(file)]).expect("an image is embedded");
        assert_close(file, &ours.get::<_, Vec<f32>>(0), image);
        compared += 1;
    }
    assert!(compared >= 40, "{compared} vectors compared");
}

fn assert_close(name: &str, ours: &[f32], reference: &Value) {
    let reference: Vec<f64> = reference["embedding"]
        .as_array()
        .expect("a vector")
        .iter()
        .map(|value| value.as_f64().expect("a number"))
        .collect();
    assert_eq!(ours.len(), reference.len());
    let cosine: f64 = ours.iter().zip(&reference).map(|(a, b)| f64::from(*a) * b).sum();
    assert!(cosine >= LEAST_COSINE, "{name}: cosine {cosine}");
}
