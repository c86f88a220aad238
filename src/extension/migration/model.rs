//! What a migration asks about models.

use pgrx::{FromDatum, IntoDatum, pg_sys};

use super::argument;
use crate::client::{self, Description};
use crate::error::Error;
use crate::settings;
use crate::sql_function;
use crate::watch::provenance::identity;

sql_function! {
    /// `clip_model_identity(model text) → text`
    fn clip_model_identity(fcinfo) {
        // SAFETY: SQL declares the function STRICT with this argument.
        let (model, description) = unsafe { described(fcinfo)? };
        Ok(identity(&model, &description.fingerprint).into_datum().unwrap_or(0.into()))
    }
}

sql_function! {
    /// `clip_model_dimensions(model text) → int4`
    fn clip_model_dimensions(fcinfo) {
        // SAFETY: SQL declares the function STRICT with this argument.
        let (_, description) = unsafe { described(fcinfo)? };
        Ok(i32::from(description.dimensions).into_datum().unwrap_or(0.into()))
    }
}

/// # Safety
/// `fcinfo` is that of a STRICT function whose first argument is a `text`.
unsafe fn described(fcinfo: pg_sys::FunctionCallInfo) -> Result<(String, Description), Error> {
    // SAFETY: the caller vouches for `fcinfo`.
    let name = unsafe { String::from_datum(argument(fcinfo, 0), false) }.unwrap_or_default();
    let model = settings::checked_model_name(&name)?;
    let description = client::describe(&model)?;
    Ok((model, description))
}
