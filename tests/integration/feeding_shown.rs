//! The signs of a feeder's work: lines where standard error is no terminal, and counters for Prometheus.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

use pg_clip_tests::{
    PATIENCE, PhotoFolder, RunningFeeder, TestCluster, demo_photos, feeder, refer, value, wait_until,
    watched_by_reference,
};

/// Sends a request in these parts, and returns the whole answer.
fn answer(address: &str, parts: &[&[u8]]) -> String {
    let mut stream = TcpStream::connect(address).expect("the feeder serves");
    stream.set_nodelay(true).expect("parts are sent as they are");
    parts.iter().for_each(|part| stream.write_all(part).expect("a request is sent"));
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// The counters of an answer, by name and labels.
fn counters(answer: &str) -> BTreeMap<&str, u64> {
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("Content-Type: text/plain; version=0.0.4"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
    let named = |name: &&str| {
        body.contains(&format!("# TYPE {} counter\n", name.split('{').next().unwrap_or_default()))
    };
    let lines = body.lines().filter(|line| !line.starts_with('#'));
    let counters = lines.map(|line| line.rsplit_once(' ').expect("a name and a value"));
    let counters = counters.map(|(name, value)| (name, value.parse().expect("a number")));
    let counters: BTreeMap<&str, u64> = counters.collect();
    assert!(counters.keys().all(named), "each has a type: {body}");
    counters
}

#[test]
fn counters_are_served_and_lines_say_how_far_the_feeder_is() {
    let cluster = TestCluster::preloaded();
    let (database, mut client) = watched_by_reference(&cluster);
    let folder = PhotoFolder::new();
    let photos = &demo_photos()[..20];
    let mut keys: Vec<String> = (0..photos.len()).map(|number| format!("{number}.jpg")).collect();
    photos.iter().zip(&keys).for_each(|(photo, key)| folder.store(key, photo));
    // One more with bytes that are known, one that is cut, and one that is not there.
    folder.store("again.jpg", &photos[0]);
    folder.store("cut.jpg", &photos[0][..100]);
    keys.extend(["cut.jpg", "none.jpg"].map(str::to_owned));
    refer(&mut client, &keys);

    let mut command = feeder(&cluster, &database, &folder.address());
    command.args(["--metrics", "127.0.0.1:0", "--progress", "20ms", "--concurrency", "2"]);
    let running = RunningFeeder::start(&mut command);
    let line = running.wait_for_line("serving metrics at http://", PATIENCE);
    let address =
        line.trim_start_matches("serving metrics at http://").trim_end_matches("/metrics").to_owned();
    let done = || counters(&answer(&address, &[b"GET /metrics HTTP/1.1\r\nHost: feeder\r\n\r\n"]))["pg_clip_feeder_photos_total{outcome=\"embedded\"}"];
    wait_until("the counter says that all are embedded", PATIENCE, || done() == 20);
    refer(&mut client, &["again.jpg"]);
    let last = "20 photos embedded, 1 with the vector of the same bytes, 2 given up, 0 wait";
    running.wait_for_line(last, PATIENCE);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 21);

    let whole = answer(&address, &[b"GET /metrics HTTP/1.1\r\nHost: feeder\r\n\r\n"]);
    let counters = counters(&whole);
    let outcome =
        |name: &str| counters[format!("pg_clip_feeder_photos_total{{outcome=\"{name}\"}}").as_str()];
    let outcomes = ["embedded", "copied", "removed", "failed", "dead", "later", "gone"].map(outcome);
    assert_eq!(outcomes, [20, 1, 0, 0, 2, 0, 0]);
    assert_eq!(counters["pg_clip_feeder_claimed_total"], 23);
    assert_eq!(counters["pg_clip_feeder_fetched_total"], 22, "one is not there");
    let bytes = photos.iter().map(Vec::len).sum::<usize>() + photos[0].len() + 100;
    assert_eq!(counters["pg_clip_feeder_fetched_bytes_total"], bytes as u64);
    assert_eq!(counters["pg_clip_feeder_database_errors_total"], 0);

    let said = running.said();
    let first = said.lines().find(|line| line.ends_with(" wait")).expect("a line of progress");
    let numbers: Vec<u64> = first.split(' ').filter_map(|word| word.parse().ok()).collect();
    // The server may have counted a batch as done before the feeder does.
    assert!(numbers.iter().sum::<u64>() >= 22 - 4, "photos that are done, and those that wait: {first}");
    assert!(!said.contains('\u{1b}') && !said.contains('\r'), "no bar where there is no terminal: {said}");
}

#[test]
fn odd_requests_for_counters_are_answered_or_let_go() {
    let cluster = TestCluster::preloaded();
    let (database, _client) = watched_by_reference(&cluster);
    let folder = PhotoFolder::new();
    let mut command = feeder(&cluster, &database, &folder.address());
    let running = RunningFeeder::start(command.args(["--metrics", "127.0.0.1:0"]));
    let line = running.wait_for_line("serving metrics at http://", PATIENCE);
    let address =
        line.trim_start_matches("serving metrics at http://").trim_end_matches("/metrics").to_owned();

    let _silent = TcpStream::connect(&address).expect("the feeder serves");
    let cookie =
        [b"GET /metrics?x=1 HTTP/1.1\r\nCookie: ".as_slice(), &b"c".repeat(4000), b"\r\n\r\n"].concat();
    counters(&answer(&address, &[&cookie]));
    counters(&answer(&address, &[b"GET /met", b"rics HTTP/1.0\r\n", b"\r\n"]));
    for wrong in ["GET / HTTP/1.1", "POST /metrics HTTP/1.1", "GET /metricsx HTTP/1.1", "\u{1}\u{2}"] {
        let answer = answer(&address, &[wrong.as_bytes(), b"\r\n\r\n"]);
        assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{wrong}: {answer}");
    }
    // An address that is taken is said to be.
    let mut second = feeder(&cluster, &database, &folder.address());
    let output = second.args(["--metrics", &address]).output().expect("the feeder runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains(&format!("cannot serve metrics at {address}")),
        "{said}"
    );
}
