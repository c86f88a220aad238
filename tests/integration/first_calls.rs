//! First calls where nothing runs yet.

use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Barrier;
use std::thread;

use nix::libc;
use pg_clip_tests::{
    PATIENCE, Signal, TestCluster, TestDatabase, as_servers_user, demo_photo, run, send, store,
    wait_for_the_queue, wait_until, watched_async,
};
use postgres::Client;

const SESSIONS: usize = 30;

#[test]
fn thirty_first_calls_at_once_take_one_worker_slot() {
    let cluster = TestCluster::not_preloaded();
    let database = cluster.database();
    for _ in 0..3 {
        cluster.server.restart().expect("the server restarts");
        at_once(&database, |client| run(client, "SELECT clip_embed_text('at once')"));
        assert!(!cluster.log().contains("no background worker slot is free"), "{}", cluster.log());
    }
    let left = || std::fs::read_dir(cluster.server.data().join("pg_stat_tmp")).expect("the folder is read");
    let waits = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with("pg_clip.waiting.");
    assert!(!left().any(|entry| waits(&entry.expect("an entry is read").file_name())));
}

#[test]
fn thirty_first_photos_at_once_take_one_worker_slot() {
    let cluster = TestCluster::not_preloaded();
    let (database, _client) = watched_async(&cluster);
    cluster.server.restart().expect("the server restarts");
    let mut clients: Vec<Client> = (0..SESSIONS).map(|_| database.connect()).collect();
    {
        // No launcher comes before all have asked for one.
        let _stopped = Stopped::new(cluster.postmaster_pid());
        clients.iter_mut().for_each(|client| store(client, &[demo_photo()]));
    }
    wait_for_the_queue(&mut database.connect());
    assert!(!cluster.log().contains("no background worker slot is free"), "{}", cluster.log());
}

/// A process that is stopped until this is dropped.
struct Stopped(u32);

impl Stopped {
    fn new(pid: u32) -> Stopped {
        send(pid, Signal::SIGSTOP);
        Stopped(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        send(self.0, Signal::SIGCONT);
    }
}

#[test]
fn a_call_waits_for_the_embedder_where_the_kernel_has_no_more_watches() {
    let cluster = TestCluster::not_preloaded();
    let database = cluster.database();
    cluster.server.restart().expect("the server restarts");
    let all = as_servers_user(&cluster, every_inotify_instance);
    assert!(!all.is_empty());
    run(&mut database.connect(), "SELECT clip_embed_text('start')");
    drop(all);
    wait_until("the embedder is there", PATIENCE, || {
        cluster.processes().iter().any(|process| process.command_line.contains(" serve "))
    });
}

/// Does something in many sessions, none of which begins before all are there.
fn at_once(database: &TestDatabase, act: impl Fn(&mut Client) + Sync) {
    let clients: Vec<Client> = (0..SESSIONS).map(|_| database.connect()).collect();
    let start = Barrier::new(SESSIONS);
    thread::scope(|scope| {
        for mut client in clients {
            let (start, act) = (&start, &act);
            scope.spawn(move || {
                start.wait();
                act(&mut client);
            });
        }
    });
}

/// Takes all that the kernel gives the user of this thread.
fn every_inotify_instance() -> Vec<OwnedFd> {
    let mut all = Vec::new();
    loop {
        // SAFETY: the call takes a number and returns a descriptor that is ours.
        match unsafe { libc::inotify_init1(libc::IN_CLOEXEC) } {
            -1 => break,
            // SAFETY: as above.
            descriptor => all.push(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        }
    }
    let error = std::io::Error::last_os_error();
    assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{error}");
    std::fs::File::open("/").expect("it is not the descriptors that are missing");
    all
}
