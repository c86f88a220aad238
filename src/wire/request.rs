//! A backend's requests.

use crate::fields::{Fields, put_short_str};
use crate::{FrameHeader, Kind, MAGIC, MAX_MODEL_NAME, PROTOCOL, WireError};

/// A question of a backend to the embedder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request<'a> {
    /// The first frame of a connection. Answered by a `Welcome`. One of another protocol has no party that could be read.
    Hello { protocol: u16, party: Party },
    /// Answered by an `Embedding` or a `Failed`.
    EmbedText { id: u32, model: &'a str, text: &'a str },
    /// Answered by an `Embedding` or a `Failed`. An image of more than `max_pixels` is refused before it is decoded.
    /// The priority is told by the frame's kind, so that the embedder knows it before it makes room for the image.
    EmbedImage { id: u32, model: &'a str, priority: Priority, max_pixels: u64, image: &'a [u8] },
    /// Answered by a `StatusReport`.
    Status { id: u32 },
    /// Answered by a `Description` or a `Failed`: which model a name means, without an inference.
    Describe { id: u32, model: &'a str },
}

/// The party that a connection asks for: the embedder shares itself out between parties first, then between their
/// connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Party {
    /// The oid of the database.
    pub database: u32,
    /// The oid of the role that logged in.
    pub role: u32,
}

/// Which images are embedded first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// A session waits for the answer.
    Interactive,
    /// Work that has time: a queue, a backfill. It comes after interactive images.
    Bulk,
}

impl<'a> Request<'a> {
    /// Appends the frame to `out`, all but the bytes that [`Request::payload`] returns: they follow on the wire, and
    /// need not be copied to be sent.
    pub fn encode_head(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        let mut fields = Vec::with_capacity(4 + 8 + 1 + MAX_MODEL_NAME);
        match *self {
            Request::Hello { protocol, party } => {
                fields.extend_from_slice(&MAGIC);
                fields.extend_from_slice(&protocol.to_le_bytes());
                fields.extend_from_slice(&party.database.to_le_bytes());
                fields.extend_from_slice(&party.role.to_le_bytes());
            }
            Request::EmbedText { id, model, .. } => {
                fields.extend_from_slice(&id.to_le_bytes());
                put_short_str(model, &mut fields);
            }
            Request::EmbedImage { id, model, max_pixels, .. } => {
                fields.extend_from_slice(&id.to_le_bytes());
                fields.extend_from_slice(&max_pixels.to_le_bytes());
                put_short_str(model, &mut fields);
            }
            Request::Status { id } => fields.extend_from_slice(&id.to_le_bytes()),
            Request::Describe { id, model } => {
                fields.extend_from_slice(&id.to_le_bytes());
                put_short_str(model, &mut fields);
            }
        }
        FrameHeader::write(self.kind(), fields.len() + self.payload().len(), out)?;
        out.extend_from_slice(&fields);
        Ok(())
    }

    /// The end of the frame: the text or the image.
    pub fn payload(&self) -> &'a [u8] {
        match *self {
            Request::EmbedText { text, .. } => text.as_bytes(),
            Request::EmbedImage { image, .. } => image,
            Request::Hello { .. } | Request::Status { .. } | Request::Describe { .. } => &[],
        }
    }

    /// Reads the body of a frame that a backend sent.
    pub fn decode(kind: Kind, body: &'a [u8]) -> Result<Request<'a>, WireError> {
        let mut fields = Fields::new(kind, body);
        match kind {
            Kind::Hello => {
                if fields.array()? != MAGIC {
                    return Err(WireError::NoMagic);
                }
                // Another protocol may have other fields here: the version is read first, and decides.
                let protocol = fields.u16()?;
                if protocol != PROTOCOL {
                    return Ok(Request::Hello { protocol, party: Party::default() });
                }
                let party = Party { database: fields.u32()?, role: fields.u32()? };
                fields.end()?;
                Ok(Request::Hello { protocol, party })
            }
            Kind::EmbedText => {
                let id = fields.u32()?;
                let model = fields.short_str()?;
                Ok(Request::EmbedText { id, model, text: fields.tail_str()? })
            }
            Kind::EmbedImage | Kind::EmbedBulkImage => {
                let priority = if kind == Kind::EmbedImage { Priority::Interactive } else { Priority::Bulk };
                let id = fields.u32()?;
                let max_pixels = fields.u64()?;
                let model = fields.short_str()?;
                Ok(Request::EmbedImage { id, model, priority, max_pixels, image: fields.tail() })
            }
            Kind::Status => {
                let id = fields.u32()?;
                fields.end()?;
                Ok(Request::Status { id })
            }
            Kind::Describe => {
                let id = fields.u32()?;
                let model = fields.short_str()?;
                fields.end()?;
                Ok(Request::Describe { id, model })
            }
            Kind::Welcome | Kind::Embedding | Kind::Failed | Kind::StatusReport | Kind::Description => {
                Err(WireError::WrongSide(kind))
            }
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Request::Hello { .. } => Kind::Hello,
            Request::EmbedText { .. } => Kind::EmbedText,
            Request::EmbedImage { priority: Priority::Interactive, .. } => Kind::EmbedImage,
            Request::EmbedImage { priority: Priority::Bulk, .. } => Kind::EmbedBulkImage,
            Request::Status { .. } => Kind::Status,
            Request::Describe { .. } => Kind::Describe,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(request: &Request) -> (FrameHeader, Vec<u8>) {
        let mut bytes = Vec::new();
        request.encode_head(&mut bytes).unwrap();
        bytes.extend_from_slice(request.payload());
        let body = bytes.split_off(FrameHeader::SIZE);
        let header = FrameHeader::parse(bytes.try_into().unwrap()).unwrap();
        assert_eq!(header.length, body.len());
        (header, body)
    }

    fn round_trip(request: &Request) {
        let (header, body) = frame(request);
        assert_eq!(Request::decode(header.kind, &body).as_ref(), Ok(request));
    }

    #[test]
    fn a_hello_without_the_magic_is_refused() {
        assert_eq!(Request::decode(Kind::Hello, b"GET / HTTP/1.1"), Err(WireError::NoMagic));
    }

    #[test]
    fn a_hello_of_another_protocol_is_read_as_far_as_its_number() {
        for protocol in [PROTOCOL - 1, PROTOCOL + 1] {
            let body = [MAGIC.as_slice(), &protocol.to_le_bytes()].concat();
            let hello = Request::Hello { protocol, party: Party::default() };
            assert_eq!(Request::decode(Kind::Hello, &body), Ok(hello));
        }
        let cut = [MAGIC.as_slice(), &PROTOCOL.to_le_bytes(), &[0; 7]].concat();
        assert_eq!(Request::decode(Kind::Hello, &cut), Err(WireError::Truncated(Kind::Hello)));
    }

    #[test]
    fn a_text_that_is_not_utf8_is_refused() {
        let body = [0, 0, 0, 0, 4, b'd', b'e', b'm', b'o', 0xff];
        assert_eq!(Request::decode(Kind::EmbedText, &body), Err(WireError::NotUtf8(Kind::EmbedText)));
    }

    #[test]
    fn a_body_that_ends_early_is_refused() {
        for (priority, kind) in
            [(Priority::Interactive, Kind::EmbedImage), (Priority::Bulk, Kind::EmbedBulkImage)]
        {
            let image = Request::EmbedImage { id: 7, model: "demo", priority, max_pixels: 9, image: b"" };
            let (header, body) = frame(&image);
            assert_eq!(header.kind, kind);
            for length in 0..body.len() {
                assert_eq!(Request::decode(kind, &body[..length]), Err(WireError::Truncated(kind)));
            }
        }
    }

    proptest! {
        #[test]
        fn requests_survive_the_wire(
            id: u32, max_pixels: u64, model in "[a-z0-9-]{1,63}", text: String, image: Vec<u8>,
            database: u32, role: u32,
        ) {
            round_trip(&Request::Hello { protocol: PROTOCOL, party: Party { database, role } });
            round_trip(&Request::EmbedText { id, model: &model, text: &text });
            for priority in [Priority::Interactive, Priority::Bulk] {
                round_trip(&Request::EmbedImage { id, model: &model, priority, max_pixels, image: &image });
            }
            round_trip(&Request::Status { id });
            round_trip(&Request::Describe { id, model: &model });
        }

        #[test]
        fn any_bytes_are_read_or_refused(kind in 0..Kind::ALL.len(), body: Vec<u8>) {
            let _ = Request::decode(Kind::ALL[kind], &body);
        }
    }
}
