//! The costs of many connections of one role, and their answers.

use std::sync::Barrier;

use pg_clip_tests::{TestCluster, demo_photos, pss_of_embedding, run, value};

#[test]
fn a_connection_that_has_embedded_takes_less_than_2_mb_more() {
    let cluster = TestCluster::preloaded();
    let more = pss_of_embedding(&cluster.database(), 100);
    assert!(more < 2048, "{more} kB");
}

/// Of 4,096 requests that may wait, a role has half at most.
#[test]
fn requests_beyond_a_roles_share_wait() {
    const CONNECTIONS: usize = 60;
    let cluster = TestCluster::preloaded();
    let database = cluster.database();
    let mut client = database.connect();
    run(&mut client, "CREATE TABLE pictures (image bytea)");
    let insert = "INSERT INTO pictures SELECT unnest($1::bytea[])";
    client.execute(insert, &[&&demo_photos()[..100]]).expect("pictures are stored");
    let all_are_connected = Barrier::new(CONNECTIONS);
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| {
                let mut client = database.connect();
                run(&mut client, "SELECT clip_embed_text('start')");
                all_are_connected.wait();
                let embed = "SELECT cardinality(clip_embed_images(array_agg(image))) FROM pictures";
                assert_eq!(value::<i32>(&mut client, embed), 100);
            });
        }
    });
}
