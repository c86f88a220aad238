//! The rules that a source has to meet.

use pgrx::pg_sys;

use super::request::Request;
use crate::catalog::{is_text, name_of, uniqueness};
use crate::error::Error;
use crate::owned::{Column, KeyType, Table, columns, find};
use crate::partition_tree;
use crate::refusal::{Reason, refuse};
use crate::spi::{Argument, Spi};
use crate::watch::role::act_as;

pub(super) struct Source {
    pub(super) table: Table,
    pub(super) image: Column,
    pub(super) key: Column,
    /// `project` where it is not named and there is such a column.
    pub(super) project: Option<Column>,
}

/// The column of the primary key of table `$1`, if it has one.
const PRIMARY_KEY: &str = "
    SELECT attname::text FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]
    WHERE indrelid = $1 AND indisprimary AND indnkeyatts = 1";

impl Source {
    pub(super) fn look_up(spi: &Spi, table: Table, request: &Request) -> Result<Source, Error> {
        if request.is_async() && table.is_temporary() {
            return Err(refuse(Reason::NotSupported, format!("table {} is temporary", table.name))
                .with_detail(
                    "The queue works in a session of its own, which sees no temporary table of another session.",
                )
                .with_hint("Watch it with mode => 'sync'."));
        }
        if let Some(whole) = partition_tree::ancestors(table.oid).last() {
            let (whole, part) = (name_of(*whole), &table.name);
            return Err(refuse(
                Reason::NotSupported,
                format!("table {part} is a partition of table {whole}"),
            )
            .with_detail("A statement on the whole fires no triggers of its partitions.")
            .with_hint(format!("SELECT clip_watch('{whole}')")));
        }
        let columns = columns(spi, &table)?;
        let image = find(&table, &columns, request.image.clone()).map_err(|error| {
            error.with_hint(if request.is_by_reference {
                "Name the column that says where the photos lie with reference_column => '...'."
            } else {
                "Name the column of the photos with image_column => '...', or the one that says where they lie with reference_column => '...'."
            })
        })?;
        check_type(&table, image, request)?;
        let key = find(&table, &columns, key_name(spi, &table, request)?)?;
        let project = match &request.project {
            Some(name) => Some(find(&table, &columns, name.clone())?),
            None => columns.iter().find(|column| column.name == "project"),
        };
        let mut read = [Some(image), Some(key), project].into_iter().flatten();
        if let Some(column) = read.find(|column| column.is_virtual) {
            return Err(refuse(
                Reason::NotSupported,
                format!("column \"{}\" of table {} is a virtual generated column", column.name, table.name),
            )
            .with_detail("Triggers see no values of virtual columns.")
            .with_hint("A stored generated column can be used."));
        }
        if !is_unique(&table, key, false) {
            let message = format!("column \"{}\" of table {} is not unique", key.name, table.name);
            let key = crate::catalog::identifier(&key.name);
            return Err(if table.is_partitioned() {
                refuse(Reason::NotReady, message).with_detail(OF_PARTITIONS).with_hint(partition_by(&key))
            } else {
                refuse(Reason::NotReady, message)
                    .with_detail("A photo is known by its key, as its type and its collation compare it.")
                    .with_hint(format!("ALTER TABLE {} ADD UNIQUE ({key})", table.name))
            });
        }
        // Refuses a type whose values cannot be compared.
        for column in [Some(key), project].into_iter().flatten() {
            KeyType::of(spi, &table, column)?;
        }
        let (image, key, project) = (image.clone(), key.clone(), project.cloned());
        Ok(Source { table, image, key, project })
    }
}

/// Refuses a column of another type than that of photos, or of references.
fn check_type(table: &Table, image: &Column, request: &Request) -> Result<(), Error> {
    let (is_right, wanted) = if request.is_by_reference {
        (is_text(image.type_oid), "text")
    } else {
        (image.type_oid == pg_sys::BYTEAOID, "bytea")
    };
    if is_right {
        return Ok(());
    }
    let Column { name, declaration, type_oid, .. } = image;
    let message = format!("column \"{name}\" of table {} is of type {declaration}, not {wanted}", table.name);
    let error = refuse(Reason::WrongType, message);
    Err(if !request.is_by_reference && is_text(*type_oid) {
        error.with_hint("A column that says where the photos lie is named with reference_column => '...'.")
    } else {
        error
    })
}

const OF_PARTITIONS: &str = "A photo is known by one column, and PostgreSQL keeps a column of a partitioned table unique by itself only where the table is partitioned by it.";

/// The advice for a table that is partitioned by another column than its key.
fn partition_by(key: &str) -> String {
    format!(
        "Partition the table by {key}, or keep the photos in a table of their own that is, or is not partitioned."
    )
}

fn key_name(spi: &Spi, table: &Table, request: &Request) -> Result<String, Error> {
    if let Some(key) = &request.key {
        return Ok(key.clone());
    }
    let row = act_as(table.owner, || {
        let row = spi.run_now(PRIMARY_KEY, &[Argument::oid(table.oid)])?;
        Ok::<_, Error>(if row.len() > 0 { row.printed(1) } else { None })
    })?;
    row.ok_or_else(|| {
        let message = format!("table {} has no primary key of one column", table.name);
        let error = refuse(Reason::UndefinedColumn, message);
        if table.is_partitioned() {
            error.with_detail(OF_PARTITIONS).with_hint(partition_by("the key"))
        } else {
            error.with_hint("Name a unique column with key_column => '...'.")
        }
    })
}

/// Whether a column of a table is unique by itself, at once or when a transaction commits.
pub(super) fn is_unique(table: &Table, column: &Column, at_once: bool) -> bool {
    let number = pg_sys::AttrNumber::try_from(column.number).expect("a column's number is small");
    uniqueness(table.oid, number).is_some_and(|is_immediate| is_immediate || !at_once)
}
