//! Pictures to test with: the demo's, and broken ones.

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use xtask::workspace::Workspace;

/// The repository's folder.
pub fn repository() -> PathBuf {
    static ROOT: LazyLock<PathBuf> =
        LazyLock::new(|| Workspace::find().expect("the tests run in a checkout").root);
    ROOT.clone()
}

/// A file of the repository.
#[track_caller]
pub fn repository_file(path: &str) -> Vec<u8> {
    fs::read(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The demo's photos: JPEG, PNG and WebP, in the order of their names.
pub fn demo_photos() -> Vec<Vec<u8>> {
    named_demo_photos().into_iter().map(|(_, photo)| photo).collect()
}

/// The same, with the names of their files, which say what they show: `bicycle-1.jpg`.
pub fn named_demo_photos() -> Vec<(String, Vec<u8>)> {
    let folder = repository().join("models/demo/photos");
    let entries = fs::read_dir(&folder).expect("the demo's photos are in the repository");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry is read").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension != "json") && file.is_file());
    files.sort();
    let name = |file: &PathBuf| file.file_name().expect("a name").to_string_lossy().into_owned();
    files.iter().map(|file| (name(file), fs::read(file).expect("a photo is read"))).collect()
}

/// One photo of the demo, a JPEG.
pub fn demo_photo() -> Vec<u8> {
    demo_jpegs().into_iter().next().expect("one photo is a JPEG")
}

/// A photo with other bytes that shows the same: decoders stop at the end of the picture.
pub fn variant(photo: &[u8], number: u32) -> Vec<u8> {
    [photo, &number.to_be_bytes()].concat()
}

/// The demo's photos that are JPEGs.
pub fn demo_jpegs() -> Vec<Vec<u8>> {
    demo_photos().into_iter().filter(|photo| photo.starts_with(b"\xff\xd8")).collect()
}

/// A JPEG that claims a size of 64,250 x 64,250 pixels and holds none of them.
pub fn pixel_flood() -> Vec<u8> {
    let mut jpeg = vec![0xff, 0xd8, 0xff, 0xc0, 0x00, 0x11, 0x08, 0xfa, 0xfa, 0xfa, 0xfa, 0x03];
    jpeg.extend_from_slice(&[0x01, 0x22, 0x00, 0x02, 0x11, 0x01, 0x03, 0x11, 0x01]);
    jpeg.resize(5_000, 0);
    jpeg
}
