//! A target holds the vectors of one model: that of the first.

use std::fs;

use pg_clip_tests::{
    PATIENCE, TestCluster, cluster_of_models, cluster_of_two_models, copy_model, demo_photos, failure,
    models_of, run, store, test_model, value, wait_for_the_queue, wait_until,
};
use postgres::Client;

/// A table that a tiny model of 24 dimensions embeds.
fn watched(cluster: &TestCluster, mode: &str, model: &str) -> Client {
    let database = cluster.database();
    let mut client = database.connect();
    run(
        &mut client,
        &format!(
            "ALTER DATABASE {} SET clip.model = '{model}';
            CREATE TABLE photos (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, project text, image bytea);
            CREATE TABLE image_embeddings (image_id bigint PRIMARY KEY, project text,
                embedding vector(24) NOT NULL, checksum bytea NOT NULL, model text NOT NULL)",
            database.name()
        ),
    );
    let mut client = database.connect();
    run(&mut client, &format!("SELECT clip_watch('photos', mode => '{mode}')"));
    client
}

fn models(client: &mut Client) -> Vec<String> {
    let query = "SELECT array_agg(DISTINCT split_part(model, '@', 1)) FROM image_embeddings";
    value::<Option<Vec<String>>>(client, query).unwrap_or_default()
}

#[test]
fn another_model_is_refused_until_the_target_is_empty() {
    let cluster = cluster_of_models(&["immich", "siglip", "transformers_js"], &[]);
    let mut client = watched(&cluster, "sync", "immich");
    let photos = demo_photos();
    store(&mut client, &photos[..2]);

    let insert = "INSERT INTO photos (image) VALUES ($1)";
    for (other, begins) in [("transformers_js", "immich@"), ("siglip", "immich@"), ("demo", "immich@")] {
        run(&mut client, &format!("SET clip.model = '{other}'"));
        let error = client.execute(insert, &[&photos[2]]).expect_err("another model");
        let error = error.as_db_error().expect("an error of the server");
        assert_eq!(error.code().code(), "55000");
        let holds = format!("table public.image_embeddings holds vectors of model {begins}");
        assert!(error.message().starts_with(&holds), "{}", error.message());
        let hint = format!(
            "Set clip.model to 'immich', or move the table to the other model: CALL clip_migrate('public.image_embeddings', '{other}')."
        );
        assert_eq!(error.hint(), Some(hint.as_str()));
        // The same bytes have a vector already, but of a model that is not the one that is set.
        assert_eq!(failure(&mut client, insert, &[&photos[0]]), "55000");
        run(&mut client, "UPDATE photos SET project = 'p'");
        assert_eq!(models(&mut client), ["immich"]);
    }

    run(&mut client, "SET clip.model = 'transformers_js'; DELETE FROM photos");
    store(&mut client, &photos[..2]);
    assert_eq!(models(&mut client), ["transformers_js"]);
    run(&mut client, "SET clip.model = 'immich'");
    assert_eq!(failure(&mut client, insert, &[&photos[2]]), "55000");
}

#[test]
fn a_mixed_table_is_not_watched() {
    let cluster = cluster_of_models(&["immich", "transformers_js"], &[]);
    let mut client = watched(&cluster, "sync", "immich");
    store(&mut client, &demo_photos()[..2]);
    run(
        &mut client,
        "SELECT clip_unwatch('photos'); SET clip.model = 'transformers_js';
        CREATE TABLE others (id bigint PRIMARY KEY, image bytea);
        CREATE TABLE other_embeddings (LIKE image_embeddings INCLUDING ALL); SELECT clip_watch('others', 'other_embeddings')",
    );
    client.execute("INSERT INTO others VALUES (-1, $1)", &[&demo_photos()[2]]).expect("a photo is embedded");
    run(&mut client, "INSERT INTO image_embeddings SELECT * FROM other_embeddings");
    assert_eq!(models(&mut client), ["immich", "transformers_js"]);
    for mode in ["sync", "async"] {
        let watch = format!("SELECT clip_watch('photos', mode => '{mode}')");
        assert_eq!(failure(&mut client, &watch, &[]), "55000", "{mode}");
    }
    run(&mut client, "DELETE FROM image_embeddings WHERE image_id = -1; SELECT clip_watch('photos')");
}

#[test]
fn the_queue_goes_on_with_the_model_of_the_target() {
    let cluster = cluster_of_models(&["immich", "transformers_js"], &[]);
    let mut client = watched(&cluster, "async", "immich");
    let photos = demo_photos();
    let pinned = "SELECT split_part(model, '@', 1) FROM clip_watches";
    assert_eq!(value::<String>(&mut client, pinned), "immich", "written down before the first photo");
    store(&mut client, &photos[..2]);
    wait_for_the_queue(&mut client);
    assert_eq!(value::<String>(&mut client, pinned), "immich");

    let set = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET clip.model = transformers_js', current_database()); END $$";
    run(&mut client, set);
    store(&mut client, &photos[2..4]);
    wait_for_the_queue(&mut client);
    assert_eq!(models(&mut client), ["immich"]);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 4);

    run(&mut client, "DELETE FROM photos");
    store(&mut client, &photos[..2]);
    wait_for_the_queue(&mut client);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM clip_failures"), 0);
    assert_eq!(models(&mut client), ["transformers_js"], "the one that the database names now");
}

#[test]
fn a_model_of_the_same_name_with_other_files_is_another_one() {
    let cluster = cluster_of_models(&[], &[]);
    let shop = models_of(&cluster).join("shop");
    copy_model(&test_model("immich"), &shop);
    let mut client = watched(&cluster, "async", "shop");
    let database = value::<String>(&mut client, "SELECT current_database()::text");
    let photos = demo_photos();
    store(&mut client, &photos[..1]);
    wait_for_the_queue(&mut client);
    let before: String = value(&mut client, "SELECT model FROM clip_watches");

    drop(client);
    fs::remove_dir_all(&shop).expect("the model is removed");
    copy_model(&test_model("transformers_js"), &shop);
    cluster.server.restart().expect("the server restarts");
    let mut client = cluster.existing_database(&database).connect();
    store(&mut client, &photos[1..2]);
    let refused = format!(
        "SELECT count(*) FROM clip_failures WHERE sqlstate = '55000'
            AND message LIKE 'table public.image_embeddings holds vectors of model {before}, not shop@%'"
    );
    wait_until("the photo is refused", PATIENCE, || value::<i64>(&mut client, &refused) == 1);
    run(&mut client, "SELECT clip_watch('photos')");
    assert_eq!(failure(&mut client, "INSERT INTO photos (image) VALUES ($1)", &[&photos[2]]), "55000");

    // Without a vector left, another model may begin.
    run(&mut client, "DELETE FROM image_embeddings");
    store(&mut client, &photos[2..3]);
    let after: String = value(&mut client, "SELECT model FROM clip_watches");
    assert!(after.starts_with("shop@") && after != before, "{after}");
}

/// The model of a table is its owner's to choose, or the database's setting.
#[test]
fn a_role_that_only_writes_photos_chooses_no_model() {
    let cluster = cluster_of_two_models();
    let database = cluster.database();
    let mut client = database.connect();
    run(
        &mut client,
        "CREATE ROLE uploader LOGIN; CREATE TABLE photos (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, image bytea);
        SELECT clip_watch('photos'); GRANT INSERT, DELETE, SELECT ON photos TO uploader",
    );
    let photos = demo_photos();
    let insert = "INSERT INTO photos (image) VALUES ($1)";
    let mut uploader = database.connect_as("uploader");
    for unknown in [false, true] {
        if unknown {
            run(&mut client, "UPDATE clip_watches SET model = NULL");
        }
        run(&mut uploader, "SET clip.model = 'other'");
        let error = uploader.execute(insert, &[&photos[0]]).expect_err("another model");
        let error = error.as_db_error().expect("an error of the server");
        assert_eq!(error.code().code(), "55000");
        assert_eq!(error.hint(), Some("RESET clip.model, or ask the owner of the table."));
        run(&mut uploader, "ALTER ROLE uploader SET clip.model = 'other'");
        assert_eq!(failure(&mut database.connect_as("uploader"), insert, &[&photos[0]]), "55000");
        run(&mut uploader, "ALTER ROLE uploader RESET clip.model; RESET clip.model");
        uploader.execute(insert, &[&photos[0]]).expect("a photo is embedded");
        assert_eq!(models(&mut client), ["demo"]);
        run(&mut uploader, "DELETE FROM photos");
    }
    // What the database says is no choice of the role that writes, and the owner may choose another.
    run(&mut client, &format!("ALTER DATABASE {} SET clip.model = 'other'", database.name()));
    uploader.execute(insert, &[&photos[0]]).expect("a photo is embedded");
    assert_eq!(models(&mut client), ["other"]);
    run(&mut uploader, "DELETE FROM photos");
    run(&mut client, "SET clip.model = 'demo'");
    client.execute(insert, &[&photos[0]]).expect("a photo is embedded");
    assert_eq!(models(&mut client), ["demo"]);
}
