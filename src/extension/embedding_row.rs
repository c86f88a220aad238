//! The row of an embedding, for an application that has a photo's bytes at hand and keeps them elsewhere.
//!
//! It is the row that a watch would write for these bytes: vector, checksum and model. The target is read as the
//! caller: the row is the caller's to write, and no watch stands behind it.

use pgrx::{IntoDatum, pg_sys};

use crate::catalog::{self, identifier};
use crate::client::{self, Input};
use crate::current_model;
use crate::encoding::c_string;
use crate::error::Error;
use crate::owned::{LOOK, Table, record_of};
use crate::refusal::{Reason, refuse};
use crate::spi::{Argument, Spi, text_datum};
use crate::sql_function::sql_function;
use crate::varlena::{self, Bytes};
use crate::vector;
use crate::watch::extension_schema::ExtensionSchema;
use crate::watch::identity::identity;
use crate::watch::registry::{argument, oid_of};
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
                let name = argument(fcinfo, index).map(|name| identifier(&c_string(name.cast_mut_ptr())));
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

/// The quoted names of the target's columns.
struct Columns {
    embedding: String,
    checksum: String,
    model: String,
}

/// The vector that the same bytes have in the target, as far as the caller sees its rows. Refuses a target that holds
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
    let name = catalog::name_of(target);
    if !may_read(target) {
        return Err(if catalog::owner_of(target).is_some() { Error::NoPrivilege(name) } else { missing() });
    }
    Table::lock(target, LOOK).ok_or_else(missing)?.check_kind()?;
    let Columns { embedding, checksum: checksum_column, model: model_column } = columns;
    let row = spi.run_now(&format!("SELECT t.{model_column} FROM {name} AS t LIMIT 1"), &[])?;
    let held = if row.len() > 0 { row.printed(1) } else { None };
    if let Some(held) = held.filter(|held| held != model) {
        return Err(Error::OtherModel { table: name, held, model: model.to_owned() });
    }
    let find = format!(
        "SELECT t.{embedding} FROM {name} AS t WHERE t.{checksum_column} OPERATOR(pg_catalog.=) $1
            AND t.{model_column} OPERATOR(pg_catalog.=) $2 LIMIT 1"
    );
    let checksum = Argument { oid: pg_sys::BYTEAOID, value: checksum.as_slice().into_datum() };
    let row = spi.run_now(&find, &[checksum, Argument::text(model)])?;
    if row.len() == 0 { Ok(None) } else { row.vector(1, &extension) }
}

/// Whether the caller may read a table or a column of it. A role that may not does not even wait for its lock.
fn may_read(table: pg_sys::Oid) -> bool {
    let select = pg_sys::AclMode::from(pg_sys::ACL_SELECT);
    // SAFETY: plain look-ups of any number as the current role.
    unsafe {
        let role = pg_sys::GetUserId();
        pg_sys::pg_class_aclcheck(table, role, select) == pg_sys::AclResult::ACLCHECK_OK
            || pg_sys::pg_attribute_aclcheck_all(table, role, select, pg_sys::AclMaskHow::ACLMASK_ANY)
                == pg_sys::AclResult::ACLCHECK_OK
    }
}
