//! The columns of a locked table.

use pgrx::pg_sys;

use super::Table;
use crate::error::Error;
use crate::spi::{Argument, Spi};
use crate::watch::role::act_as;

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) number: u32,
    pub(crate) type_oid: pg_sys::Oid,
    pub(crate) collation: pg_sys::Oid,
    /// The type with its modifier, as SQL has it.
    pub(crate) declaration: String,
    pub(crate) is_virtual: bool,
    /// Whether PostgreSQL refuses a value for it.
    pub(crate) is_generated: bool,
}

const COLUMNS: &str = "
    SELECT attname::text, attnum, atttypid, attcollation, format_type(atttypid, atttypmod),
        attgenerated = 'v', attgenerated <> '' OR attidentity = 'a'
    FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped ORDER BY attnum";

/// In their order.
pub(crate) fn columns(spi: &Spi, table: &Table) -> Result<Vec<Column>, Error> {
    act_as(table.owner, || {
        let rows = spi.run_now(COLUMNS, &[Argument::oid(table.oid)])?;
        let count = usize::try_from(rows.len()).expect("a table has few columns");
        let texts: Vec<Vec<Option<String>>> = (1..=7).map(|column| rows.all_printed(column)).collect();
        let text = |row: usize, column: usize| texts[column - 1][row].clone().unwrap_or_default();
        let number = |row, column| text(row, column).parse::<u32>().unwrap_or_default();
        let column = |row| Column {
            name: text(row, 1),
            number: number(row, 2),
            type_oid: number(row, 3).into(),
            collation: number(row, 4).into(),
            declaration: text(row, 5),
            is_virtual: text(row, 6) == "t",
            is_generated: text(row, 7) == "t",
        };
        Ok((0..count).map(column).collect())
    })
}
