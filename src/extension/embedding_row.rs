//! The row of an embedding, for an application that has a photo's bytes at hand and keeps them elsewhere.
//!
//! It is what a watch would write for these bytes: vector, checksum and model. The target is read as its owner, for its indexes
//! and policies may carry code of the owner. So the caller needs the right to read all rows of the columns; where policies hide
//! rows from the caller, the target is not read, and the photo is embedded.

use pgrx::{IntoDatum, pg_sys};

use crate::catalog::{self, Column, Table};
use crate::client::{self, Input};
use crate::current_model;
use crate::encoding::c_string;
use crate::error::Error;
use crate::owned::{self, LOOK, record_of};
use crate::refusal::{Reason, refuse};
use crate::spi::{Argument, Spi, text_datum};
use crate::sql_function::sql_function;
use crate::varlena::{self, Bytes};
use crate::vector;
use crate::watch::extension_schema::ExtensionSchema;
use crate::watch::identity::identity;
use crate::watch::registry::{argument, oid_of};
use crate::watch::role::act_as;
use crate::watch::target::{Checksum, checksum_of};

sql_function! {
    /// `clip_embedding_row(image bytea, target regclass, embedding_column name, checksum_column name, model_column name,
    /// OUT embedding vector, OUT checksum bytea, OUT model text)`: NULLs where there is no image.
    fn clip_embedding_row(fcinfo) {
        // SAFETY: SQL declares the function with these arguments and this result; `flinfo` is that of the running
        // function.
        unsafe {
            let Some(image) = argument(fcinfo, 0) else {
                return record_of(fcinfo, &[None, None, None]);
            };
            client::check_image_size(varlena::size(image))?;
            let name = |index| {
                let name = argument(fcinfo, index).map(|name| c_string(name.cast_mut_ptr()));
                name.ok_or_else(|| refuse(Reason::NullArgument, "the columns of the target must be named"))
            };
            let columns = Columns { embedding: name(2)?, checksum: name(3)?, model: name(4)? };
            let image = Bytes::new(image);
            let checksum = checksum_of(image.as_slice());
            let model = current_model::model()?;
            let identity_now = identity(&model, &client::describe(&model)?.fingerprint);
            let known = match argument(fcinfo, 1) {
                Some(target) => {
                    known(oid_of(target), (*(*fcinfo).flinfo).fn_oid, &columns, &checksum, &identity_now)?
                }
                None => None,
            };
            let vector = match known {
                Some(vector) => vector,
                None => {
                    let embedding = client::embed_one(&model, Input::Image(image.as_slice()))?;
                    if identity(&model, &embedding.fingerprint) != identity_now {
                        return Err(Error::ModelChanged);
                    }
                    embedding.vector
                }
            };
            let row = [
                Some(vector::to_datum(&vector)),
                checksum.as_slice().into_datum(),
                Some(text_datum(&identity_now)),
            ];
            record_of(fcinfo, &row)
        }
    }
}

/// The names of the target's columns.
struct Columns {
    embedding: String,
    checksum: String,
    model: String,
}

/// The vector that the same bytes have in the target, where the caller may read all of its rows. Refuses a target that holds
/// vectors of another model.
fn known(
    target: pg_sys::Oid,
    function: pg_sys::Oid,
    columns: &Columns,
    checksum: &Checksum,
    model: &str,
) -> Result<Option<Vec<f32>>, Error> {
    let spi = Spi::connect()?;
    let extension = ExtensionSchema::of(function)?;
    let missing = || Error::NoTable(u32::from(target).to_string());
    let no_privilege = || Error::NoPrivilege(catalog::name_of(target));
    // A role without any right does not even wait for the lock.
    if !may_read(target, &[]) {
        return Err(if catalog::owner_of(target).is_some() { no_privilege() } else { missing() });
    }
    owned::Table::lock(target, LOOK).ok_or_else(missing)?.check_kind()?;
    let table = Table::find(target)?.ok_or_else(missing)?;
    let embedding = extension.vector_column(&table, &columns.embedding)?;
    let checksum_column = table.column_of(&columns.checksum, pg_sys::BYTEAOID)?;
    let model_column = table.text_column(&columns.model)?;
    if !may_read(target, &[&embedding, &checksum_column, &model_column]) {
        return Err(no_privilege());
    }
    if are_rows_hidden(target) {
        return Ok(None);
    }
    let (embedding, checksum_column, model_column) =
        (&embedding.name, &checksum_column.name, &model_column.name);
    let rows = &table.rows;
    let held = format!("SELECT t.{model_column} FROM {rows} AS t LIMIT 1");
    let find = format!(
        "SELECT t.{embedding} FROM {rows} AS t WHERE t.{checksum_column} OPERATOR(pg_catalog.=) $1
            AND t.{model_column} OPERATOR(pg_catalog.=) $2 LIMIT 1"
    );
    act_as(table.owner, || {
        let row = spi.run_now(&held, &[])?;
        let held = if row.len() > 0 { row.printed(1) } else { None };
        if let Some(held) = held.filter(|held| held != model) {
            return Err(Error::OtherModel { table: table.name.clone(), held, model: model.to_owned() });
        }
        let checksum = Argument { oid: pg_sys::BYTEAOID, value: checksum.as_slice().into_datum() };
        let row = spi.run_now(&find, &[checksum, Argument::text(model)])?;
        if row.len() == 0 { Ok(None) } else { row.vector(1, &extension) }
    })
}

/// Whether the caller may read a table or each of some columns of it; with no columns, any column of it.
fn may_read(table: pg_sys::Oid, columns: &[&Column]) -> bool {
    let select = pg_sys::AclMode::from(pg_sys::ACL_SELECT);
    let is_allowed = |answer| answer == pg_sys::AclResult::ACLCHECK_OK;
    // SAFETY: plain look-ups of any number as the current role.
    unsafe {
        let role = pg_sys::GetUserId();
        let of = |column: &&Column| pg_sys::pg_attribute_aclcheck(table, column.number(), role, select);
        let any = || pg_sys::pg_attribute_aclcheck_all(table, role, select, pg_sys::AclMaskHow::ACLMASK_ANY);
        is_allowed(pg_sys::pg_class_aclcheck(table, role, select))
            || if columns.is_empty() { is_allowed(any()) } else { columns.iter().map(of).all(is_allowed) }
    }
}

/// Whether policies of a table, which is locked, stand between the caller and its rows.
fn are_rows_hidden(table: pg_sys::Oid) -> bool {
    // SAFETY: looks the table and the current role up; says what holds and raises no error.
    let state = unsafe { pg_sys::check_enable_rls(table, pg_sys::InvalidOid, true) };
    state == pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32
}
