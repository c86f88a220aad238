//! Keys of any type: read and written as text by their type's own functions, compared by its default operators.

use std::ffi::CString;

use pgrx::pg_sys;

use super::{Column, Table};
use crate::error::Error;
use crate::refusal::{Reason, refuse};
use crate::spi::{Argument, Spi};
use crate::watch::role::{act_as, with_portable_output};

/// A key as its type prints it whatever the session's settings say, in the encoding of the database.
pub(crate) type Key = CString;

/// The type of a key column, and the operators of its default order.
pub(crate) struct KeyType {
    pub(crate) oid: pg_sys::Oid,
    /// As `OPERATOR(schema.name)`.
    pub(crate) equal: String,
    pub(crate) at_most: String,
    pub(crate) above: String,
}

/// The operators `<=`, `=` and `>` of an operator family for one type.
const OPERATORS: &str = "
    SELECT format('OPERATOR(%I.%s)', nspname, oprname)
    FROM pg_amop
    JOIN pg_operator ON pg_operator.oid = amopopr
    JOIN pg_namespace ON pg_namespace.oid = oprnamespace
    WHERE amopfamily = $1 AND amoplefttype = $2 AND amoprighttype = $2 AND amoppurpose = 's'
        AND amopstrategy IN (2, 3, 5)
    ORDER BY amopstrategy";

impl KeyType {
    /// That of a column; refused where its type has no order.
    pub(crate) fn of(spi: &Spi, table: &Table, column: &Column) -> Result<KeyType, Error> {
        // SAFETY: the type is that of a column of a locked table; the entry lives as long as the process.
        let (family, input) = unsafe {
            let wanted = pg_sys::TYPECACHE_BTREE_OPFAMILY as i32;
            let entry = &*pg_sys::lookup_type_cache(column.type_oid, wanted);
            (entry.btree_opf, entry.btree_opintype)
        };
        let operators = act_as(table.owner, || {
            Ok::<_, Error>(
                spi.run_now(OPERATORS, &[Argument::oid(family), Argument::oid(input)])?.all_printed(1),
            )
        })?;
        let [Some(at_most), Some(equal), Some(above)] = operators.as_slice() else {
            return Err(refuse(
                Reason::WrongType,
                format!(
                    "type {} of column \"{}\" of table {} has no default order",
                    column.declaration, column.name, table.name
                ),
            )
            .with_hint("Keys are compared by the operators of their type's default btree operator class."));
        };
        Ok(KeyType {
            oid: column.type_oid,
            equal: equal.clone(),
            at_most: at_most.clone(),
            above: above.clone(),
        })
    }

    /// The key as a parameter, to be called as the owner of its table: a domain checks it. No key is NULL.
    pub(crate) fn argument(&self, key: Option<&Key>) -> Argument {
        let value = key.map(|key| {
            with_portable_output(|| {
                let (mut function, mut parameter) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
                // SAFETY: the type exists, and its input function reads what its output function printed.
                unsafe {
                    pg_sys::getTypeInputInfo(self.oid, &mut function, &mut parameter);
                    pg_sys::OidInputFunctionCall(function, key.as_ptr().cast_mut(), parameter, -1)
                }
            })
        });
        Argument { oid: self.oid, value }
    }
}

/// Keys as a `text[]`.
pub(crate) fn text_array(keys: &[Key]) -> Argument {
    let count = i32::try_from(keys.len()).expect("a batch of keys");
    // SAFETY: `texts` has `count` entries, which are varlenas with the alignment of an int4.
    let array = unsafe {
        let mut texts: Vec<pg_sys::Datum> =
            keys.iter().map(|key| pg_sys::Datum::from(pg_sys::cstring_to_text(key.as_ptr()))).collect();
        let align = pg_sys::TYPALIGN_INT as std::ffi::c_char;
        pg_sys::construct_array(texts.as_mut_ptr(), count, pg_sys::TEXTOID, -1, false, align)
    };
    Argument { oid: pg_sys::TEXTARRAYOID, value: Some(pg_sys::Datum::from(array)) }
}
