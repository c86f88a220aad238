//! The parameters of statements.

use std::ffi::c_char;

use pgrx::{IntoDatum, pg_sys};

use super::text::{text_array, text_datum, text_datum_of};
use crate::encoding;

/// A parameter of a statement. `None` is NULL.
#[derive(Clone, Copy)]
pub(crate) struct Argument {
    pub(crate) oid: pg_sys::Oid,
    pub(crate) value: Option<pg_sys::Datum>,
}

impl Argument {
    pub(crate) fn oid(oid: pg_sys::Oid) -> Argument {
        Argument { oid: pg_sys::OIDOID, value: oid.into_datum() }
    }

    pub(crate) fn text(text: &str) -> Argument {
        Argument { oid: pg_sys::TEXTOID, value: Some(text_datum(text)) }
    }

    /// A text that need not be whole: a message of an error.
    pub(crate) fn message(message: &str) -> Argument {
        let value = Some(text_datum_of(&encoding::to_server_lossy(message)));
        Argument { oid: pg_sys::TEXTOID, value }
    }

    pub(crate) fn text_or_null(text: Option<&str>) -> Argument {
        Argument { oid: pg_sys::TEXTOID, value: text.map(text_datum) }
    }

    pub(crate) fn texts(texts: &[String]) -> Argument {
        let datums: Vec<Option<pg_sys::Datum>> = texts.iter().map(|text| Some(text_datum(text))).collect();
        Argument { oid: pg_sys::TEXTARRAYOID, value: Some(text_array(datums)) }
    }

    pub(crate) fn bool(value: bool) -> Argument {
        Argument { oid: pg_sys::BOOLOID, value: value.into_datum() }
    }

    pub(crate) fn int8(value: i64) -> Argument {
        Argument { oid: pg_sys::INT8OID, value: value.into_datum() }
    }

    pub(crate) fn float8(value: f64) -> Argument {
        Argument { oid: pg_sys::FLOAT8OID, value: value.into_datum() }
    }
}

/// The parameters of one statement, as SPI takes them.
pub(super) struct Arguments {
    pub(super) types: Vec<pg_sys::Oid>,
    pub(super) values: Vec<pg_sys::Datum>,
    pub(super) nulls: Vec<c_char>,
}

impl Arguments {
    pub(super) fn new(arguments: &[Argument]) -> Arguments {
        Arguments {
            types: arguments.iter().map(|argument| argument.oid).collect(),
            values: arguments.iter().map(|argument| argument.value.unwrap_or(0.into())).collect(),
            nulls: arguments.iter().map(|argument| null_mark(argument.value)).collect(),
        }
    }

    pub(super) fn count(&self) -> i32 {
        i32::try_from(self.types.len()).expect("a handful of parameters")
    }
}

/// How SPI marks a value that is there, and one that is NULL.
pub(super) fn null_mark(value: Option<pg_sys::Datum>) -> c_char {
    let mark = if value.is_some() { b' ' } else { b'n' };
    c_char::try_from(mark).expect("ASCII")
}
