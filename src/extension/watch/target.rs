//! Writing to the target, as its owner.

use pgrx::{IntoDatum, pg_sys};
use sha2::{Digest, Sha256};

use super::extension_schema::ExtensionSchema;
use super::identity::{identity, name_of};
use super::key::Key;
use super::sql;
use super::watched::Watched;
use crate::client;
use crate::error::Error;
use crate::spi::{Argument, Plan, Spi, Transition, text_datum};
use crate::varlena::Bytes;
use crate::vector;

/// The sha256 of an image.
pub(crate) type Checksum = [u8; 32];

pub(crate) fn checksum_of(image: &[u8]) -> Checksum {
    Sha256::digest(image).into()
}

/// Runs an UPDATE of the target, unless its text is empty.
pub(super) fn update(
    spi: &Spi,
    watched: &Watched,
    statement: &str,
    transition: Transition,
) -> Result<(), Error> {
    if !statement.is_empty() {
        watched.write(|| watched.constraints.moved.at_once(spi, || spi.run_on(statement, transition)))?;
    }
    Ok(())
}

/// Runs a DELETE of the target.
pub(super) fn delete(
    spi: &Spi,
    watched: &Watched,
    statement: &str,
    transition: Transition,
) -> Result<(), Error> {
    watched.write(|| watched.constraints.deleted.at_once(spi, || spi.run_on(statement, transition)))?;
    Ok(())
}

/// Deletes all rows that have no photo.
pub(super) fn delete_all_gone(spi: &Spi, watched: &Watched) -> Result<(), Error> {
    let run = || spi.run(&sql::delete_all_gone(watched), &[]);
    watched.write(|| watched.constraints.deleted.at_once(spi, run))?;
    Ok(())
}

/// The prepared statements on the target, to be used inside of [`Watched::read`].
pub(crate) struct Target<'a> {
    spi: &'a Spi,
    watched: &'a Watched,
    extension: &'a ExtensionSchema,
    find: Plan<'a>,
    write: Plan<'a>,
    model: Bytes,
    /// How many dimensions the model's vectors have, where that is known.
    dimensions: Option<usize>,
}

/// The vectors that the same bytes have already: the watch's, and that of the model that the target is being moved
/// to.
#[derive(Clone)]
pub(crate) struct Known {
    pub(crate) vector: Vec<f32>,
    pub(crate) next: Option<Vec<f32>>,
}

/// The row that is written for a photo.
pub(crate) struct Row<'a> {
    pub(crate) key: &'a Key,
    pub(crate) checksum: &'a Checksum,
    pub(crate) vector: &'a [f32],
    /// The vector of the model that the target is being moved to.
    pub(crate) next: Option<&'a [f32]>,
    /// Of the type of the project's columns.
    pub(crate) project: Option<pg_sys::Datum>,
}

impl<'a> Target<'a> {
    /// `model` is what the rows' model column gets: the model's name and fingerprint.
    pub(crate) fn prepare(
        spi: &'a Spi,
        extension: &'a ExtensionSchema,
        watched: &'a Watched,
        model: &str,
    ) -> Result<Target<'a>, Error> {
        let key = watched.source.key_type.oid;
        let mut types = vec![key, extension.vector_type, pg_sys::BYTEAOID, pg_sys::TEXTOID];
        types.extend(watched.project.as_ref().map(|(project, _)| project.type_oid));
        types.extend(watched.next.as_ref().map(|_| extension.vector_type));
        watched.write(|| {
            Ok(Target {
                extension,
                find: spi
                    .prepare_look_up(&sql::find_vector(watched), &[pg_sys::BYTEAOID, pg_sys::TEXTOID])?,
                write: spi.prepare_insert(&sql::write_vector(watched), &types)?,
                spi,
                watched,
                // SAFETY: a text that was made for this value.
                model: unsafe { Bytes::own(text_datum(model)) },
                dimensions: dimensions_of(model),
            })
        })
    }

    /// A copy of what the same bytes have already, from any photo that this transaction sees. A vector that is longer or shorter
    /// than those of its model is none.
    pub(crate) fn known(&self, checksum: &Checksum) -> Result<Option<Known>, Error> {
        let checksum = bytea(checksum);
        let values = [Some(checksum.datum()), Some(self.model.datum())];
        let rows = self.watched.write(|| self.find.run(&values))?;
        if rows.len() == 0 {
            return Ok(None);
        }
        let vector = |column, dimensions: Option<usize>| {
            let vector = rows.vector(column, self.extension)?;
            Ok::<_, Error>(vector.filter(|vector| dimensions.is_none_or(|known| vector.len() == known)))
        };
        let next = match &self.watched.next {
            Some(next) => vector(2, dimensions_of(&next.identity))?,
            None => None,
        };
        Ok(vector(1, self.dimensions)?.map(|vector| Known { vector, next }))
    }

    /// Writes the row of a photo, in place of one with its key.
    pub(crate) fn put(&self, row: &Row) -> Result<(), Error> {
        let checksum = bytea(row.checksum);
        // SAFETY: vectors that were made for these values.
        let own = |vector: &[f32]| unsafe { Bytes::own(vector::to_datum(vector)) };
        let (vector, next) = (own(row.vector), row.next.map(own));
        let mut values = vec![
            Some(row.key.datum()),
            Some(vector.datum()),
            Some(checksum.datum()),
            Some(self.model.datum()),
        ];
        if self.watched.project.is_some() {
            values.push(row.project);
        }
        if self.watched.next.is_some() {
            values.push(next.as_ref().map(Bytes::datum));
        }
        let constraints = &self.watched.constraints.written;
        self.watched.write(|| constraints.at_once(self.spi, || self.write.run(&values)))?;
        Ok(())
    }
}

/// How many dimensions the vectors of a model have, where this process has asked the embedder for it.
fn dimensions_of(model: &str) -> Option<usize> {
    client::known_dimensions(|fingerprint| identity(name_of(model), fingerprint) == model)
}

/// Deletes the row of a photo.
pub(crate) fn delete_embedding(spi: &Spi, watched: &Watched, key: &Key) -> Result<(), Error> {
    let key = Argument { oid: watched.source.key_type.oid, value: Some(key.datum()) };
    let run = || spi.run_by_index(&sql::delete_embedding(watched), &[key]);
    watched.write(|| watched.constraints.deleted.at_once(spi, run))?;
    Ok(())
}

/// Deletes the row of a photo if it is of other bytes.
pub(crate) fn delete_stale(
    spi: &Spi,
    watched: &Watched,
    key: &Key,
    checksum: &Checksum,
) -> Result<(), Error> {
    let bytes = bytea(checksum);
    let arguments = [
        Argument { oid: watched.source.key_type.oid, value: Some(key.datum()) },
        Argument { oid: pg_sys::BYTEAOID, value: Some(bytes.datum()) },
    ];
    let run = || spi.run_by_index(&sql::delete_stale(watched), &arguments);
    watched.write(|| watched.constraints.deleted.at_once(spi, run))?;
    Ok(())
}

fn bytea(checksum: &Checksum) -> Bytes {
    // SAFETY: a bytea that was made for this value.
    unsafe { Bytes::own(checksum.as_slice().into_datum().unwrap_or(0.into())) }
}
