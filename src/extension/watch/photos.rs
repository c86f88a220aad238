//! Embedding the photos that a statement wrote.

use std::collections::HashMap;
use std::fmt::Write;

use pg_clip_wire::Fingerprint;
use pgrx::{IntoDatum, pg_sys};
use sha2::{Digest, Sha256};

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

/// Embeds what the query returns (see [`super::sql::inserted_photos`]) and writes it to the target.
pub(super) fn embed(spi: &Spi, watched: &Watched, query: &str) -> Result<(), Error> {
    let model = settings::model()?;
    let mut target = None;
    let mut batch = Batch::default();
    let mut photos = spi.open(query)?;
    while let Some(row) = photos.next() {
        if is_unchanged(&row) {
            continue;
        }
        if target.is_none() {
            let fingerprint = client::describe(&model)?.fingerprint;
            let (key, project) = (row.type_of(KEY), row.type_of(PROJECT));
            let identity = identity(&model, &fingerprint);
            target = Some((Target::prepare(spi, watched, identity, key, project)?, fingerprint));
        }
        batch.add(row, watched)?;
        if batch.photos.len() >= BATCH_PHOTOS || batch.bytes >= BATCH_BYTES {
            std::mem::take(&mut batch).embed(&model, watched, target.as_ref())?;
        }
    }
    batch.embed(&model, watched, target.as_ref())
}

/// What the model column says: the name, by which the model can be called, and the start of the fingerprint, which
/// tells two models of one name apart.
pub(crate) fn identity(model: &str, fingerprint: &Fingerprint) -> String {
    const SHOWN: usize = 6;
    fingerprint[..SHOWN].iter().fold(format!("{model}@"), |mut identity, byte| {
        // Writing to a String does not fail.
        let _ = write!(identity, "{byte:02x}");
        identity
    })
}

fn is_unchanged(row: &Rows) -> bool {
    match (row.value(IMAGE), row.value(IMAGE_BEFORE)) {
        // SAFETY: both are non-null bytea values of a row at hand.
        (Some(now), Some(before)) => unsafe { varlena::same(now, before) },
        _ => false,
    }
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
        let checksum = Sha256::digest(image.as_slice()).as_slice().into_datum().unwrap_or(0.into());
        // SAFETY: a bytea that was made for this value.
        let checksum = unsafe { Bytes::own(checksum) };
        self.bytes += size;
        self.photos.push(Photo { row, key, image, checksum });
        Ok(())
    }

    /// Embeds the photos and writes their rows. The same bytes are embedded once, in this batch and ever.
    fn embed(
        self,
        model: &str,
        watched: &Watched,
        target: Option<&(Target, Fingerprint)>,
    ) -> Result<(), Error> {
        let Some((target, fingerprint)) = target else {
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
        let answers = match client::embed(model, &inputs) {
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
