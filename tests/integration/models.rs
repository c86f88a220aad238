//! Several models in one cluster: by name, each with its own dimensions, a few of them loaded.
//!
//! The models are the tiny ones of `tests/data/models`; PyTorch's vectors of them are in the golden file.

use std::fs;
use std::process::Command;
use std::thread;

use pg_clip_tests::{
    TestCluster, cluster_of_models, copy_model, models_of, repository_file, run, sqlstate, test_model, value,
};
use postgres::Client;
use serde_json::Value;

const MODELS: [&str; 4] = ["immich", "siglip", "transformers_js", "vit_l14"];

/// A cluster that has the tiny models beside the demo, of which two stay loaded, and a broken one.
fn cluster() -> TestCluster {
    let cluster = cluster_of_models(&MODELS, &[("clip.max_loaded_models", "2"), ("clip.model", "immich")]);
    let broken = models_of(&cluster).join("no_text");
    copy_model(&test_model("immich"), &broken);
    fs::remove_file(broken.join("textual/model.onnx")).expect("a graph is removed");
    cluster
}

/// A client of a database of its own.
fn connect(cluster: &TestCluster) -> Client {
    cluster.database().connect()
}

/// The reference for a model: its inputs of one kind and their vectors.
fn golden(model: &str, kind: &str, input: &str) -> Vec<(String, Vec<f64>)> {
    let golden: Value =
        serde_json::from_slice(&repository_file("tests/data/golden/layouts.json")).expect("JSON");
    let entries = golden["layouts"][model][kind].as_array().expect("golden vectors").clone();
    let read = |entry: Value| {
        let numbers = entry["embedding"].as_array().expect("a vector").iter();
        let numbers = numbers.map(|value| value.as_f64().expect("a number")).collect();
        (entry[input].as_str().expect("an input").to_owned(), numbers)
    };
    entries.into_iter().map(read).collect()
}

fn cosine(a: &[f32], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * b).sum()
}

/// Embeds all golden texts and photos with a model by name; panics where one is not that of the reference.
fn assert_right(client: &mut Client, model: &str) {
    for (text, expected) in golden(model, "texts", "text") {
        let row = client.query_one("SELECT clip_embed_text($1, $2)::real[]", &[&text, &model]);
        let cosine = cosine(&row.expect("a text is embedded").get::<_, Vec<f32>>(0), &expected);
        assert!(cosine >= 0.99999, "{model}, {text:?}: cosine {cosine}");
    }
    for (file, expected) in golden(model, "images", "file") {
        let photo = repository_file(&file);
        let row = client.query_one("SELECT clip_embed_image($1, $2)::real[]", &[&photo, &model]);
        let cosine = cosine(&row.expect("a photo is embedded").get::<_, Vec<f32>>(0), &expected);
        assert!(cosine >= 0.9999, "{model}, {file}: cosine {cosine}");
    }
}

fn loaded(client: &mut Client) -> Vec<String> {
    value(client, "SELECT coalesce(array_agg(name ORDER BY name), '{}') FROM clip_models WHERE loaded")
}

#[test]
fn models_are_used_by_name_and_stay_loaded_within_a_bound() {
    let cluster = cluster();
    let mut client = connect(&cluster);

    assert_right(&mut client, "immich");
    for model in ["vit_l14", "siglip", "transformers_js", "vit_l14"] {
        assert_right(&mut client, model);
        assert_eq!(loaded(&mut client), ["immich", model], "the default model stays, the other one left");
    }

    let row = client
        .query_one(
            "SELECT fingerprint ~ '^[0-9a-f]{64}$', dimensions, image_size, context_length, memory_bytes < 2^30,
                unpadded_text, image_batch, text_batch, last_used_at > now() - interval '1 day', error
            FROM clip_models WHERE name = 'vit_l14'",
            &[],
        )
        .expect("a loaded model");
    let numbers = [1, 2, 3, 6, 7].map(|column| row.get::<_, i32>(column));
    assert_eq!(numbers, [768, 32, 16, 16, 16]);
    assert!([0, 4, 5, 8].iter().all(|column| row.get::<_, bool>(*column)), "{row:?}");
    assert_eq!(row.get::<_, Option<&str>>(9), None);
    let unknown =
        "SELECT count(*) FROM clip_models WHERE NOT loaded AND coalesce(fingerprint, dimensions::text,
        image_size::text, context_length::text, memory_bytes::text, last_used_at::text) IS NULL";
    assert_eq!(value::<i64>(&mut client, unknown), 4);

    let broken = client.query("SELECT clip_embed_text('a cat', 'no_text')", &[]).expect_err("half a model");
    assert_eq!(sqlstate(&broken), "F0000");
    let query = "SELECT error LIKE '%its text tower is missing%' FROM clip_models WHERE name = 'no_text'";
    assert!(value::<bool>(&mut client, query));
    assert_eq!(loaded(&mut client), ["immich", "vit_l14"], "a broken model unloads no other");
}

#[test]
fn sessions_use_different_models_at_once() {
    let cluster = cluster();
    let mut clients = [connect(&cluster), connect(&cluster), connect(&cluster)];
    thread::scope(|scope| {
        for (client, model) in clients.iter_mut().zip(["immich", "siglip", "vit_l14"]) {
            scope.spawn(move || {
                for _ in 0..4 {
                    assert_right(client, model);
                }
            });
        }
    });
    assert!(loaded(&mut clients[0]).len() <= 2);
}

#[test]
fn the_setting_is_for_a_session_a_role_or_a_database() {
    let cluster = cluster();
    let mut client = connect(&cluster);
    let dimensions = "SELECT vector_dims(clip_embed_text('a cat'))";
    assert_eq!(value::<i32>(&mut client, dimensions), 24);
    run(&mut client, "SET clip.model = 'siglip'");
    assert_eq!(value::<i32>(&mut client, dimensions), 16);
    run(&mut client, "RESET clip.model");
    assert_eq!(value::<i32>(&mut client, dimensions), 24);

    let database = cluster.database();
    let mut owner = database.connect();
    run(
        &mut owner,
        &format!(
            "CREATE ROLE reader LOGIN; ALTER ROLE reader SET clip.model = 'vit_l14';
            ALTER DATABASE {} SET clip.model = 'siglip'",
            database.name()
        ),
    );
    assert_eq!(value::<i32>(&mut database.connect(), dimensions), 16);
    let mut reader = database.connect_as("reader");
    assert_eq!(value::<i32>(&mut reader, dimensions), 768);
    assert_eq!(value::<i64>(&mut reader, "SELECT count(*) FROM clip_models"), 6, "any role may look");
    assert!(value::<bool>(
        &mut reader,
        "SELECT clip_embed_text('a cat', 'siglip') = (clip_embed_texts(ARRAY['a cat'], 'siglip'))[1]"
    ));
}

#[test]
fn the_columns_type_decides_about_dimensions() {
    let cluster = cluster();
    let mut client = connect(&cluster);
    run(
        &mut client,
        "CREATE TABLE wide (embedding vector(768)); CREATE TABLE narrow (embedding vector(512));
        INSERT INTO wide VALUES (clip_embed_text('a cat', 'vit_l14'))",
    );
    let insert = "INSERT INTO narrow VALUES (clip_embed_text('a cat', 'vit_l14'))";
    let error = client.execute(insert, &[]).expect_err("a vector that does not fit");
    let message = error.as_db_error().expect("an error of the server").message();
    assert_eq!(message, "expected 512 dimensions, not 768");
}

#[test]
fn a_name_is_a_name_and_never_a_path() {
    let cluster = cluster();
    let mut client = connect(&cluster);
    let long = "x".repeat(64);
    for name in ["", ".", "..", "../models/immich", "/etc", "immich/", "im mich", "immich\n", "ïmmich", &long]
    {
        for query in ["SELECT clip_embed_text('a cat', $1)", "SELECT clip_embed_image('x', $1)"] {
            let error = client.query(query, &[&name]).expect_err("no model");
            assert_eq!(sqlstate(&error), "22023", "{name:?}");
            let hint = error.as_db_error().and_then(|error| error.hint()).unwrap_or_default();
            assert!(hint.contains("never by a path"), "{name:?}: {hint}");
        }
        client.execute("SELECT set_config('clip.model', $1, false)", &[&name]).expect("a setting is set");
        let error = client.query("SELECT clip_embed_text('a cat')", &[]).expect_err("no model");
        assert_eq!(sqlstate(&error), "22023", "{name:?}");
    }
    let error = client.query("SELECT clip_embed_text('a cat', $1)", &[&"im\0mich"]).expect_err("a NUL");
    assert_eq!(sqlstate(&error), "22021");

    let error = client.query("SELECT clip_embed_text('a cat', 'imich')", &[]).expect_err("no model");
    let error = error.as_db_error().expect("an error of the server");
    assert_eq!((error.code().code(), error.message()), ("22023", "model \"imich\" is not installed"));
    let hint = "Installed models: demo, immich, no_text, siglip, transformers_js, vit_l14.";
    assert_eq!(error.hint(), Some(hint));
}

#[test]
fn the_command_line_finds_the_installed_models() {
    let cluster = TestCluster::shared();
    let ask = |arguments: &[&str]| {
        let mut embedder = Command::new(cluster.server.postgres().program("pg_clip_embedder"));
        let answer = embedder.args(arguments).output().expect("the command line runs");
        assert!(answer.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&answer.stderr));
        String::from_utf8(answer.stdout).expect("UTF-8")
    };
    assert!(ask(&["list"]).lines().any(|line| line.starts_with("demo ")));
    assert!(ask(&["check", "demo"]).contains("dimensions      512"));
}
