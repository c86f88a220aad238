//! The orientation in an EXIF directory, as Pillow reads it: of any numeric type, and the last one where there are several.
//!
//! Source: TIFF 6.0, section 2.

const ORIENTATION: u16 = 0x0112;

/// Pillow raises an error.
pub(super) struct Unreadable;

/// The orientation, 0 where there is none of that number; nothing where the directory has none.
pub(super) fn orientation(mut data: &[u8]) -> Result<Option<u8>, Unreadable> {
    while let Some(rest) = data.strip_prefix(b"Exif\0\0") {
        data = rest;
    }
    if data.is_empty() {
        return Ok(None);
    }
    let big_endian = match data.first_chunk() {
        Some(b"MM\0*" | b"MM*\0" | b"MM\0+") => true,
        Some(b"II*\0" | b"II\0*") => false,
        _ => return Err(Unreadable),
    };
    let tiff = Tiff { data, big_endian };
    let at = tiff.number(4, 4).ok_or(Unreadable)?;
    Ok(tiff.directory_orientation(at))
}

/// The first directory of a TIFF.
pub(super) struct Directory<'a> {
    tiff: Tiff<'a>,
    at: u64,
}

impl<'a> Directory<'a> {
    /// Nothing where the bytes are no TIFF.
    pub(super) fn of(data: &'a [u8]) -> Option<Directory<'a>> {
        let tiff = Tiff { data, big_endian: data.starts_with(b"MM") };
        let at = tiff.number(4, 4)?;
        Some(Directory { tiff, at })
    }

    pub(super) fn has(&self, tag: u16) -> bool {
        self.entry(tag).is_some()
    }

    /// Whether two entries have the same tag. Of these, readers take one or the other.
    pub(super) fn has_two_of_a_tag(&self) -> bool {
        let places = (0..self.tiff.number(self.at, 2).unwrap_or(0)).map(|entry| self.at + 2 + 12 * entry);
        let mut tags: Vec<u64> = places.map_while(|at| self.tiff.number(at, 2)).collect();
        tags.sort_unstable();
        tags.windows(2).any(|pair| pair[0] == pair[1])
    }

    /// The values of an entry, where they are whole numbers. The first `most` of them.
    pub(super) fn numbers(&self, tag: u16, most: u64) -> Option<Vec<u64>> {
        let at = self.entry(tag)?;
        let (kind, count) = (self.tiff.number(at + 2, 2)?, self.tiff.number(at + 4, 4)?);
        let width = width(kind)?;
        let place = if count.checked_mul(width)? > 4 { self.tiff.number(at + 8, 4)? } else { at + 8 };
        let number =
            |index| u64::try_from(self.tiff.whole_number(kind, place.checked_add(index * width)?)?).ok();
        (0..count.min(most)).map(number).collect()
    }

    /// The bytes of a text, or of an undefined type, as far as they are there.
    pub(super) fn text(&self, tag: u16) -> Option<&'a [u8]> {
        let at = self.entry(tag)?;
        let count = self.tiff.number(at + 4, 4)?;
        let place = if count > 4 { self.tiff.number(at + 8, 4)? } else { at + 8 };
        self.tiff.bytes(place, count)
    }

    /// Where an entry is.
    fn entry(&self, tag: u16) -> Option<u64> {
        let count = self.tiff.number(self.at, 2)?;
        let places = (0..count).map(|entry| self.at + 2 + 12 * entry);
        places
            .map_while(|at| Some((at, self.tiff.number(at, 2)?)))
            .find(|(_, found)| *found == u64::from(tag))
            .map(|(at, _)| at)
    }
}

struct Tiff<'a> {
    data: &'a [u8],
    big_endian: bool,
}

impl<'a> Tiff<'a> {
    /// Entries are read until one leads beyond the data.
    fn directory_orientation(&self, at: u64) -> Option<u8> {
        let mut found = None;
        for entry in 0..self.number(at, 2)? {
            let at = at + 2 + 12 * entry;
            let Some(value) = self.number(at + 8, 4) else { break };
            let (tag, kind, count) = (self.number(at, 2)?, self.number(at + 2, 2)?, self.number(at + 4, 4)?);
            let Some(width) = width(kind) else { continue };
            let place = if count * width > 4 { value } else { at + 8 };
            if self.bytes(place, count * width).is_none() {
                break;
            }
            if tag == u64::from(ORIENTATION) && count > 0 {
                let value = self.whole_number(kind, place).and_then(|value| u8::try_from(value).ok());
                found = Some(value.unwrap_or(0));
            }
        }
        found
    }

    /// The first value of an entry, where it is a whole number.
    fn whole_number(&self, kind: u64, at: u64) -> Option<i64> {
        let unsigned = self.number(at, width(kind)?)?;
        match kind {
            SHORT | LONG | DIRECTORY | LONG_LONG => unsigned.try_into().ok(),
            SIGNED_BYTE => Some((unsigned as i8).into()),
            SIGNED_SHORT => Some((unsigned as i16).into()),
            SIGNED_LONG => Some((unsigned as i32).into()),
            FLOAT => whole(f32::from_bits(unsigned as u32).into()),
            DOUBLE => whole(f64::from_bits(unsigned)),
            RATIONAL => ratio(self.number(at, 4)? as i64, self.number(at + 4, 4)? as i64),
            SIGNED_RATIONAL => {
                ratio((self.number(at, 4)? as i32).into(), (self.number(at + 4, 4)? as i32).into())
            }
            _ => None,
        }
    }

    /// A number of up to 8 bytes.
    fn number(&self, at: u64, width: u64) -> Option<u64> {
        let bytes = self.bytes(at, width)?;
        let add = |number, byte: &u8| number << 8 | u64::from(*byte);
        Some(if self.big_endian { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) })
    }

    fn bytes(&self, at: u64, count: u64) -> Option<&'a [u8]> {
        self.data.get(at.try_into().ok()?..at.checked_add(count)?.try_into().ok()?)
    }
}

const SHORT: u64 = 3;
const LONG: u64 = 4;
const RATIONAL: u64 = 5;
const SIGNED_BYTE: u64 = 6;
const SIGNED_SHORT: u64 = 8;
const SIGNED_LONG: u64 = 9;
const SIGNED_RATIONAL: u64 = 10;
const FLOAT: u64 = 11;
const DOUBLE: u64 = 12;
const DIRECTORY: u64 = 13;
const LONG_LONG: u64 = 16;

/// The bytes of a value; nothing for a type that is passed over.
fn width(kind: u64) -> Option<u64> {
    match kind {
        // Bytes, text and undefined values.
        1 | 2 | 7 | SIGNED_BYTE => Some(1),
        SHORT | SIGNED_SHORT => Some(2),
        LONG | SIGNED_LONG | FLOAT | DIRECTORY => Some(4),
        RATIONAL | SIGNED_RATIONAL | DOUBLE | LONG_LONG => Some(8),
        _ => None,
    }
}

fn whole(value: f64) -> Option<i64> {
    (value.fract() == 0.0).then_some(value as i64)
}

fn ratio(number: i64, of: i64) -> Option<i64> {
    (of != 0 && number % of == 0).then(|| number / of)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The orientation of a directory of one entry.
    fn read(kind: u64, count: u8, value: [u8; 4]) -> Option<Option<u8>> {
        let entry = [&[1, 0x12, 0, kind as u8, 0, 0, 0, count], value.as_slice()].concat();
        orientation(&[b"MM\0*\0\0\0\x08\0\x01", entry.as_slice()].concat()).ok()
    }

    #[test]
    fn any_type_of_number_is_read() {
        assert_eq!(read(SHORT, 1, [0, 6, 0, 0]), Some(Some(6)));
        assert_eq!(read(SHORT, 2, [0, 6, 0, 3]), Some(Some(6)));
        assert_eq!(read(LONG, 1, [0, 0, 0, 8]), Some(Some(8)));
        assert_eq!(read(FLOAT, 1, 3_f32.to_be_bytes()), Some(Some(3)));
        assert_eq!(read(FLOAT, 1, 3.5_f32.to_be_bytes()), Some(Some(0)));
        let little = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0";
        assert!(matches!(orientation(little), Ok(Some(6))));
    }

    #[test]
    fn an_orientation_without_a_meaning_counts_as_present() {
        assert_eq!(read(1, 1, [6, 0, 0, 0]), Some(Some(0)));
        assert_eq!(read(99, 1, [0, 6, 0, 0]), Some(None));
        assert_eq!(read(SHORT, 0, [0, 6, 0, 0]), Some(None));
    }

    #[test]
    fn a_cut_entry_is_absent_and_other_bytes_are_unreadable() {
        assert!(matches!(orientation(b"Exif\0\0"), Ok(None)));
        assert!(matches!(orientation(b"Exif\0\0Exif\0\0MM\0*\0\0\0\x08\0\x01"), Ok(None)));
        assert!(orientation(b"MM\0*\0\0").is_err());
        assert!(orientation(b"not a directory").is_err());
    }
}
