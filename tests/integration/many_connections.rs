//! What many connections of one role cost, and what they get.

use pg_clip_tests::{TestCluster, pss_of_embedding, value};

#[test]
fn a_connection_that_has_embedded_takes_less_than_2_mb_more() {
    let cluster = TestCluster::preloaded();
    let more = pss_of_embedding(&cluster.database(), 100);
    assert!(more < 2048, "{more} kB");
}

/// Of 4,096 requests that may wait, a role has half at most.
#[test]
fn what_a_role_asks_for_beyond_its_share_waits() {
    let cluster = TestCluster::shared();
    let database = cluster.database();
    std::thread::scope(|scope| {
        for connection in 0..25 {
            let database = &database;
            scope.spawn(move || {
                let query = format!(
                    "SELECT cardinality(clip_embed_texts(array_agg('{connection} and ' || number)))
                    FROM generate_series(1, 150) AS number"
                );
                assert_eq!(value::<i32>(&mut database.connect(), &query), 150);
            });
        }
    });
}
