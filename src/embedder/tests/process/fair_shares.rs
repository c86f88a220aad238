//! One role's or connection's many requests do not stop other roles and connections.

use std::io::Cursor;
use std::time::Instant;

use image::{GrayImage, ImageFormat, Luma, Rgb, RgbImage};
use pg_clip_wire::{Answer, Failure, FailureKind, Priority, Request};

use crate::embedder::{Connection, Embedder, MODEL, PATIENCE, models_directory};
use crate::serve::photo;

fn interactive(id: u32, image: &[u8]) -> Request<'_> {
    let priority = Priority::Interactive;
    Request::EmbedImage { id, model: MODEL, priority, max_pixels: u64::MAX, image }
}

/// A photo that takes its time to decode.
fn large_photo() -> Vec<u8> {
    let picture =
        RgbImage::from_fn(3000, 2000, |x, y| Rgb([(x / 12) as u8, (y / 8) as u8, ((x * y) / 4096) as u8]));
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Jpeg).unwrap();
    bytes.into_inner()
}

#[test]
fn ninety_connections_of_a_role_have_no_other_role_refused() {
    let server = Embedder::start_with("serve", &models_directory(), MODEL, &["--backlog", "512"]);
    server.connect_as(2).embed_text("loaded").unwrap();
    let photo = photo(1, ImageFormat::Jpeg);
    let mut many: Vec<Connection> = (0..90).map(|_| server.connect_as(1)).collect();
    for connection in &mut many {
        (0..60).for_each(|id| connection.send(&interactive(id, &photo)));
    }
    let started = Instant::now();
    let refused = |row: &serde_json::Value| row["failures"]["5"].as_u64().unwrap_or(0) > 0;
    while !server.status()["statistics"].as_array().unwrap().iter().any(refused) {
        assert!(started.elapsed() < PATIENCE, "{}", server.status());
    }
    for number in 0..10 {
        server.connect_as(2).embed_image(&photo).unwrap();
        server.connect_as(1).embed_image(&photo).unwrap();
        server.connect_as(1).embed_text(&format!("search {number}")).unwrap();
    }
    let mut kinds = Vec::new();
    for connection in &mut many {
        for id in 0..60 {
            match connection.receive_vector(id) {
                Ok(_) => {}
                Err(Failure { kind, .. }) => kinds.push(kind),
            }
        }
    }
    assert!(!kinds.is_empty() && kinds.iter().all(|kind| *kind == FailureKind::Overloaded), "{kinds:?}");
}

#[test]
fn one_image_waits_for_its_turn_and_not_for_the_whole_backlog() {
    let server = Embedder::start("serve");
    server.connect().embed_text("loaded").unwrap();
    let photo = large_photo();
    let mut copies: Vec<Connection> = (0..8).map(|_| server.connect_as(1)).collect();
    for connection in &mut copies {
        (0..32).for_each(|id| connection.send(&interactive(id, &photo)));
    }
    server.connect_as(1).embed_image(&photo).unwrap();
    // Each of the eight had some turns before the photo came, and one beside it; they would have had all 32.
    let inferences = server.status()["image_inferences"].as_u64().unwrap();
    assert!(inferences < 8 * 16, "{inferences} of 256 images were embedded before the only one of another");
    for connection in &mut copies {
        assert!(matches!(connection.receive(), Some(Answer::Embedding { id: 0, .. })));
    }
}

/// A flat grey PNG: 49 million pixels in a file of some kilobytes, whose decoding is reckoned to take 298 MB.
fn flat_photo() -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    GrayImage::from_pixel(7000, 7000, Luma([127])).write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

#[test]
fn all_decoders_together_keep_to_their_memory() {
    let options = ["--threads", "8", "--decoder-memory", "400"];
    let server = Embedder::start_with("serve", &models_directory(), MODEL, &options);
    server.connect().embed_text("loaded").unwrap();
    let before = server.status()["peak_resident_bytes"].as_u64().unwrap();
    let photo = flat_photo();
    let mut connections: Vec<Connection> = (0..6).map(|_| server.connect()).collect();
    for connection in &mut connections {
        connection.send(&interactive(1, &photo));
    }
    for connection in &mut connections {
        assert!(connection.receive_vector(1).is_ok());
    }
    let more = server.status()["peak_resident_bytes"].as_u64().unwrap() - before;
    assert!(more < 400 << 20, "{more} bytes more");
}

#[test]
fn an_image_that_needs_more_than_all_decoders_may_take_is_refused() {
    let server = Embedder::start_with("serve", &models_directory(), MODEL, &["--decoder-memory", "200"]);
    let mut connection = server.connect();
    let failure = connection.embed_image(&flat_photo()).unwrap_err();
    assert_eq!(failure.kind, FailureKind::LimitExceeded, "{failure:?}");
    assert!(failure.hint.contains("clip.decoder_memory"), "{failure:?}");
    assert!(connection.embed_image(&photo(1, ImageFormat::Png)).is_ok());
}
