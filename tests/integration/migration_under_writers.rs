//! A migration ends while other sessions write without a pause, and none of their transactions fails.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use pg_clip_tests::{
    StopOnDrop, TestDatabase, cluster_of_two_models, demo_jpegs, failure, run, store, value, variant,
    wait_for_the_queue, wait_until, watched,
};
use postgres::Client;

const PATIENCE: Duration = Duration::from_secs(120);
const WRONG: &str = "SELECT count(*) FROM photos FULL JOIN image_embeddings ON image_id = photos.id
    WHERE checksum IS DISTINCT FROM sha256(image) OR embedding IS DISTINCT FROM clip_embed_image(image, 'other')";
const PHOTOS: i32 = 60;

/// A statement that a session writes over and over, with numbers that differ each time.
type Write = fn(&mut Client, i32, &[Vec<u8>]);

fn insert(client: &mut Client, number: i32, pictures: &[Vec<u8>]) {
    let picture = &pictures[number.unsigned_abs() as usize % pictures.len()];
    let photo = variant(picture, number.unsigned_abs());
    client.execute("INSERT INTO photos (image) VALUES ($1)", &[&photo]).expect("a photo is stored");
}

fn update(client: &mut Client, number: i32, pictures: &[Vec<u8>]) {
    let picture = &pictures[number.unsigned_abs() as usize % pictures.len()];
    let photo = variant(picture, number.unsigned_abs());
    let update = "UPDATE photos SET image = $1 WHERE id = $2";
    client.execute(update, &[&photo, &i64::from(number % PHOTOS + 1)]).expect("a photo is changed");
}

/// Reads the target first: the transaction holds a lock on it while it waits for another one.
fn read_and_update(client: &mut Client, number: i32, pictures: &[Vec<u8>]) {
    let mut transaction = client.transaction().expect("a transaction");
    transaction.query("SELECT count(*) FROM image_embeddings", &[]).expect("a look at the target");
    // Each in the order of the keys: they cannot wait for one another in a circle.
    for id in [1_i64, 2] {
        let photo = variant(&pictures[0], number.unsigned_abs());
        let update = "UPDATE photos SET image = $1 WHERE id = $2";
        transaction.execute(update, &[&photo, &id]).expect("a photo is changed");
    }
    transaction.commit().expect("a commit");
}

/// Runs a migration while sessions write, and checks its result.
#[track_caller]
fn migrate_while(database: &TestDatabase, client: &mut Client, writes: &[Write]) {
    let pictures = &demo_jpegs();
    let (stop, written) = (AtomicBool::new(false), AtomicI32::new(0));
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        let (stop, written) = (&stop, &written);
        let sessions: Vec<_> = (writes.iter())
            .map(|write| {
                scope.spawn(move || {
                    let mut client = database.connect();
                    while !stop.load(Ordering::Relaxed) {
                        write(&mut client, written.fetch_add(1, Ordering::Relaxed) + 1000, pictures);
                    }
                })
            })
            .collect();
        wait_until("the sessions write", PATIENCE, || written.load(Ordering::Relaxed) > 20);
        run(client, "SET statement_timeout = '120s'");
        run(client, "CALL clip_migrate('image_embeddings', 'other')");
        let then = written.load(Ordering::Relaxed);
        wait_until("the sessions write on", PATIENCE, || written.load(Ordering::Relaxed) > then + 20);
        stop.store(true, Ordering::Relaxed);
        for session in sessions {
            session.join().expect("no write fails");
        }
    });
    wait_for_the_queue(client);
    let mut other = database.connect();
    assert_eq!(value::<i64>(&mut other, WRONG), 0);
}

#[test]
fn a_migration_ends_while_sessions_write_without_a_pause() {
    let cluster = cluster_of_two_models();
    let pictures = demo_jpegs();
    let photo = |number: u32| variant(&pictures[number as usize % pictures.len()], number);
    let photos: Vec<Vec<u8>> = (0..PHOTOS.unsigned_abs()).map(photo).collect();
    for mode in ["sync", "async"] {
        let writes: [(&str, &[Write]); 3] = [
            ("inserts", &[insert, insert]),
            ("updates", &[update, update]),
            ("transactions that read the target first", &[read_and_update, read_and_update, insert]),
        ];
        for (what, writes) in writes {
            println!("{mode}: {what}");
            let (database, mut client) = watched(&cluster, mode);
            // The one that waits longest for a lock looks first whether there is a deadlock, and is its victim.
            let soon = format!("ALTER DATABASE {} SET deadlock_timeout = '100ms'", database.name());
            run(&mut client, &soon);
            store(&mut client, &photos);
            wait_for_the_queue(&mut client);
            migrate_while(&database, &mut database.connect(), writes);
        }
    }
}

#[test]
fn each_writer_of_a_vector_writes_the_new_models_too() {
    let cluster = cluster_of_two_models();
    let pictures = demo_jpegs();
    for mode in ["sync", "async"] {
        let (database, mut client) = watched(&cluster, mode);
        run(&mut client, "ALTER TABLE photos ALTER id SET GENERATED BY DEFAULT");
        store(&mut client, &pictures[..6]);
        wait_for_the_queue(&mut client);
        let mut reader = database.connect();
        run(&mut reader, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM photos");
        std::thread::scope(|scope| {
            // A failure below lets the migration go on.
            let mut reader = reader;
            let migration = scope.spawn(|| {
                run(&mut database.connect(), "CALL clip_migrate('image_embeddings', 'other')");
            });
            let waits = "SELECT count(*) FROM pg_stat_activity
                WHERE wait_event = 'virtualxid' AND datname = current_database()";
            wait_until("the migration waits for the reader", PATIENCE, || {
                value::<i64>(&mut client, waits) == 1
            });
            store(&mut client, &pictures[5..8]);
            run(&mut client, "UPDATE photos SET image = image || '\\x00' WHERE id = 1");
            run(&mut client, "UPDATE photos SET project = 'x' WHERE id = 2");
            run(&mut client, "UPDATE photos SET id = 1000 WHERE id = 3; DELETE FROM photos WHERE id = 4");
            run(&mut client, "CALL clip_backfill('photos', verify => true)");
            let mut counts = ["embedding IS DISTINCT FROM clip_embed_image(image)",
                "clip_next_embedding IS DISTINCT FROM clip_embed_image(image, 'other')"]
            .map(|wrong| {
                let count = format!(
                    "SELECT count(*) FROM photos FULL JOIN image_embeddings ON image_id = photos.id WHERE {wrong}"
                );
                value::<i64>(&mut client, &count)
            });
            assert_eq!(counts, [0, 0], "{mode}");
            // A vector that a user writes to a row has none of the new model beside it.
            run(
                &mut client,
                "UPDATE image_embeddings SET embedding = clip_embed_text('x') WHERE image_id = 2",
            );
            let without = "SELECT count(*) FROM image_embeddings WHERE clip_next_embedding IS NULL";
            counts[0] = value(&mut client, without);
            assert_eq!(counts[0], 1, "{mode}");
            run(&mut client, "UPDATE photos SET image = image || '\\x00' WHERE id = 2");
            run(&mut reader, "COMMIT");
            migration.join().expect("the migration ends");
        });
        wait_for_the_queue(&mut client);
        let mut other = database.connect();
        assert_eq!(value::<i64>(&mut other, WRONG), 0, "{mode}");
        assert_eq!(value::<i64>(&mut other, "SELECT count(*) FROM image_embeddings"), 8, "{mode}");
    }
}

#[test]
fn rows_that_no_photo_belongs_to_end_a_migration_with_a_reason() {
    let cluster = cluster_of_two_models();
    for (key, checksum) in [("NULL", "'\\x00'"), ("77", "NULL"), ("77", "'\\x00'")] {
        let (database, mut client) = watched(&cluster, "sync");
        store(&mut client, &demo_jpegs()[..2]);
        run(
            &mut client,
            &format!(
                "ALTER TABLE image_embeddings DROP CONSTRAINT image_embeddings_pkey CASCADE;
                ALTER TABLE image_embeddings ADD UNIQUE (image_id);
                ALTER TABLE image_embeddings ALTER image_id DROP NOT NULL, ALTER checksum DROP NOT NULL;
                INSERT INTO image_embeddings (image_id, embedding, checksum, model)
                    SELECT {key}, embedding, {checksum}, model FROM image_embeddings LIMIT 1;
                SET statement_timeout = '60s'"
            ),
        );
        let migrate = "CALL clip_migrate('image_embeddings', 'other')";
        assert_eq!(failure(&mut client, migrate, &[]), "55000", "{key} {checksum}");
        run(&mut client, "DELETE FROM image_embeddings WHERE checksum IS NULL OR checksum = '\\x00'");
        run(&mut client, migrate);
        assert_eq!(value::<i64>(&mut database.connect(), WRONG), 0);
    }
}
