//! How long deaths, cancels and stops take.

use std::time::Duration;

use pg_clip_tests::{Signal, Stop, TestCluster, is_alive, run, send, value, wait_until};
use postgres::Client;

use crate::tally::{report_times, time};

const PATIENCE: Duration = Duration::from_secs(60);
const TRIES: usize = 5;

pub(crate) fn measure() {
    let (mut back, mut cancelled, mut stopped) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TRIES {
        let cluster = TestCluster::preloaded();
        let mut client = cluster.database().connect();
        run(&mut client, "SELECT clip_embed_text('start')");

        let killed = embedder(&mut client);
        send(killed, Signal::SIGKILL);
        wait_until("the embedder is dead", PATIENCE, || !is_alive(killed));
        back.push(time(|| run(&mut client, "SELECT clip_embed_text('again')")));

        send(embedder(&mut client), Signal::SIGSTOP);
        run(&mut client, "SET statement_timeout = '300ms'");
        cancelled.push(time(|| {
            client.batch_execute("SELECT clip_embed_text('never')").expect_err("no embedder answers");
        }));
        stopped.push(time(|| cluster.server.stop(Stop::Fast).expect("the server stops")));
    }
    report_times("from kill -9 of the embedder to the next answer", &mut back);
    report_times("statement_timeout = 300ms, the embedder stopped by SIGSTOP", &mut cancelled);
    report_times("fast stop of the server, the embedder stopped by SIGSTOP", &mut stopped);
}

fn embedder(client: &mut Client) -> u32 {
    u32::try_from(value::<i32>(client, "SELECT pid FROM clip_status")).expect("a process id")
}
