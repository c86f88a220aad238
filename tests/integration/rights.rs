//! The rights of each role.

use pg_clip_tests::{TestCluster, demo_photo, failure, run, value};

#[test]
fn a_role_that_inserts_a_photo_needs_no_right_on_the_embeddings() {
    let cluster = TestCluster::shared();
    let database = cluster.database();
    let mut owner = database.connect();
    run(
        &mut owner,
        "CREATE TABLE photos (id int PRIMARY KEY, image bytea); SELECT clip_watch('photos');
        CREATE ROLE uploader LOGIN; GRANT INSERT, UPDATE, DELETE, SELECT ON photos TO uploader",
    );
    let mut uploader = database.connect_as("uploader");
    uploader.execute("INSERT INTO photos VALUES (1, $1)", &[&demo_photo()]).expect("a photo is embedded");
    assert_eq!(value::<i64>(&mut owner, "SELECT count(*) FROM image_embeddings"), 1);
    assert_eq!(value::<String>(&mut uploader, "SELECT current_user::text"), "uploader");
    assert_eq!(failure(&mut uploader, "SELECT FROM image_embeddings", &[]), "42501");
    run(&mut uploader, "UPDATE photos SET id = 2; DELETE FROM photos");
    assert_eq!(value::<i64>(&mut owner, "SELECT count(*) FROM image_embeddings"), 0);
    drop(uploader);
    run(&mut owner, "DROP OWNED BY uploader; DROP ROLE uploader");
}

#[test]
fn a_table_is_watched_by_its_owner_into_a_table_of_the_same_owner() {
    let cluster = TestCluster::shared();
    let database = cluster.database();
    let mut superuser = database.connect();
    run(
        &mut superuser,
        "CREATE ROLE shopkeeper LOGIN; CREATE SCHEMA shop AUTHORIZATION shopkeeper;
        CREATE TABLE public.photos (id int PRIMARY KEY, image bytea);
        CREATE TABLE public.image_embeddings (
            image_id int PRIMARY KEY, embedding vector(512), checksum bytea, model text);
        SELECT clip_watch('public.photos');
        CREATE TABLE public.secrets (image_id int PRIMARY KEY, embedding vector(512), checksum bytea, model text)",
    );
    let mut shopkeeper = database.connect_as("shopkeeper");
    run(
        &mut shopkeeper,
        "CREATE TABLE shop.photos (id int PRIMARY KEY, image bytea); SELECT clip_watch('shop.photos')",
    );
    shopkeeper.execute("INSERT INTO shop.photos VALUES (1, $1)", &[&demo_photo()]).expect("a photo");
    assert_eq!(value::<i64>(&mut shopkeeper, "SELECT count(*) FROM shop.image_embeddings"), 1);

    let refused = [
        "SELECT clip_watch('public.photos', 'shop.stolen')",
        "SELECT clip_watch('shop.photos', 'public.secrets')",
        "SELECT clip_unwatch('public.photos')",
        "UPDATE clip_watches SET target = 'public.secrets'",
        "DELETE FROM clip_watches",
        "DO $$ BEGIN LOCK TABLE clip_watches; END $$",
        "CREATE TRIGGER mine AFTER INSERT ON clip_watches EXECUTE FUNCTION clip_fill_image_embeddings()",
        "SET clip.max_image_bytes = 1",
        "SET clip.max_image_pixels = 1",
    ];
    for statement in refused {
        assert_eq!(failure(&mut shopkeeper, statement, &[]), "42501", "{statement}");
    }
    assert_eq!(failure(&mut shopkeeper, "SET clip.models_directory = '/tmp'", &[]), "55P02");
    assert_eq!(failure(&mut shopkeeper, "SHOW clip.models_directory", &[]), "42501");

    // By hand, a trigger can name any table, and then writes with the rights of the role that inserts.
    run(
        &mut shopkeeper,
        "SELECT clip_unwatch('shop.photos');
        CREATE TRIGGER steal AFTER INSERT ON shop.photos REFERENCING NEW TABLE AS added
            FOR EACH STATEMENT EXECUTE FUNCTION clip_fill_image_embeddings('target=public.secrets')",
    );
    let planted = failure(&mut shopkeeper, "INSERT INTO shop.photos VALUES (2, $1)", &[&demo_photo()]);
    assert_eq!(planted, "42501");
    drop(shopkeeper);
    run(&mut superuser, "DROP OWNED BY shopkeeper CASCADE; DROP ROLE shopkeeper");
}
