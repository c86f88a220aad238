//! A target with constraints that wait for the commit, in both modes.

use pg_clip_tests::{
    TestCluster, TestDatabase, WRONG, demo_photo, demo_photos, failure, run, value, wait_for_the_queue,
};
use postgres::Client;

const MODES: [&str; 2] = ["sync", "async"];

/// A watched table of a role's own that another role fills.
fn watched(cluster: &TestCluster, mode: &str) -> (TestDatabase, Client, Client) {
    let database = cluster.database();
    let mut superuser = database.connect();
    run(
        &mut superuser,
        &format!(
            "DROP ROLE IF EXISTS shopkeeper_{mode}; CREATE ROLE shopkeeper_{mode} LOGIN;
            DROP ROLE IF EXISTS uploader_{mode}; CREATE ROLE uploader_{mode} LOGIN;
            CREATE SCHEMA shop AUTHORIZATION shopkeeper_{mode}; GRANT USAGE ON SCHEMA shop TO uploader_{mode};
            CREATE SCHEMA vectors AUTHORIZATION shopkeeper_{mode};
            ALTER DATABASE {} SET search_path = shop, vectors, public",
            database.name()
        ),
    );
    let mut owner = database.connect_as(&format!("shopkeeper_{mode}"));
    run(
        &mut owner,
        &format!(
            "CREATE TABLE shop.photos (id int PRIMARY KEY, project text, image bytea);
            CREATE TABLE vectors.image_embeddings (image_id int PRIMARY KEY, project text,
                embedding vector(512) NOT NULL, checksum bytea NOT NULL, model text NOT NULL);
            SELECT clip_watch('photos', 'vectors.image_embeddings', mode => '{mode}');
            GRANT ALL ON photos TO uploader_{mode}",
        ),
    );
    let uploader = database.connect_as(&format!("uploader_{mode}"));
    (database, owner, uploader)
}

fn insert(client: &mut impl postgres::GenericClient, id: i32, photo: &[u8]) {
    client.execute("INSERT INTO photos VALUES ($1, 'p', $2)", &[&id, &photo]).expect("a photo is stored");
}

#[test]
fn a_foreign_key_that_waits_is_checked_at_once_and_waits_again() {
    let cluster = TestCluster::preloaded();
    for mode in MODES {
        let (database, mut owner, mut uploader) = watched(&cluster, mode);
        let mut superuser = database.connect();
        run(
            &mut owner,
            "ALTER TABLE image_embeddings ADD CONSTRAINT \"Of; a photo\" FOREIGN KEY (image_id) REFERENCES photos
                DEFERRABLE INITIALLY DEFERRED;
            CREATE TABLE likes (image_id int REFERENCES image_embeddings DEFERRABLE INITIALLY IMMEDIATE);
            CREATE TABLE albums (photo int REFERENCES photos DEFERRABLE INITIALLY DEFERRED);
            GRANT INSERT ON albums TO PUBLIC",
        );
        let photos = demo_photos();
        // The caller's own constraints wait still, while the target's has been checked.
        let mut transaction = uploader.transaction().expect("a transaction");
        transaction
            .batch_execute("SET CONSTRAINTS ALL DEFERRED; INSERT INTO albums VALUES (2)")
            .expect("later");
        insert(&mut transaction, 1, &photos[0]);
        insert(&mut transaction, 2, &photos[1]);
        transaction.batch_execute("UPDATE photos SET project = 'q' WHERE id = 1").expect("a project");
        transaction.commit().expect("all constraints hold");
        wait_for_the_queue(&mut superuser);
        assert_eq!(value::<i64>(&mut superuser, WRONG), 0, "{mode}");
        assert_eq!(value::<i64>(&mut superuser, "SELECT count(*) FROM clip_failures"), 0, "{mode}");

        // The foreign key has no ON DELETE: it waits for the trigger to delete the embedding.
        run(&mut superuser, "TRUNCATE albums");
        let mut transaction = uploader.transaction().expect("a transaction");
        insert(&mut transaction, 3, &photos[2]);
        transaction.batch_execute("DELETE FROM photos WHERE id <> 2").expect("photos are deleted");
        insert(&mut transaction, 4, &photos[3]);
        transaction
            .batch_execute("UPDATE photos SET image = NULL WHERE id = 2")
            .expect("a photo is taken away");
        transaction.commit().expect("all constraints hold");
        wait_for_the_queue(&mut superuser);
        let left = "SELECT array_agg(image_id) FROM image_embeddings";
        assert_eq!(value::<Vec<i32>>(&mut superuser, left), [4], "{mode}");

        run(&mut owner, "INSERT INTO likes VALUES (4)");
        run(&mut uploader, "BEGIN; SET CONSTRAINTS ALL DEFERRED");
        let refused = failure(&mut uploader, "DELETE FROM photos", &[]);
        assert_eq!(refused, "23503", "{mode}: a like is in the way");
        run(&mut uploader, "ROLLBACK");
        assert_eq!(value::<i64>(&mut superuser, "SELECT count(*) FROM image_embeddings"), 1);
    }
}

#[test]
fn a_trigger_that_waits_runs_at_once_as_the_owner() {
    let cluster = TestCluster::preloaded();
    for mode in MODES {
        let (database, mut owner, mut uploader) = watched(&cluster, mode);
        run(
            &mut owner,
            "CREATE TABLE seen (what text, role text, path text);
            CREATE FUNCTION peep() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                INSERT INTO shop.seen VALUES (TG_OP, current_user, current_setting('search_path'));
                BEGIN
                    EXECUTE 'SET ROLE postgres';
                    INSERT INTO shop.seen VALUES ('role', current_user, '');
                EXCEPTION WHEN insufficient_privilege THEN NULL;
                END;
                RETURN NULL;
            END $$;
            CREATE CONSTRAINT TRIGGER later AFTER INSERT OR UPDATE OR DELETE ON image_embeddings
                DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION peep()",
        );
        insert(&mut uploader, 1, &demo_photo());
        let mut superuser = database.connect();
        wait_for_the_queue(&mut superuser);
        run(&mut uploader, "UPDATE photos SET project = 'q'; DELETE FROM photos");
        let seen = "SELECT array_agg(concat_ws(' ', what, role, path)) FROM seen";
        let expected = ["INSERT", "UPDATE", "DELETE"]
            .map(|what| format!("{what} shopkeeper_{mode} pg_catalog, pg_temp"));
        assert_eq!(value::<Vec<String>>(&mut superuser, seen), expected);
    }
}

#[test]
fn a_trigger_by_hand_checks_at_once_too() {
    let cluster = TestCluster::shared();
    let database = cluster.database();
    let mut client = database.connect();
    run(
        &mut client,
        "CREATE TABLE photos (id int PRIMARY KEY, image bytea);
        CREATE TABLE image_embeddings (
            image_id int PRIMARY KEY REFERENCES photos DEFERRABLE INITIALLY DEFERRED,
            embedding vector(512), checksum bytea, model text);
        CREATE TRIGGER fill AFTER INSERT ON photos REFERENCING NEW TABLE AS added
            FOR EACH STATEMENT EXECUTE FUNCTION clip_fill_image_embeddings('target=image_embeddings')",
    );
    client.execute("INSERT INTO photos VALUES (1, $1)", &[&demo_photo()]).expect("a photo is embedded");
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
}
