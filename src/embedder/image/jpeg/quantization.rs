//! The quantization tables of a file, which are handed on as they are.

use super::frame::BLOCK;
use super::refusal::bad;
use crate::error::Error;

/// The values of a table, as bytes.
#[derive(Clone)]
pub(super) struct Table {
    /// Whether a value has two bytes.
    wide: bool,
    values: Vec<u8>,
}

impl Table {
    /// The bytes that define the table under a number.
    pub(super) fn definition(&self, number: u8) -> Vec<u8> {
        [&[(u8::from(self.wide) << 4) | number], self.values.as_slice()].concat()
    }
}

/// The tables that a file defined so far, by their number.
#[derive(Default)]
pub(super) struct Tables([Option<Table>; 4]);

impl Tables {
    /// Takes up the tables of a segment.
    pub(super) fn define(&mut self, segment: &[u8]) -> Result<(), Error> {
        let mut rest = segment.get(2..).unwrap_or_default();
        while let Some((place, after)) = rest.split_first() {
            let wide = place >> 4 > 0;
            let length = usize::from(BLOCK) * if wide { 2 } else { 1 };
            let table = self.0.get_mut(usize::from(place & 15));
            let (values, after) = after.split_at_checked(length).ok_or_else(|| bad("quantization table"))?;
            *table.ok_or_else(|| bad("quantization table"))? = Some(Table { wide, values: values.to_vec() });
            rest = after;
        }
        Ok(())
    }

    pub(super) fn get(&self, number: u8) -> Result<&Table, Error> {
        self.0[usize::from(number)].as_ref().ok_or_else(|| bad("quantization table"))
    }
}
