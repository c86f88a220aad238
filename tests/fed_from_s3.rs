//! A table whose photos lie in S3 is fed while its feeders are killed, searched, and moved to another model; for any number of
//! photos.

use std::time::{Duration, Instant};

use fastrand::Rng;
use postgres::Client;

use crate::cluster::TestCluster;
use crate::database::{TestDatabase, run, value};
use crate::feeder::{RunningFeeder, drain, feeder, watched_by_reference, wrongly_fed};
use crate::models::{OTHER_MODEL, cluster_of_two_models};
use crate::photos::{named_demo_photos, variant};
use crate::queue::PATIENCE;
use crate::s3::S3Server;
use crate::wait::wait_until;

/// The contents of the store, and how often a feeder is killed.
#[derive(Clone, Copy)]
pub struct Feeding {
    pub photos: usize,
    /// Keys that the store does not have.
    pub missing: usize,
    /// Objects that the store does not give.
    pub forbidden: usize,
    /// Objects that are cut.
    pub broken: usize,
    /// The kills are spread evenly over the photos.
    pub kills: usize,
}

/// Counts. All else is asserted.
pub struct Fed {
    /// Photos that feeders had claimed, and not handed over, when they were killed.
    pub in_flight: i64,
    /// Images that went through the network before the migration, and in it.
    pub inferences: i64,
    pub inferences_of_migration: i64,
    /// Requests for an object.
    pub requests: usize,
    pub requests_of_migration: usize,
    /// Of each kind of failure: name, SQLSTATE, number, and one message.
    pub failures: Vec<String>,
    pub took: Duration,
    pub migration_took: Duration,
}

/// Far above the time of a batch: a claimed photo is claimed again only if its feeder was killed.
const LEASE: &str = "10s";

/// They lead out of the prefix, or look as if: refused without a request.
const HOSTILE: [&str; 12] = [
    "../../etc/passwd",
    "../secret.jpg",
    "a/../../secret.jpg",
    "%2e%2e/secret.jpg",
    "/secret.jpg",
    "http://127.0.0.1/",
    "http://169.254.169.254/latest/meta-data",
    "s3://other/x",
    "..\\secret.jpg",
    "gpj.\u{202e}exe",
    "a\u{200b}b.jpg",
    "a\nGET /other/x",
];

/// They are odd, and name objects below the prefix that the store does not have.
const ODD: [&str; 5] = ["..%2f..%2fsecret.jpg", "?versions", "x.jpg?acl", "a b#c&d=e.jpg", "%00.jpg"];

/// Feeds such a table and asserts that no photo is lost or embedded twice, that failures have their reasons, that nothing
/// outside of the prefix is asked for, that words find photos, and that a migration reads the store again.
pub fn feed_from_s3(feeding: Feeding) -> Fed {
    let cluster = cluster_of_two_models();
    let (database, mut client) = watched_by_reference(&cluster);
    let s3 = S3Server::start();
    let photos = store(&s3, feeding);
    refer_to(&mut client, feeding, &photos);
    let stored = s3.requests().len();

    let start = Instant::now();
    let in_flight = feed_and_kill(&cluster, &database, &mut client, &s3, feeding);
    let took = start.elapsed();
    let inferences = inferences(&mut client);
    assert_embedded(&mut client, &photos, inferences);
    let failures = assert_failures(&mut client, feeding);
    let requests = assert_requests(&s3, stored, &photos);
    assert_found(&mut client);
    assert_eq!(wrongly_fed(&mut client, &photos), 0);

    let before = self::inferences(&mut client);
    let start = Instant::now();
    let running =
        RunningFeeder::start(feeder(&cluster, &database, "s3://photos/shop/").envs(s3.environment()));
    run(&mut client, &format!("CALL clip_migrate('image_embeddings', '{OTHER_MODEL}')"));
    let migration_took = start.elapsed();
    drop(running);
    let mut fresh = database.connect();
    let inferences_of_migration = self::inferences(&mut fresh) - before;
    let models = "SELECT string_agg(DISTINCT split_part(model, '@', 1), ' ') FROM image_embeddings";
    assert_eq!(value::<String>(&mut fresh, models), OTHER_MODEL);
    let again = assert_requests(&s3, stored + requests, &photos);
    assert_eq!(wrongly_fed(&mut fresh, &photos), 0, "of the other model");
    Fed {
        in_flight,
        inferences,
        inferences_of_migration,
        requests,
        requests_of_migration: again,
        failures,
        took,
        migration_took,
    }
}

/// Fills the store; returns the photos with their keys. Each has bytes of its own.
fn store(s3: &S3Server, feeding: Feeding) -> Vec<(String, Vec<u8>)> {
    s3.make_bucket("photos");
    s3.make_bucket("other");
    s3.store("other", "x", b"not yours");
    s3.store("photos", "secret.jpg", b"not below the prefix");
    let pictures = named_demo_photos();
    let picture = |number: usize| {
        let (name, photo) = &pictures[number % pictures.len()];
        (name, variant(photo, u32::try_from(number).expect("a few")))
    };
    let mut photos = Vec::new();
    for number in 0..feeding.photos {
        let (name, photo) = picture(number);
        // Every tenth has a key that is encoded on the way.
        let folder =
            if number.is_multiple_of(10) { ("küche 1", "k%C3%BCche%201") } else { ("2026", "2026") };
        s3.store("photos", &format!("shop/good/{}/{number}-{name}", folder.1), &photo);
        photos.push((format!("good/{}/{number}-{name}", folder.0), photo));
    }
    for number in 0..feeding.forbidden {
        s3.store("photos", &format!("shop/private/{number}"), &picture(number).1);
    }
    for number in 0..feeding.broken {
        s3.store("photos", &format!("shop/broken/{number}"), &picture(number).1[..100]);
    }
    s3.forbid("photos", "shop/private/");
    photos
}

/// Writes the rows in a random order, as an application that keeps its photos in a store has them.
fn refer_to(client: &mut Client, feeding: Feeding, photos: &[(String, Vec<u8>)]) {
    let bad = [("missing", feeding.missing), ("private", feeding.forbidden), ("broken", feeding.broken)];
    let bad =
        bad.into_iter().flat_map(|(kind, count)| (0..count).map(move |number| format!("{kind}/{number}")));
    let long = "k".repeat(2000);
    let mut keys: Vec<String> = photos.iter().map(|(key, _)| key.clone()).chain(bad).collect();
    keys.extend(HOSTILE.iter().chain(&ODD).map(|key| (*key).to_owned()).chain([long]));
    Rng::with_seed(1).shuffle(&mut keys);
    let insert = "INSERT INTO photos (storage_path, storage_url, thumbnail_url, project)
        SELECT key, 'https://store.example/' || key, 'https://store.example/small/' || key,
            CASE WHEN number % 2 = 0 THEN 'kitchen' ELSE 'garden' END
        FROM unnest($1::text[]) WITH ORDINALITY AS t (key, number)";
    client.execute(insert, &[&keys]).expect("references are stored");
}

/// Feeds until nothing waits. Returns how many photos were claimed by feeders that were killed.
fn feed_and_kill(
    cluster: &TestCluster,
    database: &TestDatabase,
    client: &mut Client,
    s3: &S3Server,
    feeding: Feeding,
) -> i64 {
    let options = || {
        let mut feeder = feeder(cluster, database, "s3://photos/shop/");
        feeder.envs(s3.environment()).args(["--lease", LEASE, "--concurrency", "8"]);
        feeder
    };
    let mut in_flight = 0;
    for kill in 1..=feeding.kills {
        // Leases of feeders that were killed before end earlier.
        let start: String = value(client, "SELECT clock_timestamp()::text");
        let claimed = format!(
            "SELECT count(*) FROM clip_queue WHERE claimed AND run_at > '{start}'::timestamptz + '{LEASE}'"
        );
        let running = RunningFeeder::start(&mut options());
        let enough = i64::try_from(kill * feeding.photos / (feeding.kills + 1)).expect("a few");
        let are_enough = format!("SELECT count(*) >= {enough} FROM image_embeddings");
        let name = format!("{enough} photos are embedded, and the feeder has claimed others");
        wait_until(&name, PATIENCE, || {
            value::<bool>(client, &are_enough) && value::<i64>(client, &claimed) > 0
        });
        in_flight += value::<i64>(client, &claimed);
        running.kill();
    }
    drain(&mut options());
    in_flight
}

fn inferences(client: &mut Client) -> i64 {
    value(client, "SELECT image_inferences FROM clip_status")
}

/// Nothing is lost, and nothing double.
fn assert_embedded(client: &mut Client, photos: &[(String, Vec<u8>)], inferences: i64) {
    assert_eq!(value::<i64>(client, "SELECT count(*) FROM clip_queue WHERE NOT dead"), 0);
    let keys: Vec<&str> = photos.iter().map(|(key, _)| key.as_str()).collect();
    let query = "SELECT count(*) FILTER (WHERE image_id IS NULL), count(image_id), count(DISTINCT image_id)
        FROM unnest($1::text[]) AS key JOIN photos ON storage_path = key LEFT JOIN image_embeddings ON image_id = photos.id";
    let row = client.query_one(query, &[&keys]).expect("counts");
    let [lost, embedded, different] = [0, 1, 2].map(|column| row.get::<_, i64>(column));
    let all = i64::try_from(photos.len()).expect("a few");
    assert_eq!((lost, embedded, different), (0, all, all), "lost, embedded, and each once");
    assert_eq!(
        value::<i64>(client, "SELECT count(*) FROM image_embeddings"),
        all,
        "nothing else is embedded"
    );
    assert_eq!(inferences, all, "no photo is embedded twice");
}

/// Each failure has its reason, and ends its job at once.
fn assert_failures(client: &mut Client, feeding: Feeding) -> Vec<String> {
    let hostile: Vec<&str> = HOSTILE.to_vec();
    let refused = "SELECT count(*) FROM clip_failures JOIN photos ON id::text = key
        WHERE dead AND sqlstate = '42602' AND message LIKE 'the reference is not a key of the store: %'
            AND (storage_path = ANY ($1) OR length(storage_path) = 2000)";
    let refused: i64 = client.query_one(refused, &[&hostile]).expect("a count").get(0);
    assert_eq!(refused, 13);
    let failures = "SELECT kind, sqlstate, count(*), min(message), bool_and(dead AND attempts = 1)
        FROM (SELECT coalesce(substring(storage_path from '^(private|broken|missing)/'), 'odd') AS kind, failure.*
            FROM clip_failures AS failure JOIN photos ON id::text = key) AS failures
        WHERE sqlstate <> '42602' GROUP BY kind, sqlstate ORDER BY kind";
    let rows = client.query(failures, &[]).expect("failures");
    let counted = |count: usize| i64::try_from(count).expect("a few");
    let expected = [
        ("broken", "22P03", counted(feeding.broken)),
        ("missing", "58P01", counted(feeding.missing)),
        ("odd", "58P01", counted(ODD.len())),
        ("private", "42501", counted(feeding.forbidden)),
    ];
    let found: Vec<(&str, &str, i64)> = rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    assert_eq!(found, expected);
    assert!(rows.iter().all(|row| row.get(4)), "each is given up at once");
    let messages: Vec<&str> = rows.iter().map(|row| row.get(3)).collect();
    assert_eq!(messages[1], "the store has no object \"missing/0\"");
    assert_eq!(messages[3], "the store does not give \"private/0\" to the feeder (403 Forbidden)");
    rows.iter()
        .map(|row| {
            format!(
                "{} {} {:6}  {}",
                row.get::<_, &str>(0),
                row.get::<_, &str>(1),
                row.get::<_, i64>(2),
                row.get::<_, &str>(3)
            )
        })
        .collect()
}

/// Counts the requests behind the first `before`: all are for objects below the prefix, and each photo is asked for.
fn assert_requests(s3: &S3Server, before: usize, photos: &[(String, Vec<u8>)]) -> usize {
    let requests = s3.requests().split_off(before);
    let outside = requests.iter().find(|request| !request.starts_with("GET /photos/shop/"));
    assert_eq!(outside, None, "nothing outside of the prefix is asked for");
    let is_hostile = |request: &&String| {
        ["passwd", "meta-data", "/other/", "exe"].iter().any(|word| request.contains(word))
    };
    assert_eq!(requests.iter().find(is_hostile), None);
    for (key, _) in photos {
        // The names of the files are the ends of the keys.
        let (_, name) = key.rsplit_once('/').expect("a folder");
        assert!(requests.iter().any(|request| request.contains(&format!("/{name} "))), "{key} is asked for");
    }
    requests.len()
}

/// Words find photos, with the columns of their rows.
fn assert_found(client: &mut Client) {
    let search =
        "SELECT storage_path, thumbnail_url FROM image_embeddings JOIN photos ON photos.id = image_id
        ORDER BY embedding <=> (SELECT clip_embed_text('a photo of a bicycle')) LIMIT 3";
    let rows = client.query(search, &[]).expect("a search");
    let found: Vec<(&str, &str)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert!(found[0].0.contains("-bicycle-"), "{found:?}");
    assert_eq!(found[0].1, format!("https://store.example/small/{}", found[0].0));
}
