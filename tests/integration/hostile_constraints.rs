//! Constraints that wait for the commit, whose names other roles give to constraints of theirs.
//!
//! The canary is that of [`crate::hostile_tables`].

use pg_clip_tests::{TestCluster, demo_jpegs, run, value, variant, wait_for_the_queue};

use crate::hostile_tables::Stage;

/// SET CONSTRAINTS takes names: a trigger that it fires renames the schema of the next name.
#[test]
fn a_constraint_that_renames_its_schema_gains_nothing() {
    let cluster = TestCluster::preloaded();
    let mut stage = Stage::set(&cluster);
    stage.open_shop();
    run(
        &mut stage.superuser,
        "SELECT clip_watch('shop.photos');
            ALTER TABLE shop.image_embeddings ADD CONSTRAINT of_photo FOREIGN KEY (image_id) REFERENCES shop.photos
                DEFERRABLE INITIALLY DEFERRED;
            GRANT INSERT ON shop.photos TO mallory",
    );
    run(
        &mut stage.mallory,
        "CREATE SCHEMA other; GRANT ALL ON SCHEMA other TO PUBLIC;
        CREATE FUNCTION swap() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            ALTER SCHEMA shop RENAME TO sold; ALTER SCHEMA other RENAME TO shop; PERFORM nextval('mallory.swapped');
            RETURN NULL;
        END $$;
        CREATE SEQUENCE swapped;
        CREATE TABLE shop.one (x int); CREATE TABLE other.two (x int);
        CREATE CONSTRAINT TRIGGER of_photo AFTER INSERT ON shop.one DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION swap();
        CREATE CONSTRAINT TRIGGER of_photo AFTER INSERT ON other.two DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION canary_trigger()",
    );
    let mut transaction = stage.mallory.transaction().expect("a transaction");
    transaction
        .batch_execute("INSERT INTO shop.one VALUES (1); INSERT INTO other.two VALUES (1)")
        .expect("rows");
    let insert = "INSERT INTO shop.photos VALUES (1, $1)";
    transaction.execute(insert, &[&demo_jpegs()[0]]).expect_err("the target has another name");
    transaction.rollback().expect("nothing is left");
    assert!(value::<bool>(&mut stage.superuser, "SELECT is_called FROM mallory.swapped"));
    stage.assert_contained();
    assert_eq!(stage.ran(), 0);
    stage.superuser.execute(insert, &[&demo_jpegs()[0]]).expect("a photo is stored");
    assert_eq!(value::<i64>(&mut stage.superuser, "SELECT count(*) FROM shop.image_embeddings"), 1);
    run(&mut stage.superuser, "DROP SCHEMA shop, other CASCADE");
    stage.leave();
}

/// A trigger by hand reads photos as the owner of their table.
#[test]
fn a_trigger_by_hand_reads_no_namesake_of_its_table() {
    let cluster = TestCluster::preloaded();
    let mut stage = Stage::set(&cluster);
    stage.open_shop();
    run(
        &mut stage.superuser,
        "CREATE TRIGGER fill AFTER INSERT ON shop.photos REFERENCING NEW TABLE AS added
                FOR EACH STATEMENT EXECUTE FUNCTION clip_fill_image_embeddings('target=shop.image_embeddings');
            GRANT INSERT ON shop.photos TO mallory",
    );
    let target = "CREATE TABLE shop.image_embeddings (
        image_id int UNIQUE, embedding public.vector(512), checksum bytea, model text)";
    run(
        &mut stage.mallory,
        &format!(
            "{target}; CREATE SEQUENCE swapped;
            CREATE FUNCTION swap() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF to_regnamespace('sold') IS NULL THEN
                    ALTER SCHEMA shop RENAME TO sold; CREATE SCHEMA shop; GRANT USAGE ON SCHEMA shop TO PUBLIC;
                    {target};
                    CREATE VIEW shop.photos AS
                        SELECT id, CASE WHEN mallory.canary('view') THEN ''::bytea END AS image, 1 AS tableoid, 1 AS ctid, 1 AS xmin
                        FROM generate_series(1, 1000) AS id;
                    GRANT SELECT ON shop.photos TO PUBLIC; PERFORM nextval('mallory.swapped');
                END IF;
                RETURN NEW;
            END $$;
            CREATE TRIGGER swap BEFORE INSERT ON shop.image_embeddings FOR EACH ROW EXECUTE FUNCTION swap()"
        ),
    );
    let photos: Vec<Vec<u8>> = (0..40).map(|number| variant(&demo_jpegs()[0], number)).collect();
    let insert = "INSERT INTO shop.photos SELECT number, image
        FROM unnest($1::bytea[]) WITH ORDINALITY AS t (image, number)";
    let error = stage.mallory.execute(insert, &[&photos]).expect_err("the table has another name");
    assert_eq!(error.code().map(|code| code.code()), Some("55000"), "{error:?}");
    assert!(value::<bool>(&mut stage.superuser, "SELECT is_called FROM mallory.swapped"));
    stage.assert_contained();
    assert_eq!(stage.ran(), 0);
    run(&mut stage.mallory, "DROP TRIGGER swap ON shop.image_embeddings");
    stage.mallory.execute(insert, &[&photos]).expect("photos are stored");
    assert_eq!(value::<i64>(&mut stage.superuser, "SELECT count(*) FROM shop.image_embeddings"), 40);
    run(&mut stage.superuser, "DROP SCHEMA shop CASCADE");
    stage.leave();
}

#[test]
fn a_constraint_of_the_same_name_keeps_no_photo_from_its_vector() {
    let cluster = TestCluster::preloaded();
    for mode in ["sync", "async"] {
        let mut stage = Stage::set(&cluster);
        run(
            &mut stage.superuser,
            &format!(
                "CREATE TABLE photos (id int PRIMARY KEY, image bytea); SELECT clip_watch('photos', mode => '{mode}');
                ALTER TABLE image_embeddings ADD CONSTRAINT of_photo FOREIGN KEY (image_id) REFERENCES photos
                    DEFERRABLE INITIALLY DEFERRED"
            ),
        );
        run(&mut stage.mallory, "CREATE TABLE public.x (a int, CONSTRAINT of_photo CHECK (true))");
        let insert = "INSERT INTO photos VALUES ($1, $2)";
        for id in 1..3 {
            stage.superuser.execute(insert, &[&id, &demo_jpegs()[0]]).expect("a photo is stored");
        }
        wait_for_the_queue(&mut stage.superuser);
        run(&mut stage.superuser, "DELETE FROM photos WHERE id = 1");
        assert_eq!(value::<i64>(&mut stage.superuser, "SELECT count(*) FROM image_embeddings"), 1, "{mode}");
        run(&mut stage.superuser, "DROP TABLE photos, image_embeddings, x");
        stage.leave();
    }
}

/// A caller that may not use the schema of the target cannot fire what it has made wait there.
#[test]
fn a_shared_name_in_a_schema_that_the_caller_may_not_use_is_refused() {
    let cluster = TestCluster::preloaded();
    let mut stage = Stage::set(&cluster);
    run(
        &mut stage.superuser,
        "CREATE SCHEMA vectors; CREATE TABLE photos (id int PRIMARY KEY, image bytea);
        SELECT clip_watch('photos', 'vectors.image_embeddings');
        ALTER TABLE vectors.image_embeddings ADD CONSTRAINT of_photo FOREIGN KEY (image_id) REFERENCES photos
            DEFERRABLE INITIALLY DEFERRED;
        CREATE TABLE vectors.x (a int, CONSTRAINT of_photo UNIQUE (a) DEFERRABLE);
        GRANT INSERT ON photos TO mallory",
    );
    let insert = "INSERT INTO public.photos VALUES (1, $1)";
    let error = stage.mallory.execute(insert, &[&demo_jpegs()[0]]).expect_err("two constraints of one name");
    let error = error.as_db_error().expect("an error of the server");
    assert_eq!(error.code().code(), "55000");
    assert!(error.hint().is_some_and(|hint| hint.contains("GRANT USAGE ON SCHEMA vectors")), "{error:?}");
    run(&mut stage.superuser, "ALTER TABLE vectors.x RENAME CONSTRAINT of_photo TO of_x");
    stage.mallory.execute(insert, &[&demo_jpegs()[0]]).expect("a photo is stored");
    assert_eq!(value::<i64>(&mut stage.superuser, "SELECT count(*) FROM vectors.image_embeddings"), 1);
    stage.assert_contained();
    run(&mut stage.superuser, "DROP SCHEMA vectors CASCADE; DROP TABLE photos");
    stage.leave();
}

/// Nor has the owner of the target a right on its schema.
#[test]
fn a_foreign_key_of_another_role_stops_no_photo() {
    let cluster = TestCluster::preloaded();
    for mode in ["sync", "async"] {
        let mut stage = Stage::set(&cluster);
        run(
            &mut stage.superuser,
            &format!(
                "CREATE ROLE shop LOGIN; CREATE SCHEMA shop AUTHORIZATION shop; GRANT USAGE ON SCHEMA shop TO mallory;
                SET ROLE shop; CREATE TABLE shop.photos (id int PRIMARY KEY, image bytea);
                SELECT clip_watch('shop.photos', mode => '{mode}'); GRANT REFERENCES ON shop.image_embeddings TO mallory"
            ),
        );
        run(
            &mut stage.mallory,
            "CREATE TABLE mallory.c (i int CONSTRAINT refers REFERENCES shop.image_embeddings (image_id)
                DEFERRABLE INITIALLY DEFERRED)",
        );
        let mut shop = stage.database.connect_as("shop");
        let insert = "INSERT INTO shop.photos VALUES ($1, $2)";
        let embedded = "SELECT array_agg(image_id ORDER BY image_id) FROM shop.image_embeddings";
        run(&mut stage.superuser, "RESET ROLE");
        for id in 1..4 {
            shop.execute(insert, &[&id, &demo_jpegs()[0]]).expect("a photo is stored");
        }
        wait_for_the_queue(&mut stage.superuser);
        run(&mut shop, "UPDATE shop.photos SET id = 7 WHERE id = 1; DELETE FROM shop.photos WHERE id = 2");
        wait_for_the_queue(&mut stage.superuser);
        assert_eq!(value::<Vec<i32>>(&mut shop, embedded), [3, 7], "{mode}");
        // A name of its own that another constraint has too keeps no photo from its vector either.
        run(&mut stage.mallory, "CREATE TABLE mallory.d (i int CONSTRAINT refers CHECK (true))");
        shop.execute(insert, &[&8, &demo_jpegs()[0]]).expect("a photo is stored");
        wait_for_the_queue(&mut stage.superuser);
        assert_eq!(value::<Vec<i32>>(&mut shop, embedded), [3, 7, 8], "{mode}");
        stage.assert_contained();
        run(&mut stage.superuser, "DROP TABLE mallory.c; DROP SCHEMA shop CASCADE; DROP ROLE shop");
        stage.leave();
    }
}

#[test]
fn a_deferred_constraint_of_a_partition_is_checked_at_once() {
    let cluster = TestCluster::shared();
    for mode in ["sync", "async"] {
        let database = cluster.database();
        let mut client = database.connect();
        run(
            &mut client,
            &format!(
                "CREATE TABLE photos (id int PRIMARY KEY, image bytea);
                CREATE TABLE image_embeddings (image_id int PRIMARY KEY, embedding vector(512), checksum bytea, model text)
                    PARTITION BY RANGE (image_id);
                CREATE TABLE part PARTITION OF image_embeddings FOR VALUES FROM (0) TO (1000);
                ALTER TABLE part ADD FOREIGN KEY (image_id) REFERENCES photos DEFERRABLE INITIALLY DEFERRED;
                SELECT clip_watch('photos', mode => '{mode}')"
            ),
        );
        client.execute("INSERT INTO photos VALUES (1, $1)", &[&demo_jpegs()[0]]).expect("a photo is stored");
        wait_for_the_queue(&mut client);
        assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM part"), 1, "{mode}");
        run(&mut client, "DELETE FROM photos");
        assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM part"), 0, "{mode}");
    }
}
