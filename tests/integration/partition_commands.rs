//! Commands that bring partitions and take them away: of other roles than the owner, in a resting watch, of every kind.

use pg_clip_tests::isolation::{Sessions, Step};
use pg_clip_tests::{
    PATIENCE, TestCluster, TestDatabase, WRONG, demo_photos, run, value, wait_for_the_queue, wait_until,
    wait_until_equal,
};
use postgres::Client;

use crate::embedding_node::Nodes;

const VECTORS: &str = "SELECT count(*) FROM image_embeddings";

/// The role `keeper` has a watched table with two partitions, and `other` has tables of its own.
struct Roles {
    cluster: TestCluster,
    database: TestDatabase,
    superuser: Client,
    keeper: Client,
    other: Client,
}

impl Roles {
    fn new() -> Roles {
        let cluster = TestCluster::preloaded();
        let database = cluster.database();
        let mut superuser = database.connect();
        run(
            &mut superuser,
            "CREATE ROLE keeper LOGIN; CREATE ROLE other LOGIN;
            CREATE SCHEMA AUTHORIZATION keeper; CREATE SCHEMA AUTHORIZATION other",
        );
        let (mut keeper, mut other) = (database.connect_as("keeper"), database.connect_as("other"));
        for client in [&mut keeper, &mut other] {
            run(
                client,
                "CREATE TABLE photos (id int PRIMARY KEY, image bytea) PARTITION BY RANGE (id);
                CREATE TABLE low PARTITION OF photos FOR VALUES FROM (0) TO (100);
                CREATE TABLE high PARTITION OF photos FOR VALUES FROM (100) TO (200);
                SELECT clip_watch('photos')",
            );
        }
        run(
            &mut other,
            "CREATE TABLE plain (id int PRIMARY KEY, image bytea);
            SELECT clip_watch('plain', target => 'plain_embeddings')",
        );
        insert(&mut keeper, 1, 2);
        insert(&mut keeper, 101, 2);
        insert(&mut other, 1, 1);
        Roles { cluster, database, superuser, keeper, other }
    }
}

fn insert(client: &mut Client, first: i32, count: usize) {
    let photos = &demo_photos()[..count];
    let insert = "INSERT INTO photos (id, image)
        SELECT $1 + ordinality::int - 1, image FROM unnest($2::bytea[]) WITH ORDINALITY AS t (image, ordinality)";
    client.execute(insert, &[&first, &photos]).expect("photos are stored");
}

#[test]
fn a_partition_that_comes_late_to_a_subscriber_deletes_no_vector() {
    let nodes = Nodes::start();
    let (mut sender, mut receiver) = (nodes.shop.connect(), nodes.copy.connect());
    let photos = "CREATE TABLE photos (id int PRIMARY KEY, image bytea)";
    run(&mut sender, &format!("{photos}; SELECT clip_watch('photos')"));
    insert(&mut sender, 1, 3);
    run(&mut sender, "CREATE PUBLICATION pair FOR TABLE photos, image_embeddings");
    run(&mut receiver, &format!("{photos} PARTITION BY RANGE (id); SELECT clip_watch('photos')"));
    pg_clip_tests::subscribe(&mut receiver, "pair", &nodes.application, &nodes.shop, "");
    wait_until_equal(&mut sender, &mut receiver, "image_embeddings");
    wait_until("the first copy of the photos finds no partition", PATIENCE, || {
        nodes.node.log().contains("no partition of relation \"photos\" found for row")
    });
    run(&mut receiver, "CREATE TABLE low PARTITION OF photos FOR VALUES FROM (0) TO (100)");
    assert_eq!(value::<i64>(&mut receiver, VECTORS), 3);
    wait_until_equal(&mut sender, &mut receiver, "photos");
    assert_eq!(value::<i64>(&mut receiver, WRONG), 0);

    // The publisher sends and deletes the vectors of these too.
    run(&mut receiver, "CREATE TABLE more (id int NOT NULL, image bytea)");
    let more = "INSERT INTO more VALUES (101, $1)";
    receiver.execute(more, &[&demo_photos()[3]]).expect("a photo is stored");
    run(
        &mut receiver,
        "ALTER TABLE photos ATTACH PARTITION more FOR VALUES FROM (100) TO (200);
        ALTER TABLE photos DETACH PARTITION low; DROP TABLE low",
    );
    assert_eq!(value::<i64>(&mut receiver, "SELECT count(*) FROM clip_queue"), 0);
    assert_eq!(value::<i64>(&mut receiver, VECTORS), 3);
    run(&mut receiver, "DROP SUBSCRIPTION pair");
    run(&mut receiver, "DELETE FROM more; DELETE FROM image_embeddings");
    insert(&mut receiver, 102, 2);
    assert_eq!(value::<i64>(&mut receiver, VECTORS), 2, "partitions that came meanwhile are watched");
}

#[test]
fn a_partition_that_comes_after_its_vectors_deletes_none() {
    let cluster = TestCluster::preloaded();
    let mut client = cluster.database().connect();
    run(
        &mut client,
        "CREATE TABLE photos (id int PRIMARY KEY, image bytea) PARTITION BY RANGE (id);
        CREATE TABLE low PARTITION OF photos FOR VALUES FROM (0) TO (100);
        SELECT clip_watch('photos')",
    );
    insert(&mut client, 1, 3);
    run(
        &mut client,
        "CREATE TABLE kept AS TABLE image_embeddings; ALTER TABLE photos DETACH PARTITION low;
        INSERT INTO image_embeddings TABLE kept",
    );
    run(&mut client, "CREATE TABLE high PARTITION OF photos FOR VALUES FROM (100) TO (200)");
    assert_eq!(value::<i64>(&mut client, VECTORS), 3, "created");
    run(&mut client, "ALTER TABLE photos ATTACH PARTITION low FOR VALUES FROM (0) TO (100)");
    wait_for_the_queue(&mut client);
    assert_eq!(value::<i64>(&mut client, VECTORS), 3, "attached");
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
}

/// Its triggers run as the keeper, and could wait for ever or cancel the statement.
#[test]
fn a_drop_of_one_role_runs_no_code_of_another() {
    let mut roles = Roles::new();
    run(
        &mut roles.keeper,
        "CREATE SEQUENCE ran;
        CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            PERFORM nextval('keeper.ran');
            RAISE 'the keeper says so' USING ERRCODE = '57014';
        END $$;
        -- A vector of no photo.
        INSERT INTO image_embeddings (image_id, embedding, checksum, model)
            SELECT 99, embedding, checksum, model FROM image_embeddings LIMIT 1;
        CREATE TRIGGER stop BEFORE DELETE ON image_embeddings EXECUTE FUNCTION stop()",
    );
    let (other, superuser) = (&mut roles.other, &mut roles.superuser);
    run(other, "DROP TABLE plain; ALTER TABLE photos DETACH PARTITION low; DROP TABLE low; DROP TABLE high");
    run(other, "DROP TABLE photos");
    let ran = "SELECT is_called FROM keeper.ran";
    assert!(!value::<bool>(superuser, ran));
    run(superuser, "ALTER TABLE keeper.photos DETACH PARTITION keeper.high; DROP TABLE keeper.low");
    assert!(!value::<bool>(superuser, ran), "nor does one of a superuser");
    let log = roles.cluster.log();
    assert!(!log.contains("the keeper says so"), "{log}");
    let call = "CALL clip_backfill('keeper.photos', verify => true)";
    assert_eq!(log.matches(call).count(), 2, "{log}");

    // Its own command goes on too, and says why vectors are left.
    run(
        &mut roles.keeper,
        "CREATE TABLE low PARTITION OF photos FOR VALUES FROM (0) TO (100); DROP TABLE low",
    );
    assert!(value::<bool>(superuser, ran));
    let log = roles.cluster.log();
    assert!(log.contains("may be left, of table keeper.photos: the keeper says so"), "{log}");
    run(&mut roles.keeper, "DROP TRIGGER stop ON image_embeddings");
    run(&mut roles.keeper, call);
    wait_for_the_queue(superuser);
    assert_eq!(value::<i64>(&mut roles.keeper, VECTORS), 0);
}

#[test]
fn a_command_of_one_role_waits_for_no_lock_of_another() {
    let roles = Roles::new();
    let mut sessions = Sessions::new(&roles.database);
    sessions.run("keeper", "SET ROLE keeper; SET search_path = keeper, public");
    sessions.run("other", "SET ROLE other; SET search_path = other, public");
    sessions.run("keeper", "BEGIN; LOCK TABLE photos, image_embeddings");
    sessions.run("other", "DROP TABLE plain; DROP TABLE low; ALTER TABLE photos DETACH PARTITION high");
    sessions.run("other", "CREATE TABLE low PARTITION OF photos FOR VALUES FROM (0) TO (100)");
    sessions.run("keeper", "COMMIT; BEGIN; LOCK TABLE ONLY low, image_embeddings");
    // Of the superuser, on the keeper's table: a partition comes and one goes.
    sessions.run(
        "superuser",
        "CREATE TABLE keeper.top PARTITION OF keeper.photos FOR VALUES FROM (200) TO (300)",
    );
    sessions.run("superuser", "ALTER TABLE keeper.top OWNER TO keeper");
    sessions.run("superuser", "DROP TABLE keeper.high");
    sessions.run("keeper", "COMMIT; BEGIN; LOCK TABLE image_embeddings");
    // The owner itself waits for a moment, and not for as long as another session works on its target.
    sessions.run("owner", "SET ROLE keeper");
    assert_eq!(sessions.start("owner", "DROP TABLE keeper.low"), Step::Blocked);
    sessions.finish("owner");
    sessions.run("keeper", "COMMIT");
    let log = roles.cluster.log();
    assert!(
        log.contains("embeddings of photos in a partition that went may be left, of table keeper.photos: "),
        "{log}"
    );
    let (mut keeper, mut superuser) = (roles.keeper, roles.superuser);
    run(&mut keeper, "CALL clip_backfill('photos', verify => true)");
    wait_for_the_queue(&mut superuser);
    assert_eq!(value::<i64>(&mut keeper, VECTORS), 0);
    insert(&mut keeper, 201, 1);
    keeper.execute("INSERT INTO top VALUES (202, $1)", &[&demo_photos()[1]]).expect("a photo is stored");
    assert_eq!(
        value::<i64>(&mut keeper, VECTORS),
        2,
        "the partition is watched once it has the owner of its table"
    );
}

#[test]
fn a_table_with_a_trigger_of_that_name_locks_and_reads_nothing_of_others() {
    let mut roles = Roles::new();
    let (superuser, other) = (&mut roles.superuser, &mut roles.other);
    run(
        other,
        "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
        CREATE TEMP TABLE mine (); CREATE TRIGGER clip_watch_delete AFTER DELETE ON mine EXECUTE FUNCTION nothing()",
    );
    let own: i32 = value(other, "SELECT pg_backend_pid()");
    let locked = format!(
        "SELECT string_agg(format('%s: %s', pg_class.oid::regclass, mode), ', ')
        FROM pg_locks JOIN pg_class ON pg_class.oid = relation
        WHERE relnamespace = 'keeper'::regnamespace AND pid = {own}"
    );
    let read =
        "SELECT COALESCE(sum(seq_scan + COALESCE(idx_scan, 0)), 0)::bigint FROM pg_stat_xact_user_tables
        WHERE schemaname IN ('keeper', 'other') AND relname <> 'plain'";
    run(other, "BEGIN");
    let before: i64 = value(other, read);
    for table in ["mine", "plain"] {
        run(other, &format!("DROP TABLE {table}"));
        assert_eq!(value::<Option<String>>(superuser, &locked), None, "{table}");
        assert_eq!(value::<i64>(other, read), before, "{table}");
    }
    run(other, "COMMIT");
}

/// The extension's schema is closed, as each new one is.
#[test]
fn partitions_are_followed_without_a_right_on_the_schema_of_the_extension() {
    let cluster = TestCluster::preloaded();
    let database = cluster.empty_database();
    let mut superuser = database.connect();
    run(
        &mut superuser,
        "CREATE EXTENSION vector; CREATE SCHEMA ext; CREATE EXTENSION pg_clip SCHEMA ext;
        CREATE ROLE keeper LOGIN; CREATE SCHEMA AUTHORIZATION keeper",
    );
    let mut keeper = database.connect_as("keeper");
    run(&mut keeper, "CREATE TABLE photos (id int PRIMARY KEY, image bytea) PARTITION BY RANGE (id)");
    run(&mut superuser, "SELECT ext.clip_watch('keeper.photos')");
    run(
        &mut keeper,
        "CREATE TABLE notes (); ALTER TABLE notes ADD note text; DROP TABLE notes;
        CREATE TABLE low PARTITION OF photos FOR VALUES FROM (0) TO (100)",
    );
    let photo = &demo_photos()[0];
    keeper.execute("INSERT INTO low VALUES (1, $1)", &[photo]).expect("a photo is stored");
    assert_eq!(value::<i64>(&mut keeper, VECTORS), 1);
    run(&mut keeper, "DROP TABLE low");
    assert_eq!(value::<i64>(&mut keeper, VECTORS), 0);
    let log = cluster.log();
    assert!(!log.contains("WARNING"), "{log}");
}

#[test]
fn whatever_takes_partitions_away_is_followed() {
    let cluster = TestCluster::preloaded();
    let database = cluster.database();
    let mut client = database.connect();
    run(
        &mut client,
        "CREATE ACCESS METHOD shelf TYPE TABLE HANDLER heap_tableam_handler; CREATE SCHEMA wing;
        CREATE TABLE photos (id int PRIMARY KEY, image bytea) PARTITION BY RANGE (id);
        SELECT clip_watch('photos');
        CREATE TABLE rest PARTITION OF photos FOR VALUES FROM (100) TO (200)",
    );
    insert(&mut client, 101, 1);
    for (part, take) in [
        (
            "CREATE TABLE wing.low PARTITION OF photos FOR VALUES FROM (0) TO (100)",
            "DROP SCHEMA wing CASCADE",
        ),
        (
            "CREATE TABLE low PARTITION OF photos FOR VALUES FROM (0) TO (100) USING shelf",
            "DROP ACCESS METHOD shelf CASCADE",
        ),
        (
            "CREATE ROLE leaver; CREATE TABLE low PARTITION OF photos FOR VALUES FROM (0) TO (100)",
            "ALTER TABLE low OWNER TO leaver; DROP OWNED BY leaver",
        ),
        (
            "CREATE TABLE low PARTITION OF photos FOR VALUES FROM (0) TO (100) PARTITION BY RANGE (id);
            CREATE TABLE lowest PARTITION OF low FOR VALUES FROM (0) TO (100)",
            "DROP TABLE low",
        ),
        (
            "CREATE TABLE low PARTITION OF photos FOR VALUES FROM (0) TO (100)",
            "ALTER TABLE photos DETACH PARTITION low CONCURRENTLY",
        ),
        (
            "DROP TABLE low; CREATE TABLE low PARTITION OF photos FOR VALUES FROM (0) TO (100)",
            "BEGIN; SAVEPOINT one; DROP TABLE low; ROLLBACK TO one; ALTER TABLE photos DETACH PARTITION low; DROP TABLE low; COMMIT",
        ),
        (
            "CREATE TABLE low PARTITION OF photos FOR VALUES FROM (0) TO (100)",
            "SET session_replication_role = replica; DROP TABLE low; RESET session_replication_role",
        ),
    ] {
        run(&mut client, part);
        insert(&mut client, 1, 3);
        assert_eq!(value::<i64>(&mut client, VECTORS), 4, "{take}");
        run(&mut client, take);
        assert_eq!(value::<i64>(&mut client, VECTORS), 1, "{take}");
    }
    run(&mut client, "SET session_replication_role = replica");
    run(&mut client, "CREATE TABLE low PARTITION OF photos FOR VALUES FROM (0) TO (100)");
    run(&mut client, "RESET session_replication_role");
    client.execute("INSERT INTO low VALUES (1, $1)", &[&demo_photos()[0]]).expect("a photo is stored");
    assert_eq!(value::<i64>(&mut client, VECTORS), 2);
    let log = cluster.log();
    assert!(!log.contains("WARNING"), "{log}");
}

#[test]
fn what_is_detached_with_partitions_of_its_own_is_on_its_own() {
    let cluster = TestCluster::shared();
    let mut client = cluster.database().connect();
    run(
        &mut client,
        "CREATE TABLE photos (id int PRIMARY KEY, image bytea) PARTITION BY RANGE (id);
        CREATE TABLE low PARTITION OF photos FOR VALUES FROM (0) TO (100) PARTITION BY RANGE (id);
        CREATE TABLE lowest PARTITION OF low FOR VALUES FROM (0) TO (50);
        SELECT clip_watch('photos')",
    );
    insert(&mut client, 1, 3);
    run(&mut client, "ALTER TABLE photos DETACH PARTITION low");
    assert_eq!(value::<i64>(&mut client, VECTORS), 0);
    for table in ["lowest", "low"] {
        let insert = format!("INSERT INTO {table} VALUES ($1, $2)");
        let id = 10 + i32::try_from(table.len()).expect("a few letters");
        client.execute(&insert, &[&id, &demo_photos()[0]]).expect("a photo is stored");
    }
    assert_eq!(value::<i64>(&mut client, VECTORS), 0);
    assert_eq!(
        value::<i64>(&mut client, "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'lowest'::regclass"),
        0
    );
}

#[test]
fn a_trigger_of_a_user_with_the_name_of_a_watchs_is_left_alone() {
    let cluster = TestCluster::preloaded();
    let mut client = cluster.database().connect();
    run(
        &mut client,
        "CREATE TABLE photos (id int PRIMARY KEY, image bytea) PARTITION BY RANGE (id);
        SELECT clip_watch('photos');
        CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
        CREATE TABLE low (id int NOT NULL, image bytea);
        CREATE TRIGGER clip_watch_delete AFTER DELETE ON low EXECUTE FUNCTION nothing();
        ALTER TABLE photos ATTACH PARTITION low FOR VALUES FROM (0) TO (100)",
    );
    let log = cluster.log();
    assert!(log.contains("pg_clip did not follow partition public.low of table public.photos: trigger \"clip_watch_delete\""), "{log}");
    let own =
        "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'low'::regclass AND tgfoid = 'nothing'::regproc";
    assert_eq!(value::<i64>(&mut client, own), 1);
    // Once it is gone, the next partition that comes has both followed.
    run(
        &mut client,
        "DROP TRIGGER clip_watch_delete ON low; CREATE TABLE high PARTITION OF photos FOR VALUES FROM (100) TO (200)",
    );
    let insert = "INSERT INTO low VALUES (1, $1)";
    client.execute(insert, &[&demo_photos()[0]]).expect("a photo is stored");
    assert_eq!(value::<i64>(&mut client, VECTORS), 1);
}
