//! Settings that the embedder reads, and the parts of PostgreSQL that it inherits.

use std::fs;

use pg_clip_tests::{
    PATIENCE, TestCluster, demo_photo, failure, repository_file, run, value, wait_for, wait_until,
};
use postgres::Client;

fn set(client: &mut Client, setting: &str) {
    run(client, &format!("ALTER SYSTEM SET {setting}"));
    run(client, "SELECT pg_reload_conf()");
}

#[test]
fn an_execution_provider_that_is_not_there_stops_no_embedding() {
    let cluster = TestCluster::preloaded();
    let mut client = cluster.database().connect();
    let before: Vec<f32> = value(&mut client, "SELECT clip_embed_text('a cat')::real[]");
    set(&mut client, "clip.execution_provider = 'cuda'");
    let error = wait_for("the status says what is wrong", PATIENCE, || {
        let query = "SELECT CASE WHEN state = 'ready' THEN error END FROM clip_status";
        value::<Option<String>>(&mut client, query)
    });
    assert_eq!(
        error,
        "execution provider \"cuda\" is not available, cpu computes instead: CUDA execution provider is not enabled in this \
         build."
    );
    assert_eq!(value::<Vec<f32>>(&mut client, "SELECT clip_embed_text('a cat')::real[]"), before);
    assert_eq!(value::<String>(&mut client, "SELECT execution_provider FROM clip_status"), "cpu");
    assert!(cluster.log().contains(&format!("WARNING:  pg_clip: {error}")), "{}", cluster.log());
}

#[test]
fn the_memory_of_decoders_is_a_setting() {
    let cluster = TestCluster::preloaded();
    let mut client = cluster.database().connect();
    // The head of a grey PNG of 7,000 x 7,000 pixels: more is not read before its memory is reckoned.
    let flat = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\x1b\x58\0\0\x1b\x58\x08\0\0\0\0".as_slice();
    assert_eq!(failure(&mut client, "SELECT clip_embed_image($1)", &[&flat]), "22P03");
    set(&mut client, "clip.decoder_memory = '200MB'");
    wait_until("such an image is refused", PATIENCE, || {
        failure(&mut client, "SELECT clip_embed_image($1)", &[&flat]) == "54000"
    });
    client.query("SELECT clip_embed_image($1)", &[&demo_photo()]).expect("a smaller one is embedded");
}

#[test]
fn the_scaling_of_large_jpegs_is_a_setting() {
    let cluster = TestCluster::preloaded();
    let mut client = cluster.database().connect();
    let photo = repository_file("tests/data/images/size-4032x3024.jpg");
    client
        .query("SELECT clip_embed_image($1) AS embedding INTO scaled", &[&photo])
        .expect("a photo is embedded at a fraction of its size");
    set(&mut client, "clip.jpeg_scaling = off");
    let mut distance = || -> f64 {
        let query = "SELECT embedding <=> clip_embed_image($1) FROM scaled";
        client.query_one(query, &[&photo]).expect("a photo is embedded").get(0)
    };
    let whole =
        wait_for("it is decoded whole", PATIENCE, || Some(distance()).filter(|distance| *distance > 0.0));
    assert!(whole < 0.0005, "{whole}");
}

#[test]
fn the_status_tells_where_library_and_extension_are_of_two_releases() {
    let cluster = TestCluster::preloaded();
    let mut client = cluster.database().connect();
    run(&mut client, "SELECT clip_embed_text('start')");
    assert_eq!(value::<Option<String>>(&mut client, "SELECT error FROM clip_status"), None);
    run(&mut client, "UPDATE pg_extension SET extversion = '0.0.9' WHERE extname = 'pg_clip'");
    let error: String = value(&mut client, "SELECT error FROM clip_status");
    let library = env!("CARGO_PKG_VERSION");
    assert!(
        error.starts_with(&format!("the extension is of release 0.0.9 and its library of {library}")),
        "{error}"
    );
}

#[test]
fn guardian_and_embedder_have_no_descriptor_of_the_server() {
    let cluster = TestCluster::preloaded();
    run(&mut cluster.database().connect(), "SELECT clip_embed_text('start')");
    let own = |process: &&pg_clip_tests::Process| {
        [" guard ", " serve "].iter().any(|word| process.command_line.contains(word))
    };
    let processes = cluster.processes();
    let processes: Vec<_> = processes.iter().filter(own).collect();
    assert_eq!(processes.len(), 2, "{processes:?}");
    for process in processes {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", process.pid)).expect("descriptors are listed");
        for descriptor in descriptors.flatten() {
            let Ok(target) = fs::read_link(descriptor.path()) else { continue };
            let target = target.to_string_lossy().into_owned();
            let ours = ["socket:", "anon_inode:", "/dev/"].iter().any(|kind| target.starts_with(kind));
            assert!(ours, "{process:?} has {target}");
        }
    }
}
