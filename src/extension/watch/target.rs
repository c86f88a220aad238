//! Writing to the target, as its owner.

use pgrx::{IntoDatum, pg_sys};

use super::role::act_as;
use super::sql;
use super::watched::Watched;
use crate::error::Error;
use crate::spi::{Plan, Spi};
use crate::varlena::Bytes;

/// Runs an UPDATE of the target. An empty one is none.
pub(super) fn update(spi: &Spi, watched: &Watched, statement: &str) -> Result<(), Error> {
    if !statement.is_empty() {
        act_as(watched.writer, || watched.constraints.written.at_once(spi, || spi.run(statement, &[])))?;
    }
    Ok(())
}

/// Runs a DELETE of the target.
pub(super) fn delete(spi: &Spi, watched: &Watched, statement: &str) -> Result<(), Error> {
    act_as(watched.writer, || watched.constraints.deleted.at_once(spi, || spi.run(statement, &[])))?;
    Ok(())
}

/// The prepared statements of one trigger call.
pub(crate) struct Target<'a> {
    spi: &'a Spi,
    watched: &'a Watched,
    find: Plan<'a>,
    write: Plan<'a>,
    model: Bytes,
}

/// The row that is written for a photo.
pub(crate) struct Row<'a> {
    pub(crate) key: pg_sys::Datum,
    pub(crate) checksum: &'a Bytes,
    pub(crate) vector: pg_sys::Datum,
    pub(crate) project: Option<pg_sys::Datum>,
}

impl<'a> Target<'a> {
    /// `model` is what the rows' model column gets: the model's name and fingerprint.
    pub(crate) fn prepare(
        spi: &'a Spi,
        watched: &'a Watched,
        model: String,
        key_type: pg_sys::Oid,
        project_type: pg_sys::Oid,
    ) -> Result<Target<'a>, Error> {
        let mut types = vec![key_type, watched.vector_type, pg_sys::BYTEAOID, pg_sys::TEXTOID];
        if watched.project.is_some() {
            types.push(project_type);
        }
        act_as(watched.writer, || {
            Ok(Target {
                find: spi.prepare(&sql::find_vector(watched), &[pg_sys::BYTEAOID, pg_sys::TEXTOID])?,
                write: spi.prepare(&sql::write_vector(watched), &types)?,
                spi,
                watched,
                // SAFETY: a text that was made for this value.
                model: unsafe { Bytes::own(model.into_datum().unwrap_or(0.into())) },
            })
        })
    }

    /// A copy of the vector that the same bytes have already, from any photo that this transaction sees.
    pub(crate) fn vector_of(&self, checksum: &Bytes) -> Result<Option<Bytes>, Error> {
        let arguments = [Some(checksum.datum()), Some(self.model.datum())];
        let rows = act_as(self.watched.writer, || self.find.run(&arguments))?;
        if rows.len() == 0 {
            return Ok(None);
        }
        // SAFETY: a non-null vector is a varlena. The copy outlives the rows.
        Ok(rows.value(1).map(|datum| unsafe { Bytes::copy(datum) }))
    }

    /// Writes the row of a photo, in place of one with its key.
    pub(crate) fn put(&self, row: &Row) -> Result<(), Error> {
        let mut arguments =
            vec![Some(row.key), Some(row.vector), Some(row.checksum.datum()), Some(self.model.datum())];
        if self.watched.project.is_some() {
            arguments.push(row.project);
        }
        let constraints = &self.watched.constraints.written;
        act_as(self.watched.writer, || constraints.at_once(self.spi, || self.write.run(&arguments)))?;
        Ok(())
    }
}
