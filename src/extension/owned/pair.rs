//! A registered watch: a source and its target, locked and looked up anew in each transaction that works on them.

use pgrx::pg_sys;

use super::{Column, KeyType, LOOK, Right, Table, check_one_owner, columns};
use crate::catalog::{identifier, is_text};
use crate::error::Error;
use crate::refusal::{Reason, refuse};
use crate::spi::{Argument, Spi};
use crate::watch::extension_schema::ExtensionSchema;
use crate::watch::role::act_as;
use crate::watching::Storage;

/// A watched table and its target. All names are quoted.
pub(crate) struct Pair {
    pub(crate) source: Table,
    pub(crate) target: Table,
    /// The photo, or its reference where `is_by_reference`.
    pub(crate) image: String,
    pub(crate) is_by_reference: bool,
    pub(crate) key: String,
    /// The columns of source and target, where the project is carried over, and the operator that compares them.
    pub(crate) project: Option<Project>,
    pub(crate) target_key: String,
    pub(crate) embedding: String,
    pub(crate) storage: Storage,
    pub(crate) checksum: String,
    pub(crate) model_column: String,
    /// The identity of the model that made the vectors; nothing before there is one.
    pub(crate) model: Option<String>,
    pub(crate) key_type: KeyType,
}

pub(crate) struct Project {
    pub(crate) source: String,
    pub(crate) target: String,
    equal: String,
}

/// By which of its tables a watch is found.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    Source(pg_sys::Oid),
    Target(pg_sys::Oid),
}

impl Pair {
    /// The watch of a table of the caller's; nothing where there is none. An error where it cannot be worked on.
    pub(crate) fn of_caller(
        spi: &Spi,
        extension: &ExtensionSchema,
        side: Side,
    ) -> Result<Option<Pair>, Error> {
        Pair::by_right(spi, extension, side, Right::Owner)
    }

    /// As [`Pair::of_caller`], of a table on which the caller has a right.
    pub(crate) fn by_right(
        spi: &Spi,
        extension: &ExtensionSchema,
        side: Side,
        right: Right,
    ) -> Result<Option<Pair>, Error> {
        let (column, table) = match side {
            Side::Source(table) => ("source", table),
            Side::Target(table) => ("target", table),
        };
        let asked_for = Table::by_right(table, LOOK, right)?;
        let query = format!(
            "SELECT source::oid, target::oid, image_column, key_column, project_column, target_project_column,
                target_key_column, embedding_column, checksum_column, model_column, model, by_reference
            FROM {}.clip_watches WHERE {column} = $1::oid",
            extension.schema
        );
        let row: Vec<Option<String>> = act_as(extension.owner, || {
            let rows = spi.run_now(&query, &[Argument::oid(table)])?;
            Ok::<_, Error>(if rows.len() == 0 {
                Vec::new()
            } else {
                (1..=12).map(|column| rows.printed(column)).collect()
            })
        })?;
        if row.is_empty() {
            return Ok(None);
        }
        let text = |column: usize| row[column - 1].clone();
        let table = |column| text(column).and_then(|oid| oid.parse::<u32>().ok()).unwrap_or_default().into();
        let (source, target) = match side {
            Side::Source(_) => (asked_for, Table::by_right(table(2), LOOK, right)?),
            Side::Target(_) => (Table::by_right(table(1), LOOK, right)?, asked_for),
        };
        check_one_owner(spi, &source, &target)?;
        let (of_source, of_target) = (columns(spi, &source)?, columns(spi, &target)?);
        let from = |number| find(&source, &of_source, text(number).unwrap_or_default());
        let into = |number| find(&target, &of_target, text(number).unwrap_or_default());
        let (key, target_key) = (from(4)?, into(7)?);
        check_same_type(&source, key, &target, target_key)?;
        let is_by_reference = text(12).as_deref() == Some("t");
        if !is_by_reference {
            check_type(&source, from(3)?, pg_sys::BYTEAOID, "bytea")?;
        } else if !is_text(from(3)?.type_oid) {
            check_type(&source, from(3)?, pg_sys::TEXTOID, "text")?;
        }
        if !extension.is_of_vectors(into(8)?.type_oid) {
            check_type(&target, into(8)?, extension.vector_type, "vector")?;
        }
        check_type(&target, into(9)?, pg_sys::BYTEAOID, "bytea")?;
        check_type(&target, into(10)?, pg_sys::TEXTOID, "text")?;
        let project = if text(5).is_some() && text(6).is_some() {
            let (project, target_project) = (from(5)?, into(6)?);
            check_same_type(&source, project, &target, target_project)?;
            Some(Project {
                source: identifier(&project.name),
                target: identifier(&target_project.name),
                equal: KeyType::of(spi, &source, project)?.equal,
            })
        } else {
            None
        };
        Ok(Some(Pair {
            image: identifier(&from(3)?.name),
            is_by_reference,
            key: identifier(&key.name),
            project,
            target_key: identifier(&target_key.name),
            embedding: identifier(&into(8)?.name),
            storage: Storage::of(extension, into(8)?.type_oid),
            checksum: identifier(&into(9)?.name),
            model_column: identifier(&into(10)?.name),
            model: text(11),
            key_type: KeyType::of(spi, &source, key)?,
            source,
            target,
        }))
    }

    /// Whether the rows `s` of the source and `t` of the target are those of one key, in SQL.
    pub(crate) fn same_key(&self) -> String {
        format!("t.{} {} s.{}", self.target_key, self.key_type.equal, self.key)
    }

    /// Whether the row `t` of the target has a vector of the photo in row `s`, in SQL. A join on this keeps no vector in memory.
    pub(crate) fn has_vector(&self) -> String {
        format!("{} AND t.{} IS NOT NULL", self.same_key(), self.embedding)
    }

    /// Whether the projects of the rows `s` and `t` differ, in SQL.
    pub(crate) fn other_project(&self) -> String {
        match &self.project {
            None => "false".to_owned(),
            Some(Project { source, target, equal }) => format!(
                "((s.{source} {equal} t.{target}) IS NOT TRUE AND (s.{source} IS NOT NULL OR t.{target} IS NOT NULL))"
            ),
        }
    }
}

pub(crate) fn find<'a>(table: &Table, columns: &'a [Column], name: String) -> Result<&'a Column, Error> {
    columns.iter().find(|column| column.name == name).ok_or_else(|| {
        refuse(Reason::UndefinedColumn, format!("column \"{name}\" of table {} does not exist", table.name))
    })
}

fn check_type(table: &Table, column: &Column, wanted: pg_sys::Oid, name: &str) -> Result<(), Error> {
    if column.type_oid == wanted {
        return Ok(());
    }
    let Column { name: column, declaration, .. } = column;
    Err(refuse(
        Reason::WrongType,
        format!("column \"{column}\" of table {} is of type {declaration}, not {name}", table.name),
    ))
}

/// Refuses two columns of which one takes the other's values, unless the values stay the same.
pub(crate) fn check_same_type(
    source: &Table,
    from: &Column,
    target: &Table,
    into: &Column,
) -> Result<(), Error> {
    if from.type_oid == into.type_oid && from.collation == into.collation {
        return Ok(());
    }
    let difference = if from.type_oid == into.type_oid { "collation" } else { "type" };
    Err(refuse(
        Reason::WrongType,
        format!(
            "column \"{}\" of table {} and column \"{}\" of table {} differ in their {difference}",
            from.name, source.name, into.name, target.name
        ),
    )
    .with_detail(format!("The types are {} and {}.", from.declaration, into.declaration))
    .with_hint("A value is never cast on its way into the target."))
}
