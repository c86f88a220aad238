//! Embedding the photos that a statement wrote.

use std::collections::HashMap;

use pg_clip_wire::{Fingerprint, Priority};
use pgrx::{IntoDatum, pg_sys};
use sha2::{Digest, Sha256};

use super::home::Home;
use super::provenance::{self, identity};
use super::role::with_portable_output;
use super::target::{Row, Target};
use super::watched::Watched;
use crate::client::{self, Input};
use crate::error::Error;
use crate::settings;
use crate::spi::{Rows, Spi};
use crate::varlena::{self, Bytes};
use crate::vector;

/// A batch is sent at this many photos …
const BATCH_PHOTOS: usize = 32;
/// … or this many bytes, whichever comes first: what a backend holds of a COPY, beside one photo.
const BATCH_BYTES: usize = 64 << 20;

// The columns of the query.
const KEY: i32 = 1;
const IMAGE: i32 = 2;
const PROJECT: i32 = 3;
const IMAGE_BEFORE: i32 = 4;
const KEY_IS_NEW: i32 = 5;

/// Embeds what the query returns (see [`super::sql::inserted_photos`]) and writes it to the target.
pub(super) fn embed(spi: &Spi, home: &Home, watched: &Watched, query: &str) -> Result<(), Error> {
    let mut target = None;
    let mut batch = Batch::default();
    let mut photos = spi.open(query)?;
    while let Some(row) = photos.next() {
        if is_unchanged(&row) {
            continue;
        }
        if target.is_none() {
            // Only now: the target and clip.model may have moved to another model together.
            provenance::lock(spi, watched)?;
            let model = settings::model()?;
            let fingerprint = client::describe(&model)?.fingerprint;
            let (key, project) = (row.type_of(KEY), row.type_of(PROJECT));
            let identity = identity(&model, &fingerprint);
            provenance::check(spi, home, watched, &identity)?;
            let rows = Target::prepare(spi, watched, identity, key, project)?;
            target = Some(Writing { model, fingerprint, rows });
        }
        batch.add(row, watched)?;
        if batch.photos.len() >= BATCH_PHOTOS || batch.bytes >= BATCH_BYTES {
            std::mem::take(&mut batch).embed(watched, target.as_ref())?;
        }
    }
    batch.embed(watched, target.as_ref())
}

/// Keeps the vectors of photos whose key changed, and returns the keys of those whose bytes have none: they are to be
/// embedded. The query is as for [`embed`].
pub(super) fn keep(spi: &Spi, watched: &Watched, query: &str) -> Result<Vec<String>, Error> {
    with_portable_output(|| keep_each(spi, watched, query))
}

fn keep_each(spi: &Spi, watched: &Watched, query: &str) -> Result<Vec<String>, Error> {
    let model = watched.registration.as_ref().and_then(|registration| registration.model.clone());
    let mut target = None;
    let mut without = Vec::new();
    let mut photos = spi.open(query)?;
    while let Some(row) = photos.next() {
        if is_unchanged(&row) {
            continue;
        }
        let Some(key) = row.value(KEY) else {
            continue;
        };
        if let (Some(image), Some(model)) = (row.value(IMAGE).filter(|_| has_new_key(&row)), &model) {
            if target.is_none() {
                let (key, project) = (row.type_of(KEY), row.type_of(PROJECT));
                target = Some(Target::prepare(spi, watched, model.clone(), key, project)?);
            }
            // SAFETY: a non-null bytea of a row at hand.
            let checksum = checksum(unsafe { Bytes::new(image) }.as_slice());
            if let Some(target) = &target
                && let Some(copy) = target.vector_of(&checksum)?
            {
                let project = row.value(PROJECT);
                target.put(&Row { key, checksum: &checksum, vector: copy.datum(), project })?;
                continue;
            }
        }
        without.extend(row.text(KEY));
    }
    Ok(without)
}

/// The sha256 of an image, as a `bytea`.
fn checksum(image: &[u8]) -> Bytes {
    let checksum = Sha256::digest(image).as_slice().into_datum().unwrap_or(0.into());
    // SAFETY: a bytea that was made for this value.
    unsafe { Bytes::own(checksum) }
}

fn has_new_key(row: &Rows) -> bool {
    row.value(KEY_IS_NEW).is_some_and(|is_new| is_new.value() != 0)
}

fn is_unchanged(row: &Rows) -> bool {
    match (row.value(IMAGE), row.value(IMAGE_BEFORE)) {
        // SAFETY: both are non-null bytea values of a row at hand.
        (Some(now), Some(before)) => unsafe { varlena::same(now, before) },
        _ => false,
    }
}

/// The target, and the model whose vectors it takes.
struct Writing<'a> {
    model: String,
    fingerprint: Fingerprint,
    rows: Target<'a>,
}

#[derive(Default)]
struct Batch<'a> {
    photos: Vec<Photo<'a>>,
    bytes: usize,
}

struct Photo<'a> {
    row: Rows<'a>,
    key: pg_sys::Datum,
    image: Bytes,
    /// The sha256 of the image, as a `bytea`.
    checksum: Bytes,
}

impl<'a> Batch<'a> {
    fn add(&mut self, row: Rows<'a>, watched: &Watched) -> Result<(), Error> {
        let (Some(key), Some(image)) = (row.value(KEY), row.value(IMAGE)) else {
            // A photo without a key belongs to nobody: a key column that is no primary key can be NULL.
            return Ok(());
        };
        // SAFETY: a non-null bytea of a row that the batch keeps.
        let size = unsafe { varlena::size(image) };
        client::check_image_size(size).map_err(|error| of_photo(&row, watched, error))?;
        // SAFETY: as above.
        let image = unsafe { Bytes::new(image) };
        let checksum = checksum(image.as_slice());
        self.bytes += size;
        self.photos.push(Photo { row, key, image, checksum });
        Ok(())
    }

    /// Embeds the photos and writes their rows. The same bytes are embedded once, in this batch and ever.
    fn embed(self, watched: &Watched, target: Option<&Writing>) -> Result<(), Error> {
        let Some(Writing { model, fingerprint, rows: target }) = target else {
            return Ok(());
        };
        let mut vectors: HashMap<&[u8], Bytes> = HashMap::new();
        let mut fresh: Vec<&Photo> = Vec::new();
        for photo in &self.photos {
            let checksum = photo.checksum.as_slice();
            if vectors.contains_key(checksum)
                || fresh.iter().any(|other| other.checksum.as_slice() == checksum)
            {
                continue;
            }
            match target.vector_of(&photo.checksum)? {
                Some(copy) => {
                    vectors.insert(checksum, copy);
                }
                None => fresh.push(photo),
            }
        }
        let inputs: Vec<Input> = fresh.iter().map(|photo| Input::Image(photo.image.as_slice())).collect();
        let answers = match client::embed(model, &inputs, Priority::Interactive) {
            Ok(answers) => answers,
            // Where the embedder died of a photo, the one is known if it was alone.
            Err(error) => {
                return Err(match fresh.as_slice() {
                    [alone] => of_photo(&alone.row, watched, error),
                    _ => error,
                });
            }
        };
        for (photo, answer) in fresh.iter().zip(answers) {
            let embedding = answer.map_err(|failure| of_photo(&photo.row, watched, failure.into()))?;
            if embedding.fingerprint != *fingerprint {
                return Err(Error::ModelChanged);
            }
            // SAFETY: a vector that was made for this value.
            let vector = unsafe { Bytes::own(vector::to_datum(&embedding.vector)) };
            vectors.insert(photo.checksum.as_slice(), vector);
        }
        for photo in &self.photos {
            let vector = vectors.get(photo.checksum.as_slice()).ok_or(Error::OutOfTurn)?.datum();
            let project = photo.row.value(PROJECT);
            target.put(&Row { key: photo.key, checksum: &photo.checksum, vector, project })?;
        }
        Ok(())
    }
}

fn of_photo(row: &Rows, watched: &Watched, error: Error) -> Error {
    let key = row.text(KEY).unwrap_or_default();
    Error::Photo { key, table: watched.source.clone(), error: Box::new(error) }
}
