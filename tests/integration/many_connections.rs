//! What a connection costs that has embedded.

use pg_clip_tests::{TestCluster, demo_photo, mean_pss};

#[test]
fn a_connection_that_has_embedded_takes_less_than_2_mb_more() {
    const CONNECTIONS: u32 = 100;
    let cluster = TestCluster::preloaded();
    let database = cluster.database();
    let photo = demo_photo();
    // Both kinds run a query of the same shape on the same photo, so that the difference is pg_clip's.
    let plain = mean_pss(&database, CONNECTIONS, |client| {
        client.query("SELECT sha256($1), upper('a dog')", &[&photo]).expect("a query");
    });
    let embedding = mean_pss(&database, CONNECTIONS, |client| {
        client.query("SELECT clip_embed_image($1), clip_embed_text('a dog')", &[&photo]).expect("a query");
    });
    let more = embedding.saturating_sub(plain);
    assert!(more < 2048, "{more} kB");
}
