//! Deaths, stops and cancels: no connection is lost, and nothing is left running.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pg_clip_tests::{
    Signal, Stop, StopOnDrop, TestCluster, demo_photos, failure, is_alive, run, send, sqlstate, value,
    wait_for, wait_until,
};
use postgres::Client;

/// Below `clip.request_timeout`, and far above the time of any call here: a test is no place to measure.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_killed_embedder_under_load_costs_no_connection_and_no_restart() {
    let cluster = TestCluster::preloaded();
    let database = cluster.database();
    let mut client = database.connect();
    run(&mut client, "SELECT clip_embed_text('start')");
    let started: String = value(&mut client, "SELECT pg_postmaster_start_time()::text");
    let photos = demo_photos();
    let stop = AtomicBool::new(false);
    let answers = AtomicUsize::new(0);

    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        for session in 0..4 {
            let mut client = database.connect();
            let (photos, stop, answers) = (&photos, &stop, &answers);
            scope.spawn(move || {
                for number in session.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let photo = &photos[number % photos.len()];
                    match client.query("SELECT clip_embed_image($1)", &[photo]) {
                        Ok(_) => _ = answers.fetch_add(1, Ordering::Relaxed),
                        Err(error) => assert_eq!(sqlstate(&error), "08006", "{error:?}"),
                    }
                }
            });
        }
        for _ in 0..3 {
            let seen = answers.load(Ordering::Relaxed);
            wait_until("the load runs", PATIENCE, || answers.load(Ordering::Relaxed) > seen + 4);
            let killed = embedder(&mut client);
            send(killed, Signal::SIGKILL);
            wait_until("the embedder is dead", PATIENCE, || !is_alive(killed));
            let death = Instant::now();
            run(&mut client, "SELECT clip_embed_text('the next call ' || clock_timestamp())");
            println!("the next call answered {:?} after the death", death.elapsed());
            assert!(death.elapsed() < PATIENCE);
            assert_ne!(embedder(&mut client), killed);
        }
    });
    assert_eq!(value::<String>(&mut client, "SELECT pg_postmaster_start_time()::text"), started);
    assert!(value::<i64>(&mut client, "SELECT restarts FROM clip_status") >= 3);
    assert!(!cluster.log().contains("reinitializing"), "{}", cluster.log());
}

/// The pause before it is started again stays far below the time that a call waits.
#[test]
fn an_embedder_that_works_is_soon_started_again_however_often_it_dies() {
    let cluster = TestCluster::preloaded();
    let mut client = cluster.database().connect();
    for death in 0..11 {
        run(&mut client, &format!("SELECT clip_embed_text('before death {death}')"));
        let killed = embedder(&mut client);
        send(killed, Signal::SIGKILL);
        wait_until("the embedder is dead", PATIENCE, || !is_alive(killed));
    }
    run(&mut client, "SELECT clip_embed_text('after all of them')");
}

#[test]
fn a_stopped_embedder_holds_up_no_statement_and_no_server() {
    let cluster = TestCluster::preloaded();
    let mut client = cluster.database().connect();
    run(&mut client, "SELECT clip_embed_text('start')");
    let stopped = embedder(&mut client);
    send(stopped, Signal::SIGSTOP);

    run(&mut client, "SET statement_timeout = '300ms'");
    let start = Instant::now();
    assert_eq!(failure(&mut client, "SELECT clip_embed_text('never')", &[]), "57014");
    println!("statement_timeout = 300ms ended the call after {:?}", start.elapsed());
    assert!(start.elapsed() < PATIENCE);
    run(&mut client, "SET statement_timeout = 0; SET clip.request_timeout = '200ms'");
    let refused = failure(&mut client, "SELECT clip_embed_text('never')", &[]);
    assert!(["57014", "57P03"].contains(&refused.as_str()), "{refused}");
    assert_eq!(value::<String>(&mut client, "SELECT state FROM clip_status"), "stopped");

    let processes = cluster.processes();
    let start = Instant::now();
    cluster.server.stop(Stop::Fast).expect("the server stops");
    println!("the server stopped after {:?}", start.elapsed());
    assert!(start.elapsed() < PATIENCE);
    for process in processes {
        let name = format!("the end of {process:?}");
        wait_until(&name, PATIENCE, || !is_alive(process.pid));
    }
}

#[test]
fn a_late_answer_reaches_no_other_call() {
    let cluster = TestCluster::preloaded();
    let mut client = cluster.database().connect();
    let right: Vec<f32> = value(&mut client, "SELECT clip_embed_text('a dog')::real[]");
    let stopped = embedder(&mut client);
    send(stopped, Signal::SIGSTOP);
    run(&mut client, "SET statement_timeout = '100ms'");
    assert_eq!(failure(&mut client, "SELECT clip_embed_text('a cat')", &[]), "57014");
    send(stopped, Signal::SIGCONT);
    run(&mut client, "SET statement_timeout = 0");
    assert_eq!(value::<Vec<f32>>(&mut client, "SELECT clip_embed_text('a dog')::real[]"), right);
}

#[test]
fn a_killed_guardian_or_supervisor_worker_comes_back() {
    let cluster = TestCluster::preloaded();
    let mut client = cluster.database().connect();
    run(&mut client, "SELECT clip_embed_text('start')");
    let first = embedder(&mut client);
    let guardian = parent_of(&cluster, first);
    send(guardian, Signal::SIGKILL);
    wait_until("the embedder goes with its guardian", PATIENCE, || !is_alive(first));
    run(&mut client, "SELECT clip_embed_text('again')");

    let second = embedder(&mut client);
    let supervisor = parent_of(&cluster, parent_of(&cluster, second));
    send(supervisor, Signal::SIGTERM);
    wait_until("the embedder goes with its supervisor", PATIENCE, || !is_alive(second));
    run(&mut client, "SELECT clip_embed_text('and again')");
    assert!(!cluster.log().contains("reinitializing"), "{}", cluster.log());
}

#[test]
fn an_immediate_stop_and_a_killed_postmaster_leave_nothing() {
    for kill in [false, true] {
        let cluster = TestCluster::preloaded();
        run(&mut cluster.database().connect(), "SELECT clip_embed_text('start')");
        let processes = cluster.processes();
        let postmaster = cluster.postmaster_pid();
        assert!(processes.iter().any(|process| process.command_line.contains("serve")), "{processes:?}");
        if kill {
            send(postmaster, Signal::SIGKILL);
        } else {
            cluster.server.stop(Stop::Immediate).expect("the server stops");
        }
        for process in processes {
            let name = format!("the end of {process:?}");
            wait_until(&name, PATIENCE, || !is_alive(process.pid));
        }
    }
}

#[test]
fn without_preloading_the_first_call_starts_the_embedder() {
    let cluster = TestCluster::not_preloaded();
    let database = cluster.database();
    let mut client = database.connect();
    run(&mut client, "SELECT clip_embed_text('start')");
    let killed = embedder(&mut client);
    send(killed, Signal::SIGKILL);
    wait_until("the embedder is dead", PATIENCE, || !is_alive(killed));
    run(&mut database.connect(), "SELECT clip_embed_text('again')");

    // Many first calls at once start one supervisor.
    cluster.server.restart().expect("the server restarts");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| run(&mut database.connect(), "SELECT clip_embed_text('at once')"));
        }
    });
    let serving =
        || cluster.processes().iter().filter(|process| process.command_line.contains(" serve ")).count();
    wait_until("one embedder serves", PATIENCE, || serving() == 1);
}

#[test]
fn a_setting_of_the_embedder_takes_effect_on_reload() {
    let cluster = TestCluster::preloaded();
    let mut client = cluster.database().connect();
    run(&mut client, "SELECT clip_embed_text('start')");
    run(&mut client, "ALTER SYSTEM SET clip.threads = 1");
    run(&mut client, "SELECT pg_reload_conf()");
    wait_for("the embedder has one thread", PATIENCE, || {
        let threads: Option<i32> = value(&mut client, "SELECT threads FROM clip_status");
        (threads == Some(1)).then_some(())
    });

    run(&mut client, "ALTER SYSTEM SET clip.models_directory = '/nowhere'");
    run(&mut client, "SELECT pg_reload_conf()");
    wait_until("no model is installed", PATIENCE, || {
        client.query("SELECT clip_embed_text('x')", &[]).is_err_and(|error| sqlstate(&error) == "22023")
    });
}

#[test]
fn dropping_a_database_does_not_wait_for_an_embedding() {
    let cluster = TestCluster::preloaded();
    let database = cluster.database();
    let mut client = database.connect();
    run(&mut client, "SELECT clip_embed_text('start')");
    let stopped = embedder(&mut client);
    send(stopped, Signal::SIGSTOP);
    let other = cluster.empty_database();
    let cancel = client.cancel_token();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| failure(&mut client, "SELECT clip_embed_text('waits')", &[]));
        let mut dropper = cluster.existing_database("postgres").connect();
        wait_until("the call waits", PATIENCE, || {
            let query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Extension'";
            value::<i64>(&mut dropper, query) > 0
        });
        let start = Instant::now();
        run(&mut dropper, &format!("DROP DATABASE {}", other.name()));
        println!("the database was dropped after {:?}", start.elapsed());
        assert!(start.elapsed() < PATIENCE);
        cancel.cancel_query(postgres::NoTls).expect("a cancel is sent");
        assert_eq!(waiting.join().expect("the call ends"), "57014");
    });
}

fn embedder(client: &mut Client) -> u32 {
    let pid: i32 = value(client, "SELECT pid FROM clip_status");
    u32::try_from(pid).expect("a process id")
}

fn parent_of(cluster: &TestCluster, pid: u32) -> u32 {
    let processes = cluster.processes();
    processes.iter().find(|process| process.pid == pid).expect("a process of the server").parent
}
