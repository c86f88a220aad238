//! The photos that a statement wrote.
//!
//! A transition table tells which keys a statement touched. The photo is read from its row in the same transaction:
//! another trigger, or another part of the statement, may have changed it since.

use std::collections::HashMap;

use pg_clip_wire::{Fingerprint, Priority};

use super::extension_schema::ExtensionSchema;
use super::identity::identity;
use super::key::Key;
use super::provenance;
use super::role::PortableOutput;
use super::sql;
use super::target::{self, Checksum, Known, Row, Target, checksum_of};
use super::watched::{Source, Watched};
use crate::batch_limits::{MOST_BYTES, MOST_PHOTOS};
use crate::client::{self, Input};
use crate::current_model;
use crate::error::Error;
use crate::spi::{Cursor, Plan, Rows, Spi, Transition};
use crate::varlena::Bytes;

/// The change of a photo under a key that a statement left.
pub(super) struct Change {
    pub(super) key: Key,
    /// Whether there is an image, of other bytes than before.
    pub(super) has_new_image: bool,
    /// Whether the key is another than before.
    pub(super) has_new_key: bool,
    pub(super) has_new_project: bool,
}

/// Goes through the keys that a query returns as its first column, see [`sql::inserted_keys`].
pub(super) fn each_key(
    mut rows: Cursor,
    source: &Source,
    mut then: impl FnMut(Key) -> Result<(), Error>,
) -> Result<(), Error> {
    while let Some(row) = rows.next() {
        // A photo without a key has no place in the target.
        if let Some(key) = key_of(&row, source)? {
            then(key)?;
        }
    }
    Ok(())
}

/// Goes through the changes of an UPDATE, see [`sql::changes`]. Images are read only where their size and their place
/// leave it open whether they are the same.
pub(super) fn each_change(
    spi: &Spi,
    watched: &Watched,
    query: &str,
    transition: Transition,
    mut then: impl FnMut(Change) -> Result<(), Error>,
) -> Result<(), Error> {
    const IMAGE: i32 = 2;
    const IMAGE_BEFORE: i32 = 3;
    const WAS_THERE: i32 = 4;
    const PROJECT_CHANGED: i32 = 5;
    let mut rows = spi.open_on(query, transition)?;
    while let Some(row) = rows.next() {
        let image_in = |column| watched.source.image_in(&row, column);
        let has_new_image = match (image_in(IMAGE)?, image_in(IMAGE_BEFORE)?) {
            (Some(now), Some(before)) => !now.is_same_as(before),
            (Some(_), None) => true,
            (None, _) => false,
        };
        let has_new_key = !row.get::<bool>(WAS_THERE)?.unwrap_or_default();
        let has_new_project = row.get::<bool>(PROJECT_CHANGED)?.unwrap_or_default();
        if !(has_new_image || has_new_key || has_new_project) {
            continue;
        }
        if let Some(key) = key_of(&row, &watched.source)? {
            then(Change { key, has_new_image, has_new_key, has_new_project })?;
        }
    }
    Ok(())
}

fn key_of(row: &Rows, source: &Source) -> Result<Option<Key>, Error> {
    const KEY: i32 = 1;
    let datum = row.value(KEY, source.key_type.oid)?;
    // SAFETY: the value is of the key's type.
    Ok(datum.map(|datum| unsafe { source.key_type.copy(datum) }))
}

/// Embeds photos within the transaction that wrote them, batch by batch. To be used inside of [`Watched::read`].
pub(super) struct Photos<'a> {
    spi: &'a Spi,
    extension: &'a ExtensionSchema,
    watched: &'a Watched,
    read: Plan<'a>,
    writing: Option<Writing<'a>>,
    batch: Vec<Photo<'a>>,
    bytes: usize,
}

/// The target, and the model whose vectors it takes.
struct Writing<'a> {
    model: String,
    fingerprint: Fingerprint,
    target: Target<'a>,
}

struct Photo<'a> {
    key: Key,
    /// See [`sql::photo`].
    row: Rows<'a>,
    image: Bytes,
    checksum: Checksum,
}

/// The columns of [`sql::photo`].
const IMAGE: i32 = 1;
const PROJECT: i32 = 2;

impl<'a> Photos<'a> {
    pub(super) fn new(
        spi: &'a Spi,
        extension: &'a ExtensionSchema,
        watched: &'a Watched,
    ) -> Result<Photos<'a>, Error> {
        let read = spi.prepare_look_up(&sql::photo(watched), &[watched.source.key_type.oid])?;
        Ok(Photos { spi, extension, watched, read, writing: None, batch: Vec::new(), bytes: 0 })
    }

    /// Takes on the photo that is under a key now; where there is none, its embedding is deleted.
    pub(super) fn touch(&mut self, key: Key) -> Result<(), Error> {
        let row = self.read.run(&[Some(key.datum())])?;
        let image = if row.len() > 0 { row.bytea(IMAGE)? } else { None };
        let Some(image) = image else {
            return target::delete_embedding(self.spi, self.watched, &key);
        };
        let size = image.size();
        client::check_image_size(size).map_err(|error| of_photo(&key, self.watched, error))?;
        let image = image.copy();
        let checksum = checksum_of(image.as_slice());
        self.bytes += size;
        self.batch.push(Photo { key, row, image, checksum });
        if self.batch.len() >= MOST_PHOTOS || self.bytes >= MOST_BYTES {
            self.send()?;
        }
        Ok(())
    }

    /// Embeds the rest of the batch.
    pub(super) fn finish(mut self) -> Result<(), Error> {
        self.send()
    }

    /// Embeds the photos of the batch and writes their rows. The same bytes are embedded once, in this batch and ever.
    fn send(&mut self) -> Result<(), Error> {
        let batch = std::mem::take(&mut self.batch);
        self.bytes = 0;
        if batch.is_empty() {
            return Ok(());
        }
        let watched = self.watched;
        let Writing { model, fingerprint, target } = self.writing()?;
        let mut vectors: HashMap<Checksum, Known> = HashMap::new();
        let mut fresh: Vec<&Photo> = Vec::new();
        let mut without_next: Vec<&Photo> = Vec::new();
        for photo in &batch {
            let is_known = vectors.contains_key(&photo.checksum)
                || fresh.iter().any(|other| other.checksum == photo.checksum);
            if is_known {
                continue;
            }
            let known = target.known(&photo.checksum)?;
            if watched.next.is_some() && known.as_ref().is_none_or(|known| known.next.is_none()) {
                without_next.push(photo);
            }
            match known {
                Some(known) => {
                    vectors.insert(photo.checksum, known);
                }
                None => fresh.push(photo),
            }
        }
        let inputs: Vec<Input> = fresh.iter().map(|photo| Input::Image(photo.image.as_slice())).collect();
        let answers = match client::embed(model, &inputs, Priority::Interactive) {
            Ok(answers) => answers,
            // Where the embedder died of a photo, a photo that was sent alone is known to be the cause.
            Err(error) => {
                return Err(match fresh.as_slice() {
                    [alone] => of_photo(&alone.key, watched, error),
                    _ => error,
                });
            }
        };
        for (photo, answer) in fresh.iter().zip(answers) {
            let embedding = answer.map_err(|failure| of_photo(&photo.key, watched, failure.into()))?;
            if embedding.fingerprint != *fingerprint {
                return Err(Error::ModelChanged);
            }
            vectors.insert(photo.checksum, Known { vector: embedding.vector, next: None });
        }
        if let Some(next) = &watched.next {
            let images: Vec<&[u8]> = without_next.iter().map(|photo| photo.image.as_slice()).collect();
            for (photo, vector) in without_next.iter().zip(next.embed(&images, Priority::Interactive)) {
                vectors.entry(photo.checksum).and_modify(|known| known.next = vector);
            }
        }
        for Photo { key, row, checksum, .. } in &batch {
            let Known { vector, next } = vectors.get(checksum).ok_or(Error::OutOfTurn)?;
            let project = match &watched.project {
                Some((project, _)) => row.value(PROJECT, project.type_oid)?,
                None => None,
            };
            target.put(&Row { key, checksum, vector, next: next.as_deref(), project })?;
        }
        Ok(())
    }

    fn writing(&mut self) -> Result<&Writing<'a>, Error> {
        if self.writing.is_none() {
            let model = current_model::model()?;
            let fingerprint = client::describe(&model)?.fingerprint;
            let identity = identity(&model, &fingerprint);
            provenance::check(self.spi, self.extension, self.watched, &identity)?;
            let target = Target::prepare(self.spi, self.extension, self.watched, &identity)?;
            self.writing = Some(Writing { model, fingerprint, target });
        }
        self.writing.as_ref().ok_or(Error::OutOfTurn)
    }
}

/// Gives photos whose key changed the vectors that their bytes have already, without the embedder: for tables whose
/// photos are not embedded in the transaction. To be used inside of [`Watched::read`].
pub(super) struct Renamed<'a> {
    watched: &'a Watched,
    read: Plan<'a>,
    target: Target<'a>,
}

impl<'a> Renamed<'a> {
    /// Nothing where the target has no vectors of a known model, or where the photos are not in the table.
    pub(super) fn new(
        spi: &'a Spi,
        extension: &'a ExtensionSchema,
        watched: &'a Watched,
    ) -> Result<Option<Renamed<'a>>, Error> {
        let model = watched.registration.as_ref().and_then(|registration| registration.model.as_ref());
        let Some(model) = model.filter(|_| !watched.source.is_by_reference) else {
            return Ok(None);
        };
        let read = spi.prepare_look_up(&sql::photo(watched), &[watched.source.key_type.oid])?;
        Ok(Some(Renamed { watched, read, target: Target::prepare(spi, extension, watched, model)? }))
    }

    /// Whether the photo under this key has its vector now.
    pub(super) fn keep(&self, key: &Key) -> Result<bool, Error> {
        let row = self.read.run(&[Some(key.datum())])?;
        let image = if row.len() > 0 { row.bytea(IMAGE)? } else { None };
        let Some(image) = image else {
            return Ok(false);
        };
        let checksum = checksum_of(image.copy().as_slice());
        let Some(Known { vector, next }) = self.target.known(&checksum)? else {
            return Ok(false);
        };
        let project = match &self.watched.project {
            Some((project, _)) => row.value(PROJECT, project.type_oid)?,
            None => None,
        };
        self.target.put(&Row {
            key,
            checksum: &checksum,
            vector: &vector,
            next: next.as_deref(),
            project,
        })?;
        Ok(true)
    }
}

fn of_photo(key: &Key, watched: &Watched, error: Error) -> Error {
    let key = watched.source.key_type.print(key, &PortableOutput::begin());
    Error::Photo { key, table: watched.source.table.name.clone(), error: Box::new(error) }
}
