//! A protobuf message as its fields, so that unknown parts are passed on byte for byte.
//!
//! Source of the format: <https://protobuf.dev/programming-guides/encoding/>.

use prost::DecodeError;
use prost::bytes::{Buf, Bytes};
use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field,
};

/// One field of a message.
#[derive(Debug, Clone)]
pub(super) struct Field {
    pub number: u32,
    /// Key and value, as they stand in the message.
    pub whole: Bytes,
    /// The value of a string, of bytes or of a message; empty for numbers.
    pub value: Bytes,
}

/// Splits a message into its fields, in their order.
pub(super) fn split(message: &Bytes) -> Result<Vec<Field>, DecodeError> {
    let mut rest = message.clone();
    let mut fields = Vec::new();
    while rest.has_remaining() {
        let start = message.len() - rest.len();
        let (number, wire) = decode_key(&mut rest)?;
        let value = if wire == WireType::LengthDelimited {
            let length = decode_varint(&mut rest)?;
            let length = usize::try_from(length).ok().filter(|length| *length <= rest.len());
            // Decoding this gives the error of a message that is cut off.
            let Some(length) = length else { return Err(cut_off()) };
            rest.split_to(length)
        } else {
            skip_field(wire, number, &mut rest, DecodeContext::default())?;
            Bytes::new()
        };
        fields.push(Field { number, whole: message.slice(start..message.len() - rest.len()), value });
    }
    Ok(fields)
}

/// The key and the length that stand before a value of `length` bytes.
pub(super) fn head(number: u32, length: usize) -> Bytes {
    let mut head = Vec::new();
    encode_key(number, WireType::LengthDelimited, &mut head);
    encode_varint(length as u64, &mut head);
    head.into()
}

fn cut_off() -> DecodeError {
    let mut nothing: &[u8] = &[];
    decode_varint(&mut nothing).expect_err("nothing is no number")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_the_sum_of_its_fields() {
        // A number, a string, a fixed32, a group and a fixed64, none of which means anything.
        let message = Bytes::from_static(
            b"\x08\x96\x01\x12\x02hi\x1d\x01\x02\x03\x04\x23\x08\x01\x24\x29\x01\x02\x03\x04\x05\x06\x07\x08",
        );
        let fields = split(&message).unwrap();
        assert_eq!(fields.iter().map(|field| field.number).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        assert_eq!(fields[1].value, "hi");
        let whole: Vec<u8> = fields.iter().flat_map(|field| field.whole.to_vec()).collect();
        assert_eq!(whole, message);
        let (head, value) = (head(2, 2), &fields[1].value);
        assert_eq!([&head[..], value].concat(), fields[1].whole);
    }

    #[test]
    fn a_cut_message_is_refused() {
        for message in
            [&b"\x12\x05hi"[..], b"\x12", b"\x1d\x01", b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"]
        {
            assert!(split(&Bytes::from_static(message)).is_err(), "{message:?}");
        }
    }
}
