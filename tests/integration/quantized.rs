//! A model that the embedder's command line quantized, used from SQL: it finds what its source finds.

use std::process::Command;

use pg_clip_tests::{cluster_of_models, models_of, repository, repository_file, run, value, watched};
use serde_json::Value;

/// How many of the things on the photos have a photo of them nearest to their name.
const FOUND: &str = "SELECT count(*) FROM (SELECT DISTINCT concept FROM photos) AS thing
    WHERE concept = (SELECT nearest.concept FROM photos AS nearest
        JOIN image_embeddings AS found ON found.image_id = nearest.id
        ORDER BY embedding <=> (SELECT clip_embed_text(thing.concept)) LIMIT 1)";

#[test]
fn a_table_moves_to_a_quantized_model_and_is_searched_as_before() {
    let cluster = cluster_of_models(&[], &[]);
    let (_database, mut client) = watched(&cluster, "sync");
    run(&mut client, "ALTER TABLE photos ADD concept text");
    let manifest: Value =
        serde_json::from_slice(&repository_file("models/demo/photos/manifest.json")).expect("JSON");
    let (mut concepts, mut photos) = (Vec::new(), Vec::new());
    for entry in manifest.as_array().expect("a list") {
        let text = |key: &str| entry[key].as_str().expect("a text").to_owned();
        concepts.push(text("concept"));
        photos.push(repository_file(&format!("models/demo/photos/{}", text("file"))));
    }
    client
        .execute(
            "INSERT INTO photos (concept, image) SELECT * FROM unnest($1::text[], $2::bytea[])",
            &[&concepts, &photos],
        )
        .expect("photos are embedded");
    let things: i64 = value(&mut client, "SELECT count(DISTINCT concept) FROM photos");
    let before: i64 = value(&mut client, FOUND);
    assert!(before * 100 >= things * 95, "{before} of {things}");

    let mut quantize = Command::new(cluster.server.postgres().program("pg_clip_embedder"));
    quantize.args(["quantize", "demo", "--models-directory"]).arg(models_of(&cluster));
    let said = quantize.output().expect("the command line runs");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));

    run(&mut client, "CALL clip_migrate('image_embeddings', 'demo-int8')");
    assert_eq!(value::<String>(&mut client, "SHOW clip.model"), "demo-int8");
    let models =
        "SELECT count(DISTINCT model) || ' ' || min(split_part(model, '@', 1)) FROM image_embeddings";
    assert_eq!(value::<String>(&mut client, models), "1 demo-int8");
    let after: i64 = value(&mut client, FOUND);
    assert!((before - after).abs() <= 1, "{after} where the source finds {before} of {things}");
    let cosine: f64 = value(
        &mut client,
        "SELECT min(1 - (clip_embed_text(concept, 'demo') <=> clip_embed_text(concept, 'demo-int8'))) FROM photos",
    );
    assert!((0.999..0.999_999_9).contains(&cosine), "{cosine}");

    // Vectors of the source are those of another model.
    let photo = &photos[0];
    let error = client
        .batch_execute("SET clip.model = 'demo'")
        .and_then(|()| client.execute("INSERT INTO photos (image) VALUES ($1)", &[&photo]))
        .expect_err("two models in one table");
    assert_eq!(pg_clip_tests::sqlstate(&error), "55000");
    assert!(repository().join("models/demo/text_model.onnx").is_file());
}
