//! A table that moves to another model while a client searches it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pg_clip_tests::{
    OTHER_MODEL, PATIENCE, ROUND, TestDatabase, Truth, cluster_of_two_models, demo_jpegs, rows, run, value,
    variant, wait_for_the_queue, wait_until,
};

use crate::searching::PAUSE;
use crate::tally::{milliseconds, report, report_rate, report_times, report_times_at};

const PICTURES: usize = 40;
/// Photos of each picture: 2,000 in all.
const ROUNDS: i32 = 50;
const QUERIES: [&str; 3] = ["a slice of pizza", "a dog", "something red"];
const SEARCH: &str = "SELECT image_id, (embedding <=> clip_embed_text($1)) AS distance FROM image_embeddings
    ORDER BY embedding <=> clip_embed_text($1) LIMIT 10";
/// The time before and after the switch.
const AROUND: Duration = Duration::from_secs(2);

struct Search {
    began: Instant,
    took: Duration,
    new: bool,
}

pub(crate) fn measure() {
    let cluster = cluster_of_two_models();
    let database = cluster.database();
    let mut client = database.connect();
    run(
        &mut client,
        "CREATE TABLE photos (id int PRIMARY KEY, image bytea); SELECT clip_watch('photos', mode => 'async')",
    );
    let pictures = demo_jpegs()[..PICTURES].to_vec();
    let old = Truth::of("demo", &mut client, &QUERIES, &pictures);
    let new = Truth::of(OTHER_MODEL, &mut client, &QUERIES, &pictures);
    for round in 0..ROUNDS {
        let number = u32::try_from(round).expect("a round");
        let photos: Vec<Vec<u8>> = pictures.iter().map(|picture| variant(picture, number)).collect();
        let insert = "INSERT INTO photos
            SELECT $2 + number::int - 1, image FROM unnest($1::bytea[]) WITH ORDINALITY AS t (image, number)";
        client.execute(insert, &[&photos, &(round * ROUND)]).expect("photos are stored");
    }
    wait_for_the_queue(&mut client);
    let photos: i64 = value(&mut client, "SELECT count(*) FROM image_embeddings");

    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (searches, began, took) = thread::scope(|scope| {
        let searching = scope.spawn(|| search(&database, [&old, &new], &answered, &stop));
        wait_until("the client searches", PATIENCE, || answered.load(Ordering::Relaxed) > 20);
        let began = Instant::now();
        run(&mut client, &format!("CALL clip_migrate('image_embeddings', '{OTHER_MODEL}')"));
        let took = began.elapsed();
        stop.store(true, Ordering::Relaxed);
        (searching.join().expect("each search is answered by one model"), began, took)
    });
    let first_new = searches.iter().find(|search| search.new).expect("the search goes on with the new model");
    let (switch, end) = (first_new.began, began + took);
    let times = |wanted: &dyn Fn(&Search) -> bool| -> Vec<Duration> {
        searches.iter().filter(|search| wanted(search)).map(|search| search.took).collect()
    };
    let mut during = times(&|search| search.began + search.took > began && search.began < end);
    let around =
        times(&|search| search.began + search.took + AROUND > switch && search.began < switch + AROUND);
    let longest = |times: &[Duration]| times.iter().max().copied().map_or(0.0, milliseconds);
    report_rate(
        &format!("rows by clip_migrate, {photos} in {:.1} s, a client searches", took.as_secs_f64()),
        usize::try_from(photos).expect("a few"),
        took,
    );
    report("searches meanwhile, failed, of both models", &format!("{:9}, 0, 0", during.len()));
    report_times("search meanwhile", &mut during);
    report_times_at(95, "search meanwhile", &mut during);
    report("the longest search meanwhile", &format!("{:9.2} ms", longest(&during)));
    report("the longest search within 2 s of the switch", &format!("{:9.2} ms", longest(&around)));
    let wrong = format!(
        "SELECT count(*) FROM photos FULL JOIN image_embeddings ON image_id = photos.id
        WHERE checksum IS DISTINCT FROM sha256(image)
            OR embedding IS DISTINCT FROM clip_embed_image(image, '{OTHER_MODEL}')"
    );
    let wrong: i64 = value(&mut client, &wrong);
    report("rows afterwards, wrong", &format!("{photos:9}, {wrong}"));
    assert_eq!((photos, wrong), (i64::from(ROUNDS) * 40, 0));
}

/// Searches until the `stop`, and for a second more. Panics where a search fails, or its rows are not those of one model.
fn search(
    database: &TestDatabase,
    [old, new]: [&Truth; 2],
    answered: &AtomicUsize,
    stop: &AtomicBool,
) -> Vec<Search> {
    let mut client = database.connect();
    let mut searches: Vec<Search> = Vec::new();
    let mut stopped: Option<Instant> = None;
    while stopped.is_none_or(|stopped| stopped.elapsed() < Duration::from_secs(1)) {
        let query = searches.len() % QUERIES.len();
        let began = Instant::now();
        let found = client.query(SEARCH, &[&QUERIES[query]]).expect("a search is answered");
        let took = began.elapsed();
        let found = rows(&found);
        let (is_old, is_new) = (old.tells(query, &found), new.tells(query, &found));
        assert!(found.len() == 10 && is_old != is_new, "the rows of one model: {found:?}");
        searches.push(Search { began, took, new: is_new });
        answered.fetch_add(1, Ordering::Relaxed);
        run(&mut client, PAUSE);
        if stopped.is_none() && stop.load(Ordering::Relaxed) {
            stopped = Some(Instant::now());
        }
    }
    searches
}
