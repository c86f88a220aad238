//! Which columns of which tables a trigger works on.

use pgrx::{IntoDatum, pg_sys};

use super::Firing;
use super::deferrable::Constraints;
use super::home::{Home, oid, oid_of};
use super::role::act_as;
use super::sql::{self, identifier};
use crate::error::Error;
use crate::spi::{Argument, Rows, Spi};

/// A watched table and its target. All names are quoted, and tables have their schemas.
pub(crate) struct Watched {
    pub(crate) source: String,
    pub(crate) target: String,
    /// Who writes to the target.
    pub(crate) writer: pg_sys::Oid,
    pub(crate) image: String,
    pub(crate) key: String,
    /// The columns of source and target, where the project is carried over.
    pub(crate) project: Option<(String, String)>,
    pub(crate) target_key: String,
    pub(crate) embedding: String,
    pub(crate) checksum: String,
    pub(crate) model: String,
    /// pgvector's type, wherever it is installed.
    pub(crate) vector_type: pg_sys::Oid,
    /// What writing to the target can fire at the commit.
    pub(super) constraints: Constraints,
    /// What `clip_watch` wrote down beside; nothing for a trigger that somebody wrote by hand.
    pub(crate) registration: Option<Registration>,
}

/// What only a registered watch has.
#[derive(Clone)]
pub(crate) struct Registration {
    pub(crate) source: pg_sys::Oid,
    /// Who owns the source.
    pub(crate) reader: pg_sys::Oid,
    pub(crate) mode: Mode,
    /// Which model made the vectors of the target; nothing before there is one.
    pub(crate) model: Option<String>,
    pub(crate) key_type: pg_sys::Oid,
    pub(crate) project_type: pg_sys::Oid,
    /// Whether there are jobs of the source.
    pub(crate) has_jobs: bool,
}

/// When photos are embedded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// In the transaction that writes them.
    Sync,
    /// After it, by the queue.
    Async,
}

impl Watched {
    /// What `clip_watch` wrote down for the table, or else what the trigger's arguments say.
    ///
    /// A trigger that somebody wrote by hand for a table that is not registered writes as the caller: its arguments
    /// can name any table, and must not lend anybody's rights.
    pub(crate) fn find(spi: &Spi, home: &Home, firing: &Firing) -> Result<Watched, Error> {
        if let Some(registered) = Watched::registered(spi, home, firing.table)? {
            return Ok(registered);
        }
        let arguments = spi.run(sql::FROM_ARGUMENTS, &[oid(firing.table), text_array(&firing.arguments)])?;
        if arguments.len() == 0 || firing.arguments.is_empty() {
            // SAFETY: the table is the one that the running trigger is on.
            let name = unsafe { crate::varlena::c_string(pg_sys::get_rel_name(firing.table)) };
            return Err(Error::NotWatched(name));
        }
        let mut watched = Watched::read(&arguments, home.vector_type);
        // SAFETY: a plain read of the current role.
        watched.writer = unsafe { pg_sys::GetUserId() };
        watched.constraints = Constraints::of(spi, &watched.target, watched.writer)?;
        Ok(watched)
    }

    /// What `clip_watch` wrote down for the table, if it did.
    pub(crate) fn registered(spi: &Spi, home: &Home, source: pg_sys::Oid) -> Result<Option<Watched>, Error> {
        let row = act_as(home.owner, || spi.run(&sql::registration(&home.schema), &[oid(source)]))?;
        if row.len() == 0 {
            return Ok(None);
        }
        let oid_in = |column| row.value(column).map_or(pg_sys::InvalidOid, oid_of);
        let registration = Registration {
            source,
            reader: oid_in(12),
            mode: if row.text(13).as_deref() == Some("async") { Mode::Async } else { Mode::Sync },
            model: row.text(14),
            key_type: oid_in(15),
            project_type: oid_in(16),
            has_jobs: row.text(17).as_deref() == Some("t"),
        };
        let mut watched = Watched::read(&row, home.vector_type);
        watched.registration = Some(registration);
        if row.text(18).as_deref() == Some("t") {
            watched.constraints = Constraints::of(spi, &watched.target, watched.writer)?;
        }
        Ok(Some(watched))
    }

    /// Reads a row of [`sql::registration`] or [`sql::FROM_ARGUMENTS`], which begin with the same columns.
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
            constraints: Constraints::default(),
            registration: None,
        }
    }
}

fn text_array(texts: &[String]) -> Argument {
    Argument { oid: pg_sys::TEXTARRAYOID, value: texts.to_vec().into_datum() }
}
