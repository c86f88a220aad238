//! Reading a body field by field, and writing strings with a length before them.

use crate::{Kind, WireError};

/// The rest of a body.
pub(crate) struct Fields<'a> {
    kind: Kind,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(kind: Kind, body: &'a [u8]) -> Fields<'a> {
        Fields { kind, rest: body }
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(WireError::Truncated(self.kind))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(WireError::Truncated(self.kind))?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, WireError> {
        self.array().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn short_str(&mut self) -> Result<&'a str, WireError> {
        let length = self.u8()?;
        let bytes = self.bytes(length.into())?;
        self.utf8(bytes)
    }

    pub(crate) fn long_str(&mut self) -> Result<&'a str, WireError> {
        let length = self.u16()?;
        let bytes = self.bytes(length.into())?;
        self.utf8(bytes)
    }

    /// Everything that is left.
    pub(crate) fn tail(self) -> &'a [u8] {
        self.rest
    }

    /// Everything that is left, as text.
    pub(crate) fn tail_str(self) -> Result<&'a str, WireError> {
        self.utf8(self.rest)
    }

    /// States that the body ends here.
    pub(crate) fn end(self) -> Result<(), WireError> {
        if self.rest.is_empty() { Ok(()) } else { Err(WireError::LeftOver(self.kind)) }
    }

    fn utf8(&self, bytes: &'a [u8]) -> Result<&'a str, WireError> {
        str::from_utf8(bytes).map_err(|_| WireError::NotUtf8(self.kind))
    }
}

/// Writes a string of at most 255 bytes; a longer one is cut at a character.
pub(crate) fn put_short_str(text: &str, out: &mut Vec<u8>) {
    let text = &text[..text.floor_char_boundary(u8::MAX.into())];
    out.push(u8::try_from(text.len()).expect("cut above"));
    out.extend_from_slice(text.as_bytes());
}

/// Writes a string of at most 65,535 bytes; a longer one is cut at a character.
pub(crate) fn put_long_str(text: &str, out: &mut Vec<u8>) {
    let text = &text[..text.floor_char_boundary(u16::MAX.into())];
    out.extend_from_slice(&u16::try_from(text.len()).expect("cut above").to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}
