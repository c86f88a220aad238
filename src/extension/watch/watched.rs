//! Which columns of which tables a trigger works on.

use pgrx::{IntoDatum, pg_sys};

use super::Firing;
use super::home::{Home, oid, oid_of};
use super::role::act_as;
use super::sql::{self, identifier};
use crate::error::Error;
use crate::spi::{Argument, Rows, Spi};

/// A watched table and its target. All names are quoted, and tables have their schemas.
pub(super) struct Watched {
    pub(super) source: String,
    pub(super) target: String,
    /// Who writes to the target.
    pub(super) writer: pg_sys::Oid,
    pub(super) image: String,
    pub(super) key: String,
    /// The columns of source and target, where the project is carried over.
    pub(super) project: Option<(String, String)>,
    pub(super) target_key: String,
    pub(super) embedding: String,
    pub(super) checksum: String,
    pub(super) model: String,
    /// pgvector's type, wherever it is installed.
    pub(super) vector_type: pg_sys::Oid,
}

impl Watched {
    /// What `clip_watch` wrote down for the table, or else what the trigger's arguments say.
    ///
    /// A trigger that somebody wrote by hand for a table that is not registered writes as the caller: its arguments
    /// can name any table, and must not lend anybody's rights.
    pub(super) fn find(spi: &Spi, firing: &Firing, function: pg_sys::Oid) -> Result<Watched, Error> {
        let Home { schema, owner, vector_type } = Home::of(spi, function)?;
        let registered = act_as(owner, || spi.run(&sql::registration(&schema), &[oid(firing.table)]))?;
        if registered.len() > 0 {
            return Ok(Watched::read(&registered, vector_type));
        }
        let arguments = spi.run(sql::FROM_ARGUMENTS, &[oid(firing.table), text_array(&firing.arguments)])?;
        if arguments.len() == 0 || firing.arguments.is_empty() {
            // SAFETY: the table is the one that the running trigger is on.
            let name = unsafe { crate::varlena::c_string(pg_sys::get_rel_name(firing.table)) };
            return Err(Error::NotWatched(name));
        }
        let mut watched = Watched::read(&arguments, vector_type);
        // SAFETY: a plain read of the current role.
        watched.writer = unsafe { pg_sys::GetUserId() };
        Ok(watched)
    }

    /// Reads a row of [`sql::registration`] or [`sql::FROM_ARGUMENTS`], which have the same columns.
    fn read(row: &Rows, vector_type: pg_sys::Oid) -> Watched {
        let name = |column| row.text(column).map(|name| identifier(&name));
        let required = |column| name(column).unwrap_or_default();
        let table = |column| row.text(column).unwrap_or_default();
        Watched {
            source: table(1),
            target: table(2),
            writer: row.value(3).map(oid_of).unwrap_or(pg_sys::InvalidOid),
            image: required(4),
            key: required(5),
            project: name(6).zip(name(7)),
            target_key: required(8),
            embedding: required(9),
            checksum: required(10),
            model: required(11),
            vector_type,
        }
    }
}

fn text_array(texts: &[String]) -> Argument {
    Argument { oid: pg_sys::TEXTARRAYOID, value: texts.to_vec().into_datum() }
}
