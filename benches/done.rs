//! What pg_clip keeps of photos that are done, and what the next photos cost, beside 10,000, 100,000 and 1,000,000 of them.

use pg_clip_tests::{TestCluster, cost_of_the_next, grow_to, made_up, own_tables, run};

use crate::tally::report;

const PHOTOS: i64 = 32;

pub(crate) fn measure() {
    let cluster = TestCluster::preloaded_with(&[("autovacuum", "off"), ("max_wal_size", "4GB")]);
    let (_database, mut client) = made_up(&cluster);
    for photos in [10_000, 100_000, 1_000_000] {
        grow_to(&mut client, photos);
        let cost = cost_of_the_next(&mut client, PHOTOS);
        for (what, blocks) in [
            ("blocks of pg_clip's tables and the target that the INSERT reads", cost.enqueued),
            ("blocks of source, target and queue, up to the last vector", cost.all),
            ("  of them, blocks of pg_clip's tables", cost.own),
            ("blocks that clip_backlog reads", cost.backlog),
            ("blocks that clip_failures reads", cost.failures),
        ] {
            report(&format!("{PHOTOS} photos beside {photos}: {what}"), &format!("{blocks:9}"));
        }
        run(&mut client, "CHECKPOINT");
        let tables = own_tables(&mut client);
        let bytes: i64 = tables.values().map(|(_, bytes)| bytes).sum();
        let rows: i64 = tables.values().map(|(rows, _)| rows).sum();
        report(
            &format!("  rows and bytes of pg_clip's {} tables", tables.len()),
            &format!("{rows:9}, {bytes}"),
        );
    }
}
