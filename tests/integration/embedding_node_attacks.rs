//! Faults of an embedding node: deaths, a wrong order of the set-up, writers on both sides, other owners.

use pg_clip_tests::{
    PATIENCE, Signal, TestCluster, demo_photos, embedder, is_alive, run, send, value, wait_for_the_queue,
    wait_until, wait_until_equal,
};
use postgres::Client;

use crate::embedding_node::{Nodes, OPTIONS, PHOTOS, WRONG, inferences, insert};

/// The errors of a subscription's apply worker so far.
const APPLY_ERRORS: &str = "SELECT apply_error_count FROM pg_stat_subscription_stats";

#[test]
fn a_node_that_is_killed_loses_nothing_and_doubles_nothing() {
    let nodes = Nodes::all();
    let mut shop = nodes.shop.connect();
    for round in 0..4 {
        let mut copy = nodes.copy.connect();
        let first = 20 * round + 1;
        insert(&mut shop, first, first + 19);
        // Once with jobs that wait, and then with some vectors on their way back.
        let stopped = embedder(&mut copy);
        if round % 2 == 0 {
            send(stopped, Signal::SIGSTOP);
        }
        run(
            &mut shop,
            &format!(
                "UPDATE photos SET image = image || '\\x0{round}' WHERE id % 5 = {round};
                DELETE FROM photos WHERE id % 10 = {round} AND id < {first} + 10"
            ),
        );
        wait_until("something has arrived", PATIENCE, || {
            value::<bool>(&mut copy, &format!("SELECT EXISTS (SELECT FROM photos WHERE id = {first} + 18)"))
        });
        kill(&nodes.node);
        run(&mut shop, &format!("UPDATE photos SET project = 'round {round}' WHERE id % 4 = 0"));
        nodes.node.server.start().expect("the node starts again");
    }
    let mut copy = nodes.copy.connect();
    nodes.settle(&mut shop, &mut copy);
    assert_eq!(value::<i64>(&mut shop, WRONG), 0);
    let photos = "SELECT count(*) FROM photos";
    assert_eq!(
        value::<i64>(&mut shop, "SELECT count(*) FROM image_embeddings"),
        value::<i64>(&mut shop, photos)
    );
    assert_eq!(value::<i64>(&mut copy, "SELECT count(*) FROM clip_failures"), 0);
}

#[test]
fn an_application_server_that_is_away_for_a_while_gets_all_vectors() {
    let nodes = Nodes::all();
    let (mut shop, mut copy) = (nodes.shop.connect(), nodes.copy.connect());
    insert(&mut shop, 1, 20);
    wait_until_equal(&mut shop, &mut copy, "photos");
    drop(shop);
    kill(&nodes.application);
    wait_for_the_queue(&mut copy);
    nodes.application.server.start().expect("the application server starts again");
    let mut shop = nodes.shop.connect();
    run(
        &mut shop,
        "UPDATE photos SET image = image || '\\x00' WHERE id < 5; DELETE FROM photos WHERE id = 6",
    );
    nodes.settle(&mut shop, &mut copy);
    assert_eq!(value::<i64>(&mut shop, WRONG), 0);
    assert_eq!(value::<i64>(&mut shop, "SELECT count(*) FROM image_embeddings"), 19);
}

/// Ends all processes of a server without a warning.
fn kill(cluster: &TestCluster) {
    let family = cluster.processes();
    let postmaster = cluster.postmaster_pid();
    send(postmaster, Signal::SIGKILL);
    for process in &family {
        if is_alive(process.pid) {
            send(process.pid, Signal::SIGKILL);
        }
    }
    for pid in family.iter().map(|process| process.pid).chain([postmaster]) {
        wait_until(&format!("the end of process {pid}"), PATIENCE, || !is_alive(pid));
    }
    // A process that has ended has its number until its parent asks for it, and PostgreSQL takes it for one that runs.
    let locks =
        [cluster.server.data().join("postmaster.pid"), cluster.server.sockets().join(".s.PGSQL.5432.lock")];
    for lock in locks {
        std::fs::remove_file(lock).expect("a lock file is removed");
    }
}

#[test]
fn a_watch_that_comes_after_the_photos_is_filled_in() {
    let nodes = Nodes::start();
    let (mut shop, mut copy) = (nodes.shop.connect(), nodes.copy.connect());
    run(&mut shop, PHOTOS);
    run(&mut copy, PHOTOS);
    insert(&mut shop, 1, 10);
    nodes.subscribe_to_photos();
    wait_until_equal(&mut shop, &mut copy, "photos");
    // A watch without `replicated` ignores replicated rows.
    run(&mut copy, "SELECT clip_watch('photos', mode => 'async')");
    insert(&mut shop, 11, 20);
    wait_until_equal(&mut shop, &mut copy, "photos");
    wait_for_the_queue(&mut copy);
    assert_eq!(value::<i64>(&mut copy, "SELECT count(*) FROM image_embeddings"), 0);
    run(&mut copy, "SELECT clip_watch('photos', replicated => true)");
    insert(&mut shop, 21, 30);
    run(&mut copy, "CALL clip_backfill('photos')");
    run(&mut shop, "SELECT clip_watch('photos', mode => 'async')");
    nodes.subscribe_to_vectors();
    nodes.settle(&mut shop, &mut copy);
    assert_eq!(value::<i64>(&mut shop, "SELECT count(*) FROM image_embeddings"), 30);
    assert_eq!(inferences(&mut shop), 0);
    // Watched again without it, it ignores them again.
    run(&mut copy, "SELECT clip_watch('photos', mode => 'async')");
    insert(&mut shop, 31, 32);
    wait_until_equal(&mut shop, &mut copy, "photos");
    assert_eq!(value::<i64>(&mut copy, "SELECT missing FROM clip_coverage"), 2);
    assert_eq!(value::<i64>(&mut shop, WRONG), 2);
}

/// The application server had jobs and vectors of its own before it was given a node.
#[test]
fn a_node_that_comes_later_takes_over() {
    let nodes = Nodes::start();
    nodes.watch();
    let (mut shop, mut copy) = (nodes.shop.connect(), nodes.copy.connect());
    insert(&mut shop, 1, 10);
    wait_for_the_queue(&mut shop);
    run(&mut shop, "CREATE PUBLICATION photos FOR TABLE photos, image_embeddings");
    pg_clip_tests::subscribe(&mut copy, "photos", &nodes.application, &nodes.shop, OPTIONS);
    // Its watch rests as long as the vectors come to it.
    wait_until_equal(&mut shop, &mut copy, "photos");
    wait_until_equal(&mut shop, &mut copy, "image_embeddings");
    run(&mut shop, "ALTER PUBLICATION photos DROP TABLE image_embeddings");
    run(&mut copy, "ALTER SUBSCRIPTION photos REFRESH PUBLICATION");
    run(&mut copy, "CREATE PUBLICATION vectors FOR TABLE image_embeddings");
    // Jobs that the application server has not come to.
    let stopped = embedder(&mut shop);
    send(stopped, Signal::SIGSTOP);
    insert(&mut shop, 11, 15);
    pg_clip_tests::subscribe(
        &mut shop,
        "vectors",
        &nodes.node,
        &nodes.copy,
        "WITH (origin = none, copy_data = false)",
    );
    send(stopped, Signal::SIGCONT);
    wait_for_the_queue(&mut shop);
    run(&mut copy, "CALL clip_backfill('photos')");
    insert(&mut shop, 16, 20);
    run(
        &mut shop,
        "UPDATE photos SET image = image || '\\x00' WHERE id = 1; DELETE FROM photos WHERE id = 2",
    );
    nodes.settle(&mut shop, &mut copy);
    assert_eq!(value::<i64>(&mut shop, WRONG), 0);
    assert_eq!(value::<i64>(&mut shop, "SELECT count(*) FROM image_embeddings"), 19);
    assert_eq!(inferences(&mut copy), 11, "the vectors of before are kept");
}

/// A photo that is written to the node itself stops the subscription when one of the same key comes. Nothing is lost.
#[test]
fn a_photo_of_the_node_that_is_in_the_way_stops_the_photos_until_it_is_gone() {
    let nodes = Nodes::all();
    let (mut shop, mut copy) = (nodes.shop.connect(), nodes.copy.connect());
    insert(&mut copy, 5, 5);
    wait_for_the_queue(&mut copy);
    insert(&mut shop, 1, 10);
    wait_until("the subscription has met the photo", PATIENCE, || value::<i64>(&mut copy, APPLY_ERRORS) > 0);
    insert(&mut shop, 11, 12);
    run(&mut copy, "DELETE FROM photos");
    nodes.settle(&mut shop, &mut copy);
    assert_eq!(value::<i64>(&mut shop, WRONG), 0);
    assert_eq!(value::<i64>(&mut shop, "SELECT count(*) FROM image_embeddings"), 12);
}

#[test]
fn writers_on_the_application_server_make_no_second_vector() {
    let nodes = Nodes::start();
    run(&mut nodes.shop.connect(), &format!("{PHOTOS}; SELECT clip_watch('photos', mode => 'sync')"));
    run(&mut nodes.copy.connect(), &format!("{PHOTOS}; SELECT clip_watch('photos', replicated => true)"));
    nodes.subscribe_to_photos();
    nodes.subscribe_to_vectors();
    let (mut shop, mut copy) = (nodes.shop.connect(), nodes.copy.connect());
    std::thread::scope(|scope| {
        for session in 0..4 {
            let mut client = nodes.shop.connect();
            scope.spawn(move || {
                for photo in 0..5 {
                    insert(&mut client, 5 * session + photo + 1, 5 * session + photo + 1);
                }
            });
        }
    });
    nodes.settle(&mut shop, &mut copy);
    assert_eq!(inferences(&mut shop), 0);
    assert_eq!(value::<i64>(&mut shop, WRONG), 0);
    assert_eq!(value::<i64>(&mut shop, APPLY_ERRORS), 0);
    assert_eq!(value::<i64>(&mut copy, APPLY_ERRORS), 0);
}

/// An error of the target makes the vectors wait, and no photo: the publisher keeps no WAL for it.
#[test]
fn a_target_of_another_owner_makes_vectors_wait_and_no_photo() {
    let nodes = Nodes::all();
    let (mut shop, mut copy) = (nodes.shop.connect(), nodes.copy.connect());
    insert(&mut shop, 1, 10);
    nodes.settle(&mut shop, &mut copy);
    run(&mut copy, "CREATE ROLE other; ALTER TABLE image_embeddings OWNER TO other");
    insert(&mut shop, 11, 20);
    run(
        &mut shop,
        "UPDATE photos SET image = image || '\\x00' WHERE id = 1; DELETE FROM photos WHERE id = 2;
        UPDATE photos SET project = 'p' WHERE id = 3",
    );
    wait_until_equal(&mut shop, &mut copy, "photos");
    wait_until("the reason is written down", PATIENCE, || {
        value::<Option<String>>(&mut copy, "SELECT waits_for FROM clip_coverage")
            .is_some_and(|reason| reason.contains("owner"))
    });
    run(&mut shop, "TRUNCATE photos");
    insert(&mut shop, 15, 25);
    wait_until_equal(&mut shop, &mut copy, "photos");
    assert_eq!(value::<i64>(&mut copy, APPLY_ERRORS), 0);
    // The log of the node says to call it.
    run(&mut copy, "ALTER TABLE image_embeddings OWNER TO postgres; SELECT clip_retry()");
    run(&mut copy, "CALL clip_backfill('photos', verify => true)");
    nodes.settle(&mut shop, &mut copy);
    assert_eq!(value::<i64>(&mut shop, "SELECT count(*) FROM image_embeddings"), 11);
    assert_eq!(value::<i64>(&mut shop, WRONG), 0);
}

/// A table that an ordinary role owns, with triggers that tell as whom they run.
#[test]
fn a_node_works_on_a_table_as_its_owner() {
    let nodes = Nodes::start();
    let (mut shop, mut copy) = (nodes.shop.connect(), nodes.copy.connect());
    run(&mut shop, &format!("{PHOTOS}; SELECT clip_watch('photos', mode => 'async')"));
    run(&mut copy, "CREATE ROLE keeper; GRANT CREATE ON SCHEMA public TO keeper; SET ROLE keeper");
    run(
        &mut copy,
        &format!(
            "{PHOTOS}; SELECT clip_watch('photos', replicated => true);
            CREATE TABLE roles (role name);
            CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN INSERT INTO public.roles VALUES (current_user); RETURN NEW; END $$;
            CREATE TRIGGER tell BEFORE INSERT OR UPDATE ON photos FOR EACH ROW EXECUTE FUNCTION tell();
            CREATE TRIGGER tell BEFORE INSERT OR UPDATE ON image_embeddings FOR EACH ROW EXECUTE FUNCTION tell();
            ALTER TABLE photos ENABLE ALWAYS TRIGGER tell; ALTER TABLE image_embeddings ENABLE ALWAYS TRIGGER tell;
            RESET ROLE"
        ),
    );
    nodes.subscribe_to_photos();
    nodes.subscribe_to_vectors();
    insert(&mut shop, 1, 5);
    nodes.settle(&mut shop, &mut copy);
    // The first copy runs as the owner of the subscription before PostgreSQL 16.
    let of_the_target = "SELECT count(*) FROM roles WHERE role = 'keeper'";
    assert!(value::<i64>(&mut copy, of_the_target) >= 5);
    assert_eq!(value::<i64>(&mut shop, WRONG), 0);
}

/// A photo that no decoder takes stops neither the photos nor the vectors behind it.
#[test]
fn a_photo_that_cannot_be_decoded_stops_nothing() {
    let nodes = Nodes::all();
    let (mut shop, mut copy) = (nodes.shop.connect(), nodes.copy.connect());
    run(&mut shop, "INSERT INTO photos (id, image) VALUES (1000, 'no photo')");
    insert(&mut shop, 1, 5);
    wait_until_equal(&mut shop, &mut copy, "photos");
    wait_for_the_queue(&mut copy);
    assert_eq!(value::<String>(&mut copy, "SELECT key FROM clip_failures"), "1000");
    replace(&mut shop, 1000);
    nodes.settle(&mut shop, &mut copy);
    assert_eq!(value::<i64>(&mut copy, "SELECT count(*) FROM clip_failures"), 0);
    run(&mut shop, "UPDATE photos SET image = 'none again' WHERE id = 1000");
    nodes.settle(&mut shop, &mut copy);
    let vector = "SELECT count(*) FROM image_embeddings WHERE image_id = 1000";
    assert_eq!(value::<i64>(&mut shop, vector), 0, "the vector of other bytes has gone");
    run(&mut shop, "DELETE FROM photos WHERE id = 1000");
    nodes.settle(&mut shop, &mut copy);
    assert_eq!(value::<i64>(&mut copy, "SELECT count(*) FROM clip_failures"), 0);
    assert_eq!(value::<i64>(&mut shop, WRONG), 0);
}

fn replace(client: &mut Client, id: i64) {
    let photo = &demo_photos()[50];
    client.execute("UPDATE photos SET image = $1 WHERE id = $2", &[photo, &id]).expect("other bytes");
}

/// A job that needs no inference does not wait behind a backlog.
#[test]
fn a_deleted_photo_does_not_wait_for_earlier_photos() {
    let nodes = Nodes::all();
    let (mut shop, mut copy) = (nodes.shop.connect(), nodes.copy.connect());
    insert(&mut shop, 1, 2);
    nodes.settle(&mut shop, &mut copy);
    let stopped = embedder(&mut copy);
    send(stopped, Signal::SIGSTOP);
    // More than the worker claims while the embedder answers nothing.
    insert(&mut shop, 3, 200);
    run(&mut shop, "DELETE FROM photos WHERE id = 1");
    // The worker may have it already.
    let next = "SELECT COALESCE(
        (SELECT key FROM clip_queue WHERE claimed AND key = '1'),
        (SELECT key FROM clip_queue WHERE NOT claimed ORDER BY run_at LIMIT 1))";
    wait_until("the job of the deleted photo is the next one", PATIENCE, || {
        copy.query_opt(next, &[])
            .expect("a query")
            .is_some_and(|row| row.get::<_, Option<&str>>(0) == Some("1"))
    });
    send(stopped, Signal::SIGCONT);
    nodes.settle(&mut shop, &mut copy);
    assert_eq!(value::<i64>(&mut shop, WRONG), 0);
}
