//! An embedder that breaks the protocol costs an error, and no memory.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use pg_clip_tests::{TestCluster, as_servers_user, failure, run, sqlstate, value};

pub(crate) const HELLO: usize = 5 + 8 + 2 + 8;
const MIB: usize = 1 << 20;

/// Answers the first connection, after its hello, with these bytes, and keeps it open for as long as the backend does.
fn fails_with(answer: &[&[u8]], sqlstate: &str) {
    let cluster = TestCluster::not_preloaded();
    let mut client = cluster.database().connect();
    run(&mut client, "SET clip.request_timeout = '20s'");
    let socket = cluster.server.data().join("pg_stat_tmp/pg_clip.sock");
    let _ = fs::remove_file(&socket);
    let listener = as_servers_user(&cluster, || UnixListener::bind(&socket).expect("a socket listens"));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = listener.accept().expect("a backend connects").0;
            stream.read_exact(&mut [0; HELLO]).expect("a hello");
            // A backend that has had enough reads no more.
            let _ = answer.iter().try_for_each(|part| stream.write_all(part));
            read_to_the_end(stream);
        });
        let state = failure(&mut client, "SELECT clip_embed_text('x')", &[]);
        drop(client);
        assert_eq!(state, sqlstate);
    });
}

pub(crate) fn read_to_the_end(mut stream: UnixStream) {
    let mut rest = [0; 1024];
    while stream.read(&mut rest).is_ok_and(|length| length > 0) {}
}

/// A frame: the length that it claims, its kind and its body.
fn frame(length: usize, kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(length).expect("32 bits").to_le_bytes();
    [length.as_slice(), &[kind], body].concat()
}

fn welcome() -> Vec<u8> {
    welcome_of(env!("CARGO_PKG_VERSION"))
}

/// The first frame of an embedder of this version.
pub(crate) fn welcome_of(version: &str) -> Vec<u8> {
    let length = u8::try_from(version.len()).expect("a short text");
    let body = [&pg_clip_protocol().to_le_bytes(), [length].as_slice(), version.as_bytes()].concat();
    frame(body.len(), 16, &body)
}

/// The library's protocol, as its source says.
fn pg_clip_protocol() -> u16 {
    let source = pg_clip_tests::repository_file("src/wire/lib.rs");
    let source = String::from_utf8(source).expect("UTF-8");
    let (_, number) = source.split_once("pub const PROTOCOL: u16 = ").expect("a number");
    number.split_once(';').expect("an end").0.parse().expect("a number")
}

#[test]
fn an_answer_that_claims_the_length_of_an_image_is_refused_before_it_is_read() {
    const EMBED_IMAGE: u8 = 3;
    fails_with(&[&welcome(), &frame(1 << 30, EMBED_IMAGE, &[])], "08P01");
}

#[test]
fn a_status_report_above_a_mebibyte_is_refused_before_it_is_read() {
    const STATUS_REPORT: u8 = 19;
    fails_with(&[&welcome(), &frame(2 * MIB, STATUS_REPORT, &[])], "08P01");
}

#[test]
fn an_embedder_that_does_not_stop_is_not_listened_to() {
    let welcomes = welcome().repeat(8 * MIB / welcome().len());
    fails_with(&[welcomes.as_slice(); 8], "08P01");
}

#[test]
fn a_vector_that_is_not_finite_and_of_length_one_is_refused() {
    let wrong = [vec![f32::NAN; 512], vec![f32::INFINITY; 512], vec![1.0; 512], vec![0.0; 512]];
    for vector in wrong {
        fails_with(&[&welcome(), &embedding(1, &vector)], "08P01");
    }
}

/// Answers each request of all connections: a model has 512 dimensions, and its vectors have as many as the test says.
#[test]
fn a_vector_of_other_dimensions_than_its_model_is_refused_and_not_stored() {
    const DESCRIBE: u8 = 5;
    let cluster = TestCluster::not_preloaded();
    let mut client = cluster.database().connect();
    let socket = cluster.server.data().join("pg_stat_tmp/pg_clip.sock");
    let listener = as_servers_user(&cluster, || UnixListener::bind(&socket).expect("a socket listens"));
    let dimensions = AtomicUsize::new(512);
    thread::scope(|scope| {
        let dimensions = &dimensions;
        let answers = scope.spawn(move || {
            let mut stream = listener.accept().expect("a backend connects").0;
            stream.read_exact(&mut [0; HELLO]).expect("a hello");
            stream.write_all(&welcome()).expect("a welcome");
            let mut head = [0; 5];
            while stream.read_exact(&mut head).is_ok() {
                let length = u32::from_le_bytes(head[..4].try_into().expect("four bytes"));
                let mut body = vec![0; length as usize];
                stream.read_exact(&mut body).expect("a request");
                let id = u32::from_le_bytes(body[..4].try_into().expect("an id"));
                let answer = if head[4] == DESCRIBE {
                    description(id, 512)
                } else {
                    let mut vector = vec![0.0; dimensions.load(Ordering::Relaxed)];
                    vector[0] = 1.0;
                    embedding(id, &vector)
                };
                if stream.write_all(&answer).is_err() {
                    break;
                }
            }
        });
        run(
            &mut client,
            "CREATE TABLE photos (id int PRIMARY KEY, image bytea);
            CREATE TABLE image_embeddings (image_id int UNIQUE, embedding vector, checksum bytea, model text);
            SELECT clip_watch('photos'); INSERT INTO photos VALUES (1, 'one')",
        );
        dimensions.store(24, Ordering::Relaxed);
        let refused = client.batch_execute("INSERT INTO photos VALUES (2, 'two')");
        let stored = value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings");
        drop(client);
        answers.join().expect("the embedder");
        assert_eq!(refused.as_ref().map_err(sqlstate), Err("08P01"));
        assert_eq!(stored, 1);
    });
}

const FINGERPRINT: [u8; 32] = [7; 32];

fn embedding(id: u32, vector: &[f32]) -> Vec<u8> {
    const EMBEDDING: u8 = 17;
    let dimensions = u16::try_from(vector.len()).expect("a vector").to_le_bytes();
    let values: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
    let body = [&id.to_le_bytes(), FINGERPRINT.as_slice(), &[0; 8], &dimensions, &values].concat();
    frame(body.len(), EMBEDDING, &body)
}

fn description(id: u32, dimensions: u16) -> Vec<u8> {
    const DESCRIPTION: u8 = 20;
    let body = [&id.to_le_bytes(), FINGERPRINT.as_slice(), &dimensions.to_le_bytes()].concat();
    frame(body.len(), DESCRIPTION, &body)
}
