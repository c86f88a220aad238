//! The memory that a connection keeps once it has embedded.

use pg_clip_tests::{TestCluster, pss_of_embedding};

#[test]
fn a_connection_that_has_embedded_takes_less_than_2_mb_more() {
    let cluster = TestCluster::preloaded();
    let more = pss_of_embedding(&cluster.database(), 100);
    assert!(more < 2048, "{more} kB");
}
