//! The README's SQL runs as it is written there, and its TypeScript is that of an application which is tested.

use std::process::Command;

use pg_clip_tests::{PhotoFolder, S3Server, TestCluster, repository, repository_file, run, value};

#[test]
fn the_sql_of_the_readme_runs_from_top_to_bottom() {
    let readme = text("README.md");
    let statements = blocks(&readme, "sql");
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

#[test]
fn the_code_for_prisma_is_that_of_the_tested_shop() {
    let readme = text("README.md");
    let shop = ["elsewhere.ts", "shop.ts", "prisma.config.ts", "schema.prisma"]
        .map(|file| text(&format!("tests/prisma/{file}")));
    for language in ["ts", "prisma"] {
        let excerpts = blocks(&readme, language);
        assert!(!excerpts.is_empty());
        for excerpt in excerpts {
            assert!(shop.iter().any(|file| file.contains(excerpt)), "not in the shop:\n{excerpt}");
        }
    }
    let (_, section) = readme.split_once("\n## Prisma\n").expect("the section");
    for (language, file) in [
        ("prisma", "schema.prisma"),
        ("ts", "prisma.config.ts"),
        ("pgsql", "migrations/20261124000000_init/migration.sql"),
        ("ts", "shop.ts"),
    ] {
        let whole = text(&format!("tests/prisma/{file}"));
        assert!(blocks(section, language).contains(&whole.as_str()), "not the whole of {file}");
    }
    let package = text("tests/prisma/package.json");
    for line in blocks(section, "sh")[0].lines() {
        for named in line.split(' ').filter(|word| word.rfind('@') > Some(0)) {
            let (name, version) = named.rsplit_once('@').expect("a version");
            assert!(package.contains(&format!("\"{name}\": \"{version}\"")), "{named}");
        }
    }
}

fn text(path: &str) -> String {
    String::from_utf8(repository_file(path)).expect("a text in UTF-8")
}

#[test]
fn the_commands_of_the_readme_fetch_photos_from_s3_and_from_a_folder() {
    let readme = text("README.md");
    let (_, section) = readme.split_once("\n## My photos are in S3").expect("the section");
    let (section, _) = section.split_once("\n## ").expect("another section follows");
    let [statements, queries, ..] = blocks(section, "sql")[..] else {
        panic!("{section}");
    };
    let [from_s3, from_a_folder] = blocks(section, "sh")[..] else {
        panic!("{section}");
    };
    let cluster = TestCluster::preloaded();
    let photo = repository_file("models/demo/photos/queries/pizza-1.jpg");
    let s3 = S3Server::start();
    s3.make_bucket("photos");
    s3.store("photos", "customers/2026/pizza.jpg", &photo);
    let folder = PhotoFolder::new();
    folder.store("2026/pizza.jpg", &photo);
    let [(_, endpoint), ..] = s3.environment();
    for commands in [from_s3, from_a_folder] {
        let database = cluster.database();
        let mut client = database.connect();
        run(&mut client, &format!("DROP ROLE IF EXISTS photo_feeder; {statements}"));
        let host = cluster.server.sockets().display().to_string().replace('/', "%2F");
        let commands = commands
            .replace("@HOST/DATABASE", &format!("@localhost/{}?host={host}", database.name()))
            .replace("https://PROJECT.storage.supabase.co/storage/v1/s3", &endpoint)
            .replace("file:///srv/photos", &folder.address());
        let programs = cluster.server.postgres().program("");
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").expect("a path"));
        let output =
            Command::new("sh").args(["-euc", &commands]).env("PATH", path).output().expect("a shell runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        run(&mut client, queries);
        assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM stored_embeddings WHERE image_id = 1"), 1);
        assert_eq!(
            value::<String>(&mut client, "SELECT concat_ws(' ', key, sqlstate) FROM clip_failures"),
            "2 58P01"
        );
    }
}

/// What stands between the fences of the blocks in a language.
fn blocks<'a>(readme: &'a str, language: &str) -> Vec<&'a str> {
    let blocks = readme.split(&format!("```{language}\n")).skip(1).collect::<Vec<&str>>();
    blocks.into_iter().map(|block| block.split_once("```").expect("a block ends").0).collect()
}
