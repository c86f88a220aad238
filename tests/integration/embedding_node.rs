//! An embedding node: photos go to it by one subscription, and their vectors come back by another.

use pg_clip_tests::{
    PATIENCE, PhotoFolder, REPLICATING, TestCluster, TestDatabase, demo_photos, drain, failure, feeder_as,
    run, sqlstate, subscribe, value, wait_for_the_queue, wait_until, wait_until_equal,
};
use postgres::Client;

/// The application server and the node, whose table of photos is empty and watched.
pub(crate) struct Nodes {
    pub(crate) application: TestCluster,
    pub(crate) node: TestCluster,
    pub(crate) shop: TestDatabase,
    pub(crate) copy: TestDatabase,
}

pub(crate) const PHOTOS: &str =
    "CREATE TABLE photos (id bigint PRIMARY KEY, project text, note text, image bytea)";

/// Counts the photos of the application server whose embedding is missing or of other bytes or of another project, and
/// the embeddings of no photo.
pub(crate) const WRONG: &str =
    "SELECT count(*) FROM photos FULL JOIN image_embeddings ON image_id = photos.id
    WHERE (image IS NOT NULL OR image_id IS NOT NULL) AND (
        checksum IS DISTINCT FROM sha256(image) OR embedding IS DISTINCT FROM clip_embed_image(image)
        OR photos.project IS DISTINCT FROM image_embeddings.project)";

/// As docs/embedding-node.md has them.
pub(crate) const OPTIONS: &str = "WITH (origin = none, synchronous_commit = on)";

impl Nodes {
    pub(crate) fn start() -> Nodes {
        let (application, node) =
            (TestCluster::preloaded_with(&REPLICATING), TestCluster::preloaded_with(&REPLICATING));
        let (shop, copy) = (application.database(), node.database());
        Nodes { application, node, shop, copy }
    }

    /// Both are watched: the one on the application server rests as soon as it is subscribed.
    pub(crate) fn watch(&self) {
        run(&mut self.shop.connect(), &format!("{PHOTOS}; SELECT clip_watch('photos', mode => 'async')"));
        run(&mut self.copy.connect(), &format!("{PHOTOS}; SELECT clip_watch('photos', replicated => true)"));
    }

    pub(crate) fn subscribe_to_photos(&self) {
        run(&mut self.shop.connect(), "CREATE PUBLICATION photos FOR TABLE photos");
        subscribe(&mut self.copy.connect(), "photos", &self.application, &self.shop, OPTIONS);
    }

    pub(crate) fn subscribe_to_vectors(&self) {
        run(&mut self.copy.connect(), "CREATE PUBLICATION vectors FOR TABLE image_embeddings");
        subscribe(&mut self.shop.connect(), "vectors", &self.node, &self.copy, OPTIONS);
    }

    /// With complete first copies: after a kill in that moment a subscription may have no slot any more, see
    /// docs/embedding-node.md.
    pub(crate) fn all() -> Nodes {
        let nodes = Nodes::start();
        nodes.watch();
        nodes.subscribe_to_photos();
        nodes.subscribe_to_vectors();
        for database in [&nodes.shop, &nodes.copy] {
            let mut client = database.connect();
            wait_until("the first copies are complete", PATIENCE, || {
                value::<bool>(&mut client, "SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel")
            });
        }
        nodes
    }

    /// Waits until the vectors of all photos have come back to the application server.
    #[track_caller]
    pub(crate) fn settle(&self, shop: &mut Client, copy: &mut Client) {
        wait_until_equal(shop, copy, "photos");
        wait_for_the_queue(copy);
        wait_until_equal(copy, shop, "image_embeddings");
    }
}

/// Inserts the demo's photos of these numbers, from 1 on, in one statement.
pub(crate) fn insert(client: &mut Client, first: usize, last: usize) {
    let photos = &demo_photos()[first - 1..last];
    let ids: Vec<i64> = (1i64..).skip(first - 1).take(photos.len()).collect();
    let statement = "INSERT INTO photos (id, image) SELECT * FROM unnest($1::bigint[], $2::bytea[])";
    client.execute(statement, &[&ids, &photos]).expect("photos are inserted");
}

pub(crate) fn inferences(client: &mut Client) -> i64 {
    value(client, "SELECT image_inferences FROM clip_status")
}

#[test]
fn a_node_embeds_replicated_photos_and_sends_the_vectors_back() {
    let nodes = Nodes::start();
    nodes.watch();
    let (mut shop, mut copy) = (nodes.shop.connect(), nodes.copy.connect());
    // Before the subscription: these come by its first copy.
    run(&mut shop, "SET clip.enabled = off");
    insert(&mut shop, 1, 20);
    run(&mut shop, "RESET clip.enabled");
    nodes.subscribe_to_photos();
    nodes.subscribe_to_vectors();
    insert(&mut shop, 21, 40);
    nodes.settle(&mut shop, &mut copy);
    assert_eq!(inferences(&mut copy), 40);
    assert_eq!(inferences(&mut shop), 0);
    assert_eq!(value::<i64>(&mut shop, "SELECT count(*) FROM image_embeddings"), 40);

    let bytes = "UPDATE photos SET image = (SELECT image FROM photos WHERE id = 40) WHERE id = 1";
    run(&mut shop, bytes);
    nodes.settle(&mut shop, &mut copy);
    assert_eq!(inferences(&mut copy), 40, "the same bytes are embedded once");
    run(
        &mut shop,
        "UPDATE photos SET image = image || '\\x00' WHERE id = 2;
        UPDATE photos SET project = 'garden' WHERE id = 3;
        UPDATE photos SET image = NULL WHERE id = 4;
        UPDATE photos SET id = 1005 WHERE id = 5;
        DELETE FROM photos WHERE id = 6;
        UPDATE photos SET image = image || '\\x01', project = 'kitchen' WHERE id = 7;
        BEGIN; UPDATE photos SET image = image || '\\x02' WHERE id = 8; DELETE FROM photos WHERE id = 8; COMMIT;
        BEGIN; DELETE FROM photos WHERE id = 9;
        INSERT INTO photos (id, image) SELECT 9, image FROM photos WHERE id = 10; COMMIT",
    );
    nodes.settle(&mut shop, &mut copy);
    assert_eq!(inferences(&mut copy), 42, "two photos have bytes that were not there before");
    assert_eq!(value::<i64>(&mut shop, "SELECT count(*) FROM image_embeddings"), 37);
    assert_eq!(value::<i64>(&mut shop, WRONG), 0);
    let search = "SELECT image_id FROM image_embeddings
        ORDER BY embedding <=> (SELECT clip_embed_text('a slice of pizza')) LIMIT 3";
    let found = |client: &mut Client| -> Vec<i64> {
        client.query(search, &[]).expect("a search").iter().map(|row| row.get(0)).collect()
    };
    assert_eq!(found(&mut shop), found(&mut copy));

    run(&mut shop, "TRUNCATE photos");
    nodes.settle(&mut shop, &mut copy);
    assert_eq!(value::<i64>(&mut shop, "SELECT count(*) FROM image_embeddings"), 0);
    assert_eq!(
        value::<i64>(&mut shop, "SELECT count(*) FROM clip_queue"),
        0,
        "no job was made beside the node's"
    );
}

/// A row that the apply worker does not have to look at makes no job, and its photo is not read.
#[test]
fn an_applied_row_whose_photo_stays_makes_no_job() {
    let nodes = Nodes::all();
    let (mut shop, mut copy) = (nodes.shop.connect(), nodes.copy.connect());
    for client in [&mut shop, &mut copy] {
        run(client, "ALTER TABLE photos ALTER image SET STORAGE EXTERNAL");
    }
    insert(&mut shop, 1, 10);
    nodes.settle(&mut shop, &mut copy);
    run(
        &mut copy,
        "CREATE TABLE seen (generation xid8);
        CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO public.seen VALUES (NEW.generation); RETURN NULL; END $$;
        CREATE TRIGGER see AFTER INSERT OR UPDATE ON clip_queue FOR EACH ROW EXECUTE FUNCTION see();
        ALTER TABLE clip_queue ENABLE ALWAYS TRIGGER see",
    );
    run(
        &mut shop,
        "UPDATE photos SET note = 'x';
        UPDATE photos SET image = image, project = project;
        INSERT INTO photos (id, note) VALUES (100, 'no photo');
        UPDATE photos SET note = 'y' WHERE id = 100;
        DELETE FROM photos WHERE id = 100",
    );
    wait_until_equal(&mut shop, &mut copy, "photos");
    assert_eq!(value::<i64>(&mut copy, "SELECT count(*) FROM seen"), 0);
    run(&mut shop, "UPDATE photos SET project = 'p' WHERE id = 1");
    nodes.settle(&mut shop, &mut copy);
    assert!(value::<bool>(&mut copy, "SELECT count(*) > 0 FROM seen"));
}

#[test]
fn partitions_of_a_node_are_followed() {
    const PARTITIONED: &str = "
        CREATE TABLE photos (id bigint PRIMARY KEY, project text, note text, image bytea) PARTITION BY RANGE (id);
        CREATE TABLE low PARTITION OF photos FOR VALUES FROM (0) TO (15);
        CREATE TABLE high (image bytea, note text, dropped int, project text, id bigint NOT NULL);
        ALTER TABLE high DROP COLUMN dropped;
        ALTER TABLE photos ATTACH PARTITION high FOR VALUES FROM (15) TO (30)";
    let nodes = Nodes::start();
    run(&mut nodes.shop.connect(), &format!("{PHOTOS}; SELECT clip_watch('photos', mode => 'async')"));
    run(
        &mut nodes.copy.connect(),
        &format!("{PARTITIONED}; SELECT clip_watch('photos', replicated => true)"),
    );
    nodes.subscribe_to_photos();
    nodes.subscribe_to_vectors();
    let (mut shop, mut copy) = (nodes.shop.connect(), nodes.copy.connect());
    insert(&mut shop, 1, 20);
    nodes.settle(&mut shop, &mut copy);
    run(&mut copy, "CREATE TABLE higher PARTITION OF photos FOR VALUES FROM (30) TO (2000)");
    insert(&mut shop, 31, 40);
    // One row moves to another partition there.
    run(
        &mut shop,
        "UPDATE photos SET id = 1001 WHERE id = 1; UPDATE photos SET image = image || '\\x00' WHERE id = 20;
        DELETE FROM photos WHERE id IN (2, 16, 31)",
    );
    nodes.settle(&mut shop, &mut copy);
    assert_eq!(value::<i64>(&mut shop, "SELECT count(*) FROM image_embeddings"), 27);
    assert_eq!(value::<i64>(&mut shop, WRONG), 0);
    run(&mut shop, "TRUNCATE photos");
    nodes.settle(&mut shop, &mut copy);
    assert_eq!(value::<i64>(&mut shop, "SELECT count(*) FROM image_embeddings"), 0);
    run(&mut copy, "SELECT clip_unwatch('photos')");
    let triggers = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'clip\\_watch%'";
    assert_eq!(value::<i64>(&mut copy, triggers), 0);
}

#[test]
fn a_node_may_fetch_the_photos_from_a_store() {
    const REFERENCES: &str = "CREATE TABLE photos (id bigint PRIMARY KEY, project text, path text)";
    let nodes = Nodes::start();
    run(&mut nodes.shop.connect(), REFERENCES);
    run(&mut nodes.shop.connect(), "SELECT clip_watch('photos', reference_column => 'path')");
    run(&mut nodes.copy.connect(), REFERENCES);
    run(
        &mut nodes.copy.connect(),
        "SELECT clip_watch('photos', reference_column => 'path', replicated => true)",
    );
    nodes.subscribe_to_photos();
    nodes.subscribe_to_vectors();
    let (mut shop, mut copy) = (nodes.shop.connect(), nodes.copy.connect());
    run(&mut copy, "SELECT clip_grant_feeder('photos', 'postgres')");
    let folder = PhotoFolder::new();
    let feed = || drain(&mut feeder_as(&nodes.node, &nodes.copy, &folder.address(), "postgres"));
    let photos = demo_photos();
    for (number, photo) in photos[..4].iter().enumerate() {
        folder.store(&format!("{number}.jpg"), photo);
    }
    run(&mut shop, "INSERT INTO photos SELECT n, 'p', n || '.jpg' FROM generate_series(0, 2) AS n");
    wait_until_equal(&mut shop, &mut copy, "photos");
    feed();
    nodes.settle(&mut shop, &mut copy);
    assert_eq!(value::<i64>(&mut shop, "SELECT count(*) FROM image_embeddings"), 3);
    run(&mut shop, "DELETE FROM photos WHERE id = 0; UPDATE photos SET path = '3.jpg' WHERE id = 1");
    wait_until_equal(&mut shop, &mut copy, "photos");
    feed();
    nodes.settle(&mut shop, &mut copy);
    let sums = "SELECT array_agg(encode(checksum, 'hex') ORDER BY image_id) FROM image_embeddings";
    let wanted = copy.query_one(
        "SELECT ARRAY[encode(sha256($1), 'hex'), encode(sha256($2), 'hex')]",
        &[&photos[3], &photos[2]],
    );
    assert_eq!(value::<Vec<String>>(&mut shop, sums), wanted.expect("sums").get::<_, Vec<String>>(0));
    assert_eq!(value::<i64>(&mut shop, "SELECT count(*) FROM clip_queue"), 0);
}

#[test]
fn the_application_server_sees_how_far_the_node_is_and_takes_over_from_it() {
    let nodes = Nodes::all();
    let (mut shop, mut copy) = (nodes.shop.connect(), nodes.copy.connect());
    let rests = "SELECT waits_for FROM clip_coverage";
    assert_eq!(value::<String>(&mut shop, rests), "a subscription fills its target");
    assert_eq!(value::<Option<String>>(&mut copy, rests), None);
    let mut holds = nodes.copy.connect();
    run(&mut holds, "BEGIN; LOCK image_embeddings IN SHARE MODE");
    insert(&mut shop, 1, 10);
    wait_until_equal(&mut shop, &mut copy, "photos");
    let coverage = "SELECT photos || ' ' || embedded || ' ' || missing || ' ' || queued FROM clip_coverage";
    assert_eq!(value::<String>(&mut shop, coverage), "10 0 10 0");
    assert_eq!(value::<String>(&mut copy, coverage), "10 0 10 10");
    run(&mut holds, "COMMIT");
    nodes.settle(&mut shop, &mut copy);
    assert_eq!(value::<String>(&mut shop, coverage), "10 10 0 0");

    for refused in ["CALL clip_backfill('photos')", "CALL clip_migrate('image_embeddings', 'demo')"] {
        let error = shop.batch_execute(refused).expect_err("the publisher embeds");
        assert_eq!(sqlstate(&error), "55000", "{refused}");
    }
    run(&mut shop, "SELECT clip_verify('photos')");
    assert_eq!(
        failure(&mut copy, "SELECT clip_watch('photos', mode => 'sync', replicated => true)", &[]),
        "0A000"
    );

    run(&mut shop, "DROP SUBSCRIPTION vectors");
    insert(&mut shop, 11, 15);
    wait_for_the_queue(&mut shop);
    run(&mut shop, "DELETE FROM photos WHERE id = 1");
    run(&mut shop, "CALL clip_backfill('photos')");
    assert_eq!(value::<i64>(&mut shop, WRONG), 0);
    assert_eq!(value::<Option<String>>(&mut shop, rests), None);
    wait_until("the node follows without a way back", PATIENCE, || {
        value::<i64>(&mut copy, "SELECT count(*) FROM image_embeddings") == 14
    });
}
