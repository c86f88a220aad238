//! The embedder's answers.

use std::time::Duration;

use crate::fields::{Fields, put_long_str, put_short_str};
use crate::{FrameHeader, Kind, MAX_DIMENSIONS, WireError};

/// The sha256 of a model's weights, tokenizer and preprocessing.
pub type Fingerprint = [u8; 32];

/// An answer of the embedder to a backend.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// To a `Hello`: the embedder's protocol and its release.
    Welcome { protocol: u16, version: String },
    /// To an `EmbedText` or `EmbedImage`: an L2-normalised vector, which model made it, and the times that it took.
    Embedding { id: u32, fingerprint: Fingerprint, work: Work, vector: Vec<f32> },
    /// To an `EmbedText`, `EmbedImage` or `Describe` that could not be answered. The connection stays usable.
    Failed { id: u32, failure: Failure },
    /// To a `Status`: a JSON object.
    StatusReport { id: u32, json: String },
    /// To a `Describe`: the loaded model's fingerprint and the dimensions of its vectors.
    Description { id: u32, fingerprint: Fingerprint, dimensions: u16 },
}

/// The times of an embedding, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    preparation_us: u32,
    /// 0 where no run was needed.
    inference_us: u32,
}

impl Work {
    /// `preparation` is the time to tokenize a text, or to decode and resize an image; `inference` is the input's share of a
    /// run of the network, None where no run was needed.
    pub fn new(preparation: Duration, inference: Option<Duration>) -> Work {
        let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        let inference_us = inference.map_or(0, |time| micros(time).max(1));
        Work { preparation_us: micros(preparation), inference_us }
    }

    /// The time to tokenize a text, or to decode and resize an image.
    pub fn preparation(self) -> Duration {
        Duration::from_micros(self.preparation_us.into())
    }

    /// The input's share of a run of the network; None where no run was needed.
    pub fn inference(self) -> Option<Duration> {
        (self.inference_us > 0).then(|| Duration::from_micros(self.inference_us.into()))
    }
}

/// Why an input has no embedding.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub kind: FailureKind,
    pub message: String,
    /// Empty where there is nothing to add.
    pub detail: String,
    /// Empty where there is nothing to do.
    pub hint: String,
}

impl Failure {
    /// A failure with a message alone.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Failure {
        Failure { kind, message: message.into(), detail: String::new(), hint: String::new() }
    }

    /// The same with a detail.
    pub fn with_detail(mut self, detail: impl Into<String>) -> Failure {
        self.detail = detail.into();
        self
    }

    /// The same with a hint.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = hint.into();
        self
    }
}

/// The classes of failures that an application can branch on. The extension gives each its SQLSTATE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FailureKind {
    /// An argument that means nothing: an unknown model, an empty image.
    InvalidParameter = 1,
    /// Bytes that are no image, or a broken one.
    UndecodableImage = 2,
    /// An image format that is known and refused.
    UnsupportedFormat = 3,
    /// More bytes, pixels or memory than allowed.
    LimitExceeded = 4,
    /// More waiting requests than the embedder takes.
    Overloaded = 5,
    /// A model, a library or a setting that cannot be used.
    Configuration = 6,
    /// A model that gave no finite vector of its dimensions.
    BadOutput = 7,
    /// Memory that could not be had.
    OutOfMemory = 8,
    /// A request that breaks the protocol.
    Protocol = 9,
    /// A defect of the embedder.
    Internal = 10,
}

impl FailureKind {
    /// All failure kinds, for tables and tests.
    pub const ALL: [FailureKind; 10] = [
        FailureKind::InvalidParameter,
        FailureKind::UndecodableImage,
        FailureKind::UnsupportedFormat,
        FailureKind::LimitExceeded,
        FailureKind::Overloaded,
        FailureKind::Configuration,
        FailureKind::BadOutput,
        FailureKind::OutOfMemory,
        FailureKind::Protocol,
        FailureKind::Internal,
    ];

    /// The kind that has this number on the wire.
    pub fn from_byte(byte: u8) -> Result<FailureKind, WireError> {
        FailureKind::ALL.into_iter().find(|kind| *kind as u8 == byte).ok_or(WireError::UnknownFailure(byte))
    }
}

impl Answer {
    /// Appends the whole frame to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        let mut body = Vec::new();
        match self {
            Answer::Welcome { protocol, version } => {
                body.extend_from_slice(&protocol.to_le_bytes());
                put_short_str(version, &mut body);
            }
            Answer::Embedding { id, fingerprint, work, vector } => {
                body.extend_from_slice(&id.to_le_bytes());
                body.extend_from_slice(fingerprint);
                body.extend_from_slice(&work.preparation_us.to_le_bytes());
                body.extend_from_slice(&work.inference_us.to_le_bytes());
                let dimensions = checked_dimensions(vector.len())?;
                body.extend_from_slice(&dimensions.to_le_bytes());
                body.extend(vector.iter().flat_map(|value| value.to_le_bytes()));
            }
            Answer::Failed { id, failure } => {
                body.extend_from_slice(&id.to_le_bytes());
                body.push(failure.kind as u8);
                put_long_str(&failure.message, &mut body);
                put_long_str(&failure.detail, &mut body);
                put_long_str(&failure.hint, &mut body);
            }
            Answer::StatusReport { id, json } => {
                body.extend_from_slice(&id.to_le_bytes());
                body.extend_from_slice(json.as_bytes());
            }
            Answer::Description { id, fingerprint, dimensions } => {
                body.extend_from_slice(&id.to_le_bytes());
                body.extend_from_slice(fingerprint);
                body.extend_from_slice(&dimensions.to_le_bytes());
            }
        }
        FrameHeader::write(self.kind(), body.len(), out)?;
        out.extend_from_slice(&body);
        Ok(())
    }

    /// Reads the body of a frame that the embedder sent.
    pub fn decode(kind: Kind, body: &[u8]) -> Result<Answer, WireError> {
        let mut fields = Fields::new(kind, body);
        match kind {
            Kind::Welcome => {
                // A later protocol may add fields here: the version is read first, and decides.
                Ok(Answer::Welcome { protocol: fields.u16()?, version: fields.short_str()?.to_owned() })
            }
            Kind::Embedding => {
                let id = fields.u32()?;
                let fingerprint = fields.array()?;
                let work = Work { preparation_us: fields.u32()?, inference_us: fields.u32()? };
                let dimensions = checked_dimensions(fields.u16()?.into())?;
                let bytes = fields.bytes(4 * usize::from(dimensions))?;
                fields.end()?;
                let (values, _) = bytes.as_chunks::<4>();
                let vector = values.iter().map(|value| f32::from_le_bytes(*value)).collect();
                Ok(Answer::Embedding { id, fingerprint, work, vector })
            }
            Kind::Failed => {
                let id = fields.u32()?;
                let failure = Failure {
                    kind: FailureKind::from_byte(fields.u8()?)?,
                    message: fields.long_str()?.to_owned(),
                    detail: fields.long_str()?.to_owned(),
                    hint: fields.long_str()?.to_owned(),
                };
                fields.end()?;
                Ok(Answer::Failed { id, failure })
            }
            Kind::StatusReport => {
                Ok(Answer::StatusReport { id: fields.u32()?, json: fields.tail_str()?.to_owned() })
            }
            Kind::Description => {
                let id = fields.u32()?;
                let fingerprint = fields.array()?;
                let dimensions = fields.u16()?;
                fields.end()?;
                Ok(Answer::Description { id, fingerprint, dimensions })
            }
            Kind::Hello
            | Kind::EmbedText
            | Kind::EmbedImage
            | Kind::EmbedBulkImage
            | Kind::Status
            | Kind::Describe => Err(WireError::WrongSide(kind)),
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Answer::Welcome { .. } => Kind::Welcome,
            Answer::Embedding { .. } => Kind::Embedding,
            Answer::Failed { .. } => Kind::Failed,
            Answer::StatusReport { .. } => Kind::StatusReport,
            Answer::Description { .. } => Kind::Description,
        }
    }
}

fn checked_dimensions(dimensions: usize) -> Result<u16, WireError> {
    match u16::try_from(dimensions) {
        Ok(checked) if (1..=MAX_DIMENSIONS).contains(&dimensions) => Ok(checked),
        _ => Err(WireError::BadDimensions(dimensions)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(answer: &Answer) {
        let mut bytes = Vec::new();
        answer.encode(&mut bytes).unwrap();
        let body = bytes.split_off(FrameHeader::SIZE);
        let header = FrameHeader::parse(bytes.try_into().unwrap()).unwrap();
        assert_eq!(header.length, body.len());
        assert_eq!(Answer::decode(header.kind, &body).as_ref(), Ok(answer));
        for length in 0..body.len().min(64) {
            if matches!(answer, Answer::StatusReport { .. }) && length >= 4 {
                break;
            }
            assert_eq!(
                Answer::decode(header.kind, &body[..length]),
                Err(WireError::Truncated(header.kind)),
                "{length} of {} bytes",
                body.len()
            );
        }
    }

    #[test]
    fn an_embedding_without_dimensions_is_refused() {
        let work = Work::default();
        let empty = Answer::Embedding { id: 1, fingerprint: [0; 32], work, vector: Vec::new() };
        assert_eq!(empty.encode(&mut Vec::new()), Err(WireError::BadDimensions(0)));
        let body = [0; 4 + 32 + 8 + 2];
        assert_eq!(Answer::decode(Kind::Embedding, &body), Err(WireError::BadDimensions(0)));
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let failure = Failure::new(FailureKind::Internal, "é".repeat(40_000));
        let mut bytes = Vec::new();
        Answer::Failed { id: 1, failure }.encode(&mut bytes).unwrap();
        let Ok(Answer::Failed { failure, .. }) = Answer::decode(Kind::Failed, &bytes[FrameHeader::SIZE..])
        else {
            panic!("a failure was sent")
        };
        assert_eq!(failure.message, "é".repeat(32_767));
    }

    proptest! {
        #[test]
        fn answers_survive_the_wire(
            id: u32,
            fingerprint: [u8; 32],
            preparation_us: u32,
            inference_us: u32,
            vector in prop::collection::vec(-1.0f32..1.0, 1..600),
            kind in 0..FailureKind::ALL.len(),
            message: String,
            version in "[0-9.]{1,20}",
        ) {
            let failure = Failure::new(FailureKind::ALL[kind], message.clone())
                .with_detail(message.to_uppercase())
                .with_hint("try again");
            round_trip(&Answer::Welcome { protocol: 3, version });
            let work = Work { preparation_us, inference_us };
            round_trip(&Answer::Embedding { id, fingerprint, work, vector });
            round_trip(&Answer::Failed { id, failure });
            round_trip(&Answer::StatusReport { id, json: message });
            round_trip(&Answer::Description { id, fingerprint, dimensions: 512 });
        }

        #[test]
        fn any_bytes_are_read_or_refused(kind in 0..Kind::ALL.len(), body: Vec<u8>) {
            let _ = Answer::decode(Kind::ALL[kind], &body);
        }
    }
}
