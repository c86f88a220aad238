//! Damaged files: the picture is that of the reference, or there is an error.
//!
//! `tests/parity/damage.py` writes the damaged files, and the pictures that Pillow and libjpeg make of them.

use std::collections::HashMap;

use serde_json::Value;

use super::parity::{WITHOUT_MEAN, golden_files, manifest};
use super::peak::peak_of;
use super::{JpegScaling, format, header, jpeg, prepare};
use crate::error::Error;

const MAX_PIXELS: u64 = 50_000_000;

/// How far a field of 28 × 28 pixels may be from the reference's mean, in grey levels.
const FIELD_TOLERANCE: f32 = 3.0;

#[test]
fn a_picture_that_is_not_whole_is_refused() {
    let shown: Vec<_> = entries("refused")
        .filter(|entry| {
            !matches!(
                entry.prepare(),
                Err(Error::BrokenImage { .. } | Error::EmptyImage | Error::UnknownFormat)
            )
        })
        .map(|entry| entry.name)
        .collect();
    assert!(shown.is_empty(), "not refused:\n{}", shown.join("\n"));
}

#[test]
fn damage_outside_of_a_picture_changes_nothing() {
    let mut whole = HashMap::new();
    let mut changed = Vec::new();
    for entry in entries("harmless") {
        let picture = entry.prepare();
        let untouched = whole
            .entry(entry.of)
            .or_insert_with(|| prepare(&entry.before, MAX_PIXELS, &WITHOUT_MEAN, JpegScaling::Off).unwrap());
        if !picture.is_ok_and(|picture| picture == *untouched) {
            changed.push(entry.name);
        }
    }
    assert!(changed.is_empty(), "changed or refused:\n{}", changed.join("\n"));
}

#[test]
fn damage_by_chance_is_refused_or_seen_as_the_reference_sees_it() {
    let (mut shown, mut wrong) = (0, Vec::new());
    for entry in entries("chance") {
        let Ok(picture) = entry.prepare() else { continue };
        shown += 1;
        let difference = entry.seen.as_ref().map(|seen| furthest(&picture, seen));
        if difference.is_none_or(|difference| difference > FIELD_TOLERANCE) {
            wrong.push(format!("{} {difference:?}", entry.name));
        }
    }
    assert!(wrong.is_empty(), "not as the reference:\n{}", wrong.join("\n"));
    assert!(shown > 0);
}

#[test]
fn the_same_coefficients_in_other_scans_are_the_same_pixels() {
    let prepared = |name: &str| {
        let file = golden_files().into_iter().find(|file| file.name == name).unwrap();
        prepare(&file.bytes, MAX_PIXELS, &WITHOUT_MEAN, JpegScaling::Off).unwrap()
    };
    let each = prepared("jpeg-scans-each.jpg");
    assert!(each == prepared("jpeg-scans-pair.jpg"));
    assert!(each == prepared("jpeg-scans-last.jpg"));
}

#[test]
fn no_bytes_of_a_jpeg_make_its_walk_panic() {
    let files = golden_files();
    for name in ["jpeg-restarts.jpg", "jpeg-scans-pair.jpg", "jpeg-progressive-420.jpg"] {
        let whole = &files.iter().find(|file| file.name == name).unwrap().bytes;
        assert!(jpeg::whole(whole).is_ok());
        // A generator of pseudo-random numbers (Numerical Recipes): every run takes the same ones.
        let mut state = 1_u32;
        let mut next = |below: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize % below
        };
        for _ in 0..200 {
            let mut bytes = whole.clone();
            for _ in 0..=next(4) {
                let (at, value) = (2 + next(bytes.len() - 2), next(256) as u8);
                // Half of the changes hit the tables and headers at the start.
                let at = if next(2) == 0 { 2 + at % 700 } else { at };
                bytes[at] = value;
            }
            let _ = jpeg::whole(&bytes);
        }
    }
}

struct Entry {
    name: String,
    of: String,
    before: Vec<u8>,
    bytes: Vec<u8>,
    /// The means of the reference's picture in 8 × 8 fields; none where it has none.
    seen: Option<Vec<u8>>,
}

impl Entry {
    /// Prepares the damaged file, in no more memory than was reckoned for it.
    fn prepare(&self) -> Result<Vec<f32>, Error> {
        let (picture, peak) = peak_of(|| prepare(&self.bytes, MAX_PIXELS, &WITHOUT_MEAN, JpegScaling::Off));
        let format = format::recognise(&self.bytes);
        let reckoned = format.and_then(|format| header::needed_memory(format, &self.bytes, MAX_PIXELS));
        // Room for the input, and for the values between the passes of the resize.
        let allowed = reckoned.unwrap_or(0) + self.bytes.len() as u64 + (1 << 20);
        assert!(peak <= allowed, "{}: {peak} bytes, {allowed} allowed", self.name);
        picture
    }
}

fn entries(kind: &str) -> impl Iterator<Item = Entry> {
    let files: HashMap<_, _> = golden_files().into_iter().map(|file| (file.name, file.bytes)).collect();
    let listed = manifest("damage.json")[kind].as_array().unwrap().clone();
    listed.into_iter().map(move |listed| {
        let of = text(&listed["of"]);
        let before = files[of].clone();
        let mut bytes = before.clone();
        for edit in listed["edits"].as_array().unwrap() {
            let number = |field: &str| usize::try_from(edit[field].as_u64().unwrap()).unwrap();
            let put = text(&edit["put"]);
            let put = files.get(put).cloned().unwrap_or_else(|| hex::decode(put).unwrap());
            let (at, take) = (number("at"), number("take"));
            let end = bytes.len().min(at + take);
            bytes.splice(at..end, put.repeat(number("times")));
        }
        let name = format!("{of}: {} {}", text(&listed["shows"]), listed["edits"]);
        let seen = listed["seen"].as_str().map(|seen| hex::decode(seen).unwrap());
        Entry { name, of: of.to_owned(), before, bytes, seen }
    })
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// The largest difference of a field from the reference's.
fn furthest(picture: &[f32], seen: &[u8]) -> f32 {
    let mut furthest = 0.0_f32;
    for (at, value) in seen.iter().enumerate() {
        let (field, channel) = (at / 3, at % 3);
        let (top, left) = (field / 8 * 28, field % 8 * 28);
        let rows = (top..top + 28).map(|y| channel * 224 * 224 + y * 224 + left);
        let sum: f32 = rows.map(|start| picture[start..start + 28].iter().sum::<f32>()).sum();
        furthest = furthest.max((sum * 255.0 / (28.0 * 28.0) - f32::from(*value)).abs());
    }
    furthest
}
