//! Each object of the extension, and who may use it: read from the catalogs, so that a new one cannot be forgotten.

use pg_clip_tests::{TestCluster, repository_file};

/// These end transactions, which PostgreSQL refuses to a procedure with a setting of its own.
const COMMITTING: [&str; 2] = ["procedure clip_backfill(", "procedure clip_migrate("];

#[test]
fn objects_and_their_privileges_are_those_written_down() {
    let cluster = TestCluster::shared();
    let query = String::from_utf8(repository_file("tests/data/privileges.sql")).expect("a query in UTF-8");
    let written = String::from_utf8(repository_file("tests/data/privileges.txt")).expect("lines in UTF-8");
    let rows = cluster.database().connect().query(&query, &[]).expect("the catalogs are read");
    let lines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(
        lines,
        written.lines().collect::<Vec<_>>(),
        "the head of privileges.sql says how to write it down"
    );

    for line in &lines {
        assert!(!line.contains("NO COMMENT"), "{line}");
        assert!(!line.contains("security definer"), "{line}");
        let interpreted = line.contains("; plpgsql") || line.contains("; sql");
        let committing = COMMITTING.iter().any(|name| line.starts_with(name));
        let has_path = line.contains("search_path=pg_catalog, pg_temp");
        assert_eq!(has_path, interpreted && !committing, "{line}");
    }
}
