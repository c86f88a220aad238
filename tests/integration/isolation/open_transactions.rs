//! Maintenance beside a transaction that is open: its later commit has the last word.

use pg_clip_tests::TestCluster;
use pg_clip_tests::isolation::Differences;

use super::pairs::{End, Maintenance, WRITES, beside, database};

#[test]
fn an_open_update_ends_with_the_vector_of_its_bytes() {
    check("update_image");
}

#[test]
fn an_open_delete_leaves_no_vector() {
    check("delete");
}

#[test]
fn an_open_set_null_leaves_no_vector() {
    check("set_null");
}

#[test]
fn an_open_change_of_the_key_leaves_one_vector() {
    check("update_key");
}

#[test]
fn an_open_change_of_the_project_is_carried_over() {
    check("update_project");
}

fn check(write: &str) {
    let cluster = TestCluster::shared();
    let write: Vec<_> = WRITES.into_iter().filter(|(name, _)| *name == write).collect();
    for mode in ["sync", "async"] {
        for maintenance in [Maintenance::Backfill, Maintenance::Verify, Maintenance::Retry] {
            let found = beside(&database(&cluster), mode, maintenance, End::Commit, &write);
            assert_eq!(found, [(write[0].0, Differences::default())], "{maintenance:?} in {mode} mode");
        }
    }
}
