//! One search over several servers: the words are embedded once, on the coordinator, and each shard answers with its nearest.

use pg_clip_tests::{
    Stop, TestCluster, TestDatabase, demo_photos, failure, run, value, wait_for_the_queue, watched_async,
};
use postgres::Client;

const SHARDS: usize = 2;
const WORDS: [&str; 6] =
    ["a slice of pizza", "a dog", "a guitar", "a bicycle in the rain", "a red car", "snow"];

/// The words are a parameter of the outermost query, and each shard sorts and cuts by itself.
const BY_SUBQUERIES: &str = "WITH query AS MATERIALIZED (SELECT clip_embed_text($1) AS vector)
    SELECT image_id FROM (
        (SELECT image_id, embedding <=> (SELECT vector FROM query) AS distance
            FROM image_embeddings_1 ORDER BY distance LIMIT 10)
        UNION ALL
        (SELECT image_id, embedding <=> (SELECT vector FROM query) AS distance
            FROM image_embeddings_2 ORDER BY distance LIMIT 10)
    ) AS nearest ORDER BY distance + 0 LIMIT 10";

struct Shards {
    coordinator: TestCluster,
    shop: TestDatabase,
    clusters: Vec<TestCluster>,
    databases: Vec<TestDatabase>,
}

impl Shards {
    /// `settings` are those of the coordinator's sessions on the shards.
    fn start(settings: &str) -> Shards {
        let coordinator = TestCluster::preloaded();
        let shop = coordinator.database();
        let clusters: Vec<TestCluster> = (0..SHARDS).map(|_| TestCluster::preloaded()).collect();
        let databases: Vec<TestDatabase> = clusters.iter().map(TestCluster::database).collect();
        let mut client = shop.connect();
        run(
            &mut client,
            "CREATE EXTENSION postgres_fdw;
            CREATE TABLE photos (id bigint GENERATED ALWAYS AS IDENTITY, project text, image bytea)
                PARTITION BY HASH (id);
            CREATE TABLE image_embeddings (image_id bigint, project text, embedding vector(512))
                PARTITION BY HASH (image_id)",
        );
        for (index, (cluster, database)) in clusters.iter().zip(&databases).enumerate() {
            run(
                &mut database.connect(),
                "CREATE TABLE photos (id bigint PRIMARY KEY, project text, image bytea);
                SELECT clip_watch('photos', mode => 'async')",
            );
            let (number, host) = (index + 1, cluster.server.sockets().display());
            run(
                &mut client,
                &format!(
                    "CREATE SERVER shard{number} FOREIGN DATA WRAPPER postgres_fdw OPTIONS (
                        host '{host}', dbname '{}', extensions 'vector', async_capable 'true', options '{settings}');
                    CREATE USER MAPPING FOR CURRENT_USER SERVER shard{number} OPTIONS (user 'postgres');
                    CREATE FOREIGN TABLE photos_{number} PARTITION OF photos
                        FOR VALUES WITH (MODULUS {SHARDS}, REMAINDER {index})
                        SERVER shard{number} OPTIONS (table_name 'photos');
                    CREATE FOREIGN TABLE image_embeddings_{number} PARTITION OF image_embeddings
                        FOR VALUES WITH (MODULUS {SHARDS}, REMAINDER {index})
                        SERVER shard{number} OPTIONS (table_name 'image_embeddings')",
                    database.name()
                ),
            );
        }
        Shards { coordinator, shop, clusters, databases }
    }

    /// Writes all photos of the demo through the coordinator, and waits until the shards have embedded them.
    fn fill(&self, client: &mut Client) {
        let insert = "INSERT INTO photos (image) SELECT unnest($1::bytea[])";
        client.execute(insert, &[&demo_photos()]).expect("photos are stored");
        for database in &self.databases {
            let mut shard = database.connect();
            wait_for_the_queue(&mut shard);
            run(&mut shard, "ANALYZE image_embeddings");
            assert!(value::<i64>(&mut shard, "SELECT count(*) FROM image_embeddings") > 100);
        }
    }
}

fn ids(client: &mut Client, query: &str, words: &str) -> Vec<i64> {
    client.query(query, &[&words]).expect("a search").iter().map(|row| row.get(0)).collect()
}

fn plan(client: &mut Client, query: &str) -> String {
    let explain = format!("EXPLAIN (VERBOSE, COSTS OFF) {}", query.replace("$1", "'a slice of pizza'"));
    let rows = client.query(&explain, &[]).expect("a plan");
    rows.iter().map(|row| row.get::<_, String>(0) + "\n").collect()
}

#[test]
fn the_shards_find_the_same_photos_as_one_server() {
    let single = TestCluster::shared();
    let (_database, mut one) = watched_async(&single);
    let insert = "INSERT INTO photos (image) SELECT unnest($1::bytea[])";
    one.execute(insert, &[&demo_photos()]).expect("photos are stored");
    wait_for_the_queue(&mut one);
    run(&mut one, "SET enable_indexscan = off");
    let exact =
        "SELECT image_id FROM image_embeddings ORDER BY embedding <=> (SELECT clip_embed_text($1)) LIMIT 10";

    let shards = Shards::start("-c enable_indexscan=off");
    let mut client = shards.shop.connect();
    shards.fill(&mut client);
    for words in WORDS {
        assert_eq!(ids(&mut client, BY_SUBQUERIES, words), ids(&mut one, exact, words), "{words}");
        assert_eq!(ids(&mut client, exact, words), ids(&mut one, exact, words), "{words}");
    }

    // By the shards' indexes.
    for number in 1..=SHARDS {
        let options = "-c enable_seqscan=off -c enable_sort=off -c hnsw.ef_search=200";
        run(&mut client, &format!("ALTER SERVER shard{number} OPTIONS (SET options '{options}')"));
    }
    let mut client = shards.shop.connect();
    let found = WORDS.iter().map(|words| {
        let truth = ids(&mut one, exact, words);
        ids(&mut client, BY_SUBQUERIES, words).iter().filter(|id| truth.contains(id)).count()
    });
    let found: usize = found.sum();
    assert!(found * 100 >= 95 * 10 * WORDS.len(), "{found} of {}", 10 * WORDS.len());
}

#[test]
fn the_words_are_embedded_once_and_each_shard_sorts_and_cuts() {
    let shards = Shards::start("-c hnsw.ef_search=100");
    let mut client = shards.shop.connect();
    shards.fill(&mut client);
    let counts = "SELECT ARRAY[text_requests, text_inferences] FROM clip_status";
    let before: Vec<i64> = value(&mut client, counts);
    let plan_of_it = plan(&mut client, BY_SUBQUERIES);
    println!("{plan_of_it}");
    let remote: Vec<&str> = plan_of_it.lines().filter(|line| line.contains("Remote SQL")).collect();
    assert_eq!(remote.len(), SHARDS, "{plan_of_it}");
    for line in remote {
        assert!(line.contains("ORDER BY") && line.contains("LIMIT 10"), "{line}");
        assert!(!line.contains("clip_embed_text"), "{line}");
    }
    assert_eq!(plan_of_it.matches("Async Foreign Scan").count(), SHARDS, "{plan_of_it}");
    assert_eq!(plan_of_it.matches("clip_embed_text").count(), 1, "{plan_of_it}");

    ids(&mut client, BY_SUBQUERIES, "words that were not embedded before");
    let after: Vec<i64> = value(&mut client, counts);
    assert_eq!([after[0] - before[0], after[1] - before[1]], [1, 1]);
    for database in &shards.databases {
        assert_eq!(value::<i64>(&mut database.connect(), "SELECT text_requests FROM clip_status"), 0);
    }

    // The table as a whole: each shard sorts, and hands over rows as long as they are asked for.
    let whole =
        "SELECT image_id FROM image_embeddings ORDER BY embedding <=> (SELECT clip_embed_text($1)) LIMIT 10";
    let plan_of_whole = plan(&mut client, whole);
    println!("{plan_of_whole}");
    for line in plan_of_whole.lines().filter(|line| line.contains("Remote SQL")) {
        assert!(
            line.contains("ORDER BY") && !line.contains("LIMIT") && !line.contains("clip_embed_text"),
            "{line}"
        );
    }
    // Without a SELECT of its own the call is no parameter: all vectors would come.
    let bare = "SELECT image_id FROM image_embeddings ORDER BY embedding <=> clip_embed_text($1) LIMIT 10";
    let plan_of_bare = plan(&mut client, bare);
    println!("{plan_of_bare}");
    for line in plan_of_bare.lines().filter(|line| line.contains("Remote SQL")) {
        assert!(!line.contains("ORDER BY") && !line.contains("clip_embed_text"), "{line}");
    }
}

#[test]
fn photos_that_change_and_shards_that_are_away_are_seen() {
    let shards = Shards::start("");
    let mut client = shards.shop.connect();
    shards.fill(&mut client);
    let words = "a slice of pizza";
    let first = ids(&mut client, BY_SUBQUERIES, words)[0];
    run(&mut client, &format!("DELETE FROM photos WHERE id = {first}"));
    for database in &shards.databases {
        wait_for_the_queue(&mut database.connect());
    }
    assert!(!ids(&mut client, BY_SUBQUERIES, words).contains(&first));
    let gone = format!("SELECT count(*) FROM image_embeddings WHERE image_id = {first}");
    assert_eq!(value::<i64>(&mut client, &gone), 0);

    shards.clusters[1].server.stop(Stop::Immediate).expect("a shard stops");
    let refused = failure(&mut shards.shop.connect(), BY_SUBQUERIES, &[&words]);
    assert!(refused.starts_with("08"), "{refused}: a search over all shards needs all of them");
    shards.clusters[1].server.start().expect("the shard starts again");
    assert_eq!(ids(&mut shards.shop.connect(), BY_SUBQUERIES, words).len(), 10);
    assert!(!shards.coordinator.log().contains("reinitializing"));
}
