//! The costs of statements on a watched table that have nothing to do with its photos' bytes.

use pg_clip_tests::{TestCluster, demo_photo, run, value, wait_for_the_queue};
use postgres::Client;

use crate::tally::{median, report, report_times, time};

const LARGE_PHOTOS: i32 = 2000;
const LARGE_BYTES: i32 = 2 << 20;
const TRIES: usize = 7;
const STATEMENTS: usize = 200;
const FINISHED_JOBS: i32 = 300_000;

pub(crate) fn measure() {
    let cluster = TestCluster::preloaded();
    let database = cluster.database();
    update_of_another_column(&mut database.connect());
    for mode in ["sync", "async"] {
        let database = cluster.database();
        after_finished_jobs(&mut database.connect(), &mut database.connect(), mode);
    }
}

/// An UPDATE of all rows that leaves the photos alone, beside the same on a table that is not watched. The bytes are no
/// photo: embedding them would fail.
fn update_of_another_column(client: &mut Client) {
    run(
        client,
        &format!(
            "CREATE UNLOGGED TABLE watched (id int PRIMARY KEY, note text, project text, image bytea);
            ALTER TABLE watched ALTER image SET STORAGE EXTERNAL;
            CREATE UNLOGGED TABLE unwatched (LIKE watched INCLUDING ALL);
            SELECT clip_watch('watched');
            SET clip.enabled = off;
            INSERT INTO watched SELECT id, '', '', convert_to(repeat(chr(65 + id % 26), {LARGE_BYTES}), 'UTF8')
                FROM generate_series(1, {LARGE_PHOTOS}) AS id;
            INSERT INTO unwatched SELECT * FROM watched;
            RESET clip.enabled"
        ),
    );
    for table in ["watched", "unwatched"] {
        run(client, &format!("VACUUM ANALYZE {table}"));
    }
    let [mut without, mut with] = [Vec::new(), Vec::new()];
    let before = toast_blocks(client);
    for round in 0..TRIES {
        for (table, times) in [("unwatched", &mut without), ("watched", &mut with)] {
            times.push(time(|| run(client, &format!("UPDATE {table} SET note = '{round}'"))));
        }
    }
    let blocks = toast_blocks(client) - before;
    report_times(&format!("UPDATE of a note of {LARGE_PHOTOS} photos of 2 MiB, not watched"), &mut without);
    report_times("  the same, watched", &mut with);
    report_ratio("  the second in units of the first", &mut without, &mut with);
    report("  blocks of TOAST that were read or written meanwhile", &format!("{blocks:9}"));
}

/// One-row statements before and after many jobs were finished that a snapshot keeps.
fn after_finished_jobs(client: &mut Client, snapshot: &mut Client, mode: &str) {
    run(
        client,
        &format!(
            "CREATE TABLE photos (id int PRIMARY KEY, note text, image bytea);
            SELECT clip_watch('photos', mode => '{mode}')"
        ),
    );
    client.execute("INSERT INTO photos VALUES (1, '', $1)", &[&demo_photo()]).expect("a photo");
    wait_for_the_queue(client);
    let statements = ["UPDATE photos SET note = 'x'", "DELETE FROM photos WHERE id = 2"];
    let times = |client: &mut Client| -> Vec<_> {
        (0..STATEMENTS).map(|number| time(|| run(client, statements[number % 2]))).collect()
    };
    times(client);
    let mut before = times(client);
    run(snapshot, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM clip_queue");
    run(
        client,
        &format!(
            "INSERT INTO clip_queue (source, key, run_at) SELECT 'photos'::regclass, n, 'infinity'
            FROM generate_series(10, 9 + {FINISHED_JOBS}) AS n;
            DELETE FROM clip_queue"
        ),
    );
    times(client);
    let mut after = times(client);
    report_times(&format!("UPDATE or DELETE of one row, watched in {mode} mode"), &mut before);
    report_times(&format!("  after {FINISHED_JOBS} jobs that a snapshot keeps"), &mut after);
    report_ratio("  the second in units of the first", &mut before, &mut after);
    // The worker looks for jobs among the dead rows of finished ones.
    let mut embeddings = Vec::new();
    for number in 0..20 {
        embeddings.push(time(|| {
            let photo = [demo_photo(), vec![number]].concat();
            client.execute("UPDATE photos SET image = $1", &[&photo]).expect("a photo is changed");
            wait_for_the_queue(client);
        }));
    }
    report_times("  UPDATE of a photo, and the embedding", &mut embeddings);
    run(snapshot, "COMMIT");
    assert_eq!(value::<i64>(client, "SELECT count(*) FROM image_embeddings"), 1);
}

fn toast_blocks(client: &mut Client) -> i64 {
    run(client, "SELECT pg_stat_force_next_flush()");
    value(
        client,
        "SELECT sum(coalesce(toast_blks_read, 0) + coalesce(toast_blks_hit, 0))::bigint
        FROM pg_statio_user_tables WHERE relname IN ('watched', 'unwatched')",
    )
}

fn report_ratio(what: &str, one: &mut [std::time::Duration], other: &mut [std::time::Duration]) {
    report(what, &format!("{:9.2}", median(other).as_secs_f64() / median(one).as_secs_f64()));
}
