//! What a connection that embeds costs in memory, and the embedder.

use pg_clip_tests::{TestCluster, demo_photo, mean_pss, value};

use crate::tally::report;

pub(crate) fn measure() {
    const CONNECTIONS: u32 = 100;
    let cluster = TestCluster::preloaded();
    let database = cluster.database();
    let photo = demo_photo();
    let plain = mean_pss(&database, CONNECTIONS, |client| {
        client.query("SELECT sha256($1), upper('a dog')", &[&photo]).expect("a query");
    });
    let embedding = mean_pss(&database, CONNECTIONS, |client| {
        client.query("SELECT clip_embed_image($1), clip_embed_text('a dog')", &[&photo]).expect("a query");
    });
    let more = embedding.saturating_sub(plain);
    report(
        "PSS of a connection that has embedded, above one that has not",
        &format!("{more:9} kB (mean of 100)"),
    );
    let embedder: i64 = value(&mut database.connect(), "SELECT resident_bytes FROM clip_status");
    report("resident memory of the embedder with the demo model", &format!("{:9} kB", embedder / 1024));
}
