//! The README's SQL runs as it is written there.

use pg_clip_tests::{TestCluster, repository, repository_file, run, value};

#[test]
fn the_sql_of_the_readme_runs_from_top_to_bottom() {
    let readme = String::from_utf8(repository_file("README.md")).expect("the README is UTF-8");
    let statements: Vec<&str> = readme
        .split("```sql\n")
        .skip(1)
        .map(|block| block.split_once("```").expect("a block ends").0)
        .collect();
    assert!(statements.len() > 12, "{} blocks", statements.len());

    // The server reads the photos as its own user.
    let cluster = TestCluster::preloaded();
    let folder = cluster.server.data();
    let photos = repository().join("models/demo/photos/queries");
    for (from, to) in [("pizza-1.jpg", "pizza.jpg"), ("dog-1.jpg", "other.jpg")] {
        std::fs::copy(photos.join(from), folder.join(to)).expect("a photo is copied");
    }
    let folder = folder.to_str().expect("a path in UTF-8").replace('\'', "''");

    let mut client = cluster.empty_database().connect();
    for block in statements {
        let block = block.replace("'/photos/", &format!("'{folder}/"));
        for statement in block.split_inclusive(";\n") {
            run(&mut client, statement);
        }
    }
    let query = "SELECT count(*) FROM image_embeddings WHERE project = 'kitchen'";
    assert_eq!(value::<i64>(&mut client, query), 1);
    let query = "SELECT count(*) FROM pg_trigger
        WHERE tgname LIKE 'clip_watch_%' AND tgrelid = 'customer_photos'::regclass";
    assert_eq!(value::<i64>(&mut client, query), 4);
}
