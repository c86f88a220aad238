//! The rights of each role on the queue, and the role that its worker acts as.

use pg_clip_tests::{TestCluster, WRONG, demo_photo, demo_photos, failure, run, value, wait_for_the_queue};

#[test]
fn each_role_sees_its_own_rows_and_changes_none() {
    let cluster = TestCluster::preloaded();
    let database = cluster.database();
    let mut superuser = database.connect();
    run(
        &mut superuser,
        "CREATE ROLE shopkeeper LOGIN; CREATE SCHEMA shop AUTHORIZATION shopkeeper;
        CREATE ROLE uploader LOGIN; GRANT USAGE ON SCHEMA shop TO uploader;
        CREATE TABLE public.photos (id int PRIMARY KEY, image bytea);
        SELECT clip_watch('public.photos', mode => 'async');
        INSERT INTO public.photos VALUES (1, 'broken')",
    );
    let mut shopkeeper = database.connect_as("shopkeeper");
    run(
        &mut shopkeeper,
        "CREATE TABLE shop.photos (id int PRIMARY KEY, image bytea);
        SELECT clip_watch('shop.photos', mode => 'async');
        GRANT INSERT, UPDATE, DELETE, SELECT ON shop.photos TO uploader",
    );
    let mut uploader = database.connect_as("uploader");
    uploader
        .execute("INSERT INTO shop.photos VALUES (1, $1), (2, 'broken')", &[&demo_photo()])
        .expect("photos");
    wait_for_the_queue(&mut superuser);

    let failures = "SELECT count(*) FROM clip_failures";
    let coverage = "SELECT count(*) FROM clip_coverage";
    assert_eq!(value::<i64>(&mut superuser, failures), 2);
    assert_eq!(value::<i64>(&mut superuser, coverage), 2);
    assert_eq!(value::<i64>(&mut shopkeeper, failures), 1);
    assert_eq!(value::<i64>(&mut shopkeeper, "SELECT sum(embedded)::bigint FROM clip_coverage"), 1);
    assert_eq!(value::<i64>(&mut shopkeeper, coverage), 1);
    assert_eq!(value::<i64>(&mut uploader, failures), 0);
    assert_eq!(value::<i64>(&mut uploader, coverage), 0);
    assert_eq!(value::<i64>(&mut uploader, "SELECT count(*) FROM clip_workers"), 0);
    assert_eq!(value::<i64>(&mut uploader, "SELECT clip_retry()"), 0);
    assert_eq!(value::<i64>(&mut shopkeeper, "SELECT clip_retry()"), 1);
    assert_eq!(failure(&mut uploader, "SELECT clip_retry('shop.photos')", &[]), "42501");
    assert_eq!(failure(&mut shopkeeper, "SELECT clip_retry('public.photos')", &[]), "42501");
    for client in [&mut shopkeeper, &mut uploader] {
        let refused = [
            "SELECT FROM clip_queue",
            "INSERT INTO clip_queue (source, key) VALUES ('shop.photos', '1')",
            "UPDATE clip_queue SET dead = true",
            "DELETE FROM clip_queue",
            "TRUNCATE clip_queue",
            "LOCK TABLE clip_queue IN ACCESS SHARE MODE",
            "CREATE TRIGGER mine AFTER DELETE ON clip_queue EXECUTE FUNCTION clip_fill_image_embeddings()",
            "CREATE TEMPORARY TABLE mine (source regclass, key text, FOREIGN KEY (source, key) REFERENCES clip_queue)",
            "SET clip.queue_poll_interval = 1",
        ];
        for statement in refused {
            let mut transaction = client.transaction().expect("a transaction");
            let error = transaction.batch_execute(statement).expect_err(statement);
            let state = pg_clip_tests::sqlstate(&error).to_owned();
            assert!(["42501", "42P16", "55P02"].contains(&state.as_str()), "{statement}: {state}");
        }
    }
    run(&mut uploader, "DELETE FROM shop.photos");
    assert_eq!(value::<i64>(&mut superuser, "SELECT count(*) FROM clip_queue"), 1);
}

#[test]
fn the_worker_acts_as_the_owners_of_the_tables_restricted() {
    let cluster = TestCluster::preloaded();
    let database = cluster.database();
    let mut superuser = database.connect();
    run(
        &mut superuser,
        "CREATE ROLE shopkeeper LOGIN; GRANT CREATE ON SCHEMA public TO shopkeeper;
        CREATE TABLE secrets (secret text)",
    );
    let mut shopkeeper = database.connect_as("shopkeeper");
    run(
        &mut shopkeeper,
        "CREATE TABLE photos (id int PRIMARY KEY, image bytea); SELECT clip_watch('photos', mode => 'async');
        CREATE TABLE seen (place text, role text, path text);
        CREATE FUNCTION peep() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO public.seen VALUES (TG_NAME, current_user, current_setting('search_path'));
            BEGIN
                EXECUTE 'SELECT * FROM public.secrets';
                INSERT INTO public.seen VALUES ('secret', current_user, '');
            EXCEPTION WHEN insufficient_privilege THEN NULL;
            END;
            BEGIN
                EXECUTE 'SET ROLE postgres';
                INSERT INTO public.seen VALUES ('role', current_user, '');
            EXCEPTION WHEN insufficient_privilege THEN NULL;
            END;
            RETURN NULL;
        END $$;
        CREATE TRIGGER at_once AFTER INSERT ON image_embeddings FOR EACH ROW EXECUTE FUNCTION peep();
        CREATE CONSTRAINT TRIGGER later AFTER INSERT ON image_embeddings
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION peep()",
    );
    shopkeeper.execute("INSERT INTO photos VALUES (1, $1)", &[&demo_photo()]).expect("a photo is stored");
    wait_for_the_queue(&mut superuser);
    let failures = "SELECT concat_ws(' ', count(*), max(sqlstate), max(message)) FROM clip_failures";
    assert_eq!(value::<String>(&mut superuser, failures), "0");
    let seen = "SELECT array_agg(concat_ws(' ', place, role, path) ORDER BY place) FROM seen";
    assert_eq!(
        value::<Vec<String>>(&mut shopkeeper, seen),
        ["at_once shopkeeper pg_catalog, pg_temp", "later shopkeeper pg_catalog, pg_temp"]
    );
    assert_eq!(value::<i64>(&mut superuser, WRONG), 0);
}

#[test]
fn policies_that_bind_the_owner_hide_no_photo() {
    let cluster = TestCluster::preloaded();
    let database = cluster.database();
    let mut superuser = database.connect();
    run(&mut superuser, "CREATE ROLE shopkeeper LOGIN; GRANT CREATE ON SCHEMA public TO shopkeeper");
    let mut shopkeeper = database.connect_as("shopkeeper");
    run(
        &mut shopkeeper,
        "CREATE TABLE photos (id int PRIMARY KEY, image bytea); SELECT clip_watch('photos', mode => 'async');
        ALTER TABLE photos ENABLE ROW LEVEL SECURITY;
        CREATE POLICY small ON photos USING (id < 3)",
    );
    let insert = "INSERT INTO photos SELECT ordinality::int, image
        FROM unnest($1::bytea[]) WITH ORDINALITY AS new (image, ordinality)";
    shopkeeper.execute(insert, &[&&demo_photos()[..3]]).expect("photos are stored");
    wait_for_the_queue(&mut superuser);
    assert_eq!(value::<i64>(&mut superuser, "SELECT count(*) FROM image_embeddings"), 3);

    run(
        &mut shopkeeper,
        "ALTER TABLE photos FORCE ROW LEVEL SECURITY; UPDATE photos SET image = image || '\\x00'",
    );
    wait_for_the_queue(&mut superuser);
    assert_eq!(value::<i64>(&mut superuser, WRONG), 0);

    run(
        &mut shopkeeper,
        "ALTER TABLE image_embeddings ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
        CREATE POLICY small ON image_embeddings USING (image_id < 3)",
    );
    superuser.execute("INSERT INTO photos VALUES (4, $1)", &[&demo_photo()]).expect("a photo is stored");
    wait_for_the_queue(&mut superuser);
    assert_eq!(value::<i64>(&mut superuser, "SELECT count(*) FROM image_embeddings"), 4);
    assert_eq!(value::<i64>(&mut superuser, "SELECT count(*) FROM clip_failures"), 0);
    assert_eq!(value::<i64>(&mut superuser, WRONG), 0);
}
