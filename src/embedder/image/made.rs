//! Files that tests make byte by byte.

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;

/// The header of a PNG of one grey pixel.
pub(super) const ONE_PIXEL: [u8; 13] = *b"\0\0\0\x01\0\0\0\x01\x08\0\0\0\0";

/// One black pixel as PNG has it: zlib of a filter byte and a grey value.
pub(super) const PIXELS: &[u8] = b"\x78\x01\x01\x02\0\xfd\xff\0\0\0\x02\0\x01";

/// A PNG with this header and these chunks.
pub(super) fn png(header: [u8; 13], chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    let header = (b"IHDR", &header[..]);
    for (name, data) in [header].into_iter().chain(chunks.iter().copied()).chain([(b"IEND", &b""[..])]) {
        bytes.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
        let start = bytes.len();
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(data);
        let checksum = crc32(&bytes[start..]);
        bytes.extend(checksum.to_be_bytes());
    }
    bytes
}

/// So many zeros as zlib: the data of a black picture.
pub(super) fn packed_zeros(mut length: u64) -> Vec<u8> {
    let zeros = [0; 1 << 16];
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::fast());
    while length > 0 {
        let part = length.min(zeros.len() as u64);
        packed.write_all(&zeros[..part as usize]).unwrap();
        length -= part;
    }
    packed.finish().unwrap()
}

/// A black RGB TIFF in one strip, packed with deflate, of so many samples of so many bits, with `entries` (tag and number)
/// behind its own.
pub(super) fn tiff((width, height): (u32, u32), samples: u32, bits: u32, entries: &[(u16, u32)]) -> Vec<u8> {
    let packed = packed_zeros(u64::from(width) * u64::from(height) * u64::from(samples * bits / 8));
    let length = u32::try_from(packed.len()).unwrap();
    let own = [
        (256, width),
        (257, height),
        (258, bits),
        (259, 8),
        (262, 2),
        (273, 8),
        (277, samples),
        (279, length),
    ];
    let count = (own.len() + entries.len()) as u16;
    let mut bytes = [b"II*\0", (8 + length).to_le_bytes().as_slice(), &packed, &count.to_le_bytes()].concat();
    for (tag, value) in own.iter().chain(entries) {
        // The meaning of further samples has 16 bits, all else here 32.
        let kind: u16 = if *tag == 338 { 3 } else { 4 };
        bytes.extend([tag.to_le_bytes(), kind.to_le_bytes()].concat());
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend([0; 4]);
    bytes
}

/// A baseline JPEG of one colour whose three components have a scan each, with `segments` behind its first marker.
pub(super) fn flat_jpeg_in_scans(width: u16, height: u16, segments: &[u8]) -> Vec<u8> {
    let mut bytes = [b"\xff\xd8", segments, b"\xff\xdb\0\x43\0", &[8; 64]].concat();
    bytes.extend(b"\xff\xc0\0\x11\x08");
    bytes.extend([height.to_be_bytes(), width.to_be_bytes()].concat());
    bytes.extend(b"\x03\x01\x11\0\x02\x11\0\x03\x11\0");
    // Sizes of means: 0 as `0`, 7 as `10`. The end of a block is `0`.
    bytes.extend(b"\xff\xc4\0\x15\0\x01\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x07");
    bytes.extend(b"\xff\xc4\0\x14\x10\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    let blocks = usize::from(width.div_ceil(8)) * usize::from(height.div_ceil(8));
    for component in 1..=3 {
        bytes.extend([0xff, 0xda, 0, 8, 1, component, 0, 0, 63, 0]);
        // Luma begins with a mean of 64, which takes 9 bits where 0 takes one.
        let first: &[u8] = if component == 1 { &[0b1010_0000, 0b0000_0000] } else { &[0] };
        let bits = 2 * blocks + if component == 1 { 8 } else { 0 };
        let start = bytes.len();
        bytes.extend_from_slice(first);
        bytes.resize(start + bits.div_ceil(8), 0);
        if bits % 8 > 0 {
            *bytes.last_mut().unwrap() |= 0xff >> (bits % 8);
        }
    }
    bytes.extend(b"\xff\xd9");
    bytes
}

/// The checksum of a PNG chunk (ISO 3309), bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}
