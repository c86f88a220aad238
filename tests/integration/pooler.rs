//! Behind pgbouncer in transaction mode, where a connection to the server changes hands after each transaction.
//!
//! Statements are not prepared by name: pgbouncer carries prepared statements from 1.21 on only.

use std::thread;

use pg_clip_tests::{
    Pooler, Signal, TestCluster, demo_photo, demo_photos, run, send, sqlstate, value, wait_for_the_queue,
};
use postgres::Client;
use postgres::types::Type;

const PHOTOS: &str = "CREATE TABLE photos (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, image bytea);
    SELECT clip_watch('photos')";
const PHOTOS_ASYNC: &str =
    "CREATE TABLE photos (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, image bytea);
    SELECT clip_watch('photos', mode => 'async')";

#[test]
fn many_clients_share_two_connections() {
    many_clients_share_two_connections_to(PHOTOS);
}

#[test]
fn many_clients_share_two_connections_in_async_mode() {
    many_clients_share_two_connections_to(PHOTOS_ASYNC);
}

fn many_clients_share_two_connections_to(photos: &str) {
    const CLIENTS: usize = 40;
    let cluster = TestCluster::preloaded();
    let database = cluster.database();
    let mut direct = database.connect();
    run(&mut direct, photos);
    let pooler = Pooler::start(&cluster, 2, &["postgres"]);
    let photos = demo_photos();
    thread::scope(|scope| {
        for (number, photo) in photos[..CLIENTS].iter().enumerate() {
            let mut client = pooler.connect(&database, "postgres");
            let mut direct = database.connect();
            scope.spawn(move || {
                insert(&mut client, photo);
                for round in 0..5 {
                    let embed = format!("SELECT clip_embed_text('photo {number} of round {round}')::text");
                    let vector = answer(&mut client, &embed);
                    assert_eq!(vector, value::<String>(&mut direct, &embed));
                }
            });
        }
    });
    wait_for_the_queue(&mut direct);
    let wrong = "SELECT count(*) FROM photos FULL JOIN image_embeddings ON image_id = photos.id
        WHERE embedding IS DISTINCT FROM clip_embed_image(image)";
    assert_eq!(value::<i64>(&mut direct, wrong), 0);
    assert_eq!(value::<i64>(&mut direct, "SELECT count(*) FROM image_embeddings"), 40);
    let connections = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'pooled'";
    assert_eq!(value::<i64>(&mut direct, connections), 2);
}

#[test]
fn settings_of_a_clients_transaction_end_with_it() {
    let cluster = TestCluster::preloaded();
    let database = cluster.database();
    let mut direct = database.connect();
    run(&mut direct, PHOTOS);
    run(&mut direct, "CREATE ROLE uploader; GRANT INSERT ON photos TO uploader");
    let pooler = Pooler::start(&cluster, 1, &["postgres"]);
    let mut one = pooler.connect(&database, "postgres");
    let mut other = pooler.connect(&database, "postgres");
    let backend = answer(&mut one, "SELECT pg_backend_pid()::text");
    assert_eq!(answer(&mut other, "SELECT pg_backend_pid()::text"), backend);
    let embedded = |direct: &mut Client| value::<i64>(direct, "SELECT count(*) FROM image_embeddings");

    run(&mut one, "BEGIN; SET LOCAL ROLE uploader; SET LOCAL clip.enabled = off");
    insert(&mut one, &demo_photo());
    run(&mut one, "COMMIT");
    assert_eq!(embedded(&mut direct), 0);
    insert(&mut other, &demo_photo());
    assert_eq!(embedded(&mut direct), 1);
    assert_eq!(answer(&mut other, "SELECT current_user::text"), "postgres");

    run(&mut one, "BEGIN; SET LOCAL ROLE uploader");
    insert(&mut one, &demo_photo());
    let peek = one.simple_query("SELECT FROM image_embeddings").expect_err("not readable for an uploader");
    assert_eq!(sqlstate(&peek), "42501");
    run(&mut one, "ROLLBACK; BEGIN; SET LOCAL clip.model = 'absent'");
    let absent = one.simple_query("SELECT clip_embed_text('a dog')").expect_err("no such model");
    assert_eq!(sqlstate(&absent), "22023");
    run(&mut one, "ROLLBACK");
    run(&mut other, "SELECT clip_embed_text('a dog'), * FROM image_embeddings");
    assert_eq!(embedded(&mut direct), 1, "rolled back");
    assert_eq!(answer(&mut other, "SELECT pg_backend_pid()::text"), backend);
}

#[test]
fn the_settings_of_a_role_hold_for_its_own_connections() {
    let cluster = TestCluster::preloaded();
    let database = cluster.database();
    let mut direct = database.connect();
    run(&mut direct, PHOTOS);
    run(
        &mut direct,
        "CREATE ROLE adopter LOGIN; CREATE ROLE careful LOGIN; GRANT INSERT ON photos TO adopter, careful;
        ALTER ROLE careful SET clip.enabled = off",
    );
    let pooler = Pooler::start(&cluster, 1, &["adopter", "careful"]);
    for (round, role) in ["careful", "adopter", "careful", "adopter"].into_iter().enumerate() {
        insert(&mut pooler.connect(&database, role), &demo_photo());
        let embedded = value::<i64>(&mut direct, "SELECT count(*) FROM image_embeddings");
        assert_eq!(embedded, [0, 1, 1, 2][round], "{role}");
    }
}

#[test]
fn the_answer_to_a_cancelled_request_reaches_no_other_client() {
    let cluster = TestCluster::preloaded();
    let database = cluster.database();
    let mut direct = database.connect();
    let pizza: String = value(&mut direct, "SELECT clip_embed_text('a pizza')::text");
    let pooler = Pooler::start(&cluster, 1, &["postgres"]);
    let mut one = pooler.connect(&database, "postgres");
    let mut other = pooler.connect(&database, "postgres");
    let backend = answer(&mut one, "SELECT pg_backend_pid()::text");
    let embedder: i32 = value(&mut direct, "SELECT pid FROM clip_status");
    let embedder = u32::try_from(embedder).expect("a process id");

    send(embedder, Signal::SIGSTOP);
    run(&mut one, "BEGIN; SET LOCAL statement_timeout = '200ms'");
    let late = one.simple_query("SELECT clip_embed_text('a dog')");
    send(embedder, Signal::SIGCONT);
    assert_eq!(sqlstate(&late.expect_err("no embedder answers")), "57014");
    run(&mut one, "ROLLBACK");
    assert_eq!(answer(&mut other, "SELECT clip_embed_text('a pizza')::text"), pizza);
    assert_eq!(answer(&mut other, "SELECT pg_backend_pid()::text"), backend);
}

fn insert(client: &mut Client, photo: &[u8]) {
    let statement = "INSERT INTO photos (image) VALUES ($1)";
    client.query_typed(statement, &[(&photo, Type::BYTEA)]).expect("a photo is inserted");
}

/// The only value of a query, as a text.
fn answer(client: &mut Client, query: &str) -> String {
    client.query_typed_one(query, &[]).expect("an answer").get(0)
}
