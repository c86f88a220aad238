//! A dump takes the queue along.

use std::process::{Command, Stdio};

use pg_clip_tests::{
    Signal, TestCluster, WRONG, demo_photos, embedder, run, send, store, value, wait_for_the_queue,
    watched_async, working_worker,
};
use xtask::cluster::PORT;

#[test]
fn photos_that_wait_are_embedded_where_the_dump_is_restored() {
    let cluster = TestCluster::preloaded();
    let (database, mut client) = watched_async(&cluster);
    store(&mut client, &demo_photos()[..3]);
    wait_for_the_queue(&mut client);
    let stopped = embedder(&mut client);
    send(stopped, Signal::SIGSTOP);
    store(&mut client, &demo_photos()[3..9]);
    working_worker(&mut client);

    let restored = cluster.empty_database();
    let tool = |name: &str, database: &str| {
        let mut tool = Command::new(cluster.server.postgres().program(name));
        tool.arg("--host").arg(cluster.server.sockets()).args(["--port", &PORT.to_string()]);
        tool.args(["--username", "postgres", "--dbname", database]);
        tool
    };
    let mut dump = tool("pg_dump", database.name()).stdout(Stdio::piped()).spawn().expect("pg_dump runs");
    let output = dump.stdout.take().expect("its output");
    let restore = tool("psql", restored.name())
        .args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"])
        .stdin(output)
        .stdout(Stdio::null())
        .status()
        .expect("psql runs");
    assert!(dump.wait().expect("pg_dump ends").success() && restore.success());
    let mut client = restored.connect();
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM clip_queue"), 6);
    send(stopped, Signal::SIGCONT);
    // The next photo brings the worker.
    store(&mut client, &demo_photos()[9..10]);
    wait_for_the_queue(&mut client);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 10);
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
    run(&mut client, "SELECT clip_unwatch('photos')");
}
