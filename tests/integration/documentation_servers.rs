//! The pages on several servers: each block of SQL runs on the servers that a paragraph above it names, after all that was
//! written before it has reached the others.

use pg_clip_tests::{
    Block, ORIGIN, Page, REPLICATING, TestCluster, TestDatabase, catch_up, has_origin, run, tested_postgres,
    value, wait_for_the_queue, wait_until_equal,
};
use postgres::Client;

use crate::documentation::{Session, without_margins};

/// The pages, whose blocks do not continue those of the README.
pub(crate) const OF_SERVERS: [&str; 3] = ["docs/embedding-node.md", "docs/shards.md", "docs/standbys.md"];

/// The database of all of them.
const DATABASE: &str = "shop";
/// The major version whose plans the pages show.
const SHOWN: u32 = 18;

/// Servers that a paragraph names together.
struct Named<'a> {
    name: &'static str,
    /// As connection strings have it.
    host: &'static str,
    clusters: Vec<&'a TestCluster>,
}

#[test]
fn the_page_on_an_embedding_node_runs() {
    let (application, node) =
        (TestCluster::preloaded_with(&REPLICATING), TestCluster::preloaded_with(&REPLICATING));
    let servers = [
        Named {
            name: "On the application server",
            host: "application.internal",
            clusters: vec![&application],
        },
        Named { name: "On the node", host: "node.internal", clusters: vec![&node] },
    ];
    let mut clients = make_databases(&servers);
    run_page("docs/embedding-node.md", &servers, || {
        let [shop, copy] = clients.as_mut_slice() else { panic!("two servers") };
        let is_on = "SELECT count(*) FROM pg_subscription WHERE subdbid = (
            SELECT oid FROM pg_database WHERE datname = current_database())";
        if value::<i64>(copy, is_on) > 0 {
            wait_until_equal(shop, copy, "photos");
            wait_for_the_queue(copy);
        }
        if value::<i64>(shop, is_on) > 0 {
            wait_until_equal(copy, shop, "image_embeddings");
        }
    });
}

#[test]
fn the_page_on_standbys_runs() {
    let primary = TestCluster::preloaded();
    let mut writer = make_databases(&[Named { name: "", host: "", clusters: vec![&primary] }]);
    let standby = primary.standby();
    let servers = [
        Named { name: "On the primary", host: "primary.internal", clusters: vec![&primary] },
        Named { name: "On a standby", host: "standby.internal", clusters: vec![&standby] },
    ];
    let mut reader = standby.existing_database(DATABASE).connect();
    run_page("docs/standbys.md", &servers, || {
        if value::<bool>(&mut reader, "SELECT pg_is_in_recovery()") {
            wait_for_the_queue_if_there(&mut writer[0]);
            catch_up(&mut writer[0], &mut reader);
        }
    });
}

#[test]
fn the_page_on_shards_runs() {
    let coordinator = TestCluster::preloaded();
    let shards = [TestCluster::preloaded(), TestCluster::preloaded()];
    let servers = [
        Named { name: "On the coordinator", host: "", clusters: vec![&coordinator] },
        Named { name: "On each shard", host: "", clusters: shards.iter().collect() },
        Named { name: "On the first shard", host: "shard1.internal", clusters: vec![&shards[0]] },
        Named { name: "On the second shard", host: "shard2.internal", clusters: vec![&shards[1]] },
    ];
    let mut clients = make_databases(&servers[..2]);
    run_page("docs/shards.md", &servers, || {
        clients[1..].iter_mut().for_each(wait_for_the_queue_if_there);
    });
}

/// Makes the database on each server, once; returns a client of each.
fn make_databases(servers: &[Named]) -> Vec<Client> {
    let clusters = servers.iter().flat_map(|server| &server.clusters);
    let client = |cluster: &&TestCluster| {
        run(&mut cluster.existing_database("postgres").connect(), &format!("CREATE DATABASE {DATABASE}"));
        cluster.existing_database(DATABASE).connect()
    };
    clusters.map(client).collect()
}

fn wait_for_the_queue_if_there(client: &mut Client) {
    if value::<bool>(client, "SELECT to_regclass('clip_queue') IS NOT NULL") {
        wait_for_the_queue(client);
    }
}

/// Runs a page's blocks, and compares the answers that it shows. `settle` waits until all servers have what one of them
/// has been told.
fn run_page(path: &str, servers: &[Named], mut settle: impl FnMut()) {
    let session = Session::new(path);
    let mut on: Option<&Named> = None;
    let mut answered: Option<(String, String)> = None;
    let mut count = 0;
    for mut block in Page::read(path).blocks() {
        if block.language == "text"
            && let Some((statement, answer)) = answered.take()
        {
            if !statement.contains("EXPLAIN") || tested_postgres().major == SHOWN {
                assert_eq!(without_margins(&answer), without_margins(&block.text), "{}", block.place);
            }
            continue;
        }
        if block.language != "sql" {
            continue;
        }
        on = servers.iter().find(|server| block.lead.contains(server.name)).or(on);
        let on = on.unwrap_or_else(|| panic!("{}: no server is named above it", block.place));
        for server in servers.iter().filter(|server| !server.host.is_empty()) {
            let sockets = server.clusters[0].server.sockets().display().to_string();
            block.text = block.text.replace(server.host, &sockets);
        }
        if !has_origin() {
            // As the page says.
            block.text = block.text.replace(ORIGIN, "");
        }
        let mut answers: Vec<String> =
            on.clusters.iter().map(|cluster| one(&session, cluster, &block)).collect();
        let answer = answers.pop().expect("a server");
        settle();
        answered = Some((block.text, answer));
        count += 1;
    }
    assert!(count > 3, "{path}: {count} blocks");
}

fn one(session: &Session, cluster: &TestCluster, block: &Block) -> String {
    let database: TestDatabase = cluster.existing_database(DATABASE);
    session.run(cluster, &database, std::slice::from_ref(block)).remove(0)
}
