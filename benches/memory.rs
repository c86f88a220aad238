//! The memory that a connection that embeds costs, and that of the embedder.

use pg_clip_tests::{TestCluster, pss_of_embedding, value};

use crate::tally::report;

pub(crate) fn measure() {
    let cluster = TestCluster::preloaded();
    let database = cluster.database();
    let more = pss_of_embedding(&database, 100);
    report(
        "PSS of a connection that has embedded, above one that has not",
        &format!("{more:9} kB (mean of 100)"),
    );
    let embedder: i64 = value(&mut database.connect(), "SELECT resident_bytes FROM clip_status");
    report("resident memory of the embedder with the demo model", &format!("{:9} kB", embedder / 1024));
}
