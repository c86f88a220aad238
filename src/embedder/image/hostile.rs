//! Files that are made to harm: small ones that ask for much.

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};

use super::format::{self, Format};
use super::memory::{MAX_DECODER_MEMORY, MAX_PNG_METADATA};
use super::parity::{WITHOUT_MEAN, golden_files};
use super::peak::peak_of;
use super::{JpegScaling, caught, header, prepare};
use crate::error::Error;

const MAX_PIXELS: u64 = 50_000_000;

/// The memory besides the decoder's: the input, and the values between the passes of the resize.
const BESIDES: u64 = 1 << 20;

fn prepare_clip(bytes: &[u8]) -> Result<Vec<f32>, Error> {
    let (prepared, peak) = peak_of(|| prepare(bytes, MAX_PIXELS, &WITHOUT_MEAN, JpegScaling::Off));
    assert!(peak <= MAX_DECODER_MEMORY, "{peak} bytes");
    prepared
}

#[test]
fn decoders_take_no_more_memory_than_was_reckoned() {
    for file in golden_files() {
        let format = format::recognise(&file.bytes).unwrap();
        let reckoned = header::needed_memory(format, &file.bytes, MAX_PIXELS).unwrap();
        let (prepared, peak) = peak_of(|| prepare(&file.bytes, MAX_PIXELS, &WITHOUT_MEAN, JpegScaling::Off));
        prepared.unwrap();
        let allowed = reckoned + file.bytes.len() as u64 + BESIDES;
        assert!(peak <= allowed, "{}: {peak} bytes, {reckoned} reckoned", file.name);
    }
}

#[test]
fn a_decoders_panic_is_a_broken_image() {
    let broken = caught::<()>(Format::Gif, || panic!("a decoder's bug"));
    assert!(matches!(broken, Err(Error::BrokenImage { format: "GIF", .. })));
}

#[test]
fn a_progressive_jpeg_whose_coefficients_take_too_much_is_refused() {
    // 7,000 × 7,000 pixels of CMYK: 200 MB of pixels and 392 MB of coefficients.
    let frame = b"\xff\xc2\0\x14\x08\x1b\x58\x1b\x58\x04\x01\x11\0\x02\x11\0\x03\x11\0\x04\x11\0";
    let bytes = [b"\xff\xd8", &frame[..], b"\xff\xda\0\x06\x04\0\0\0\xff\xd9"].concat();
    assert!(matches!(prepare_clip(&bytes), Err(Error::DecoderMemory { .. })));
}

#[test]
fn a_jpeg_in_several_scans_of_50_megapixels_is_decoded() {
    let bytes = flat_jpeg_in_scans(8_000, 6_250, &[]);
    let reckoned = header::needed_memory(Format::Jpeg, &bytes, MAX_PIXELS).unwrap();
    let (prepared, peak) = peak_of(|| prepare(&bytes, MAX_PIXELS, &WITHOUT_MEAN, JpegScaling::Off));
    // The first mean is 64 × 8 / 8 above the middle, and the others are as the one before them.
    let luma = f32::from(128_u8 + 64) / 255.0;
    assert!(prepared.unwrap().iter().all(|value| (value - luma).abs() < 0.01));
    assert!(peak <= reckoned + bytes.len() as u64 + BESIDES, "{peak} bytes, {reckoned} reckoned");
    assert!(peak <= MAX_DECODER_MEMORY, "{peak} bytes");
}

#[test]
fn millions_of_segments_take_no_memory() {
    let segments = b"\xff\xe5\0\x02".repeat(4_000_000);
    let bytes = flat_jpeg_in_scans(64, 64, &segments);
    let reckoned = header::needed_memory(Format::Jpeg, &bytes, MAX_PIXELS).unwrap();
    let (prepared, peak) = peak_of(|| prepare(&bytes, MAX_PIXELS, &WITHOUT_MEAN, JpegScaling::Off));
    prepared.unwrap();
    assert!(peak <= reckoned + bytes.len() as u64 + BESIDES, "{peak} bytes, {reckoned} reckoned");
}

#[test]
fn a_png_with_more_pixels_in_its_data_than_in_its_header_takes_no_memory_for_them() {
    let bytes = png(&[(b"IDAT", &zeros())]);
    let (prepared, peak) = peak_of(|| prepare(&bytes, MAX_PIXELS, &WITHOUT_MEAN, JpegScaling::Off));
    assert!(matches!(prepared, Ok(_) | Err(Error::BrokenImage { .. })));
    assert!(peak <= BESIDES + bytes.len() as u64, "{peak} bytes");
}

#[test]
fn a_colour_profile_that_unfolds_is_left_out() {
    let profile = [b"icc\0\0", zeros().as_slice()].concat();
    let bytes = png(&[(b"iCCP", &profile), (b"IDAT", PIXELS)]);
    let (prepared, peak) = peak_of(|| prepare(&bytes, MAX_PIXELS, &WITHOUT_MEAN, JpegScaling::Off));
    prepared.unwrap();
    // The buffer doubles while it grows.
    assert!(peak <= 2 * MAX_PNG_METADATA, "{peak} bytes");
}

#[test]
fn texts_that_unfold_stay_folded() {
    let text = [b"Comment\0\0", zeros().as_slice()].concat();
    let bytes = png(&[(b"zTXt", &text), (b"zTXt", &text), (b"IDAT", PIXELS)]);
    let (prepared, peak) = peak_of(|| prepare(&bytes, MAX_PIXELS, &WITHOUT_MEAN, JpegScaling::Off));
    prepared.unwrap();
    assert!(peak <= BESIDES + 4 * bytes.len() as u64, "{peak} bytes");
}

#[test]
fn texts_with_an_orientation_unfold_one_at_a_time() {
    let text = [b"XML:com.adobe.xmp\0\0", zeros().as_slice()].concat();
    let bytes = png(&[(b"zTXt", &text), (b"zTXt", &text), (b"IDAT", PIXELS)]);
    let (prepared, peak) = peak_of(|| prepare(&bytes, MAX_PIXELS, &WITHOUT_MEAN, JpegScaling::Off));
    prepared.unwrap();
    assert!(peak <= (1 << 20) + BESIDES + 4 * bytes.len() as u64, "{peak} bytes");
}

#[test]
fn a_text_that_fills_the_limit_on_bytes_is_passed_over_or_refused() {
    let text = [b"Comment\0", vec![b'x'; 32 << 20].as_slice()].concat();
    let bytes = png(&[(b"tEXt", &text), (b"IDAT", PIXELS)]);
    assert!(matches!(prepare_clip(&bytes), Ok(_) | Err(Error::DecoderMemory { .. })));
}

#[test]
fn a_gif_frame_that_is_larger_than_its_canvas_is_held_against_the_limit() {
    // A canvas of one pixel, and a frame of 65,535 × 65,535.
    let bytes = b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\xff\xff\xff\xff\0\x02\x02\x4c\x01\0;";
    assert!(matches!(prepare_clip(bytes), Err(Error::TooManyPixels { .. })));
}

#[test]
fn a_tiff_of_50_megapixels_is_decoded() {
    let bytes = tiff(8_000, 6_250, &[]);
    let reckoned = header::needed_memory(Format::Tiff, &bytes, MAX_PIXELS).unwrap();
    let (prepared, peak) = peak_of(|| prepare(&bytes, MAX_PIXELS, &WITHOUT_MEAN, JpegScaling::Off));
    prepared.unwrap();
    assert!(peak <= reckoned + bytes.len() as u64 + BESIDES, "{peak} bytes, {reckoned} reckoned");
    assert!(peak <= MAX_DECODER_MEMORY, "{peak} bytes");
}

#[test]
fn a_tiff_that_says_two_sizes_or_tiles_without_end_takes_no_memory() {
    // Width and height once more, and tiles of as many pixels as can be said.
    for entries in [&[(256, 60_000), (257, 60_000)][..], &[(322, u32::MAX), (323, 1)]] {
        let bytes = tiff(16, 16, entries);
        let (prepared, peak) = peak_of(|| prepare(&bytes, MAX_PIXELS, &WITHOUT_MEAN, JpegScaling::Off));
        if let Err(error) = prepared {
            assert!(
                matches!(error, Error::BrokenImage { .. } | Error::UnsupportedFeature { .. }),
                "{error:?}"
            );
        }
        assert!(peak <= BESIDES + 2 * bytes.len() as u64, "{peak} bytes");
    }
}

#[test]
fn a_heif_whose_lists_unfold_takes_no_memory() {
    let infos = vec![0; 100 << 10];
    // 1,000 items with 65,535 extents each, of which none takes a byte.
    let places = [&b"\0\0\0\0\0\0\x03\xe8"[..], &b"\0\x01\0\0\xff\xff".repeat(1000)].concat();
    for list in [heif_box(b"iinf", &infos), heif_box(b"iloc", &places)] {
        let meta = heif_box(b"meta", &[&[0; 4], list.as_slice()].concat());
        let bytes = [heif_box(b"ftyp", b"heic\0\0\0\0mif1heic"), meta].concat();
        let (prepared, peak) = peak_of(|| prepare(&bytes, MAX_PIXELS, &WITHOUT_MEAN, JpegScaling::Off));
        let error = prepared.unwrap_err();
        assert!(matches!(error, Error::BrokenImage { .. } | Error::UnsupportedFeature { .. }), "{error:?}");
        assert!(peak <= BESIDES, "{peak} bytes");
    }
}

#[test]
fn only_the_first_frame_is_decoded() {
    for name in ["gif-animated.gif", "png-animated.png"] {
        let file = golden_files().into_iter().find(|file| file.name == name).unwrap();
        let whole = prepare_clip(&file.bytes).unwrap();
        // Nearly half of the file is the second frame.
        let without_second = prepare_clip(&file.bytes[..file.bytes.len() * 2 / 3]).unwrap();
        assert!(whole == without_second, "{name}");
    }
}

/// A black RGB TIFF in one strip, packed with deflate, with `entries` (tag and number) behind its own.
fn tiff(width: u32, height: u32, entries: &[(u16, u32)]) -> Vec<u8> {
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::fast());
    let row = vec![0; 3 * width as usize];
    (0..height).for_each(|_| packed.write_all(&row).unwrap());
    let packed = packed.finish().unwrap();
    let length = u32::try_from(packed.len()).unwrap();
    let own = [(256, width), (257, height), (258, 8), (259, 8), (262, 2), (273, 8), (277, 3), (279, length)];
    let count = (own.len() + entries.len()) as u16;
    let mut bytes = [b"II*\0", (8 + length).to_le_bytes().as_slice(), &packed, &count.to_le_bytes()].concat();
    for (tag, value) in own.iter().chain(entries) {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(b"\x04\0\x01\0\0\0");
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend([0; 4]);
    bytes
}

fn heif_box(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(8 + content.len()).unwrap();
    [&length.to_be_bytes(), name.as_slice(), content].concat()
}

/// One black pixel as PNG has it: zlib of a filter byte and a grey value.
const PIXELS: &[u8] = b"\x78\x01\x01\x02\0\xfd\xff\0\0\0\x02\0\x01";

/// A grey PNG of one pixel with these chunks.
fn png(chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    let header = (b"IHDR", &b"\0\0\0\x01\0\0\0\x01\x08\0\0\0\0"[..]);
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

/// 100 MB of zeros as zlib: the data of a black PNG.
fn zeros() -> Vec<u8> {
    let (width, height) = (50_000, 2_000);
    let mut encoded = Vec::new();
    PngEncoder::new_with_quality(&mut encoded, CompressionType::Fast, FilterType::NoFilter)
        .write_image(&vec![0; 100_000_000], width, height, ExtendedColorType::L8)
        .unwrap();
    let mut zlib = Vec::new();
    let mut rest = &encoded[8..];
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        if after.starts_with(b"IDAT") {
            zlib.extend_from_slice(&after[4..4 + length]);
        }
        rest = &after[8 + length..];
    }
    zlib
}

/// The checksum of a PNG chunk (ISO 3309), bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

/// A baseline JPEG of one colour whose three components have a scan each, with `segments` behind its first marker.
fn flat_jpeg_in_scans(width: u16, height: u16, segments: &[u8]) -> Vec<u8> {
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
