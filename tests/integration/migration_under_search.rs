//! While a table moves to another model, no search fails, and none mixes the two.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use pg_clip_tests::{
    ROUND, StopOnDrop, TestCluster, TestDatabase, Truth, cluster_of_two_models, demo_jpegs, rows, run, value,
    variant, wait_until,
};
use postgres::{Client, IsolationLevel, SimpleQueryMessage};

const PATIENCE: Duration = Duration::from_secs(120);
/// Photos of each picture when the migration begins.
const ROUNDS: i32 = 10;
const PICTURES: usize = 40;
const QUERIES: [&str; 3] = ["a slice of pizza", "a dog", "something red"];

const SEARCH: &str = "SELECT image_id, (embedding <=> clip_embed_text($1)) AS distance FROM image_embeddings
    ORDER BY embedding <=> clip_embed_text($1) LIMIT 10";

struct Stage {
    database: TestDatabase,
    pictures: Vec<Vec<u8>>,
    old: Truth,
    new: Truth,
}

impl Stage {
    /// A watched table with so many photos of each picture.
    fn set(cluster: &TestCluster, rounds: i32) -> Stage {
        let database = cluster.database();
        let mut client = database.connect();
        let pictures = demo_jpegs()[..PICTURES].to_vec();
        run(
            &mut client,
            "CREATE TABLE photos (id int PRIMARY KEY, image bytea); SELECT clip_watch('photos');
            CREATE FUNCTION search(words text) RETURNS TABLE (image_id int, distance float8) STABLE LANGUAGE plpgsql AS $$
                BEGIN
                    RETURN QUERY SELECT e.image_id, (e.embedding <=> clip_embed_text(words)) FROM image_embeddings AS e
                    ORDER BY e.embedding <=> clip_embed_text(words) LIMIT 10;
                END $$",
        );
        let old = Truth::of("demo", &mut client, &QUERIES, &pictures);
        let new = Truth::of("other", &mut client, &QUERIES, &pictures);
        let stage = Stage { database, pictures, old, new };
        for round in 0..rounds {
            stage.insert(&mut client, round);
        }
        stage
    }

    fn insert(&self, client: &mut Client, round: i32) {
        self.insert_some(client, round, PICTURES);
    }

    fn insert_some(&self, client: &mut Client, round: i32, count: usize) {
        let number = u32::try_from(round).expect("a round");
        let photos: Vec<Vec<u8>> =
            self.pictures[..count].iter().map(|picture| variant(picture, number)).collect();
        let insert = "INSERT INTO photos
            SELECT number - 1 + $1, image FROM unnest($2::bytea[]) WITH ORDINALITY AS t (image, number)";
        let keys = round * ROUND;
        client
            .execute(&insert.replace("$1", &keys.to_string()).replace("$2", "$1"), &[&photos])
            .expect("photos");
    }

    /// Panics unless one of the two models finds these rows. Returns whether it is the new one.
    #[track_caller]
    fn check(&self, query: usize, rows: &[(i32, f64)], exact: bool) -> bool {
        assert_eq!(rows.len(), 10, "{rows:?}");
        let (old, new) = (self.old.tells(query, rows), self.new.tells(query, rows));
        assert!(old != new, "the rows of one model: {old} or {new}: {rows:?}");
        let truth = if new { &self.new } else { &self.old };
        assert!(!exact || truth.is_nearest(query, rows), "{rows:?}");
        new
    }
}

/// The ways in which applications search. Each begins with the state that it keeps, and returns a search.
type Search = fn(&mut Client, &str) -> Vec<(i32, f64)>;

fn simply(client: &mut Client, words: &str) -> Vec<(i32, f64)> {
    let query = SEARCH.replace("$1", &format!("'{words}'"));
    let messages = client.simple_query(&query).expect("a simple search");
    let row = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => {
            let number = |column| row.get(column).expect("a value");
            Some((number(0).parse().expect("a key"), number(1).parse().expect("a distance")))
        }
        _ => None,
    };
    messages.iter().filter_map(row).collect()
}

fn by_a_function(client: &mut Client, words: &str) -> Vec<(i32, f64)> {
    rows(&client.query("SELECT * FROM search($1)", &[&words]).expect("a search by a function"))
}

/// In a transaction that takes its snapshot before it touches the table.
fn in_a_snapshot(client: &mut Client, words: &str) -> Vec<(i32, f64)> {
    let builder = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead);
    let mut transaction = builder.start().expect("a transaction");
    transaction.query("SELECT clip_embed_text('x ' || clock_timestamp())", &[]).expect("a snapshot");
    let found = rows(&transaction.query(SEARCH, &[&words]).expect("a search in a snapshot"));
    transaction.commit().expect("a commit");
    found
}

#[test]
fn searches_go_on_and_never_mix_models() {
    let cluster = cluster_of_two_models();
    let stage = Stage::set(&cluster, ROUNDS);
    let (stop, searches, inserted) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let seen_new = std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        let mut sessions = Vec::new();
        let ways: [(Search, bool); 5] = [
            (simply, true),
            (simply, false),
            (by_a_function, true),
            (in_a_snapshot, true),
            (in_a_snapshot, false),
        ];
        let (stage, stop, searches, inserted) = (&stage, &stop, &searches, &inserted);
        for (search, exact) in ways {
            sessions.push(scope.spawn(move || {
                let mut client = stage.database.connect();
                run(
                    &mut client,
                    if exact { "SET enable_indexscan = off" } else { "SET enable_seqscan = off" },
                );
                let mut new = false;
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let query = number % QUERIES.len();
                    let now = stage.check(query, &search(&mut client, QUERIES[query]), exact);
                    assert!(now || !new, "no search goes back to the old model");
                    new = now;
                    searches.fetch_add(1, Ordering::Relaxed);
                }
                new
            }));
        }
        sessions.push(scope.spawn(move || {
            let mut client = stage.database.connect();
            run(&mut client, "SET enable_indexscan = off; SET plan_cache_mode = force_generic_plan");
            let prepared = client.prepare(SEARCH).expect("a prepared search");
            let mut new = false;
            while !stop.load(Ordering::Relaxed) {
                let found = client.query(&prepared, &[&QUERIES[0]]).expect("a prepared search runs");
                new = stage.check(0, &rows(&found), true);
                searches.fetch_add(1, Ordering::Relaxed);
            }
            new
        }));
        let writer = scope.spawn(move || {
            let mut client = stage.database.connect();
            for round in ROUNDS.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                stage.insert(&mut client, round);
                run(
                    &mut client,
                    &format!(
                        "UPDATE photos SET image = image || '\\x00' WHERE id % {ROUND} = {}",
                        round % 40
                    ),
                );
                run(&mut client, &format!("DELETE FROM photos WHERE id = {}", (round - ROUNDS) * ROUND + 7));
                inserted.fetch_add(1, Ordering::Relaxed);
            }
        });
        let mut client = stage.database.connect();
        wait_until("the searches run", PATIENCE, || searches.load(Ordering::Relaxed) > 20);
        let before = (searches.load(Ordering::Relaxed), inserted.load(Ordering::Relaxed));
        let start = std::time::Instant::now();
        run(&mut client, "CALL clip_migrate('image_embeddings', 'other')");
        let took = start.elapsed();
        let during = searches.load(Ordering::Relaxed) - before.0;
        let rounds = inserted.load(Ordering::Relaxed) - before.1;
        println!("{during} searches and {rounds} rounds of writing during the {took:?} of the migration");
        let after = searches.load(Ordering::Relaxed);
        wait_until("each session searches again", PATIENCE, || searches.load(Ordering::Relaxed) > after + 60);
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("the writer");
        sessions.into_iter().map(|session| session.join().expect("a session")).collect::<Vec<bool>>()
    });
    assert!(seen_new.iter().all(|new| *new), "all follow: {seen_new:?}");
    let mut client = stage.database.connect();
    let wrong = "SELECT count(*) FROM photos FULL JOIN image_embeddings ON image_id = photos.id
        WHERE checksum IS DISTINCT FROM sha256(image) OR embedding IS DISTINCT FROM clip_embed_image(image, 'other')";
    assert_eq!(value::<i64>(&mut client, wrong), 0);
}

#[test]
fn a_transaction_that_began_before_finds_the_same_photos_as_then() {
    let cluster = cluster_of_two_models();
    let stage = Stage::set(&cluster, 12);
    let mut reader = stage.database.connect();
    run(&mut reader, "SET enable_indexscan = off");
    let builder = reader.build_transaction().isolation_level(IsolationLevel::RepeatableRead);
    let mut transaction = builder.start().expect("a transaction");
    transaction.query("SELECT count(*) FROM pg_class", &[]).expect("a snapshot");
    std::thread::scope(|scope| {
        let migration = scope.spawn(|| {
            run(&mut stage.database.connect(), "CALL clip_migrate('image_embeddings', 'other')");
        });
        let mut client = stage.database.connect();
        let filled = "SELECT count(*) FROM clip_migrations WHERE done = total";
        wait_until("all rows are filled", PATIENCE, || value::<i64>(&mut client, filled) == 1);
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'virtualxid'";
        wait_until("the migration waits", PATIENCE, || value::<i64>(&mut client, waits) == 1);
        // No session is kept waiting meanwhile.
        stage.insert(&mut client, 12);
        let found = transaction.query(SEARCH, &[&QUERIES[0]]).expect("a search in the old snapshot");
        assert!(!stage.check(0, &rows(&found), true), "the old model");
        let count: i64 =
            transaction.query_one("SELECT count(*) FROM image_embeddings", &[]).expect("a count").get(0);
        assert_eq!(count, 12 * 40);
        transaction.commit().expect("a commit");
        migration.join().expect("the migration ends");
        let found = client.query(SEARCH, &[&QUERIES[0]]).expect("a search");
        assert!(stage.check(0, &rows(&found), false), "the new model");
    });
}
