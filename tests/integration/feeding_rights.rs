//! A feeder's role may claim, embed and end jobs of the tables that it is granted, and nothing else.

use pg_clip_tests::{
    FEEDER, PhotoFolder, TestCluster, TestDatabase, demo_photos, drain, failure, feeder, refer, run, value,
    watched_by_reference,
};
use postgres::Client;

const CLAIM: &str = "SELECT * FROM clip_claim_references('photos', 10, 60)";

fn role(client: &mut Client, name: &str) {
    run(
        client,
        &format!(
            "DO $$ BEGIN CREATE ROLE {name} LOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN END $$"
        ),
    );
}

/// A table of the role `shop`, with a photo that waits.
fn table_of_a_shop(cluster: &TestCluster) -> (TestDatabase, Client) {
    let (database, mut client) = watched_by_reference(cluster);
    role(&mut client, "shop");
    run(
        &mut client,
        "GRANT CREATE, USAGE ON SCHEMA public TO shop; ALTER TABLE photos OWNER TO shop;
        ALTER TABLE image_embeddings OWNER TO shop",
    );
    refer(&mut client, &["a.jpg"]);
    (database, client)
}

#[test]
fn the_role_gains_no_other_right() {
    let cluster = TestCluster::preloaded();
    let (database, mut owner) = table_of_a_shop(&cluster);
    role(&mut owner, "stranger");
    let mut fed = database.connect_as(FEEDER);
    let mut shop = database.connect_as("shop");
    let mut stranger = database.connect_as("stranger");
    for statement in [
        "SELECT FROM photos",
        "SELECT FROM image_embeddings",
        "SELECT FROM clip_queue",
        "INSERT INTO image_embeddings DEFAULT VALUES",
        "INSERT INTO clip_feeders VALUES ('photos', 'stranger')",
        "DELETE FROM clip_feeders",
        "SELECT clip_grant_feeder('photos', 'stranger')",
        "SELECT clip_revoke_feeder('photos', 'feeder')",
        "SELECT clip_retry('photos')",
        "SELECT clip_unwatch('photos')",
        "CALL clip_backfill('photos')",
    ] {
        assert_eq!(failure(&mut fed, statement, &[]), "42501", "{statement}");
    }
    assert_eq!(value::<i64>(&mut fed, "SELECT count(*) FROM clip_failures"), 0);
    assert_eq!(value::<i64>(&mut fed, "SELECT count(*) FROM clip_coverage"), 0);
    for statement in [
        CLAIM,
        "SELECT * FROM clip_count_references('photos')",
        "CALL clip_feed('photos', '{}', '{}', '{}', '{}', '{}', '{}')",
    ] {
        assert_eq!(failure(&mut stranger, statement, &[]), "42501", "{statement}");
    }
    assert_eq!(failure(&mut stranger, "SELECT clip_grant_feeder('photos', 'stranger')", &[]), "42501");
    assert_eq!(value::<i64>(&mut fed, "SELECT waiting FROM clip_count_references('photos')"), 1);
    assert_eq!(fed.query(CLAIM, &[]).expect("a claim").len(), 1);

    run(&mut shop, "SELECT clip_revoke_feeder('photos', 'feeder')");
    assert_eq!(failure(&mut fed, CLAIM, &[]), "42501");
    run(&mut shop, "SELECT clip_grant_feeder('photos', 'stranger')");
    run(&mut shop, "UPDATE photos SET storage_path = 'b.jpg'");
    assert_eq!(stranger.query(CLAIM, &[]).expect("a claim").len(), 1);

    // The right ends with the watch, and with the role.
    run(
        &mut shop,
        "SELECT clip_unwatch('photos'); SELECT clip_watch('photos', reference_column => 'storage_path')",
    );
    assert_eq!(failure(&mut stranger, CLAIM, &[]), "42501");
    run(&mut shop, "SELECT clip_grant_feeder('photos', 'stranger')");
    drop(stranger);
    run(&mut owner, "DROP ROLE stranger");
    role(&mut owner, "stranger");
    assert_eq!(failure(&mut database.connect_as("stranger"), CLAIM, &[]), "42501");
}

#[test]
fn the_owners_code_runs_as_the_owner_and_cannot_leave() {
    let cluster = TestCluster::preloaded();
    let (database, mut client) = table_of_a_shop(&cluster);
    let folder = PhotoFolder::new();
    folder.store("a.jpg", &demo_photos()[0]);
    // A table that the role may feed and the shop may not touch.
    run(
        &mut client,
        "CREATE TABLE treasure (id int PRIMARY KEY, path text); INSERT INTO treasure VALUES (1, 'gold');
        SELECT clip_watch('treasure', target => 'chest', reference_column => 'path');
        SELECT clip_grant_feeder('treasure', 'feeder')",
    );
    let mut shop = database.connect_as("shop");
    run(
        &mut shop,
        r#"CREATE TABLE diary (line text);
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE
            attempt text;
        BEGIN
            INSERT INTO public.diary VALUES ('as ' || current_user || ' with ' || current_setting('search_path'));
            FOREACH attempt IN ARRAY ARRAY[
                'SET ROLE feeder', 'SET SESSION AUTHORIZATION feeder', 'RESET ROLE', 'CREATE TEMP TABLE t ()',
                'SELECT * FROM public.clip_claim_references(''public.treasure'', 1, 60)',
                'SELECT path FROM public.treasure', 'SELECT public.clip_grant_feeder(''public.treasure'', ''shop'')']
            LOOP
                BEGIN
                    EXECUTE attempt;
                    INSERT INTO public.diary VALUES ('could ' || attempt);
                EXCEPTION WHEN insufficient_privilege THEN NULL;
                END;
            END LOOP;
            RETURN NEW;
        END $$;
        CREATE TRIGGER note BEFORE INSERT OR UPDATE ON image_embeddings FOR EACH ROW EXECUTE FUNCTION note();
        CREATE FUNCTION format(text, text, text) RETURNS text LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO public.diary VALUES ('planted, as ' || current_user);
            RETURN 'x';
        END $$"#,
    );
    drain(feeder(&cluster, &database, &folder.address()).args(["--table", "photos"]));
    let diary = "SELECT string_agg(line, E'\n') FROM diary";
    assert_eq!(value::<String>(&mut shop, diary), "as shop with pg_catalog, pg_temp");
    assert_eq!(value::<i64>(&mut shop, "SELECT count(*) FROM image_embeddings"), 1);
}

#[test]
fn a_table_that_cannot_be_read_waits_and_its_owner_sees_why() {
    let cluster = TestCluster::preloaded();
    let (database, mut client) = table_of_a_shop(&cluster);
    run(&mut client, "ALTER TABLE photos RENAME storage_path TO path");
    let mut fed = database.connect_as(FEEDER);
    assert_eq!(fed.query(CLAIM, &[]).expect("no error").len(), 0);
    let mut shop = database.connect_as("shop");
    let why = "SELECT waits_for FROM clip_coverage";
    assert_eq!(
        value::<String>(&mut shop, why),
        "column \"storage_path\" of table public.photos does not exist"
    );
}
