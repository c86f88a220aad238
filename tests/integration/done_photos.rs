//! Photos that are done cost nothing: the size of pg_clip's own tables, and the blocks read for the next photo, are
//! the same beside ten times as many of them.

use pg_clip_tests::{
    TestCluster, cost_of_the_next, demo_photo, grow_to, made_up, own_tables, wait_for_no_worker,
    wait_for_the_queue, watched_async,
};

/// Rows that are made up: no model runs for them.
const FEWER: i64 = 5_000;
const MORE: i64 = 50_000;

/// Each level of a btree is a block more to go through. Here are those of the keys of source and target, of the checksums and
/// of the queue, for each of the photos of a step.
const LEVELS: i64 = 4;

#[test]
fn photos_that_are_done_leave_nothing_in_the_extensions_tables() {
    const STEP: i64 = 100;
    let cluster = TestCluster::preloaded();
    let (_database, mut client) = watched_async(&cluster);
    let photo = demo_photo();
    let mut embed = |steps: i64| {
        for _ in 0..steps {
            let insert = "INSERT INTO photos (image) SELECT $1 FROM generate_series(1, $2::int8)";
            client.execute(insert, &[&photo, &STEP]).expect("photos are stored");
            wait_for_the_queue(&mut client);
        }
        wait_for_no_worker(&mut client);
        own_tables(&mut client)
    };
    let before = embed(3);
    let after = embed(27);
    println!("after 300 photos {before:?}\nafter 3,000 photos {after:?}");
    assert!(before.len() > 5, "{before:?}");
    for (name, (rows, bytes)) in after {
        let (rows_before, bytes_before) = before[&name];
        // A row for each worker that has counted, for ten minutes: one more has run since.
        let workers = i64::from(name == "clip_queue_rates");
        assert!(rows <= rows_before + workers, "{name}: {rows_before} rows, and then {rows}");
        // A step is as large as the ones before; a page more is a matter of when a worker looked.
        assert!(bytes <= bytes_before + 16 * 8192, "{name}: {bytes_before} bytes, and then {bytes}");
    }
}

#[test]
fn the_next_photo_costs_as_much_beside_ten_times_as_many_that_are_done() {
    const PHOTOS: i64 = 32;
    let cluster = TestCluster::preloaded_with(&[("autovacuum", "off")]);
    let (_database, mut client) = made_up(&cluster);
    let mut costs = Vec::new();
    for photos in [FEWER, MORE] {
        grow_to(&mut client, photos);
        let cost = cost_of_the_next(&mut client, PHOTOS);
        println!("{cost:?} for {PHOTOS} photos beside {photos}");
        costs.push(cost);
    }
    let [few, many] = costs.as_slice() else { panic!("two sizes") };
    let more = LEVELS * PHOTOS;
    assert!(many.enqueued <= few.enqueued + more, "{few:?} {many:?}");
    assert!(many.all <= few.all + 2 * more, "{few:?} {many:?}");
    // The queue is as long at both sizes; how often the worker looks at it differs by a look or two.
    assert!(many.own <= few.own + few.own / 4, "{few:?} {many:?}");
    assert!(many.backlog <= few.backlog + 8 && many.failures <= few.failures + 8, "{few:?} {many:?}");
}
