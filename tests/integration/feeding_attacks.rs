//! The attempts of a feeder's role, and changes of a table between a claim and the feeder's call.

use pg_clip_tests::{
    FEEDER, TestCluster, TestDatabase, demo_photos, failure, refer, run, sqlstate, value,
    watched_by_reference,
};
use postgres::{Client, Error};

const CLAIM: &str = "SELECT key, generation, reference FROM clip_claim_references('photos', 10, 60)";
const VECTORS: &str = "SELECT count(*) FROM image_embeddings";

struct Claimed {
    key: String,
    generation: String,
    reference: Option<String>,
}

fn claim(client: &mut Client) -> Vec<Claimed> {
    let rows = client.query(CLAIM, &[]).expect("a claim");
    rows.iter()
        .map(|row| Claimed { key: row.get(0), generation: row.get(1), reference: row.get(2) })
        .collect()
}

/// Brings a photo for a claim of a table; returns the outcome.
fn feed_to(client: &mut Client, table: &str, claimed: &Claimed, photo: &[u8]) -> Result<String, Error> {
    let call = format!(
        "CALL clip_feed('{table}', ARRAY[$1]::text[], ARRAY[$2]::text[], ARRAY[$3]::text[], ARRAY[$4]::bytea[], \
         ARRAY[NULL]::text[], ARRAY[NULL]::text[])"
    );
    let Claimed { key, generation, reference } = claimed;
    let row = client.query_one(&call, &[key, generation, reference, &photo])?;
    Ok(row.get::<_, Vec<String>>(0).remove(0))
}

fn feed(client: &mut Client, claimed: &Claimed) -> Result<String, String> {
    feed_to(client, "photos", claimed, &demo_photos()[0]).map_err(|error| sqlstate(&error).to_owned())
}

/// A table with a photo that waits, its owner, and a feeder that has claimed the photo.
fn claimed(cluster: &TestCluster) -> (TestDatabase, Client, Client, Claimed) {
    let (database, mut owner) = watched_by_reference(cluster);
    refer(&mut owner, &["a.jpg"]);
    let mut feeder = database.connect_as(FEEDER);
    let claimed = claim(&mut feeder).remove(0);
    (database, owner, feeder, claimed)
}

#[test]
fn a_change_between_claim_and_feed_decides() {
    let cluster = TestCluster::preloaded();
    let mut others = Vec::new();
    for (change, came_of_it) in [
        ("SELECT clip_revoke_feeder('photos', 'feeder')", Err("42501")),
        ("SELECT clip_unwatch('photos')", Err("42501")),
        // Where the row has no reference, there is nothing left to do.
        ("SELECT clip_watch('photos', reference_column => 'storage_url')", Ok("embedded")),
        ("ALTER TABLE photos ADD image bytea; SELECT clip_watch('photos', mode => 'async')", Err("55000")),
        ("ALTER TABLE photos RENAME storage_path TO path", Err("42703")),
        ("ALTER TABLE photos ALTER storage_path TYPE bytea USING 'a.jpg'", Err("42804")),
        ("ALTER TABLE photos DROP storage_path", Err("42703")),
        ("ALTER TABLE photos ALTER id TYPE int", Err("42804")),
        ("ALTER TABLE image_embeddings ALTER checksum TYPE text USING ''", Err("42804")),
        ("DROP TABLE image_embeddings", Ok("later")),
        ("DROP TABLE photos", Err("42P01")),
        (
            "DROP TABLE photos; CREATE VIEW photos AS SELECT 1 AS id, 'a.jpg'::text AS storage_path",
            Err("42501"),
        ),
        ("TRUNCATE photos", Ok("gone")),
    ] {
        let (_database, mut owner, mut feeder, claimed) = claimed(&cluster);
        run(&mut owner, change);
        let fed = feed(&mut feeder, &claimed);
        if fed.as_deref().map_err(String::as_str) != came_of_it {
            others.push(format!("{change}: {fed:?} and not {came_of_it:?}"));
        }
        if !change.contains("DROP TABLE image_embeddings") {
            assert_eq!(value::<i64>(&mut owner, VECTORS), 0, "{change}");
        }
    }
    assert!(others.is_empty(), "{}", others.join("\n"));
}

#[test]
fn a_changed_table_is_fed_once_it_fits_again() {
    let cluster = TestCluster::preloaded();
    let (_database, mut owner, mut feeder, first) = claimed(&cluster);
    run(&mut owner, "ALTER TABLE photos RENAME storage_path TO path");
    assert_eq!(feed(&mut feeder, &first), Err("42703".to_owned()));
    assert_eq!(claim(&mut feeder).len(), 0);
    run(
        &mut owner,
        "SELECT clip_watch('photos', reference_column => 'path'); SELECT clip_grant_feeder('photos', 'feeder');
        SELECT clip_retry('photos')",
    );
    // Ends the pause of the table that could not be read.
    run(&mut owner, "UPDATE clip_queue SET run_at = now(); DELETE FROM clip_queue_pauses");
    let again = claim(&mut feeder).remove(0);
    assert_eq!(again.reference.as_deref(), Some("a.jpg"));
    assert_eq!(feed(&mut feeder, &again).as_deref(), Ok("embedded"));
    assert_eq!(value::<i64>(&mut owner, VECTORS), 1);
}

#[test]
fn a_feeder_reaches_no_table_but_its_own() {
    let cluster = TestCluster::preloaded();
    let (database, mut owner, mut feeder, claimed) = claimed(&cluster);
    run(
        &mut owner,
        "CREATE TABLE others (id int PRIMARY KEY, path text); INSERT INTO others VALUES (1, 'secret.jpg');
        SELECT clip_watch('others', target => 'others_embeddings', reference_column => 'path');
        UPDATE others SET path = 'still secret.jpg'; CREATE VIEW seen AS SELECT * FROM others;
        CREATE TABLE plain (id int); CREATE SEQUENCE numbers; GRANT CREATE ON SCHEMA public TO feeder",
    );
    let photo = &demo_photos()[0];
    for table in ["others", "seen", "plain", "numbers", "image_embeddings", "clip_queue", "pg_authid"] {
        assert_eq!(
            failure(&mut feeder, &format!("SELECT * FROM clip_claim_references('{table}', 1, 60)"), &[]),
            "42501",
            "{table}"
        );
        let fed = feed_to(&mut feeder, table, &claimed, photo).expect_err(table);
        assert_eq!(sqlstate(&fed), "42501", "{table}");
        for call in [
            format!("SELECT clip_grant_feeder('{table}', 'feeder')"),
            format!("SELECT clip_revoke_feeder('{table}', 'feeder')"),
        ] {
            let state = failure(&mut feeder, &call, &[]);
            assert!(["42501", "42809"].contains(&state.as_str()), "{call}: {state}");
        }
    }
    // Its own tables are its own business, and no other role's.
    run(
        &mut feeder,
        "CREATE TABLE mine (id int PRIMARY KEY, path text); INSERT INTO mine VALUES (1, 'mine.jpg');
        SELECT clip_watch('mine', target => 'mine_embeddings', reference_column => 'path');
        SELECT clip_grant_feeder('mine', 'postgres')",
    );
    assert_eq!(failure(&mut feeder, "SELECT clip_grant_feeder('mine', '0')", &[]), "42704");
    assert_eq!(failure(&mut feeder, "SELECT clip_grant_feeder('mine', '4000000000')", &[]), "42704");
    assert_eq!(failure(&mut feeder, "UPDATE clip_feeders SET source = 'others'", &[]), "42501");

    // A grant to PUBLIC's roles reaches those that have the role, as long as they have it.
    run(
        &mut owner,
        "CREATE ROLE crew; CREATE ROLE sailor LOGIN IN ROLE crew; SELECT clip_grant_feeder('others', 'crew')",
    );
    let mut sailor = database.connect_as("sailor");
    let count = "SELECT waiting FROM clip_count_references('others')";
    assert_eq!(value::<i64>(&mut sailor, count), 1);
    run(&mut owner, "REVOKE crew FROM sailor");
    assert_eq!(failure(&mut sailor, count, &[]), "42501");
}

#[test]
fn rows_that_policies_hide_are_fed_and_stay_hidden() {
    let cluster = TestCluster::preloaded();
    let (_database, mut owner, mut feeder, claimed) = claimed(&cluster);
    run(
        &mut owner,
        "ALTER TABLE photos ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
        ALTER TABLE image_embeddings ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
        GRANT SELECT ON photos, image_embeddings TO feeder",
    );
    assert_eq!(feed(&mut feeder, &claimed).as_deref(), Ok("embedded"));
    assert_eq!(value::<i64>(&mut owner, VECTORS), 1);
    assert_eq!(value::<i64>(&mut feeder, "SELECT count(*) FROM photos"), 0);
    assert_eq!(value::<i64>(&mut feeder, VECTORS), 0);
}

#[test]
fn photos_of_a_partitioned_table_are_fed() {
    let cluster = TestCluster::preloaded();
    let database = cluster.database();
    let mut owner = database.connect();
    run(
        &mut owner,
        "CREATE TABLE photos (id int PRIMARY KEY, storage_path text) PARTITION BY RANGE (id);
        CREATE TABLE low PARTITION OF photos FOR VALUES FROM (0) TO (10);
        CREATE TABLE high PARTITION OF photos FOR VALUES FROM (10) TO (20);
        SELECT clip_watch('photos', reference_column => 'storage_path');
        INSERT INTO photos VALUES (1, 'a.jpg'); INSERT INTO low VALUES (2, 'b.jpg')",
    );
    let claimed = claim(&mut owner);
    assert_eq!(claimed.len(), 2);
    for (claimed, photo) in claimed.iter().zip(demo_photos()) {
        let fed = feed_to(&mut owner, "photos", claimed, &photo).expect("a photo is fed");
        assert_eq!(fed, "embedded");
    }
    // A row that moves asks for its photo anew.
    run(
        &mut owner,
        "MERGE INTO photos USING (VALUES (1)) AS moved (id) ON photos.id = moved.id WHEN MATCHED THEN UPDATE SET id = 11",
    );
    assert_eq!(value::<i64>(&mut owner, VECTORS), 1, "nothing is left under the old key");
    let again = claim(&mut owner).remove(0);
    assert_eq!((again.key.as_str(), again.reference.as_deref()), ("11", Some("a.jpg")));
    assert_eq!(feed_to(&mut owner, "photos", &again, &demo_photos()[0]).expect("fed"), "embedded");
    assert_eq!(value::<i64>(&mut owner, VECTORS), 2);
}

#[test]
fn odd_arguments_are_refused_or_do_no_harm() {
    let cluster = TestCluster::preloaded();
    let (_database, mut owner, mut feeder, claimed) = claimed(&cluster);
    for (arguments, state) in [
        ("'{NULL}', '{1}', '{a}', '{NULL}', '{NULL}', '{NULL}'", "22004"),
        ("'{1}', '{NULL}', '{a}', '{NULL}', '{NULL}', '{NULL}'", "22004"),
        ("'{1}', '{1}', '{a}', '{NULL}', '{NULL}', NULL", "22023"),
        ("'{1,2}', '{{1},{2}}', '{a,b}', '{NULL,NULL}', '{NULL,NULL}', '{NULL}'", "22023"),
        ("'{1}', '{1}', '{a}', '{x}', '{missing}', '{NULL}'", "22023"),
    ] {
        let call = format!("CALL clip_feed('photos', {arguments})");
        assert_eq!(failure(&mut feeder, &call, &[]), state, "{call}");
    }
    assert_eq!(
        failure(&mut feeder, "CALL clip_feed(NULL, '{}', '{}', '{}', '{}', '{}', '{}')", &[]),
        "42P01"
    );
    for (arguments, outcome) in [
        ("NULL, NULL, NULL, NULL, NULL, NULL", None),
        ("'[7:7]={no}', '{{1}}', '{NULL}', '[-3:-3]={x}', '{NULL}', '{NULL}'", Some("gone")),
        (
            "ARRAY[repeat('9', 10000000)], ARRAY[repeat('9', 10000000)], ARRAY[repeat('x', 10000000)],
            ARRAY[NULL]::bytea[], '{failed}', ARRAY[repeat('猫', 3000000)]",
            Some("gone"),
        ),
        ("ARRAY[E'\\x01''\";']::text[], '{0}', '{NULL}', '{NULL}', '{NULL}', '{NULL}'", Some("gone")),
    ] {
        let call = format!("CALL clip_feed('photos', {arguments})");
        let outcomes: Vec<String> = feeder.query_one(&call, &[]).expect(&call).get(0);
        assert_eq!(outcomes.first().map(String::as_str), outcome, "{call}");
    }
    // A message of any length is cut, and stays a message.
    let Claimed { key, generation, reference } = &claimed;
    let failed = feeder
        .query_one(
            "CALL clip_feed('photos', ARRAY[$1]::text[], ARRAY[$2]::text[], ARRAY[$3]::text[], ARRAY[NULL]::bytea[], \
             '{missing}', ARRAY[repeat('猫', 1000000) || E'\\n''; DROP TABLE photos; --'])",
            &[key, generation, reference],
        )
        .expect("a reason is taken");
    assert_eq!(failed.get::<_, Vec<String>>(0), ["dead"]);
    let message = "SELECT sqlstate || ' ' || (message = repeat('猫', 500)) FROM clip_failures";
    assert_eq!(value::<String>(&mut owner, message), "58P01 true");
    assert_eq!(value::<i64>(&mut owner, VECTORS), 0);
}
