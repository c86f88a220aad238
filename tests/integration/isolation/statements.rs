//! Statements that touch a photo more than once, and code that changes it on its way: the row is embedded as it is
//! at the end.

use pg_clip_tests::isolation::{BROKEN, Differences};
use pg_clip_tests::{TestCluster, run, value, wait_for_the_queue};
use postgres::Client;

use super::pairs::database;

const MODES: [&str; 2] = ["sync", "async"];

/// A watched table `photos` with the photos 1 and 2, embedded.
fn watched(cluster: &TestCluster, mode: &str) -> Client {
    let database = database(cluster);
    let mut client = database.connect();
    run(
        &mut client,
        &format!(
            "CREATE TABLE photos (id int PRIMARY KEY, project text, image bytea);
            SELECT clip_watch('photos', mode => '{mode}');
            INSERT INTO photos SELECT number + 1, 'p', image FROM pictures WHERE number < 2"
        ),
    );
    wait_for_the_queue(&mut client);
    client
}

/// Runs a statement on such a table in both modes; afterwards nothing may be wrong, and so many photos have a vector.
#[track_caller]
fn check(statements: &str, embedded: i64) {
    let cluster = TestCluster::shared();
    for mode in MODES {
        let mut client = watched(&cluster, mode);
        run(&mut client, statements);
        wait_for_the_queue(&mut client);
        let found = Differences::between(&mut client, "photos", "image_embeddings", "demo");
        assert_eq!(found, Differences::default(), "in {mode} mode");
        assert_eq!(
            value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"),
            embedded,
            "in {mode} mode"
        );
    }
}

#[test]
fn a_key_that_is_deleted_and_inserted_in_one_statement_keeps_a_vector() {
    // Which part ends first, and has its triggers fire first, depends on how much the other asks for.
    for limit in ["", "LIMIT 1"] {
        check(
            &format!(
                "WITH gone AS (DELETE FROM photos WHERE id = 1 RETURNING id)
                INSERT INTO photos SELECT gone.id, 'q', image FROM gone, pictures WHERE number = 3 {limit}"
            ),
            2,
        );
    }
}

#[test]
fn a_key_that_is_freed_and_taken_in_one_statement_keeps_a_vector() {
    check(
        "ALTER TABLE photos DROP CONSTRAINT photos_pkey, ADD PRIMARY KEY (id) DEFERRABLE;
        UPDATE photos SET id = 3 - id",
        2,
    );
    check(
        "ALTER TABLE photos DROP CONSTRAINT photos_pkey, ADD PRIMARY KEY (id) DEFERRABLE;
        WITH gone AS (DELETE FROM photos WHERE id = 1) UPDATE photos SET id = 1 WHERE id = 2",
        1,
    );
}

#[test]
fn a_photo_that_is_deleted_and_inserted_in_one_transaction_keeps_a_vector() {
    check(
        "BEGIN; DELETE FROM photos; INSERT INTO photos SELECT 1, 'q', image FROM pictures WHERE number = 3;
        UPDATE photos SET id = 7; UPDATE photos SET image = (SELECT image FROM pictures WHERE number = 2); COMMIT",
        1,
    );
}

#[test]
fn a_row_trigger_that_changes_the_photo_has_the_last_word() {
    check(
        "CREATE FUNCTION crop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            UPDATE photos SET image = (SELECT image FROM pictures WHERE number = 3)
            WHERE id = NEW.id AND image = (SELECT image FROM pictures WHERE number = 2);
            RETURN NULL;
        END $$;
        CREATE TRIGGER crop AFTER INSERT OR UPDATE ON photos FOR EACH ROW EXECUTE FUNCTION crop();
        INSERT INTO photos SELECT 3, 'p', image FROM pictures WHERE number = 2;
        UPDATE photos SET image = (SELECT image FROM pictures WHERE number = 2) WHERE id = 1",
        3,
    );
}

#[test]
fn a_statement_trigger_before_ours_that_changes_the_photo_has_the_last_word() {
    check(
        "CREATE FUNCTION crop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            UPDATE photos SET image = (SELECT image FROM pictures WHERE number = 3)
            WHERE image = (SELECT image FROM pictures WHERE number = 2);
            RETURN NULL;
        END $$;
        CREATE TRIGGER a_crop AFTER INSERT OR UPDATE ON photos FOR EACH STATEMENT
            WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION crop();
        INSERT INTO photos SELECT 3, 'p', image FROM pictures WHERE number = 2;
        UPDATE photos SET image = (SELECT image FROM pictures WHERE number = 2) WHERE id = 1",
        3,
    );
}

#[test]
fn a_trigger_that_deletes_the_photo_leaves_no_vector() {
    check(
        "CREATE FUNCTION reject() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN DELETE FROM photos WHERE id = NEW.id; RETURN NULL; END $$;
        CREATE TRIGGER reject AFTER INSERT OR UPDATE ON photos FOR EACH ROW EXECUTE FUNCTION reject();
        INSERT INTO photos SELECT 3, 'p', image FROM pictures WHERE number = 2;
        UPDATE photos SET image = (SELECT image FROM pictures WHERE number = 2) WHERE id = 1",
        1,
    );
}

#[test]
fn a_photo_that_becomes_undecodable_is_searchable_no_more() {
    let cluster = TestCluster::shared();
    let mut client = watched(&cluster, "async");
    run(&mut client, &format!("UPDATE photos SET image = '{BROKEN}' WHERE id = 1"));
    wait_for_the_queue(&mut client);
    let found = Differences::between(&mut client, "photos", "image_embeddings", "demo");
    assert_eq!(found, Differences::default());
    let coverage = "SELECT concat_ws(' ', photos, embedded, missing, failed) FROM clip_coverage
        WHERE source = 'photos'::regclass";
    assert_eq!(value::<String>(&mut client, coverage), "2 1 1 1");
}
