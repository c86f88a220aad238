//! Every kind of writing in a transaction that is open, beside every kind of maintenance.
//!
//! For a mode and a maintenance, one transaction writes to a table for each kind of writing; beside it each table is
//! maintained by a session of its own, as far as that comes; then the transaction ends. Each table has a photo that the
//! transaction leaves alone and that wants maintenance: once it has a vector, the queue has been at this table.

use std::fmt::Write;

use pg_clip_tests::isolation::{Differences, Sessions, Step};
use pg_clip_tests::{
    OTHER_MODEL, PATIENCE, TestCluster, TestDatabase, cluster_of_two_models, demo_photos, run, value,
    wait_for_the_queue, wait_until,
};
use postgres::Client;

/// Kinds of writing; `{table}` has the photos 1, 2 and 9, and is written to in an open transaction.
pub(super) const WRITES: [(&str, &str); 9] = [
    ("insert", "INSERT INTO {table} SELECT 5, 'p', image FROM pictures WHERE number = 2"),
    ("update_image", "UPDATE {table} SET image = (SELECT image FROM pictures WHERE number = 2) WHERE id = 1"),
    ("update_key", "UPDATE {table} SET id = 101 WHERE id = 1"),
    ("update_project", "UPDATE {table} SET project = 'other' WHERE id = 1"),
    ("delete", "DELETE FROM {table} WHERE id = 1"),
    ("set_null", "UPDATE {table} SET image = NULL WHERE id = 1"),
    ("truncate", "TRUNCATE {table}"),
    (
        "merge",
        "MERGE INTO {table} AS photo
            USING (SELECT id, image FROM pictures, unnest(ARRAY[1, 5]) AS id WHERE number = 2) AS new
            ON photo.id = new.id WHEN MATCHED THEN UPDATE SET image = new.image
            WHEN NOT MATCHED THEN INSERT VALUES (new.id, 'p', new.image)",
    ),
    (
        "upsert",
        "INSERT INTO {table} SELECT 1, 'p', image FROM pictures WHERE number = 2
            ON CONFLICT (id) DO UPDATE SET image = EXCLUDED.image",
    ),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Maintenance {
    Backfill,
    Verify,
    Migrate,
    Retry,
}

const ALL: [Maintenance; 4] =
    [Maintenance::Backfill, Maintenance::Verify, Maintenance::Migrate, Maintenance::Retry];

#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Commit,
    Rollback,
}

#[test]
fn writes_and_maintenance_leave_no_difference_in_sync_mode() {
    every_pair("sync");
}

#[test]
fn writes_and_maintenance_leave_no_difference_in_async_mode() {
    every_pair("async");
}

fn every_pair(mode: &str) {
    let cluster = cluster_of_two_models();
    let (mut pairs, mut wrong) = (0, String::new());
    for end in [End::Commit, End::Rollback] {
        let database = database(&cluster);
        for maintenance in ALL {
            for (write, differences) in beside(&database, mode, maintenance, end, &WRITES) {
                pairs += 1;
                if !differences.is_empty() {
                    writeln!(wrong, "{mode} {write} {end:?} beside {maintenance:?}: {differences:?}")
                        .expect("memory");
                }
            }
        }
    }
    println!("{pairs} pairs in {mode} mode");
    assert!(wrong.is_empty(), "of {pairs} pairs, these are wrong:\n{wrong}");
}

/// A database with the pictures that the tables are filled from.
pub(super) fn database(cluster: &TestCluster) -> TestDatabase {
    let database = cluster.database();
    let mut client = database.connect();
    run(
        &mut client,
        "CREATE TABLE pictures (number int PRIMARY KEY, image bytea);
        CREATE TABLE later (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, project text, image bytea);
        SELECT clip_watch('later', target => 'later_embeddings', mode => 'async')",
    );
    let insert = "INSERT INTO pictures SELECT number - 1, image FROM unnest($1::bytea[]) WITH ORDINALITY AS t (image, number)";
    client.execute(insert, &[&&demo_photos()[..4]]).expect("the pictures are stored");
    database
}

/// Plays each kind of writing beside the maintenance; returns the differences that it left.
pub(super) fn beside(
    database: &TestDatabase,
    mode: &str,
    maintenance: Maintenance,
    end: End,
    writes: &[(&'static str, &str)],
) -> Vec<(&'static str, Differences)> {
    let mut client = database.connect();
    let tables: Vec<String> =
        writes.iter().map(|(write, _)| format!("{maintenance:?}_{write}").to_lowercase()).collect();
    prepare(&mut client, mode, maintenance, &tables);

    let mut sessions = Sessions::new(database);
    sessions.run("writer", "BEGIN");
    for ((_, write), table) in writes.iter().zip(&tables) {
        sessions.run("writer", &write.replace("{table}", table));
    }
    for ((write, _), table) in writes.iter().zip(&tables) {
        let state = Beside { is_locked: *write == "truncate", is_alone: writes.len() == 1 };
        maintain(&mut sessions, maintenance, table, &state);
    }
    let end = match end {
        End::Commit => "COMMIT",
        End::Rollback => "ROLLBACK",
    };
    sessions.run("writer", end);
    for table in &tables {
        sessions.finish(table);
    }
    wait_for_the_queue(&mut client);
    let model = if maintenance == Maintenance::Migrate { OTHER_MODEL } else { "demo" };
    let compared = writes.iter().zip(&tables).map(|((write, _), table)| {
        (*write, Differences::between(&mut client, table, &format!("{table}_embeddings"), model))
    });
    let found = compared.collect();
    let drops: String = tables.iter().fold(String::new(), |drops, table| {
        format!("{drops} SELECT clip_unwatch('{table}'); DROP TABLE {table}, {table}_embeddings;")
    });
    run(&mut client, &drops);
    found
}

/// Fills the tables with photos that want the maintenance, and one that does not: the first photo of a target is another
/// case.
fn prepare(client: &mut Client, mode: &str, maintenance: Maintenance, tables: &[String]) {
    for table in tables {
        run(
            client,
            &format!(
                "CREATE TABLE {table} (id int PRIMARY KEY, project text, image bytea);
                SELECT clip_watch('{table}', target => '{table}_embeddings', mode => '{mode}');
                INSERT INTO {table} SELECT 3, 'p', image FROM pictures WHERE number = 0"
            ),
        );
    }
    wait_for_the_queue(client);
    for table in tables {
        let image = if maintenance == Maintenance::Retry { "'broken'" } else { "image" };
        silently(
            client,
            table,
            &format!(
                "INSERT INTO {table} SELECT id, 'p', {image} FROM pictures, unnest(ARRAY[1, 2, 9]) AS id WHERE number = 0"
            ),
        );
        if maintenance != Maintenance::Backfill {
            run(client, &format!("CALL clip_backfill('{table}')"));
        }
        match maintenance {
            Maintenance::Backfill | Maintenance::Migrate => {}
            // Missing, stale and orphaned rows.
            Maintenance::Verify => silently(
                client,
                table,
                &format!(
                    "UPDATE {table} SET image = (SELECT image FROM pictures WHERE number = 3) WHERE id IN (1, 9);
                    DELETE FROM {table} WHERE id = 2;
                    INSERT INTO {table} SELECT 7, 'p', image FROM pictures WHERE number = 1"
                ),
            ),
            // Photos that failed and are whole now, without a trigger that has seen it.
            Maintenance::Retry => silently(
                client,
                table,
                &format!("UPDATE {table} SET image = (SELECT image FROM pictures WHERE number = 0)"),
            ),
        }
    }
}

/// Writes without firing the triggers.
fn silently(client: &mut Client, table: &str, statements: &str) {
    let disabled = format!(
        "BEGIN; ALTER TABLE {table} DISABLE TRIGGER USER; {statements}; ALTER TABLE {table} ENABLE TRIGGER USER; COMMIT"
    );
    run(client, &disabled);
}

/// The transaction's effect on the table that is maintained.
struct Beside {
    /// It has locked the table.
    is_locked: bool,
    /// It has written to no other table: where the queue waits for it, the queue is at this table.
    is_alone: bool,
}

/// Starts the maintenance of a table in a session of its name, and returns when it waits, or the queue has been at it.
fn maintain(sessions: &mut Sessions, maintenance: Maintenance, table: &str, beside: &Beside) {
    let statement = match maintenance {
        Maintenance::Backfill => format!("CALL clip_backfill('{table}')"),
        Maintenance::Verify => format!("CALL clip_backfill('{table}', verify => true)"),
        Maintenance::Migrate => {
            format!("CALL clip_migrate('{table}_embeddings', '{OTHER_MODEL}', set_default => false)")
        }
        Maintenance::Retry => format!("SELECT clip_retry('{table}')"),
    };
    let is_embedded = format!(
        "SELECT EXISTS (SELECT FROM {table}_embeddings
            WHERE image_id = 9 AND checksum = sha256((SELECT image FROM pictures WHERE number = {})))",
        if maintenance == Maintenance::Verify { 3 } else { 0 }
    );
    // A migration may wait for the transaction without a lock.
    let is_asleep = format!(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query = '{}' AND wait_event = 'PgSleep')",
        statement.replace('\'', "''")
    );
    let has_been_there = |sessions: &mut Sessions| {
        !beside.is_locked && value(sessions.observer(), &is_embedded)
            || beside.is_alone && sessions.block_the_queue()
    };
    let step = sessions.start_until(table, &statement, |sessions| match maintenance {
        Maintenance::Migrate => value(sessions.observer(), &is_asleep),
        // A backfill waits for the queue, which may leave the photo of the transaction for later.
        _ => has_been_there(sessions),
    });
    if maintenance == Maintenance::Retry && step == Step::Done {
        let later_is_embedded = store_later(sessions.observer());
        wait_until("the queue has been at the table", PATIENCE, || match beside.is_locked {
            false => has_been_there(sessions),
            true => value(sessions.observer(), &later_is_embedded),
        });
    }
}

/// Stores a photo in another table; returns the query that tells whether it is embedded.
fn store_later(client: &mut Client) -> String {
    let insert = "INSERT INTO later (image) SELECT image FROM pictures WHERE number = 0 RETURNING id";
    let id: i64 = value(client, insert);
    format!("SELECT EXISTS (SELECT FROM later_embeddings WHERE image_id = {id})")
}
