//! The deferrable constraints of a target.
//!
//! PostgreSQL defers nothing in a security-restricted operation: a constraint that waited for the commit would run as
//! the role that commits. So the constraints that a write to a target fires are checked at once, and only they: the
//! caller's other constraints stay as they are, and so does one that a DELETE does not fire, for it may wait for just
//! that DELETE.
//!
//! SET CONSTRAINTS takes names, and two tables of a schema may have constraints of one name. It fires what waits of both. What a
//! caller has made wait for its commit runs as the caller then, and never as the owner of the target. So SET CONSTRAINTS runs as
//! the caller. A caller without the right to use the schema cannot name its constraints: then the owner of the target runs it, and
//! for a foreign key of another table the owner of the extension, because such a key runs PostgreSQL's own code alone. Both only
//! where no other constraint has the name.

use pgrx::pg_sys;

use super::extension_schema::ExtensionSchema;
use super::role::act_as;
use crate::catalog::{Table, schema_name};
use crate::error::Error;
use crate::spi::{Argument, Spi, in_schema};

/// The constraints that writes of one kind can fire.
#[derive(Default)]
pub(super) struct Deferrable {
    target: pg_sys::Oid,
    extensions_owner: pg_sys::Oid,
    by_schema: Vec<Names>,
}

/// Constraints of one schema, as `SET CONSTRAINTS` takes them.
struct Names {
    schema: pg_sys::Oid,
    /// Whether they are foreign keys of other tables, which refer to the target.
    refer: bool,
    all: List,
    /// The INITIALLY DEFERRED ones among them, without names that a constraint that is not deferrable has too: PostgreSQL refuses
    /// to defer these.
    deferred: Option<List>,
}

struct List {
    names: String,
    count: u32,
}

/// The constraints of a target, by the statements that fire them.
#[derive(Default)]
pub(super) struct Constraints {
    /// INSERT, or UPDATE of anything but a key.
    pub(super) written: Deferrable,
    /// UPDATE of a key.
    pub(super) moved: Deferrable,
    pub(super) deleted: Deferrable,
}

impl Constraints {
    /// The constraints of a table and of its partitions.
    pub(super) fn of(
        spi: &Spi,
        extension: &ExtensionSchema,
        target: &Table,
        role: pg_sys::Oid,
    ) -> Result<Constraints, Error> {
        /// The bits of `tgtype` in `catalog/pg_trigger.h`.
        const INSERT_OR_UPDATE: i64 = 4 | 16;
        const DELETE: i64 = 8;
        let of = |fired_by, refer| Deferrable::of(spi, extension.owner, target.oid, fired_by, refer);
        act_as(role, || {
            Ok(Constraints {
                written: of(INSERT_OR_UPDATE, false)?,
                moved: of(INSERT_OR_UPDATE, true)?,
                deleted: of(DELETE, true)?,
            })
        })
    }
}

impl Deferrable {
    /// With foreign keys that refer to the table, or without.
    fn of(
        spi: &Spi,
        extensions_owner: pg_sys::Oid,
        target: pg_sys::Oid,
        fired_by: i64,
        refer: bool,
    ) -> Result<Deferrable, Error> {
        let arguments = [Argument::oid(target), Argument::int8(fired_by), Argument::bool(refer)];
        let rows = spi.run_kept(DEFERRABLE, &arguments)?;
        let [schemas, all, counts, deferred, deferred_counts, refer] =
            [1, 2, 3, 4, 5, 6].map(|column| rows.all_printed(column));
        let list = |names: Option<String>, count: Option<String>| {
            Some(List { names: names?, count: count?.parse().ok()? })
        };
        let lists = all.into_iter().zip(counts).zip(deferred.into_iter().zip(deferred_counts));
        type Text = Option<String>;
        type Row = ((Text, ((Text, Text), (Text, Text))), Text);
        let names = |((schema, ((all, count), (later, later_count))), refer): Row| {
            Some(Names {
                schema: pg_sys::Oid::from(schema?.parse::<u32>().ok()?),
                refer: refer.as_deref() == Some("t"),
                all: list(all, count)?,
                deferred: list(later, later_count),
            })
        };
        let by_schema = schemas.into_iter().zip(lists).zip(refer).filter_map(names).collect();
        Ok(Deferrable { target, extensions_owner, by_schema })
    }

    /// Runs `write`, to be called as the role that writes, with the constraints immediate. Afterwards they are as they
    /// were declared.
    pub(super) fn at_once<R>(&self, spi: &Spi, write: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
        for names in &self.by_schema {
            self.set(spi, names, &names.all, "IMMEDIATE")?;
        }
        let written = write()?;
        for names in &self.by_schema {
            if let Some(deferred) = &names.deferred {
                self.set(spi, names, deferred, "DEFERRED")?;
            }
        }
        Ok(written)
    }

    /// Makes constraints immediate, which fires what waits, or deferred.
    fn set(&self, spi: &Spi, names: &Names, list: &List, to: &str) -> Result<(), Error> {
        let Names { schema, refer, .. } = *names;
        // SAFETY: plain reads: as the second role a transaction commits.
        let (writer, caller) = unsafe { (pg_sys::GetUserId(), pg_sys::GetOuterUserId()) };
        let arguments =
            [Argument::oid(caller), Argument::oid(schema), Argument::oid(self.target), Argument::bool(refer)];
        let row = spi.run_now_kept(NAMED, &arguments)?;
        let role = match (row.get::<bool>(1)?, row.get::<bool>(2)?) {
            (Some(true), _) => caller,
            (_, Some(false)) if refer => self.extensions_owner,
            (_, Some(false)) => writer,
            _ => return Err(Error::SharedConstraint(schema_name(schema))),
        };
        let statement = format!("SET CONSTRAINTS {} {to}", list.names);
        act_as(role, || in_schema(schema, list.count, || spi.run(&statement, &[]).map(|_| ())))
    }
}

/// The deferrable constraints of table `$1` and its partitions that statements with the bits `$2` fire, by their schema, and by
/// whether they are foreign keys that refer to the table, which `$3` asks for: all of them, and the INITIALLY DEFERRED ones
/// among them that PostgreSQL defers by their names. With the numbers of names.
const DEFERRABLE: &str = "
    WITH tables AS (
        SELECT $1 AS relid UNION SELECT relid::oid FROM pg_partition_tree($1::regclass)
    ), fired AS (
        SELECT DISTINCT connamespace AS schema, format('%I.%I', nspname, conname) AS name,
            condeferred AND NOT EXISTS (
                SELECT FROM pg_constraint AS namesake
                WHERE namesake.conname = checked.conname AND namesake.connamespace = checked.connamespace
                    AND NOT namesake.condeferrable) AS deferred,
            contype = 'f' AND conrelid NOT IN (SELECT relid FROM tables) AS refers
        FROM pg_trigger
        JOIN pg_constraint AS checked ON checked.oid = tgconstraint
        JOIN pg_namespace AS namespace ON namespace.oid = connamespace
        WHERE tgrelid IN (SELECT relid FROM tables) AND tgdeferrable AND (tgtype::int8 & $2) <> 0
    )
    SELECT schema, string_agg(DISTINCT name, ', '), count(DISTINCT name),
        string_agg(DISTINCT name, ', ') FILTER (WHERE deferred), count(DISTINCT name) FILTER (WHERE deferred), refers
    FROM fired WHERE $3 OR NOT refers GROUP BY schema, refers ORDER BY schema, refers";

/// Whether role `$1` may name what is in schema `$2`, and whether a deferrable constraint of that schema on table `$3` or its
/// partitions has the name of another constraint: one of those that refer to the table, if `$4`, and else of the others.
const NAMED: &str = "
    WITH tables AS (
        SELECT $3 AS relid UNION SELECT relid::oid FROM pg_partition_tree($3::regclass)
    )
    SELECT has_schema_privilege($1, $2, 'USAGE'), EXISTS (
        SELECT FROM pg_trigger
        JOIN pg_constraint AS checked ON checked.oid = tgconstraint
        JOIN pg_constraint AS namesake ON namesake.conname = checked.conname
            AND namesake.connamespace = checked.connamespace AND namesake.oid <> checked.oid
        WHERE tgrelid IN (SELECT relid FROM tables) AND tgdeferrable AND checked.connamespace = $2
            AND (checked.contype = 'f' AND checked.conrelid NOT IN (SELECT relid FROM tables)) = $4
            AND namesake.conrelid NOT IN (SELECT relid FROM tables)
            AND NOT (namesake.contype = 'f' AND namesake.confrelid IN (SELECT relid FROM tables)))";
