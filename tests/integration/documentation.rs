//! The documentation is true: every block of SQL runs as it is written, in order and from nothing, with psql in the
//! folder of the checkout; so do the commands that a test can run. The others are looked up in
//! `documentation_commands`.
//!
//! A page of docs/ continues the README's section "Getting started", as its first line says.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use pg_clip_tests::{
    Block, Page, PhotoFolder, README, S3Server, TestCluster, TestDatabase, cluster_of_models, models_of,
    repository, repository_file, run, value,
};
use xtask::psql;

use crate::documentation_commands::{is_run, needs_models};
use crate::documentation_servers::OF_SERVERS;

macro_rules! pages {
    ($($name:ident $path:literal)*) => {
        /// The pages whose blocks run, each in a test of its own.
        const PAGES: &[&str] = &[$($path),*];

        $(#[test]
        fn $name() {
            every_block_runs($path);
        })*
    };
}

pages! {
    the_readme_runs "README.md"
    the_page_on_development_runs "docs/development.md"
    the_page_on_errors_runs "docs/errors.md"
    the_page_on_functions_runs "docs/functions.md"
    the_page_on_models_runs "docs/models.md"
    the_page_on_operations_runs "docs/operations.md"
    the_page_on_performance_runs "docs/performance.md"
    the_page_on_scale_runs "docs/scale.md"
    the_page_on_searching_runs "docs/searching.md"
    the_page_on_settings_runs "docs/settings.md"
    the_page_on_sizing_runs "docs/sizing.md"
    the_page_on_stored_photos_runs "docs/stored-photos.md"
    the_page_on_views_runs "docs/views.md"
    the_page_on_watching_runs "docs/watching.md"
}

#[test]
fn every_page_with_blocks_that_run_has_its_test() {
    let with_blocks = Page::documentation().into_iter().filter(|page| page.blocks().iter().any(runs));
    let with_blocks: BTreeSet<String> = with_blocks.map(|page| page.path).collect();
    assert_eq!(with_blocks, PAGES.iter().chain(&OF_SERVERS).map(|path| (*path).to_owned()).collect());
}

#[test]
fn getting_started_works_on_the_server_that_it_points_at() {
    // That of `cargo xtask psql`, whose database has the extensions already.
    let cluster = TestCluster::preloaded();
    let database = cluster.database();
    let session = Session::new("getting-started");
    let outputs = session.run(&cluster, &database, &getting_started());
    assert!(outputs.len() > 4);
    let mut client = database.connect();
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 3);
    let triggers = "SELECT count(*) FROM pg_trigger
        WHERE tgname LIKE 'clip_watch_%' AND tgrelid = 'customer_photos'::regclass";
    assert_eq!(value::<i64>(&mut client, triggers), 4);
}

#[test]
fn the_code_for_prisma_is_that_of_the_tested_shop() {
    let of_the_shop =
        |file: &str| String::from_utf8(repository_file(&format!("tests/prisma/{file}"))).expect("UTF-8");
    let shop =
        ["photo-search.ts", "elsewhere.ts", "shop.ts", "prisma.config.ts", "schema.prisma"].map(of_the_shop);
    let blocks = ["docs/prisma.md", "docs/stored-photos.md"].map(|path| Page::read(path).blocks());
    for language in ["ts", "prisma"] {
        let mut excerpts = blocks.iter().flatten().filter(|block| block.language == language).peekable();
        assert!(excerpts.peek().is_some());
        for excerpt in excerpts {
            let found = shop.iter().any(|file| file.contains(&excerpt.text));
            assert!(found, "{}: not in the shop:\n{}", excerpt.place, excerpt.text);
        }
    }
    let [page, _] = &blocks;
    for (language, file) in [
        ("prisma", "schema.prisma"),
        ("ts", "prisma.config.ts"),
        ("pgsql", "migrations/20261124000000_init/migration.sql"),
        ("ts", "shop.ts"),
    ] {
        let whole = of_the_shop(file);
        let is_there = page.iter().any(|block| block.language == language && block.text == whole);
        assert!(is_there, "not the whole of {file}");
    }
    let package = of_the_shop("package.json");
    for line in page.iter().filter(|block| block.language == "sh").flat_map(|block| block.text.lines()) {
        for named in line.split(' ').filter(|word| word.rfind('@') > Some(0)) {
            let (name, version) = named.rsplit_once('@').expect("a version");
            assert!(package.contains(&format!("\"{name}\": \"{version}\"")), "{named}");
        }
    }
}

#[test]
fn the_dockerfile_is_that_of_the_examples() {
    let blocks = Page::documentation().into_iter().flat_map(|page| page.blocks());
    let shown: Vec<Block> = blocks.filter(|block| block.language == "dockerfile").collect();
    assert_eq!(shown.len(), 1);
    // cargo xtask package --try takes its steps.
    let file = String::from_utf8(repository_file("examples/container/Dockerfile")).expect("UTF-8");
    assert_eq!(shown[0].text, file, "{}", shown[0].place);
}

#[test]
fn the_documented_commands_fetch_photos_from_s3_and_from_a_folder() {
    let page = Page::read("docs/stored-photos.md").blocks();
    let readme = Page::read(README).blocks();
    let page = |language| texts(&page, |block| block.language == language);
    let readme =
        |language| texts(&readme, |block| block.language == language && block.heading == "Photos elsewhere");
    assert_eq!(page("sh"), readme("sh"), "the README shows the same commands");
    let cluster = TestCluster::preloaded();
    let photo = repository_file("models/demo/photos/queries/pizza-1.jpg");
    let s3 = S3Server::start();
    s3.make_bucket("photos");
    s3.store("photos", "customers/2026/pizza.jpg", &photo);
    let folder = PhotoFolder::new();
    folder.store("2026/pizza.jpg", &photo);
    let [(_, endpoint), ..] = s3.environment();
    for (statements, queries) in [(page("sql")[0], page("sql")[1]), (readme("sql")[0], "")] {
        for commands in page("sh") {
            let database = cluster.database();
            let mut client = database.connect();
            run(&mut client, &format!("DROP ROLE IF EXISTS photo_feeder; {statements}"));
            let host = cluster.server.sockets().display().to_string().replace('/', "%2F");
            let commands = commands
                .replace("@HOST/DATABASE", &format!("@localhost/{}?host={host}", database.name()))
                .replace("https://PROJECT.storage.supabase.co/storage/v1/s3", &endpoint)
                .replace("file:///srv/photos", &folder.address());
            let mut shell = Command::new("sh");
            shell.args(["-euc", &commands]).env("PATH", path_with(&cluster.server.postgres().program("")));
            let output = shell.output().expect("a shell runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            run(&mut client, queries);
            let embedded = "SELECT string_agg(image_id::text, ' ') FROM stored_embeddings";
            assert_eq!(value::<String>(&mut client, embedded), "1");
            let others = "SELECT count(*) FROM stored_photos WHERE id > 1
                AND id::text NOT IN (SELECT key FROM clip_failures WHERE sqlstate = '58P01')";
            assert_eq!(value::<i64>(&mut client, others), 0);
        }
    }
}

fn texts(blocks: &[Block], are_meant: impl Fn(&Block) -> bool) -> Vec<&str> {
    blocks.iter().filter(|block| are_meant(block)).map(|block| block.text.as_str()).collect()
}

/// Runs a page's blocks on a server of their own, and compares the answers that the page shows.
fn every_block_runs(path: &str) {
    let page = Page::read(path).blocks();
    let mut blocks = if path == README { Vec::new() } else { getting_started() };
    let before = blocks.len();
    let shown: Vec<(usize, String)> = page
        .windows(2)
        .enumerate()
        .filter(|(_, pair)| pair[0].language == "sql" && pair[1].language == "text")
        .map(|(position, pair)| {
            (before + page[..position].iter().filter(|block| runs(block)).count(), pair[1].text.clone())
        })
        .collect();
    blocks.extend(page.into_iter().filter(runs));
    let cluster = cluster_of_models(&[], &[]);
    let session = Session::new(path);
    session.write_program(&cluster);
    let outputs = session.run(&cluster, &cluster.empty_database(), &blocks);
    for (position, text) in shown {
        assert_eq!(without_margins(&outputs[position]), without_margins(&text), "{}", blocks[position].place);
    }
}

/// The blocks that every page of docs/ continues.
fn getting_started() -> Vec<Block> {
    let blocks = Page::read(README).blocks().into_iter();
    let blocks: Vec<Block> =
        blocks.filter(|block| block.heading == "Getting started" && block.language == "sql").collect();
    assert!(blocks.len() > 4, "the README has its section");
    blocks
}

fn runs(block: &Block) -> bool {
    block.language == "sql" || is_run(block)
}

/// One psql, which runs blocks one after the other, blocks of the shell in a shell of its own.
pub(crate) struct Session {
    folder: PathBuf,
}

impl Session {
    pub(crate) fn new(name: &str) -> Session {
        let name = name.replace('/', "-");
        let folder = std::env::temp_dir().join(format!("pg_clip-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder is made");
        Session { folder }
    }

    /// A program in front of the installed one that takes the cluster's models in place of the installed ones, which
    /// other tests use at the same time.
    fn write_program(&self, cluster: &TestCluster) {
        let program = self.folder.join("pg_clip_embedder");
        let script = format!(
            "#!/bin/sh\ncommand=$1\nshift\ncase $command in {}) exec '{installed}' $command --models-directory '{}' \"$@\" ;; \
             *) exec '{installed}' $command \"$@\" ;; esac\n",
            needs_models().join("|"),
            models_of(cluster).display(),
            installed = cluster.server.postgres().program("pg_clip_embedder").display(),
        );
        fs::write(&program, script).expect("a program is written");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it can be run");
    }

    /// Runs the blocks; returns the output of each.
    pub(crate) fn run(
        &self,
        cluster: &TestCluster,
        database: &TestDatabase,
        blocks: &[Block],
    ) -> Vec<String> {
        const MARK: &str = "### the next block";
        let mut script = "\\set ON_ERROR_STOP on\n".to_owned();
        for (number, block) in blocks.iter().enumerate() {
            let _ = writeln!(script, "\\echo '{MARK}'\n\\warn {}", block.place);
            if block.language == "sql" {
                script += &block.text;
                continue;
            }
            let file = self.folder.join(format!("{number}.sh"));
            fs::write(&file, &block.text).expect("a script is written");
            let _ = writeln!(
                script,
                "\\set ended `sh -eu '{0}' > '{0}.log' 2>&1 && echo true || echo false`\n\\if :ended\n\\else\n\\! cat '{0}.log' >&2\n\
                 SELECT 'these commands failed'::int;\n\\endif",
                file.display()
            );
        }
        let file = self.folder.join("blocks.sql");
        fs::write(&file, script).expect("a script is written");
        let mut psql = psql::client(&cluster.server, "psql", database.name());
        psql.args(["--no-psqlrc", "--quiet", "--file"]).arg(&file).current_dir(repository());
        let programs = path_with(&cluster.server.postgres().program(""));
        let output =
            psql.env("PATH", format!("{}:{programs}", self.folder.display())).output().expect("psql runs");
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{complaints}");
        let printed = String::from_utf8(output.stdout).expect("text");
        let outputs: Vec<String> = printed.split(&format!("{MARK}\n")).skip(1).map(str::to_owned).collect();
        assert_eq!(outputs.len(), blocks.len(), "{printed}");
        outputs
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn path_with(folder: &Path) -> String {
    format!("{}:{}", folder.display(), std::env::var("PATH").expect("a path"))
}

pub(crate) fn without_margins(text: &str) -> Vec<&str> {
    text.trim().lines().map(str::trim_end).filter(|line| !line.is_empty()).collect()
}
