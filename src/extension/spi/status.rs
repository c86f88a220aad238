//! The answers of SPI.

use crate::error::Error;

/// Whether a call went well.
pub(super) fn checked(code: i32) -> Result<(), Error> {
    if code < 0 { Err(Error::Spi(code)) } else { Ok(()) }
}
