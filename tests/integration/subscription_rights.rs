//! A subscription of a role that may not write a table: PostgreSQL lets a member of `pg_create_subscription` subscribe to any.

use pg_clip_tests::{
    REPLICATING, TestCluster, TestDatabase, demo_photos, run, store, subscribe, value, wait_for_the_queue,
};
use postgres::Client;

const WAITS_FOR: &str = "SELECT waits_for FROM clip_coverage";
const VECTORS: &str = "SELECT count(*) FROM image_embeddings";

/// A database of the shop's, and one whose tables of the same names are published.
struct Databases {
    cluster: TestCluster,
    shop: TestDatabase,
    sender: TestDatabase,
}

impl Databases {
    fn new(photos: &str, target: &str) -> Databases {
        let cluster = TestCluster::preloaded_with(&REPLICATING);
        let (shop, sender) = (cluster.database(), cluster.empty_database());
        run(&mut sender.connect(), target);
        run(&mut shop.connect(), &format!("{photos}; {target}; CREATE ROLE stranger"));
        Databases { cluster, shop, sender }
    }

    /// Subscribes to a table of the sender's as the stranger, whose subscription has no slot and brings no row.
    fn subscribe(&self, shop: &mut Client, table: &str) {
        run(&mut self.sender.connect(), &format!("CREATE PUBLICATION {table} FOR TABLE {table}"));
        let options = "WITH (slot_name = NONE, create_slot = false, enabled = false, copy_data = false)";
        subscribe(shop, table, &self.cluster, &self.sender, options);
        // ALTER SUBSCRIPTION … OWNER TO refuses all but superusers in PostgreSQL 15.
        run(shop, "UPDATE pg_subscription SET subowner = 'stranger'::regrole");
    }
}

const PHOTOS: &str = "CREATE TABLE photos (id bigserial PRIMARY KEY, image bytea)";
const TARGET: &str =
    "CREATE TABLE image_embeddings (image_id bigint PRIMARY KEY, embedding vector(512) NOT NULL,
    checksum bytea, model text)";

#[test]
fn a_subscription_of_a_stranger_stops_no_watch() {
    let databases = Databases::new(PHOTOS, &TARGET.replace("vector(512)", "text"));
    let mut shop = databases.shop.connect();
    run(&mut shop, &format!("DROP TABLE image_embeddings; {TARGET}"));
    run(&mut databases.sender.connect(), "CREATE TABLE clip_queue ()");
    databases.subscribe(&mut shop, "image_embeddings");
    databases.subscribe(&mut shop, "clip_queue");
    for mode in ["sync", "async"] {
        run(&mut shop, &format!("SELECT clip_watch('photos', mode => '{mode}')"));
        store(&mut shop, &demo_photos()[..3]);
        wait_for_the_queue(&mut shop);
        assert_eq!(value::<i64>(&mut shop, VECTORS), 3, "{mode}");
        run(&mut shop, "DELETE FROM photos");
        wait_for_the_queue(&mut shop);
        assert_eq!(value::<i64>(&mut shop, VECTORS), 0, "{mode}");
    }
    store(&mut shop, &demo_photos()[..3]);
    run(&mut shop, "CALL clip_backfill('photos')");
    assert_eq!(value::<Option<String>>(&mut shop, WAITS_FOR), None);

    // PostgreSQL 15 applies rows as the owner of the subscription, later releases as that of the table unless told otherwise.
    let version: i32 = value(&mut shop, "SELECT current_setting('server_version_num')::int");
    let is_15 = version < 160_000;
    let shop = &mut shop;
    let rests = |shop: &mut Client, statements: &str| {
        run(shop, statements);
        value::<Option<String>>(shop, WAITS_FOR).as_deref() == Some("a subscription fills its target")
    };
    assert_eq!(rests(shop, "GRANT INSERT ON image_embeddings TO stranger"), is_15, "the right to insert");
    if !is_15 {
        assert!(
            rests(shop, "UPDATE pg_subscription SET subrunasowner = true"),
            "to be used as the subscription's owner"
        );
    }
    assert!(
        !rests(shop, "ALTER TABLE image_embeddings ENABLE ROW LEVEL SECURITY"),
        "PostgreSQL applies no row"
    );
    assert!(rests(shop, "ALTER ROLE stranger BYPASSRLS"), "nor skips one");
    assert!(!rests(shop, "ALTER ROLE stranger NOBYPASSRLS"));
    assert!(rests(shop, "ALTER TABLE image_embeddings DISABLE ROW LEVEL SECURITY"));
    assert!(!rests(shop, "REVOKE INSERT ON image_embeddings FROM stranger"));
    if !is_15 {
        run(shop, "UPDATE pg_subscription SET subrunasowner = false");
    }
    assert!(rests(shop, "GRANT postgres TO stranger"), "a member of the owner");
    if !is_15 {
        assert!(!rests(shop, "GRANT postgres TO stranger WITH SET FALSE"), "who cannot become it");
        assert!(rests(shop, "GRANT postgres TO stranger WITH SET TRUE, INHERIT FALSE"), "or can");
    }
    assert!(!rests(shop, "REVOKE postgres FROM stranger"));
}

/// A publisher sends the rows of partitions as theirs, unless it is told otherwise.
#[test]
fn a_watch_rests_while_a_partition_of_its_target_is_filled() {
    const PARTITION: &str =
        "CREATE TABLE low (image_id bigint PRIMARY KEY, embedding text, checksum bytea, model text)";
    for depth in [1, 2] {
        let databases = Databases::new(PHOTOS, PARTITION);
        let mut shop = databases.shop.connect();
        let between = if depth == 1 {
            ""
        } else {
            "ALTER TABLE image_embeddings RENAME TO middle; ALTER INDEX image_embeddings_pkey RENAME TO middle_pkey;
            CREATE TABLE image_embeddings (LIKE middle INCLUDING ALL) PARTITION BY HASH (image_id);
            ALTER TABLE image_embeddings ATTACH PARTITION middle FOR VALUES WITH (MODULUS 1, REMAINDER 0)"
        };
        run(
            &mut shop,
            &format!(
                "DROP TABLE low; {TARGET} PARTITION BY HASH (image_id);
                CREATE TABLE low PARTITION OF image_embeddings FOR VALUES WITH (MODULUS 1, REMAINDER 0);
                {between}"
            ),
        );
        run(&mut shop, "SELECT clip_watch('photos')");
        databases.subscribe(&mut shop, "low");
        run(
            &mut shop,
            "UPDATE pg_subscription SET subowner = 'postgres'::regrole;
            -- A table that has gone meanwhile.
            INSERT INTO pg_subscription_rel SELECT oid, 4000000000, 'r', NULL FROM pg_subscription",
        );
        store(&mut shop, &demo_photos()[..3]);
        assert_eq!(value::<i64>(&mut shop, VECTORS), 0, "{depth}");
        assert_eq!(value::<String>(&mut shop, WAITS_FOR), "a subscription fills its target", "{depth}");
        run(&mut shop, "DELETE FROM pg_subscription_rel WHERE srrelid = 4000000000; DROP SUBSCRIPTION low");
        run(&mut shop, "CALL clip_backfill('photos')");
        assert_eq!(value::<i64>(&mut shop, VECTORS), 3, "{depth}");
    }
}

/// With `publish_via_partition_root`, a publisher sends the rows of partitions as those of their table.
#[test]
fn a_watch_rests_while_a_table_is_filled_that_its_target_is_a_partition_of() {
    const WHOLE: &str =
        "CREATE TABLE whole (image_id bigint PRIMARY KEY, embedding text, checksum bytea, model text)";
    let databases = Databases::new(PHOTOS, WHOLE);
    let mut shop = databases.shop.connect();
    run(
        &mut shop,
        &format!(
            "DROP TABLE whole; {} PARTITION BY HASH (image_id);
            CREATE TABLE image_embeddings PARTITION OF whole FOR VALUES WITH (MODULUS 1, REMAINDER 0);
            SELECT clip_watch('photos')",
            TARGET.replace("image_embeddings", "whole")
        ),
    );
    databases.subscribe(&mut shop, "whole");
    store(&mut shop, &demo_photos()[..1]);
    assert_eq!(value::<i64>(&mut shop, VECTORS), 1, "a stranger fills nothing");
    run(&mut shop, "UPDATE pg_subscription SET subowner = 'postgres'::regrole");
    store(&mut shop, &demo_photos()[1..3]);
    assert_eq!(value::<i64>(&mut shop, VECTORS), 1);
    assert_eq!(value::<String>(&mut shop, WAITS_FOR), "a subscription fills its target");
    run(&mut shop, "DROP SUBSCRIPTION whole");
    run(&mut shop, "CALL clip_backfill('photos')");
    assert_eq!(value::<i64>(&mut shop, VECTORS), 3);
}
