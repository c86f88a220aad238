//! Which threads of the server have a lower priority.

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

use crate::embedder::{Embedder, MODEL, PATIENCE, models_directory};

#[test]
fn the_threads_of_images_have_a_lower_priority_than_the_threads_of_texts() {
    let server = Embedder::start_with("serve", &models_directory(), MODEL, &["--threads", "3"]);
    server.connect().embed_text("loaded").unwrap();
    // A thread of a session lowers its priority when it gets its signal.
    let started = Instant::now();
    let threads = loop {
        let threads = threads(server.process.id());
        if threads.get(&("inference".to_owned(), 10)) == Some(&2) {
            break threads;
        }
        assert!(started.elapsed() < PATIENCE, "{threads:?}");
    };
    let count = |name: &str, nice| threads.get(&(name.to_owned(), nice)).copied().unwrap_or(0);
    // One less than there are threads, because the network runs beside them.
    let decoders = ["decoder 0", "decoder 1", "decoder 2"].map(|name| count(name, 10));
    assert_eq!(decoders, [1, 1, 0], "{threads:?}");
    // One for each thread of a session, which all run at once where there is much to do.
    assert_eq!(["image 0", "image 1", "image 2"].map(|name| count(name, 10)), [1; 3], "{threads:?}");
    assert_eq!(["text 0", "text 1", "text 2"].map(|name| count(name, 0)), [1; 3], "{threads:?}");
    // The threads for interactive images.
    assert_eq!([count("image", 0), count("decoder", 0)], [1; 2], "{threads:?}");
    // A thread that leads a run is one of its session's three threads.
    assert_eq!([count("inference", 10), count("inference", 0)], [2; 2], "{threads:?}");
}

/// How many threads of a process have a name and a nice value, which is counted from our own.
fn threads(process: u32) -> BTreeMap<(String, i64), usize> {
    let own = nice_value("/proc/thread-self/stat").1;
    let mut threads = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{process}/task")).unwrap() {
        let stat = task.unwrap().path().join("stat");
        let (name, nice) = nice_value(stat.to_str().unwrap());
        *threads.entry((name, nice - own)).or_default() += 1;
    }
    threads
}

/// A thread's name and nice value, which is the 19th field of its `stat`.
fn nice_value(stat: &str) -> (String, i64) {
    let stat = fs::read_to_string(stat).unwrap();
    let (head, fields) = stat.rsplit_once(") ").unwrap();
    let name = head.split_once('(').unwrap().1.to_owned();
    (name, fields.split(' ').nth(16).unwrap().parse().unwrap())
}
