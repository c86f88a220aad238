//! The extension and its server come and go.

use std::fs;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use pg_clip_tests::{Process, Stop, TestCluster, as_servers_user, is_alive, run, wait_until};

#[test]
fn creates_the_extension_where_the_library_is_preloaded() {
    assert_creates_the_extension(&TestCluster::preloaded());
}

#[test]
fn creates_the_extension_where_the_library_is_not_preloaded() {
    assert_creates_the_extension(&TestCluster::not_preloaded());
}

#[test]
fn a_fast_stop_leaves_no_process() {
    let cluster = TestCluster::preloaded();
    let processes: Vec<Process> = cluster.processes();
    assert!(!processes.is_empty());
    cluster.server.stop(Stop::Fast).expect("the server stops");
    for process in processes {
        let name = format!("the end of {process:?}");
        wait_until(&name, Duration::from_secs(5), || !is_alive(process.pid));
    }
}

#[test]
fn a_socket_that_a_server_left_is_replaced() {
    let cluster = TestCluster::preloaded();
    cluster.server.stop(Stop::Fast).expect("the server stops");
    let socket = cluster.server.data().join("pg_stat_tmp/pg_clip.sock");
    let _ = fs::remove_file(&socket);
    // A socket that is closed leaves its name.
    drop(as_servers_user(&cluster, || UnixListener::bind(&socket).expect("a socket listens")));
    assert!(socket.exists());
    cluster.server.start().expect("the server starts");
    run(&mut cluster.database().connect(), "SELECT clip_embed_text('a dog')");
}

fn assert_creates_the_extension(cluster: &TestCluster) {
    let mut client = cluster.database().connect();
    let row = client
        .query_one("SELECT extversion FROM pg_extension WHERE extname = 'pg_clip'", &[])
        .expect("the catalog is read");
    assert_eq!(row.get::<_, &str>(0), env!("CARGO_PKG_VERSION"));
}
