//! Each object of the extension, and the roles that may use it: read from the catalogs, so that a new one cannot be
//! forgotten.

use pg_clip_tests::{TestCluster, repository_file};

#[test]
fn objects_and_their_privileges_are_as_written_down() {
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
        let has_path = line.contains("search_path=pg_catalog, pg_temp");
        assert_eq!(has_path, interpreted, "{line}");
    }
}
