//! The triggers for rows that logical replication applies, on one server: a session that applies rows itself stands
//! for a subscription.

use pg_clip_tests::{
    OTHER_MODEL, PATIENCE, TestCluster, WRONG, cluster_of_two_models, demo_photos, failure, run, value,
    wait_for_the_queue, wait_until,
};
use postgres::Client;

/// From here on, this session fires the triggers that a subscription's rows fire.
pub(crate) const APPLY: &str = "SET session_replication_role = replica";

/// The triggers of pg_clip, and when they are fired.
pub(crate) const ENABLED: &str =
    "SELECT string_agg(format('%s %s %s', tgrelid::regclass, tgname, tgenabled), E'\\n'
        ORDER BY tgrelid::regclass::text, tgname)
    FROM pg_trigger WHERE tgname LIKE 'clip\\_%'";

#[track_caller]
pub(crate) fn insert(client: &mut Client, table: &str, id: i64, photo: &[u8]) {
    client
        .execute(&format!("INSERT INTO {table} (id, image) VALUES ($1, $2)"), &[&id, &photo])
        .expect("a photo is stored");
}

/// How often a statement scans the target.
#[track_caller]
fn scans(client: &mut Client, statement: &str) -> i64 {
    let query = "SELECT COALESCE(sum(seq_scan + COALESCE(idx_scan, 0)), 0)::bigint
        FROM pg_stat_xact_user_tables WHERE relname = 'image_embeddings'";
    let before: i64 = value(client, query);
    run(client, statement);
    value::<i64>(client, query) - before
}

/// The triggers of each partition are made once, and the photos that are there are left to `clip_backfill`, as in a
/// watch without `replicated`.
#[test]
fn the_cost_of_a_watch_grows_with_the_number_of_partitions() {
    const PARTITIONS: i64 = 60;
    let cluster = TestCluster::preloaded();
    let database = cluster.database();
    let mut client = database.connect();
    run(
        &mut client,
        &format!(
            "CREATE TABLE photos (id bigint PRIMARY KEY, note text, image bytea) PARTITION BY RANGE (id);
            DO $$ BEGIN
                FOR n IN 0..{PARTITIONS} - 1 LOOP
                    EXECUTE format('CREATE TABLE part_%s PARTITION OF photos FOR VALUES FROM (%s) TO (%s)', n, n, n + 1);
                END LOOP;
            END $$;
            INSERT INTO photos SELECT n, NULL, 'a photo' FROM generate_series(0, {PARTITIONS} - 1) AS n;
            SELECT clip_watch('photos', mode => 'async');
            SELECT clip_unwatch('photos');
            CREATE TABLE altered (name text);
            CREATE FUNCTION see() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
                INSERT INTO public.altered SELECT object_identity FROM pg_event_trigger_ddl_commands();
            END $$;
            CREATE EVENT TRIGGER see ON ddl_command_end WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION see()"
        ),
    );
    let later = "CREATE TABLE later PARTITION OF photos FOR VALUES FROM (1000) TO (2000)";
    let mut costs = Vec::new();
    for replicated in [false, true] {
        run(&mut client, "BEGIN; TRUNCATE altered");
        let watch = format!("SELECT clip_watch('photos', mode => 'async', replicated => {replicated})");
        let to_watch = scans(&mut client, &watch);
        let of_rows = PARTITIONS * i64::from(replicated);
        let triggers = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'clip\\_watch%'";
        assert_eq!(
            value::<i64>(&mut client, triggers),
            4 + 6 * PARTITIONS + i64::from(replicated) + 2 * of_rows
        );
        let altered = "SELECT count(*) FROM altered WHERE name <> 'public.image_embeddings'";
        assert_eq!(value::<i64>(&mut client, altered), i64::from(replicated) + 2 * of_rows);
        let to_follow = scans(&mut client, later);
        assert_eq!(value::<i64>(&mut client, altered), i64::from(replicated) * 3 + 2 * of_rows);
        assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM clip_queue"), 0);
        let of_others = scans(&mut client, "ALTER TABLE photos ALTER note SET STATISTICS 10");
        costs.push((to_watch, to_follow, of_others));
        run(&mut client, "ROLLBACK");
    }
    assert_eq!(costs[0], costs[1]);
    assert_eq!(costs[0].1, 0, "no vector is looked for where a partition comes");
    assert_eq!(costs[0].2, 0, "nor where none comes or goes");
    assert!(!cluster.log().contains("did not follow"), "{}", cluster.log());
}

#[test]
fn triggers_that_were_disabled_are_fired_for_replication_again() {
    let cluster = TestCluster::shared();
    let database = cluster.database();
    let photos = demo_photos();
    let mut superuser = database.connect();
    let keeper = format!("keeper_{}", database.name());
    run(&mut superuser, &format!("CREATE ROLE {keeper} LOGIN; GRANT CREATE ON SCHEMA public TO {keeper}"));
    let mut client = database.connect_as(&keeper);
    run(
        &mut client,
        "CREATE TABLE photos (id bigint PRIMARY KEY, project text, image bytea) PARTITION BY RANGE (id);
        CREATE TABLE low PARTITION OF photos FOR VALUES FROM (0) TO (100);
        CREATE TABLE \"High; --\" PARTITION OF photos FOR VALUES FROM (100) TO (200);
        SELECT clip_watch('photos', replicated => true)",
    );
    let enabled: String = value(&mut client, ENABLED);
    assert_eq!(enabled.matches(" R").count(), 5);
    for (session, which) in [(0, "ALL"), (0, "USER"), (1, "USER"), (1, "clip_watch_applied")] {
        let client = if session == 0 { &mut superuser } else { &mut client };
        for table in ["photos", "low", "\"High; --\""] {
            if table == "photos" && which == "clip_watch_applied" {
                continue;
            }
            run(client, &format!("ALTER TABLE {table} DISABLE TRIGGER {which}"));
            let left = format!(
                "SELECT count(*) FROM pg_trigger WHERE tgrelid = '{table}'::regclass AND tgenabled <> 'D'
                    AND (tgname = '{which}' OR '{which}' IN ('ALL', 'USER'))"
            );
            assert_eq!(value::<i64>(client, &left), 0, "{which}: what is disabled stays so");
            run(client, &format!("ALTER TABLE {table} ENABLE TRIGGER {which}"));
            assert_eq!(value::<String>(client, ENABLED), enabled, "{which} of {table}");
        }
    }
    // A trigger that was enabled in another way is left alone.
    run(&mut client, "ALTER TABLE low ENABLE ALWAYS TRIGGER clip_watch_applied");
    assert_eq!(
        value::<String>(&mut client, ENABLED),
        enabled.replace("low clip_watch_applied R", "low clip_watch_applied A")
    );
    run(&mut client, "ALTER TABLE low ENABLE REPLICA TRIGGER clip_watch_applied");

    run(&mut superuser, APPLY);
    insert(&mut superuser, "photos", 1, &photos[0]);
    insert(&mut superuser, "photos", 101, &photos[1]);
    insert(&mut client, "photos", 2, &photos[2]);
    wait_for_the_queue(&mut superuser);
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
    run(&mut superuser, "DELETE FROM photos WHERE id < 100");
    wait_for_the_queue(&mut superuser);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 1);
    drop(client);
    run(&mut superuser, &format!("DROP OWNED BY {keeper} CASCADE; DROP ROLE {keeper}"));
}

/// They keep the second vectors true also for rows that a subscription applies.
#[test]
fn triggers_of_a_migration_that_were_disabled_are_always_fired_again() {
    let cluster = cluster_of_two_models();
    let database = cluster.database();
    let mut client = database.connect();
    run(
        &mut client,
        "CREATE TABLE photos (id bigint PRIMARY KEY, project text, image bytea); SELECT clip_watch('photos')",
    );
    for (id, photo) in (1..).zip(&demo_photos()[..3]) {
        insert(&mut client, "photos", id, photo);
    }
    // It stops at a row whose photo is gone.
    run(
        &mut client,
        "ALTER TABLE photos DISABLE TRIGGER USER; DELETE FROM photos WHERE id = 1;
        ALTER TABLE photos ENABLE TRIGGER USER",
    );
    let migrate = format!("CALL clip_migrate('image_embeddings', '{OTHER_MODEL}')");
    assert_eq!(failure(&mut client, &migrate, &[]), "55000");
    // The trigger of its last steps.
    run(
        &mut client,
        "CREATE TRIGGER clip_migration_gap AFTER UPDATE ON image_embeddings FOR EACH ROW EXECUTE FUNCTION clip_note_gap();
        ALTER TABLE image_embeddings ENABLE ALWAYS TRIGGER clip_migration_gap",
    );
    let enabled: String = value(&mut client, ENABLED);
    assert_eq!(enabled.matches(" A").count(), 2, "{enabled}");
    for which in ["ALL", "USER", "clip_migration"] {
        run(
            &mut client,
            &format!(
                "ALTER TABLE image_embeddings DISABLE TRIGGER {which}; ALTER TABLE image_embeddings ENABLE TRIGGER {which}"
            ),
        );
        assert_eq!(value::<String>(&mut client, ENABLED), enabled, "{which}");
    }
    run(
        &mut client,
        "DROP TRIGGER clip_migration_gap ON image_embeddings; DELETE FROM image_embeddings WHERE image_id = 1",
    );
    run(&mut client, &migrate);
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
}

/// A TRUNCATE names no key. Vectors that it leaves where the target cannot be read are found later.
#[test]
fn no_error_of_the_target_stops_an_applied_truncate() {
    let cluster = TestCluster::preloaded();
    let photos = demo_photos();
    run(&mut cluster.existing_database("postgres").connect(), "CREATE ROLE other");
    for (wrong, mended) in [
        ("ALTER TABLE image_embeddings OWNER TO other", "ALTER TABLE image_embeddings OWNER TO postgres"),
        (
            "ALTER TABLE image_embeddings DROP CONSTRAINT image_embeddings_image_id_key",
            "ALTER TABLE image_embeddings ADD UNIQUE (image_id)",
        ),
        (
            "ALTER TABLE image_embeddings ALTER checksum TYPE text USING encode(checksum, 'hex')",
            "ALTER TABLE image_embeddings ALTER checksum TYPE bytea USING decode(checksum, 'hex')",
        ),
        (
            "ALTER TABLE image_embeddings RENAME embedding TO other",
            "ALTER TABLE image_embeddings RENAME other TO embedding",
        ),
        ("DROP TABLE image_embeddings", "SELECT clip_watch('photos', replicated => true)"),
    ] {
        let database = cluster.database();
        let (mut client, mut applies) = (database.connect(), database.connect());
        run(
            &mut client,
            "CREATE TABLE photos (id bigint PRIMARY KEY, project text, image bytea) PARTITION BY RANGE (id);
            CREATE TABLE low PARTITION OF photos FOR VALUES FROM (0) TO (100);
            SELECT clip_watch('photos', replicated => true)",
        );
        run(&mut applies, APPLY);
        for (id, photo) in (1..).zip(&photos[..3]) {
            insert(&mut applies, "photos", id, photo);
        }
        wait_for_the_queue(&mut client);
        run(&mut client, wrong);
        insert(&mut applies, "photos", 4, &photos[3]);
        run(&mut applies, "TRUNCATE photos");
        assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM clip_queue"), 0, "{wrong}");
        insert(&mut applies, "photos", 2, &photos[4]);
        run(&mut client, mended);
        run(&mut client, "SELECT clip_retry()");
        run(&mut client, "CALL clip_backfill('photos', verify => true)");
        wait_for_the_queue(&mut client);
        assert_eq!(value::<i64>(&mut client, WRONG), 0, "{wrong}");
        assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 1, "{wrong}");
        let said = "CALL clip_backfill('public.photos', verify => true)";
        wait_until("the log says what to call", PATIENCE, || {
            wrong.starts_with("DROP TABLE") || cluster.log().contains(said)
        });
    }
    run(&mut cluster.existing_database("postgres").connect(), "DROP ROLE other");
}

/// PostgreSQL computes an expression of an index when it plans a query. What a user's code raises is nothing that the next try
/// would do without; what the server raises may be.
#[test]
fn an_owners_code_stops_no_truncate_that_is_applied() {
    let cluster = TestCluster::preloaded();
    let photos = demo_photos();
    let database = cluster.database();
    let (mut client, mut applies) = (database.connect(), database.connect());
    run(
        &mut client,
        "CREATE TABLE photos (id bigint PRIMARY KEY, project text, image bytea);
        SELECT clip_watch('photos', replicated => true);
        CREATE TABLE public.raised (how text); INSERT INTO raised VALUES ('nothing');
        CREATE FUNCTION raises(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
        DECLARE how CONSTANT text := (SELECT how FROM public.raised);
        BEGIN
            IF how = 'P0004' THEN
                ASSERT false, 'not so';
            ELSIF how = 'full' THEN
                PERFORM count(*) FROM generate_series(1, 200000);
            ELSIF how <> 'nothing' THEN
                RAISE 'a user says so' USING ERRCODE = how;
            END IF;
            RETURN $1;
        END $$;
        CREATE INDEX raising ON image_embeddings ((raises('constant')))",
    );
    // A session computes the expression once, unless the index changes.
    let raise = |client: &mut Client, how: &str| {
        run(client, &format!("UPDATE raised SET how = '{how}'; ALTER INDEX raising SET (fillfactor = 90)"));
    };
    run(&mut applies, APPLY);
    run(&mut applies, "SET temp_file_limit = 0; SET work_mem = 64");
    for how in ["57014", "P0004", "53100", "40001", "55P03"] {
        insert(&mut applies, "photos", 1, &photos[0]);
        wait_for_the_queue(&mut client);
        raise(&mut client, how);
        run(&mut applies, "TRUNCATE photos");
        raise(&mut client, "nothing");
        run(&mut client, "CALL clip_backfill('photos', verify => true)");
        wait_for_the_queue(&mut client);
        assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 0, "{how}");
    }
    // A subscription tries this again.
    insert(&mut applies, "photos", 1, &photos[0]);
    wait_for_the_queue(&mut client);
    raise(&mut client, "full");
    assert_eq!(failure(&mut applies, "TRUNCATE photos", &[]), "53400");
    raise(&mut client, "nothing");
    run(&mut applies, "TRUNCATE photos");
    wait_for_the_queue(&mut client);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 0);
}
