//! Photo search in psql, by a role that is no superuser.

use std::fs;
use std::path::{Path, PathBuf};

use pg_clip_tests::{TestCluster, repository, repository_file, run};
use xtask::psql::client;

const PHOTOS: [(&str, &str); 6] = [
    ("kitchen", "pizza-2.jpg"),
    ("kitchen", "sushi-1.webp"),
    ("kitchen", "taco-1.jpg"),
    ("music", "guitar-1.jpg"),
    ("music", "guitar-2.webp"),
    ("street", "bicycle-1.jpg"),
];

#[test]
fn an_analyst_searches_in_psql() {
    let cluster = TestCluster::shared();
    let database = cluster.database();
    let owner = format!("CREATE ROLE analyst LOGIN; ALTER DATABASE {} OWNER TO analyst", database.name());
    run(&mut database.connect(), &owner);
    let folder = folder();
    let mut psql = client(&cluster.server, "psql", database.name());
    psql.env("PGUSER", "analyst").current_dir(&folder);
    psql.args(["--no-psqlrc", "--quiet", "--no-align", "--set=ON_ERROR_STOP=1"]);
    psql.args(["--set=words=a slice of pizza", "--set=photo=pizza-1.jpg"]);
    let output =
        psql.arg("--file").arg(repository().join("tests/psql/photo-search.sql")).output().expect("psql");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaints}");
    assert!(complaints.contains("ERROR:  JPEG image cannot be decoded"), "{complaints}");

    let said = String::from_utf8_lossy(&output.stdout);
    let expected =
        String::from_utf8(repository_file("tests/psql/photo-search.out")).expect("a text in UTF-8");
    assert_eq!(said, expected, "{said}");
    let found = fs::read_to_string(folder.join("found.csv")).expect("the found photos");
    assert_eq!(found.lines().next(), Some("file"));
    assert!(found.lines().skip(1).all(|file| file.starts_with("guitar-")), "{found}");
    fs::remove_dir_all(folder).expect("the folder goes");
    run(
        &mut database.connect(),
        "REASSIGN OWNED BY analyst TO postgres; DROP OWNED BY analyst; DROP ROLE analyst",
    );
}

/// A folder with one photo, and the others in a file for `\copy`.
fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("analyst-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let photo = |file: &str| repository_file(&format!("models/demo/photos/{file}"));
    fs::write(folder.join("pizza-1.jpg"), photo("pizza-1.jpg")).expect("a photo is written");
    let row = |(project, file): &(&str, &str)| {
        let digits: String = photo(file).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{project}\t{file}\t\\\\x{digits}\n")
    };
    fs::write(folder.join("photos.tsv"), PHOTOS.iter().map(row).collect::<String>())
        .expect("rows are written");
    folder
}
