//! The functions that embed: one input, or an array of them in one round trip.

use pg_clip_wire::Priority;
use pgrx::pg_sys;

use crate::client::{self, Embedding, Input};
use crate::current_model;
use crate::error::Error;
use crate::memo::{self, Memo};
use crate::sql_function::sql_function;
use crate::varlena::{self, Bytes, Utf8};
use crate::vector;

sql_function! {
    /// `clip_embed_text(query text [, model text]) → vector`
    fn clip_embed_text(fcinfo) {
        // SAFETY: SQL declares the function STRICT with these arguments.
        unsafe {
            embed(fcinfo, |datum, then| {
                client::check_text_size(varlena::size(datum))?;
                let text = Utf8::new(datum)?;
                then(text.as_str().as_bytes(), Input::Text(text.as_str()))
            })
        }
    }
}

sql_function! {
    /// `clip_embed_image(image bytea [, model text]) → vector`
    fn clip_embed_image(fcinfo) {
        // SAFETY: SQL declares the function STRICT with these arguments.
        unsafe {
            embed(fcinfo, |datum, then| {
                client::check_image_size(varlena::size(datum))?;
                let image = Bytes::new(datum);
                then(image.as_slice(), Input::Image(image.as_slice()))
            })
        }
    }
}

sql_function! {
    /// `clip_embed_texts(queries text[] [, model text]) → vector[]`
    fn clip_embed_texts(fcinfo) {
        // SAFETY: SQL declares the function STRICT with these arguments.
        unsafe {
            embed_array(fcinfo, |datum| {
                client::check_text_size(varlena::size(datum))?;
                Utf8::new(datum)
            }, |text| Input::Text(text.as_str()))
        }
    }
}

sql_function! {
    /// `clip_embed_images(images bytea[] [, model text]) → vector[]`
    fn clip_embed_images(fcinfo) {
        // SAFETY: SQL declares the function STRICT with these arguments.
        unsafe {
            embed_array(fcinfo, |datum| {
                client::check_image_size(varlena::size(datum))?;
                Ok(Bytes::new(datum))
            }, |image| Input::Image(image.as_slice()))
        }
    }
}

/// A function that uses an input once it is read.
type Then<'a> = &'a mut dyn FnMut(&[u8], Input) -> Result<pg_sys::Datum, Error>;

/// Embeds the first argument, or returns what the call site remembers.
///
/// # Safety
/// `fcinfo` is that of a running STRICT function of one varlena and perhaps a model's name.
unsafe fn embed(
    fcinfo: pg_sys::FunctionCallInfo,
    read: impl FnOnce(pg_sys::Datum, Then) -> Result<pg_sys::Datum, Error>,
) -> Result<pg_sys::Datum, Error> {
    // SAFETY: the caller vouches for `fcinfo`; `fn_extra` of these functions belongs to the memo.
    unsafe {
        let model = model_argument(fcinfo)?;
        if let Some(vector) = Memo::of_constant(fcinfo, &model) {
            return Ok(vector::to_datum(vector));
        }
        read(argument(fcinfo, 0), &mut |bytes, input| {
            if let Some(vector) = Memo::of_input(fcinfo, &model, bytes) {
                return Ok(vector::to_datum(vector));
            }
            let Embedding { vector, .. } = client::embed_one(&model, input)?;
            let datum = vector::to_datum(&vector);
            Memo::keep(fcinfo, &model, bytes, vector);
            Ok(datum)
        })
    }
}

/// Embeds the elements of an array, keeping its shape, order and NULLs.
///
/// # Safety
/// `fcinfo` is that of a running STRICT function of an array of varlenas and perhaps a model's name, which returns an
/// array of vectors.
unsafe fn embed_array<T>(
    fcinfo: pg_sys::FunctionCallInfo,
    read: impl Fn(pg_sys::Datum) -> Result<T, Error>,
    as_input: impl for<'a> Fn(&'a T) -> Input<'a>,
) -> Result<pg_sys::Datum, Error> {
    // SAFETY: the caller vouches for `fcinfo`; the element type is read from the array itself, the result's from the
    // function's declaration; all arrays that are passed on have as many entries as the input has elements.
    unsafe {
        let model = model_argument(fcinfo)?;
        let array = pg_sys::pg_detoast_datum(argument(fcinfo, 0).cast_mut_ptr()).cast::<pg_sys::ArrayType>();
        let mut element = Element::of((*array).elemtype);
        let (mut datums, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
        pg_sys::deconstruct_array(
            array,
            element.oid,
            element.length.into(),
            element.by_value,
            element.align,
            &mut datums,
            &mut nulls,
            &mut count,
        );
        let count = usize::try_from(count).expect("an array's length is not negative");
        let mut present = Vec::with_capacity(count);
        for index in (0..count).filter(|index| !*nulls.add(*index)) {
            let value = read(*datums.add(index)).map_err(|error| at_element(index, error))?;
            present.push((index, value));
        }
        let inputs: Vec<Input> = present.iter().map(|(_, value)| as_input(value)).collect();
        let answers = client::embed(&model, &inputs, Priority::Interactive)?;
        for ((index, _), answer) in present.iter().zip(answers) {
            let embedding = answer.map_err(|failure| at_element(*index, failure.into()))?;
            *datums.add(*index) = vector::to_datum(&embedding.vector);
        }
        let result_type = pg_sys::get_func_rettype((*(*fcinfo).flinfo).fn_oid);
        element = Element::of(pg_sys::get_element_type(result_type));
        // The dimensions follow the header, then the lower bounds.
        let dimensions = array.add(1).cast::<i32>();
        let result = pg_sys::construct_md_array(
            datums,
            nulls,
            (*array).ndim,
            dimensions,
            dimensions.add(usize::try_from((*array).ndim).expect("not negative")),
            element.oid,
            element.length.into(),
            element.by_value,
            element.align,
        );
        Ok(pg_sys::Datum::from(result))
    }
}

/// How an array stores its elements.
struct Element {
    oid: pg_sys::Oid,
    length: i16,
    by_value: bool,
    align: std::ffi::c_char,
}

impl Element {
    unsafe fn of(oid: pg_sys::Oid) -> Element {
        let mut element = Element { oid, length: 0, by_value: false, align: 0 };
        // SAFETY: the type exists: it is that of an array at hand or of a declared result.
        unsafe {
            pg_sys::get_typlenbyvalalign(oid, &mut element.length, &mut element.by_value, &mut element.align);
        }
        element
    }
}

fn at_element(index: usize, error: Error) -> Error {
    Error::Element { position: index + 1, error: Box::new(error) }
}

/// The model that the second argument names, or else `clip.model`.
unsafe fn model_argument(fcinfo: pg_sys::FunctionCallInfo) -> Result<String, Error> {
    // SAFETY: the caller vouches for `fcinfo`; a second argument is a non-null text.
    unsafe {
        if (*fcinfo).nargs < 2 {
            return memo::model_of_query(fcinfo);
        }
        current_model::checked_name(Utf8::new(argument(fcinfo, 1))?.as_str())
    }
}

unsafe fn argument(fcinfo: pg_sys::FunctionCallInfo, index: usize) -> pg_sys::Datum {
    // SAFETY: the caller vouches that the function has this argument, and it is STRICT.
    unsafe { (*(*fcinfo).args.as_ptr().add(index)).value }
}
