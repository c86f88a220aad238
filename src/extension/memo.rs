//! The model and one result, remembered at each place where a query calls a function.
//!
//! A STABLE function is evaluated for every row of a sequential scan. `ORDER BY embedding <=> clip_embed_text('…')`
//! without an index would run one inference a row; with the memo it runs one a query.
//!
//! Always true: a remembered result is returned only for the same input and the same model. A constant argument is
//! the same by itself and is not compared. Any other is compared byte for byte, also an external parameter that
//! `get_fn_expr_arg_stable` calls stable: PL/pgSQL keeps the state of an expression and changes the parameter.

use pgrx::{PgMemoryContexts, pg_sys};

use crate::current_model::{self, Pinned};
use crate::error::Error;

/// The model and the result that one place keeps.
#[derive(Default)]
struct Place {
    model: Option<Pinned>,
    memo: Option<Memo>,
}

/// The model of a call that names none: the value that `clip.model` had when the query first came here.
///
/// # Safety
/// As for [`Memo::of_constant`].
pub(crate) unsafe fn model_of_query(fcinfo: pg_sys::FunctionCallInfo) -> Result<String, Error> {
    // SAFETY: the caller vouches for `fcinfo`.
    let place = unsafe { Place::of(fcinfo) };
    if let Some(model) = place.model.as_ref().and_then(Pinned::model) {
        return Ok(model.to_owned());
    }
    let model = current_model::model()?;
    place.model = Some(Pinned::new(model.clone()));
    Ok(model)
}

/// The result that a call site remembers.
pub(crate) struct Memo {
    model: String,
    /// Empty where the argument is a constant of the query.
    input: Vec<u8>,
    vector: Vec<f32>,
}

impl Memo {
    /// The vector of the last call, if it was for this model and its argument is a constant.
    ///
    /// # Safety
    /// `fcinfo` is that of a running function whose `fn_extra` only this module uses.
    pub(crate) unsafe fn of_constant<'a>(fcinfo: pg_sys::FunctionCallInfo, model: &str) -> Option<&'a [f32]> {
        // SAFETY: the caller vouches for `fcinfo`.
        unsafe {
            let memo = Memo::at(fcinfo)?;
            (memo.model == model && argument_is_constant(fcinfo)).then_some(memo.vector.as_slice())
        }
    }

    /// The vector of the last call, if it was for this model and these bytes.
    ///
    /// # Safety
    /// As for [`Memo::of_constant`].
    pub(crate) unsafe fn of_input<'a>(
        fcinfo: pg_sys::FunctionCallInfo,
        model: &str,
        input: &[u8],
    ) -> Option<&'a [f32]> {
        // SAFETY: the caller vouches for `fcinfo`.
        let memo = unsafe { Memo::at(fcinfo)? };
        (memo.model == model && memo.input == input).then_some(memo.vector.as_slice())
    }

    /// Remembers a result for the next call at this place.
    ///
    /// # Safety
    /// As for [`Memo::of_constant`].
    pub(crate) unsafe fn keep(fcinfo: pg_sys::FunctionCallInfo, model: &str, input: &[u8], vector: Vec<f32>) {
        // SAFETY: the caller vouches for `fcinfo`.
        unsafe {
            let input = if argument_is_constant(fcinfo) { Vec::new() } else { input.to_vec() };
            Place::of(fcinfo).memo = Some(Memo { model: model.to_owned(), input, vector });
        }
    }

    unsafe fn at<'a>(fcinfo: pg_sys::FunctionCallInfo) -> Option<&'a Memo> {
        // SAFETY: the caller vouches for `fcinfo`.
        unsafe { Place::of(fcinfo).memo.as_ref() }
    }
}

impl Place {
    /// The values kept at the place of the call. They live as long as the place, and are dropped with it.
    unsafe fn of<'a>(fcinfo: pg_sys::FunctionCallInfo) -> &'a mut Place {
        // SAFETY: the caller vouches for `fcinfo`: `fn_extra` is null or was set here, and `fn_mcxt` lives as long as
        // it is looked at.
        unsafe {
            let flinfo = (*fcinfo).flinfo;
            if (*flinfo).fn_extra.is_null() {
                let mut context = PgMemoryContexts::For((*flinfo).fn_mcxt);
                (*flinfo).fn_extra = context.leak_and_drop_on_delete(Place::default()).cast();
            }
            &mut *(*flinfo).fn_extra.cast::<Place>()
        }
    }
}

/// Whether the first argument is a constant of the query.
unsafe fn argument_is_constant(fcinfo: pg_sys::FunctionCallInfo) -> bool {
    // SAFETY: `flinfo` is that of a running function; its expression is null or a node of the plan.
    unsafe {
        let expression = (*(*fcinfo).flinfo).fn_expr;
        if expression.is_null() || !pgrx::is_a(expression, pg_sys::NodeTag::T_FuncExpr) {
            return false;
        }
        let arguments = (*expression.cast::<pg_sys::FuncExpr>()).args;
        if arguments.is_null() || (*arguments).length < 1 {
            return false;
        }
        let first = (*(*arguments).elements).ptr_value.cast::<pg_sys::Node>();
        pgrx::is_a(first, pg_sys::NodeTag::T_Const)
    }
}
