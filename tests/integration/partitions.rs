//! Photos in partitions: written through the table or past it, and partitions that come and go.

use pg_clip_tests::{
    PATIENCE, TestCluster, WRONG, demo_photos, failure, run, value, wait_for_the_queue, wait_until,
};
use postgres::Client;

fn count(client: &mut Client) -> i64 {
    value(client, "SELECT count(*) FROM image_embeddings")
}

/// Nothing is missing, stale or left over.
#[track_caller]
fn check(client: &mut Client, mode: &str, what: &str, expected: i64) {
    wait_for_the_queue(client);
    assert_eq!(value::<i64>(client, WRONG), 0, "{mode}: {what}");
    assert_eq!(count(client), expected, "{mode}: {what}");
}

fn insert(client: &mut Client, table: &str, first: i32, photos: &[Vec<u8>]) {
    let insert = format!(
        "INSERT INTO {table} (id, image) SELECT $1 + ordinality::int - 1, image
        FROM unnest($2::bytea[]) WITH ORDINALITY AS new (image, ordinality)"
    );
    client.execute(&insert, &[&first, &photos]).expect("photos are stored");
}

#[test]
fn a_table_that_is_partitioned_by_another_column_than_its_key_is_refused_with_a_remedy() {
    let cluster = TestCluster::shared();
    let mut client = cluster.database().connect();
    run(
        &mut client,
        "CREATE TABLE photos (id int, taken_at date, image bytea, PRIMARY KEY (id, taken_at)) PARTITION BY RANGE (taken_at)",
    );
    for (watch, state) in [
        ("SELECT clip_watch('photos')", "42703"),
        ("SELECT clip_watch('photos', key_column => 'id')", "55000"),
    ] {
        let error = client.batch_execute(watch).expect_err("no column is unique by itself");
        let error = error.as_db_error().expect("an error of the server");
        assert_eq!(error.code().code(), state);
        let hint = error.hint().expect("a hint");
        // PostgreSQL would refuse a unique constraint.
        assert!(hint.starts_with("Partition the table by") && !hint.contains("UNIQUE"), "{hint}");
    }
}

#[test]
fn partitions_are_watched_with_their_table() {
    let cluster = TestCluster::shared();
    let photos = demo_photos();
    for mode in ["sync", "async"] {
        let database = cluster.database();
        let mut client = database.connect();
        run(
            &mut client,
            &format!(
                "CREATE TABLE photos (id int PRIMARY KEY, note text, image bytea) PARTITION BY RANGE (id);
                CREATE TABLE low PARTITION OF photos FOR VALUES FROM (0) TO (100);
                -- Other places of the columns than in the whole.
                CREATE TABLE middle (image bytea, note text, id int NOT NULL);
                ALTER TABLE photos ATTACH PARTITION middle FOR VALUES FROM (100) TO (200);
                SELECT clip_watch('photos', mode => '{mode}')"
            ),
        );
        insert(&mut client, "photos", 98, &photos[..4]);
        check(&mut client, mode, "written through the table", 4);
        insert(&mut client, "low", 10, &photos[4..6]);
        insert(&mut client, "middle", 110, &photos[6..8]);
        check(&mut client, mode, "written past the table", 8);
        run(&mut client, "UPDATE middle SET image = image || '\\x00' WHERE id = 110");
        run(&mut client, "UPDATE middle SET id = 150 WHERE id = 111");
        run(&mut client, "UPDATE photos SET id = 151 WHERE id = 10");
        run(&mut client, "UPDATE low SET note = 'x'; DELETE FROM low WHERE id = 11");
        check(&mut client, mode, "changed past the table", 7);
        run(
            &mut client,
            "MERGE INTO photos USING (VALUES (98), (5)) AS new (id) ON photos.id = new.id
            WHEN MATCHED THEN UPDATE SET image = photos.image || '\\x01'
            WHEN NOT MATCHED THEN INSERT (id, image) VALUES (new.id, (SELECT image FROM photos LIMIT 1))",
        );
        check(&mut client, mode, "merged", 8);

        run(
            &mut client,
            "CREATE TABLE high PARTITION OF photos FOR VALUES FROM (200) TO (300) PARTITION BY RANGE (id)",
        );
        run(&mut client, "CREATE TABLE high_low PARTITION OF high FOR VALUES FROM (200) TO (250)");
        insert(&mut client, "high", 200, &photos[8..9]);
        insert(&mut client, "high_low", 210, &photos[9..10]);
        check(&mut client, mode, "in a new partition", 10);
        run(&mut client, "CREATE TABLE full_one (id int NOT NULL, note text, image bytea)");
        insert(&mut client, "full_one", 300, &photos[10..15]);
        run(&mut client, "ALTER TABLE photos ATTACH PARTITION full_one FOR VALUES FROM (300) TO (400)");
        check(&mut client, mode, "attached with photos", 15);
        run(&mut client, "TRUNCATE full_one");
        check(&mut client, mode, "a partition is emptied", 10);
        insert(&mut client, "full_one", 300, &photos[10..15]);

        run(&mut client, "ALTER TABLE photos DETACH PARTITION full_one");
        check(&mut client, mode, "a partition is detached", 10);
        insert(&mut client, "full_one", 310, &photos[15..16]);
        let triggers = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'full_one'::regclass";
        assert_eq!(value::<i64>(&mut client, triggers), 0, "{mode}: a detached table is on its own");
        check(&mut client, mode, "a detached table is written to", 10);
        run(&mut client, "DROP TABLE high_low");
        check(&mut client, mode, "a partition is dropped", 8);
        run(&mut client, "SELECT clip_unwatch('photos')");
        let triggers = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'clip_watch%'";
        assert_eq!(value::<i64>(&mut client, triggers), 0, "{mode}: nothing is left of the watch");
    }
}

/// Where ATTACH PARTITION commits, its jobs are visible a moment before other backends learn of the partition. It has the
/// lock that is taken here until they do.
#[test]
fn no_photo_counts_as_gone_while_a_partition_may_come() {
    let cluster = TestCluster::shared();
    let photos = demo_photos();
    let database = cluster.database();
    let (mut client, mut attaching) = (database.connect(), database.connect());
    run(
        &mut client,
        "CREATE TABLE photos (id int PRIMARY KEY, image bytea) PARTITION BY RANGE (id);
        CREATE TABLE low PARTITION OF photos FOR VALUES FROM (0) TO (100);
        CREATE TABLE high PARTITION OF photos FOR VALUES FROM (100) TO (200) PARTITION BY RANGE (id);
        SELECT clip_watch('photos', mode => 'async')",
    );
    insert(&mut client, "photos", 0, &photos[..1]);
    wait_for_the_queue(&mut client);
    for (id, table) in [(1, "photos"), (2, "high")] {
        run(&mut attaching, &format!("BEGIN; LOCK TABLE {table} IN SHARE UPDATE EXCLUSIVE MODE"));
        let mut ask = client.transaction().expect("a transaction");
        ask.batch_execute(
            "INSERT INTO image_embeddings (image_id, embedding, checksum, model)
                SELECT -image_id - 1, embedding, checksum, model FROM image_embeddings WHERE image_id = 0;
            INSERT INTO clip_queue (source, key) VALUES ('photos'::regclass, '-1')",
        )
        .expect("a job of no photo");
        ask.execute("INSERT INTO photos VALUES ($1, $2)", &[&id, &photos[1]]).expect("a photo");
        ask.commit().expect("a commit");
        let left = "SELECT NOT claimed AND run_at > enqueued_at FROM clip_queue WHERE key = '-1'";
        wait_until("the worker left it for later", PATIENCE, || value::<bool>(&mut client, left));
        assert_eq!(count(&mut client), i64::from(id) + 2, "{table}");
        run(&mut attaching, "COMMIT");
        check(&mut client, "async", table, i64::from(id) + 1);
    }
}

/// PostgreSQL shows the triggers of a MERGE no row that it moves to another partition.
#[test]
fn a_merge_that_moves_photos_takes_their_vectors_along() {
    let cluster = TestCluster::preloaded();
    let photos = demo_photos();
    for (mode, key_type) in [("sync", "int"), ("async", "int"), ("sync", "text"), ("async", "numeric")] {
        let database = cluster.database();
        let mut client = database.connect();
        run(
            &mut client,
            &format!(
                "CREATE TABLE photos (id {key_type} PRIMARY KEY, note text, image bytea) PARTITION BY RANGE (id);
                CREATE TABLE low PARTITION OF photos FOR VALUES FROM ('000') TO ('100');
                -- Other places of the columns than in the whole, and a level below.
                CREATE TABLE middle (image bytea, id {key_type} NOT NULL, note text) PARTITION BY RANGE (id);
                CREATE TABLE inner_middle PARTITION OF middle FOR VALUES FROM ('100') TO ('200');
                ALTER TABLE photos ATTACH PARTITION middle FOR VALUES FROM ('100') TO ('200');
                CREATE TABLE high PARTITION OF photos FOR VALUES FROM ('200') TO ('300');
                SELECT clip_watch('photos', mode => '{mode}');
                CREATE FUNCTION key(n int) RETURNS {key_type} LANGUAGE sql AS
                    $$ SELECT lpad(n::text, 3, '0')::{key_type} $$;
                CREATE FUNCTION number({key_type}) RETURNS int LANGUAGE sql AS $$ SELECT $1::text::int $$"
            ),
        );
        for (key, photo) in [10, 11, 12, 150].into_iter().zip(&photos) {
            let insert = "INSERT INTO photos (id, image) VALUES (key($1), $2)";
            client.execute(insert, &[&key, photo]).expect("a photo is stored");
        }
        check(&mut client, mode, "stored", 4);
        // Without the embedder: each photo takes its vector along.
        let moves = |client: &mut Client, what: &str, statement: &str| {
            let inferences = "SELECT image_inferences FROM clip_status";
            let before: i64 = value(client, inferences);
            run(client, statement);
            wait_for_the_queue(client);
            assert_eq!(value::<i64>(client, inferences), before, "{mode} {key_type}: {what}");
            check(client, mode, what, 4);
        };
        let merge = |filter: &str, shift: i32, then: &str| {
            format!(
                "MERGE INTO photos AS old USING (
                    SELECT id, key(number(id) + {shift}) AS new FROM photos WHERE number(id) {filter}) AS moved
                ON old.id = moved.id WHEN MATCHED THEN {then}"
            )
        };
        let move_all = merge("< 100", 100, "UPDATE SET id = new, note = 'moved'");
        moves(&mut client, "rows that move", &move_all);
        let move_one = merge("> 100", 60, "UPDATE SET id = new");
        moves(&mut client, "rows that stay, and one that moves", &move_one);
        moves(
            &mut client,
            "rows that move, come and go",
            "MERGE INTO photos AS old USING generate_series(168, 172) AS n ON number(old.id) = n
            WHEN MATCHED AND n = 171 THEN DELETE
            WHEN MATCHED THEN UPDATE SET id = key(number(old.id) - 160)
            WHEN NOT MATCHED AND n = 169 THEN INSERT (id, image)
                VALUES (key(n), (SELECT image FROM photos ORDER BY id DESC LIMIT 1))",
        );
        run(&mut client, "BEGIN; SAVEPOINT one");
        run(&mut client, &merge("< 100", 150, "UPDATE SET id = new"));
        run(&mut client, "ROLLBACK TO one");
        run(&mut client, &merge("= 10", 250, "UPDATE SET id = new"));
        run(&mut client, "COMMIT");
        check(&mut client, mode, "taken back, and moved", 4);

        run(&mut client, &merge("= 260", -150, "UPDATE SET id = new, image = image || '\\x00'"));
        check(&mut client, mode, "the photo changes as well", 4);
        run(&mut client, &merge("= 110", 101, "UPDATE SET id = new, image = NULL"));
        check(&mut client, mode, "the photo goes", 3);
        run(&mut client, "DELETE FROM photos WHERE image IS NULL; SET clip.enabled = off");
        run(&mut client, &merge("= 169", 50, "UPDATE SET id = new, image = image || '\\x01'"));
        assert_eq!(count(&mut client), 2, "{mode}: nothing is left of the old bytes");
    }
}

#[test]
fn a_trigger_of_a_partition_that_changes_the_photo_has_the_last_word() {
    let cluster = TestCluster::shared();
    let photos = demo_photos();
    for mode in ["sync", "async"] {
        let database = cluster.database();
        let mut client = database.connect();
        run(
            &mut client,
            &format!(
                "CREATE TABLE photos (id int PRIMARY KEY, note text, image bytea) PARTITION BY RANGE (id);
                CREATE TABLE low PARTITION OF photos FOR VALUES FROM (0) TO (100);
                SELECT clip_watch('photos', mode => '{mode}');
                CREATE FUNCTION sign() RETURNS trigger LANGUAGE plpgsql AS
                    $$ BEGIN NEW.image := NEW.image || '\\x00'; RETURN NEW; END $$;
                CREATE TRIGGER sign BEFORE UPDATE ON low FOR EACH ROW EXECUTE FUNCTION sign()"
            ),
        );
        insert(&mut client, "photos", 0, &photos[..2]);
        check(&mut client, mode, "stored", 2);
        run(&mut client, "UPDATE photos SET note = 'x' WHERE id = 1");
        check(&mut client, mode, "a partition's trigger changed the photo", 2);
    }
}

#[test]
fn a_key_that_partitions_do_not_keep_unique_is_refused() {
    let cluster = TestCluster::shared();
    let database = cluster.database();
    let mut client = database.connect();
    run(
        &mut client,
        "CREATE TABLE photos (id int, region int, image bytea, PRIMARY KEY (id, region)) PARTITION BY LIST (region)",
    );
    assert_eq!(failure(&mut client, "SELECT clip_watch('photos', key_column => 'id')", &[]), "55000");
}

#[test]
fn rows_of_inheritance_children_are_not_watched() {
    let cluster = TestCluster::shared();
    let photos = demo_photos();
    for mode in ["sync", "async"] {
        let database = cluster.database();
        let mut client = database.connect();
        run(
            &mut client,
            &format!(
                "CREATE TABLE photos (id int PRIMARY KEY, image bytea);
                SELECT clip_watch('photos', mode => '{mode}'); CREATE TABLE child () INHERITS (photos)"
            ),
        );
        insert(&mut client, "photos", 1, &photos[..2]);
        insert(&mut client, "child", 2, &photos[2..4]);
        wait_for_the_queue(&mut client);
        // The statement changes rows of both tables, of which two have the same key.
        run(&mut client, "UPDATE photos SET image = image || '\\x00'");
        wait_for_the_queue(&mut client);
        let own = "SELECT count(*) FROM ONLY photos JOIN image_embeddings ON image_id = photos.id
            WHERE checksum = sha256(image) AND embedding = clip_embed_image(image)";
        assert_eq!(value::<i64>(&mut client, own), 2, "{mode}");
        assert_eq!(count(&mut client), 2, "{mode}");
        // Nor do they count, or are they looked for.
        let verified = "SELECT ARRAY[photos, embedded, missing, stale, orphaned] FROM clip_verify('photos')";
        assert_eq!(value::<Vec<i64>>(&mut client, verified), [2, 2, 0, 0, 0], "{mode}");
        let counts = "SELECT ARRAY[photos, embedded, missing, stale] FROM ";
        for counted in ["clip_coverage", "clip_count('photos')"] {
            let counts = format!("{counts}{counted}");
            assert_eq!(value::<Vec<i64>>(&mut client, &counts), [2, 2, 0, 0], "{mode}: {counted}");
        }
        run(&mut client, "DELETE FROM child");
        wait_for_the_queue(&mut client);
        assert_eq!(count(&mut client), 2, "{mode}");
    }
}

#[test]
fn rows_of_inheritance_children_hide_nothing_that_is_wrong() {
    let cluster = TestCluster::shared();
    let database = cluster.database();
    let mut client = database.connect();
    run(
        &mut client,
        "CREATE TABLE photos (id int PRIMARY KEY, image bytea); SELECT clip_watch('photos');
        CREATE TABLE child () INHERITS (photos); CREATE TABLE target_child () INHERITS (image_embeddings)",
    );
    insert(&mut client, "photos", 1, &demo_photos()[..3]);
    run(
        &mut client,
        "INSERT INTO child SELECT * FROM ONLY photos WHERE id = 1; INSERT INTO target_child SELECT * FROM image_embeddings;
        ALTER TABLE photos DISABLE TRIGGER USER; DELETE FROM ONLY photos WHERE id = 1;
        ALTER TABLE photos ENABLE TRIGGER USER; DELETE FROM ONLY image_embeddings WHERE image_id = 2",
    );
    let verified = "SELECT ARRAY[photos, embedded, missing, stale, orphaned] FROM clip_verify('photos')";
    assert_eq!(value::<Vec<i64>>(&mut client, verified), [2, 1, 1, 0, 1]);
    run(&mut client, "CALL clip_backfill('photos', verify => true)");
    assert_eq!(value::<Vec<i64>>(&mut client, verified), [2, 2, 0, 0, 0]);
    let children = "SELECT count(*) FROM target_child WHERE image_id <= 3";
    assert_eq!(value::<i64>(&mut client, children), 3, "a child of the target is not written to");
    run(&mut client, "UPDATE photos SET image = NULL WHERE id = 2; DELETE FROM photos");
    run(&mut client, "TRUNCATE ONLY photos");
    assert_eq!(value::<i64>(&mut client, children), 3, "nor by a trigger");
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM ONLY image_embeddings"), 0);
    // What a child holds decides no model.
    run(&mut client, "UPDATE target_child SET model = 'other@0'; SELECT clip_watch('photos')");
    insert(&mut client, "photos", 10, &demo_photos()[..1]);
}

#[test]
fn a_table_of_others_is_created_without_the_library() {
    let cluster = TestCluster::not_preloaded();
    let database = cluster.database();
    let mut superuser = database.connect();
    run(
        &mut superuser,
        "CREATE TABLE photos (id int PRIMARY KEY, image bytea); SELECT clip_watch('photos');
        CREATE ROLE stranger LOGIN; CREATE SCHEMA AUTHORIZATION stranger",
    );
    let mut stranger = database.connect_as("stranger");
    run(&mut stranger, "CREATE TABLE own (id int) PARTITION BY LIST (id)");
    run(
        &mut stranger,
        "CREATE TABLE one PARTITION OF own FOR VALUES IN (1); ALTER TABLE own DETACH PARTITION one",
    );
    run(&mut stranger, "DROP TABLE one, own");
    let loaded = "SELECT count(*) FROM pg_settings WHERE name = 'clip.model'";
    assert_eq!(value::<i64>(&mut stranger, loaded), 0, "no call has loaded it");
    assert_eq!(failure(&mut stranger, "SELECT clip_watch_partitions('sql_drop')", &[]), "39P03");
}

/// CREATE SCHEMA may create tables too.
#[test]
fn a_partition_that_comes_with_its_schema_is_followed() {
    let cluster = TestCluster::shared();
    let mut client = cluster.database().connect();
    run(
        &mut client,
        "CREATE TABLE photos (id int PRIMARY KEY, image bytea) PARTITION BY RANGE (id);
        SELECT clip_watch('photos');
        CREATE SCHEMA wing CREATE TABLE rooms PARTITION OF public.photos FOR VALUES FROM (0) TO (100)",
    );
    insert(&mut client, "wing.rooms", 1, &demo_photos()[..2]);
    check(&mut client, "sync", "a partition that came with its schema", 2);
}
