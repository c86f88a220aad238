//! Extensions in schemas of their own, off everybody's search_path.

use pg_clip_tests::{TestCluster, demo_photo, run, value};

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
fn a_search_path_cannot_change_what_a_trigger_does() {
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
