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

    // The subscription of a role that may write the target fills it.
    run(&mut shop, "GRANT INSERT ON image_embeddings TO stranger");
    assert_eq!(value::<String>(&mut shop, WAITS_FOR), "a subscription fills its target");
    run(&mut shop, "REVOKE INSERT ON image_embeddings FROM stranger; GRANT postgres TO stranger");
    assert_eq!(value::<String>(&mut shop, WAITS_FOR), "a subscription fills its target");
    run(&mut shop, "REVOKE postgres FROM stranger");
    assert_eq!(value::<Option<String>>(&mut shop, WAITS_FOR), None);
}

/// A publisher sends the rows of partitions as theirs, unless it is told otherwise.
#[test]
fn a_watch_rests_while_a_partition_of_its_target_is_filled() {
    const PARTITION: &str =
        "CREATE TABLE low (image_id bigint PRIMARY KEY, embedding text, checksum bytea, model text)";
    let databases = Databases::new(PHOTOS, PARTITION);
    let mut shop = databases.shop.connect();
    run(
        &mut shop,
        &format!(
            "DROP TABLE low; {TARGET} PARTITION BY HASH (image_id);
            CREATE TABLE middle PARTITION OF image_embeddings FOR VALUES WITH (MODULUS 1, REMAINDER 0)
                PARTITION BY HASH (image_id);
            CREATE TABLE low PARTITION OF middle FOR VALUES WITH (MODULUS 1, REMAINDER 0)"
        ),
    );
    run(&mut shop, "SELECT clip_watch('photos')");
    databases.subscribe(&mut shop, "low");
    run(&mut shop, "UPDATE pg_subscription SET subowner = 'postgres'::regrole");
    store(&mut shop, &demo_photos()[..3]);
    assert_eq!(value::<i64>(&mut shop, VECTORS), 0);
    assert_eq!(value::<String>(&mut shop, WAITS_FOR), "a subscription fills its target");
    run(&mut shop, "DROP SUBSCRIPTION low");
    run(&mut shop, "CALL clip_backfill('photos')");
    assert_eq!(value::<i64>(&mut shop, VECTORS), 3);
}
