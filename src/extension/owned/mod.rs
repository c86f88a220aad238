//! The rule of rights: work on a table is done as its owner.
//!
//! A user's call (watching, backfill, migration, counting, verifying) reads and writes tables that may carry code
//! of their owner: triggers, defaults, checks, policies, domains, operators of types. Hence three things are always
//! true where a statement on such a table runs:
//!
//! * the role that called has the rights of the owner, or the table is refused (a view leaves it out); to count its rows
//!   for a view, those of PostgreSQL's roles for monitoring are enough, see [`Right`];
//! * the table is locked, and it is an ordinary or a partitioned one: its owner, its columns and their types do not
//!   change until the transaction ends;
//! * the statement runs as the owner in a security-restricted operation with `search_path = pg_catalog, pg_temp`
//!   ([`crate::watch::role`]): never as the caller, the reader of a view, or the extension's owner.
//!
//! A source and its target have one owner. A value that travels between them has one type: nothing is cast. Keys are
//! read and written by the functions of their type, and compared by its default operators, which are found through the
//! catalogs and named with their schema.

mod columns;
mod keys;
mod pair;
mod record;

use std::ffi::CString;

use pgrx::{PgLogLevel, pg_sys};

pub(crate) use self::columns::{Column, columns};
pub(crate) use self::keys::{Key, KeyType, text_array};
pub(crate) use self::pair::{Pair, Side, check_same_type, find};
pub(crate) use self::record::{record, record_of};
use crate::catalog::{name_of, owner_of};
use crate::encoding::{c_string, to_server};
use crate::error::Error;
use crate::notice;
use crate::refusal::{Reason, refuse};
use crate::spi::{Argument, Spi};
use crate::subscriptions::is_subscribed;
use crate::watch::role::act_as;

/// A table that is locked until the transaction's end.
pub(crate) struct Table {
    pub(crate) oid: pg_sys::Oid,
    pub(crate) owner: pg_sys::Oid,
    /// Quoted, with its schema.
    pub(crate) name: String,
    kind: u8,
    persistence: u8,
    /// Whether it has, or had, partitions or children.
    has_parts: bool,
}

/// The weakest lock that keeps the owner and the columns of a table as they are.
pub(crate) const LOOK: u32 = pg_sys::AccessShareLock;

/// With which right a table is looked up.
#[derive(Clone, Copy)]
pub(crate) enum Right {
    /// The owner's right, to work on the table.
    Owner,
    /// The right of the owner or of `pg_stat_scan_tables`, to which PostgreSQL leaves functions that lock and scan
    /// the tables of other roles: to count rows.
    Count,
}

impl Right {
    /// Whether the current role has the right on the tables of an owner.
    fn has_role(self, owner: pg_sys::Oid) -> bool {
        // SAFETY: plain look-ups of roles.
        let has = |role| unsafe { pg_sys::has_privs_of_role(pg_sys::GetUserId(), role) };
        has(owner) || matches!(self, Right::Count) && has(pg_sys::Oid::from(pg_sys::ROLE_PG_STAT_SCAN_TABLES))
    }
}

impl Table {
    /// A table of the caller's; any other relation is refused.
    pub(crate) fn of_caller(oid: pg_sys::Oid, lock: u32) -> Result<Table, Error> {
        Table::by_right(oid, lock, Right::Owner)
    }

    /// A table on which the caller has a right; any other relation is refused.
    fn by_right(oid: pg_sys::Oid, lock: u32, right: Right) -> Result<Table, Error> {
        let missing = || Error::NoTable(u32::from(oid).to_string());
        // A role without the right must not even wait for the lock.
        if !right.has_role(owner_of(oid).ok_or_else(missing)?) {
            return Err(Error::NotOwner(name_of(oid)));
        }
        let table = Table::lock(oid, lock).ok_or_else(missing)?;
        if !right.has_role(table.owner) {
            return Err(Error::NotOwner(table.name));
        }
        table.check_kind()?;
        Ok(table)
    }

    /// Any relation, once it is locked; nothing where it is gone.
    pub(crate) fn lock(oid: pg_sys::Oid, lock: u32) -> Option<Table> {
        let mode = pg_sys::LOCKMODE::try_from(lock).expect("a lock's number is small");
        // SAFETY: an open relation's descriptor is valid; closing it with no lock keeps the lock. All strings are
        // those of PostgreSQL in the current memory context.
        unsafe {
            let relation = pg_sys::try_relation_open(oid, mode);
            if relation.is_null() {
                return None;
            }
            let class = &*(*relation).rd_rel;
            let schema = pg_sys::get_namespace_name(class.relnamespace);
            let name = pg_sys::quote_qualified_identifier(schema, class.relname.data.as_ptr());
            let table = Table {
                oid,
                owner: class.relowner,
                name: c_string(name),
                kind: class.relkind as u8,
                persistence: class.relpersistence as u8,
                has_parts: class.relhassubclass,
            };
            pg_sys::relation_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
            Some(table)
        }
    }

    pub(crate) fn is_ordinary(&self) -> bool {
        matches!(self.kind, pg_sys::RELKIND_RELATION | pg_sys::RELKIND_PARTITIONED_TABLE)
    }

    pub(crate) fn is_partitioned(&self) -> bool {
        self.kind == pg_sys::RELKIND_PARTITIONED_TABLE
    }

    /// The table as a query's FROM names it, without rows of inheritance children: see [`crate::catalog::Table`].
    pub(crate) fn rows(&self) -> String {
        if self.is_partitioned() { self.name.clone() } else { format!("ONLY {}", self.name) }
    }

    pub(crate) fn is_temporary(&self) -> bool {
        self.persistence == pg_sys::RELPERSISTENCE_TEMP
    }

    pub(crate) fn check_kind(&self) -> Result<(), Error> {
        if self.is_ordinary() {
            return Ok(());
        }
        Err(refuse(Reason::WrongObject, format!("{} is not a table", self.name))
            .with_hint("Photos and embeddings are kept in tables or partitioned tables."))
    }
}

/// A partition or a child of table `$1` that another role than `$2` owns.
const STRANGE_PARTS: &str = "
    WITH RECURSIVE parts AS (
        SELECT inhrelid AS part FROM pg_inherits WHERE inhparent = $1
        UNION SELECT inhrelid FROM pg_inherits JOIN parts ON inhparent = part
    )
    SELECT format('%I.%I', nspname, relname)
    FROM parts JOIN pg_class ON pg_class.oid = part JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE relowner <> $2 LIMIT 1";

/// Refuses a source and a target of two owners, and parts of them that are another role's: their triggers would run as
/// the owner of the whole.
pub(crate) fn check_one_owner(spi: &Spi, source: &Table, target: &Table) -> Result<(), Error> {
    for table in [source, target].into_iter().filter(|table| table.has_parts) {
        let part = act_as(table.owner, || {
            let arguments = [Argument::oid(table.oid), Argument::oid(table.owner)];
            let row = spi.run_now(STRANGE_PARTS, &arguments)?;
            Ok::<_, Error>(if row.len() > 0 { row.printed(1) } else { None })
        })?;
        if let Some(part) = part {
            let message = format!("table {} and its part {part} have different owners", table.name);
            return Err(refuse(Reason::NotReady, message)
                .with_hint(format!("ALTER TABLE {part} OWNER TO {}", role_name(table.owner))));
        }
    }
    if source.owner == target.owner {
        return Ok(());
    }
    let owner = role_name(source.owner);
    Err(refuse(
        Reason::NotReady,
        format!("table {} and table {} have different owners", source.name, target.name),
    )
    .with_detail("Embeddings are written as the owner of both tables.")
    .with_hint(format!("ALTER TABLE {} OWNER TO {owner}", target.name)))
}

/// Refuses a target that a subscription fills: its vectors are those of the publisher.
pub(crate) fn refuse_subscribed(target: &Table) -> Result<(), Error> {
    if !is_subscribed(target.oid) {
        return Ok(());
    }
    Err(refuse(Reason::NotReady, format!("table {} is filled by a subscription", target.name))
        .with_detail("The publisher embeds the photos.")
        .with_hint("Once the subscription is dropped, they are embedded here."))
}

/// The quoted name of a role.
fn role_name(role: pg_sys::Oid) -> String {
    // SAFETY: returns null or a string in the current memory context.
    unsafe {
        let name = pg_sys::GetUserNameFromId(role, true);
        if name.is_null() { u32::from(role).to_string() } else { c_string(pg_sys::quote_identifier(name)) }
    }
}

/// Tells the caller something, as RAISE NOTICE does.
pub(crate) fn notice(message: String, hint: Option<String>) {
    notice::tell(PgLogLevel::NOTICE, &message, hint.as_deref());
}

/// Quotes a text as SQL has it.
pub(crate) fn literal(text: &str) -> String {
    let text = CString::new(to_server(text)).expect("a text of the catalog or of ours has no NUL byte");
    // SAFETY: returns a string in the current memory context.
    unsafe { c_string(pg_sys::quote_literal_cstr(text.as_ptr())) }
}
