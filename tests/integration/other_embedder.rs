//! An embedder of another version than the library, as where files are replaced under a running server.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use pg_clip_tests::{
    PATIENCE, TestCluster, WRONG, as_servers_user, demo_photos, run, store, value, wait_for_the_queue,
    wait_until,
};

use crate::broken_embedder::{HELLO, read_to_the_end, welcome_of};

const PHOTOS: &str = "
    CREATE TABLE photos (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, image bytea);
    CREATE TABLE image_embeddings (
        image_id bigint UNIQUE, embedding vector(512), checksum bytea, model text);
    CREATE INDEX ON image_embeddings (checksum);
    SELECT clip_watch('photos', mode => 'async')";

/// Ends the listening thread, also where the test fails.
struct End<'a> {
    ends: &'a AtomicBool,
    socket: &'a Path,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let _ = UnixStream::connect(self.socket);
    }
}

#[test]
fn an_embedder_of_another_version_embeds_nothing_and_photos_wait() {
    let cluster = TestCluster::not_preloaded();
    let database = cluster.database();
    let socket = cluster.server.data().join("pg_stat_tmp/pg_clip.sock");
    let listener = as_servers_user(&cluster, || UnixListener::bind(&socket).expect("a socket listens"));
    let ends = AtomicBool::new(false);
    let mut client = database.connect();
    thread::scope(|scope| {
        let _end = End { ends: &ends, socket: &socket };
        scope.spawn(|| {
            for stream in listener.incoming() {
                if ends.load(Ordering::Relaxed) {
                    break;
                }
                let mut stream = stream.expect("a backend connects");
                scope.spawn(move || {
                    if stream.read_exact(&mut [0; HELLO]).is_ok() {
                        let _ = stream.write_all(&welcome_of("0.0.9"));
                        read_to_the_end(stream);
                    }
                });
            }
        });
        run(&mut client, PHOTOS);
        store(&mut client, &demo_photos()[..3]);
        let message =
            format!("the embedder is of version 0.0.9, the library of version {}", env!("CARGO_PKG_VERSION"));
        let told = format!("pg_clip: the queue waits for the embedder: {message}");
        wait_until("the log says why photos wait", PATIENCE, || cluster.log().contains(&told));

        let error = client.batch_execute("SELECT clip_embed_text('a cat')").expect_err("another version");
        let error = error.as_db_error().expect("an error of the server");
        assert_eq!((error.code().code(), error.message()), ("55000", message.as_str()));
        assert!(error.hint().is_some_and(|hint| hint.starts_with("Restart the server")), "{error:?}");
        let status = "SELECT concat_ws(': ', state, error) FROM clip_status";
        assert_eq!(value::<String>(&mut client, status), format!("of another version: {message}"));
        let untried = "SELECT count(*) FROM clip_queue WHERE NOT claimed AND attempts = 0";
        wait_until("no attempt counts", PATIENCE, || value::<i64>(&mut client, untried) == 3);
    });
    // The server starts an embedder of its own.
    drop(listener);
    fs::remove_file(&socket).expect("the socket is removed");
    wait_for_the_queue(&mut client);
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
}
