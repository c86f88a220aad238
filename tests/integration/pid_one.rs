//! A postmaster that adopts orphans: PID 1 of a container. There every death of a process that it does not know, with
//! any status but 0 and 1, restarts the cluster.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::Duration;

use pg_clip_tests::{Signal, Stop, TestCluster, descendants, run, send, value, wait_for, wait_until};
use postgres::Client;

const PATIENCE: Duration = Duration::from_secs(20);

/// As in [`adopting`], without a namespace: a subreaper gets orphans from the kernel as PID 1 does.
#[test]
fn deaths_below_a_postmaster_that_adopts_orphans_restart_nothing() {
    let cluster = TestCluster::preloaded();
    let postgres = cluster.server.foreground();
    let mut adopting = Command::new(postgres.get_program());
    adopting.args(postgres.get_args()).env_clear();
    // SAFETY: one async-signal-safe system call between fork and exec; the attribute outlives the exec.
    unsafe {
        adopting.pre_exec(|| nix::sys::prctl::set_child_subreaper(true).map_err(Into::into));
    }
    assert_deaths_restart_nothing(&cluster, adopting);
}

#[test]
fn deaths_below_a_postmaster_that_is_pid_1_restart_nothing() {
    let cluster = TestCluster::preloaded();
    let postgres = cluster.server.foreground();
    let mut namespace = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        namespace.args(["--user", "--map-current-user"]);
    }
    namespace.args(["--pid", "--fork", "--mount-proc"]);
    namespace.arg(postgres.get_program()).args(postgres.get_args()).env_clear();
    namespace.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    assert_deaths_restart_nothing(&cluster, namespace);
}

fn assert_deaths_restart_nothing(cluster: &TestCluster, server: Command) {
    cluster.server.stop(Stop::Fast).expect("the server stops");
    let mut server = Running::start(cluster, server);
    let database = cluster.existing_database("postgres");
    let mut client = wait_for("the server takes connections", PATIENCE, || {
        server.assert_runs();
        database.try_connect().ok()
    });
    run(&mut client, "CREATE EXTENSION IF NOT EXISTS vector; CREATE EXTENSION IF NOT EXISTS pg_clip");
    let started: String = value(&mut client, "SELECT pg_postmaster_start_time()::text");

    // Process ids are those of the server's namespace: it kills for us.
    for victim in ["SELECT pid FROM clip_status", "SELECT ppid FROM embedder_parent"] {
        run(&mut client, "SELECT clip_embed_text('start ' || clock_timestamp())");
        let embedder: i32 = value(&mut client, "SELECT pid FROM clip_status");
        run(
            &mut client,
            &format!(
                "DROP TABLE IF EXISTS embedder_parent; CREATE TABLE embedder_parent (ppid int);
                COPY embedder_parent FROM PROGRAM 'cut -d \" \" -f 4 /proc/{embedder}/stat'"
            ),
        );
        let pid: i32 = value(&mut client, victim);
        kill(&mut client, "KILL", pid);
        assert_back(&mut client, embedder);
    }
    // The supervisor dies first, and guardian and embedder are orphans for a moment.
    let embedder: i32 = value(&mut client, "SELECT pid FROM clip_status");
    run(&mut client, &format!("TRUNCATE embedder_parent;
        COPY embedder_parent FROM PROGRAM 'cut -d \" \" -f 4 /proc/$(cut -d \" \" -f 4 /proc/{embedder}/stat)/stat'"));
    let supervisor: i32 = value(&mut client, "SELECT ppid FROM embedder_parent");
    kill(&mut client, "TERM", supervisor);
    assert_back(&mut client, embedder);

    assert_eq!(value::<String>(&mut client, "SELECT pg_postmaster_start_time()::text"), started);
    assert!(!cluster.log().contains("reinitializing"), "{}", cluster.log());
    let backend: i32 = value(&mut client, "SELECT pg_backend_pid()");
    assert!(backend > 0, "the connection lived through all of it");
}

fn kill(client: &mut Client, signal: &str, pid: i32) {
    run(client, &format!("COPY (SELECT 1) TO PROGRAM 'cat > /dev/null; kill -{signal} {pid}'"));
}

fn assert_back(client: &mut Client, before: i32) {
    wait_until("another embedder serves", PATIENCE, || {
        let now: Option<i32> = value(client, "SELECT pid FROM clip_status");
        now.is_some_and(|now| now != before)
    });
}

/// A server in the foreground, ended with the test.
struct Running(Child);

impl Running {
    fn start(cluster: &TestCluster, mut command: Command) -> Running {
        let log = File::options().append(true).open(cluster.server.directory().join("log"));
        let log = log.expect("the server's log is there");
        command.current_dir("/").stderr(log);
        Running(command.spawn().expect("the server is started"))
    }

    fn assert_runs(&mut self) {
        if let Some(status) = self.0.try_wait().expect("the server's state") {
            panic!("the server ended: {status}");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Below unshare, the namespace ends with its PID 1.
        if let Some(process) = descendants(self.0.id()).first() {
            send(process.pid, Signal::SIGKILL);
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
