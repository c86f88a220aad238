//! The head of a frame, and its errors.

use crate::{MAX_DIMENSIONS, MAX_IMAGE_BYTES, MAX_MODEL_NAME, MAX_STATUS_BYTES, MAX_TEXT_BYTES};

/// The kind of a frame. Requests are below 16, answers from 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Hello = 1,
    EmbedText = 2,
    EmbedImage = 3,
    Status = 4,
    Describe = 5,
    EmbedBulkImage = 6,
    Welcome = 16,
    Embedding = 17,
    Failed = 18,
    StatusReport = 19,
    Description = 20,
}

impl Kind {
    /// All kinds, for tables and tests.
    pub const ALL: [Kind; 11] = [
        Kind::Hello,
        Kind::EmbedText,
        Kind::EmbedImage,
        Kind::Status,
        Kind::Describe,
        Kind::EmbedBulkImage,
        Kind::Welcome,
        Kind::Embedding,
        Kind::Failed,
        Kind::StatusReport,
        Kind::Description,
    ];

    /// The longest body that a frame of this kind can have, in bytes.
    pub const fn max_body(self) -> usize {
        const REQUEST_HEAD: usize = 4 + 8 + 1 + MAX_MODEL_NAME;
        match self {
            Kind::Hello | Kind::Status => 64,
            Kind::Describe => REQUEST_HEAD,
            Kind::EmbedText => REQUEST_HEAD + MAX_TEXT_BYTES,
            Kind::EmbedImage | Kind::EmbedBulkImage => REQUEST_HEAD + MAX_IMAGE_BYTES,
            Kind::Welcome => 512,
            Kind::Description => 4 + 32 + 2,
            Kind::Embedding => 4 + 32 + 2 + 4 * MAX_DIMENSIONS,
            Kind::Failed => 4 + 1 + 3 * (2 + u16::MAX as usize),
            Kind::StatusReport => 4 + MAX_STATUS_BYTES,
        }
    }

    fn is_answer(self) -> bool {
        self as u8 >= Kind::Welcome as u8
    }

    fn from_byte(byte: u8) -> Result<Kind, WireError> {
        Kind::ALL.into_iter().find(|kind| *kind as u8 == byte).ok_or(WireError::UnknownKind(byte))
    }
}

/// The five bytes before each body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    pub kind: Kind,
    /// The length of the body in bytes, at most [`Kind::max_body`].
    pub length: usize,
}

impl FrameHeader {
    /// The size of a header in bytes.
    pub const SIZE: usize = 5;

    /// Reads a header and refuses a length that its kind does not allow.
    pub fn parse(bytes: [u8; FrameHeader::SIZE]) -> Result<FrameHeader, WireError> {
        let [a, b, c, d, kind] = bytes;
        let kind = Kind::from_byte(kind)?;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if length > kind.max_body() {
            return Err(WireError::TooLong { kind, length });
        }
        Ok(FrameHeader { kind, length })
    }

    /// Reads the header of a frame that an embedder sent: it cannot claim the length of a request.
    pub fn parse_answer(bytes: [u8; FrameHeader::SIZE]) -> Result<FrameHeader, WireError> {
        let header = FrameHeader::parse(bytes)?;
        if header.kind.is_answer() { Ok(header) } else { Err(WireError::WrongSide(header.kind)) }
    }

    pub(crate) fn write(kind: Kind, length: usize, out: &mut Vec<u8>) -> Result<(), WireError> {
        if length > kind.max_body() {
            return Err(WireError::TooLong { kind, length });
        }
        let length = u32::try_from(length).expect("every kind's longest body fits in 32 bits");
        out.extend_from_slice(&length.to_le_bytes());
        out.push(kind as u8);
        Ok(())
    }
}

/// A frame that breaks the protocol.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WireError {
    #[error("unknown frame kind {0}")]
    UnknownKind(u8),
    #[error("a frame of kind {kind:?} cannot have {length} bytes")]
    TooLong { kind: Kind, length: usize },
    #[error("frame of kind {0:?} ends early")]
    Truncated(Kind),
    #[error("frame of kind {0:?} has bytes left over")]
    LeftOver(Kind),
    #[error("frame of kind {0:?} holds text that is not UTF-8")]
    NotUtf8(Kind),
    #[error("frame of kind {0:?} where the other side's was expected")]
    WrongSide(Kind),
    #[error("the peer did not say that it speaks pg_clip's protocol")]
    NoMagic,
    #[error("unknown failure kind {0}")]
    UnknownFailure(u8),
    #[error("an embedding of {0} dimensions")]
    BadDimensions(usize),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(length: u32, kind: u8) -> [u8; FrameHeader::SIZE] {
        let [a, b, c, d] = length.to_le_bytes();
        [a, b, c, d, kind]
    }

    #[test]
    fn a_length_is_refused_one_byte_above_its_kind() {
        for kind in Kind::ALL {
            let most = u32::try_from(kind.max_body()).unwrap();
            let parsed = FrameHeader::parse(header(most, kind as u8)).unwrap();
            assert_eq!(parsed, FrameHeader { kind, length: kind.max_body() });
            assert_eq!(
                FrameHeader::parse(header(most + 1, kind as u8)),
                Err(WireError::TooLong { kind, length: kind.max_body() + 1 })
            );
        }
    }

    #[test]
    fn the_longest_answer_is_a_status_report() {
        let answers = Kind::ALL.iter().filter_map(|kind| {
            FrameHeader::parse_answer(header(u32::try_from(kind.max_body()).unwrap(), *kind as u8)).ok()
        });
        let lengths: Vec<usize> = answers.map(|header| header.length).collect();
        assert_eq!((lengths.len(), lengths.into_iter().max()), (5, Some(4 + MAX_STATUS_BYTES)));
        let image = FrameHeader::parse_answer(header(1 << 30, Kind::EmbedImage as u8));
        assert_eq!(image, Err(WireError::WrongSide(Kind::EmbedImage)));
    }

    #[test]
    fn unknown_kinds_are_refused() {
        let known: Vec<u8> = Kind::ALL.iter().map(|kind| *kind as u8).collect();
        for byte in (0..=u8::MAX).filter(|byte| !known.contains(byte)) {
            assert_eq!(FrameHeader::parse(header(0, byte)), Err(WireError::UnknownKind(byte)));
        }
    }
}
