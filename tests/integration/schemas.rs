//! Extensions in schemas of their own, which are on no search_path.

use pg_clip_tests::{
    TestCluster, cluster_of_two_models, demo_photo, demo_photos, run, value, wait_for_the_queue,
};

#[test]
fn everything_works_when_called_by_its_schema() {
    let cluster = TestCluster::shared();
    let mut client = cluster.empty_database().connect();
    run(
        &mut client,
        r#"CREATE SCHEMA "Vector Space"; CREATE SCHEMA "Clip Art"; CREATE SCHEMA shop;
        CREATE EXTENSION vector SCHEMA "Vector Space"; CREATE EXTENSION pg_clip SCHEMA "Clip Art";
        CREATE TABLE shop.photos (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), project text, image bytea);
        SELECT "Clip Art".clip_watch('shop.photos')"#,
    );
    for _ in 0..2 {
        client.execute("INSERT INTO shop.photos (image) VALUES ($1)", &[&demo_photo()]).expect("a photo");
    }
    run(&mut client, "UPDATE shop.photos SET project = 'p'");
    let query = r#"SELECT count(*) FROM shop.photos JOIN shop.image_embeddings AS e ON image_id = photos.id
        WHERE embedding OPERATOR("Vector Space".=) "Clip Art".clip_embed_image(image) AND e.project = 'p'"#;
    assert_eq!(value::<i64>(&mut client, query), 2);
    let query = r#"SELECT "Vector Space".vector_dims(("Clip Art".clip_embed_texts(ARRAY['a']))[1])"#;
    let dimensions: i32 = value(&mut client, query);
    assert_eq!(dimensions, 512);
    assert_eq!(value::<String>(&mut client, r#"SELECT state FROM "Clip Art".clip_status"#), "ready");
    run(&mut client, r#"TRUNCATE shop.photos; SELECT "Clip Art".clip_unwatch('shop.photos')"#);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM shop.image_embeddings"), 0);
}

#[test]
fn a_search_path_cannot_change_the_work_of_a_trigger() {
    let cluster = TestCluster::shared();
    let mut client = cluster.database().connect();
    run(
        &mut client,
        "CREATE TABLE photos (id int PRIMARY KEY, image bytea); SELECT clip_watch('photos');
        CREATE SCHEMA evil;
        CREATE FUNCTION evil.never(int, int) RETURNS bool LANGUAGE sql AS 'SELECT false';
        CREATE OPERATOR evil.= (LEFTARG = int, RIGHTARG = int, FUNCTION = evil.never);
        CREATE TABLE evil.image_embeddings (LIKE image_embeddings);
        SET search_path = evil, pg_catalog, public",
    );
    client.execute("INSERT INTO public.photos VALUES (1, $1)", &[&demo_photo()]).expect("a photo");
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM public.image_embeddings"), 1);
    run(&mut client, "DELETE FROM public.photos");
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM public.image_embeddings"), 0);
}

#[test]
fn a_fake_vector_type_is_refused() {
    let cluster = TestCluster::shared();
    let mut client = cluster.empty_database().connect();
    run(
        &mut client,
        "CREATE SCHEMA real; CREATE EXTENSION vector SCHEMA real;
        CREATE SCHEMA clip; CREATE DOMAIN clip.vector AS text",
    );
    let create = pg_clip_tests::failure(&mut client, "CREATE EXTENSION pg_clip SCHEMA clip", &[]);
    assert_eq!(create, "42704");
}

#[test]
fn everything_works_after_the_schema_was_renamed() {
    let cluster = cluster_of_two_models();
    let database = cluster.empty_database();
    let mut client = database.connect();
    run(
        &mut client,
        r#"CREATE EXTENSION vector; CREATE SCHEMA clip; CREATE EXTENSION pg_clip SCHEMA clip;
        CREATE TABLE photos (id int PRIMARY KEY, image bytea); SELECT clip.clip_watch('photos');
        SET clip.enabled = off"#,
    );
    let insert =
        "INSERT INTO photos SELECT place, image FROM unnest($1::bytea[]) WITH ORDINALITY AS t (image, place)";
    client.execute(insert, &[&&demo_photos()[..10]]).expect("photos are stored");
    run(
        &mut client,
        r#"RESET clip.enabled; ALTER SCHEMA clip RENAME TO "New Clip";
        CREATE SCHEMA clip; SET search_path = "New Clip", public"#,
    );
    run(&mut client, "CALL clip_backfill('photos')");
    run(&mut client, "CALL clip_backfill('photos', verify => true)");
    let coverage = "SELECT ARRAY[photos, embedded, missing, stale] FROM clip_coverage";
    assert_eq!(value::<Vec<i64>>(&mut client, coverage), [10, 10, 0, 0]);
    let classify = "SELECT label FROM clip_classify((SELECT image FROM photos WHERE id = 1), ARRAY['a cat', 'a dog']) LIMIT 1";
    let label = value::<String>(&mut client, classify);
    assert!(["a cat", "a dog"].contains(&label.as_str()), "{label}");
    run(&mut client, "CALL clip_migrate('image_embeddings', 'other')");
    client.execute("INSERT INTO photos VALUES (11, $1)", &[&demo_photos()[11]]).expect("a photo is embedded");
    run(&mut client, "CALL clip_migrate('image_embeddings', 'demo')");
    let verified = "SELECT ARRAY[photos, embedded, missing, stale, orphaned] FROM clip_verify('photos')";
    assert_eq!(value::<Vec<i64>>(&mut client, verified), [11, 11, 0, 0, 0]);
    run(
        &mut client,
        "SELECT clip_unwatch('photos'); SELECT clip_watch('photos', mode => 'async');
        SELECT * FROM clip_failures, clip_backfills, clip_migrations; SELECT clip_retry()",
    );
    client.execute("INSERT INTO photos VALUES (12, $1)", &[&demo_photos()[12]]).expect("a photo is stored");
    wait_for_the_queue(&mut client);
    assert_eq!(value::<Vec<i64>>(&mut client, verified), [12, 12, 0, 0, 0]);
}

#[test]
fn databases_of_any_encoding_take_the_extension() {
    let cluster = TestCluster::preloaded();
    let mut client = cluster.existing_database("postgres").connect();
    for (name, encoding) in [("japanese", "EUC_JP"), ("western", "LATIN1"), ("bytes", "SQL_ASCII")] {
        run(
            &mut client,
            &format!("CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"),
        );
        let mut client = cluster.existing_database(name).connect();
        run(
            &mut client,
            "CREATE EXTENSION vector; CREATE EXTENSION pg_clip;
            CREATE TABLE photos (id int PRIMARY KEY, image bytea); SELECT clip_watch('photos')",
        );
        client.execute("INSERT INTO photos VALUES (1, $1)", &[&demo_photo()]).expect("a photo is embedded");
        assert_eq!(value::<i64>(&mut client, "SELECT embedded FROM clip_verify('photos')"), 1, "{encoding}");
    }
}
