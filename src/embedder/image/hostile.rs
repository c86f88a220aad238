//! Files that are made to harm: small ones that ask for much.

use super::format::{self, Format};
use super::made::{ONE_PIXEL, PIXELS, flat_jpeg_in_scans, packed_zeros, png, tiff};
use super::memory::{MAX_DECODER_MEMORY, MAX_PNG_METADATA};
use super::parity::{WITHOUT_MEAN, golden_files};
use super::peak::{kept_by, peak_of};
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
fn decoders_keep_no_memory() {
    for file in golden_files() {
        for bytes in [&file.bytes[..], &file.bytes[..file.bytes.len() / 2]] {
            let decode = || prepare(bytes, MAX_PIXELS, &WITHOUT_MEAN, JpegScaling::Off);
            // The first time makes what a thread keeps for all others.
            drop(decode());
            let kept = kept_by(decode);
            assert_eq!(kept, 0, "{} of {} bytes", file.name, bytes.len());
        }
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
    let bytes = png(ONE_PIXEL, &[(b"IDAT", &packed_zeros(100_000_000))]);
    let (prepared, peak) = peak_of(|| prepare(&bytes, MAX_PIXELS, &WITHOUT_MEAN, JpegScaling::Off));
    assert!(matches!(prepared, Ok(_) | Err(Error::BrokenImage { .. })));
    assert!(peak <= BESIDES + bytes.len() as u64, "{peak} bytes");
}

#[test]
fn a_colour_profile_that_unfolds_is_left_out() {
    let profile = [b"icc\0\0", packed_zeros(100_000_000).as_slice()].concat();
    let bytes = png(ONE_PIXEL, &[(b"iCCP", &profile), (b"IDAT", PIXELS)]);
    let (prepared, peak) = peak_of(|| prepare(&bytes, MAX_PIXELS, &WITHOUT_MEAN, JpegScaling::Off));
    prepared.unwrap();
    // The buffer doubles while it grows.
    assert!(peak <= 2 * MAX_PNG_METADATA, "{peak} bytes");
}

#[test]
fn texts_that_unfold_stay_folded() {
    let text = [b"Comment\0\0", packed_zeros(100_000_000).as_slice()].concat();
    let bytes = png(ONE_PIXEL, &[(b"zTXt", &text), (b"zTXt", &text), (b"IDAT", PIXELS)]);
    let (prepared, peak) = peak_of(|| prepare(&bytes, MAX_PIXELS, &WITHOUT_MEAN, JpegScaling::Off));
    prepared.unwrap();
    assert!(peak <= BESIDES + 4 * bytes.len() as u64, "{peak} bytes");
}

#[test]
fn texts_with_an_orientation_unfold_one_at_a_time() {
    let text = [b"XML:com.adobe.xmp\0\0", packed_zeros(100_000_000).as_slice()].concat();
    let bytes = png(ONE_PIXEL, &[(b"zTXt", &text), (b"zTXt", &text), (b"IDAT", PIXELS)]);
    let (prepared, peak) = peak_of(|| prepare(&bytes, MAX_PIXELS, &WITHOUT_MEAN, JpegScaling::Off));
    prepared.unwrap();
    assert!(peak <= (1 << 20) + BESIDES + 4 * bytes.len() as u64, "{peak} bytes");
}

#[test]
fn a_text_that_fills_the_limit_on_bytes_is_passed_over_or_refused() {
    let text = [b"Comment\0", vec![b'x'; 32 << 20].as_slice()].concat();
    let bytes = png(ONE_PIXEL, &[(b"tEXt", &text), (b"IDAT", PIXELS)]);
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
    let bytes = tiff((8_000, 6_250), 3, 8, &[]);
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
        let bytes = tiff((16, 16), 3, 8, entries);
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

fn heif_box(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(8 + content.len()).unwrap();
    [&length.to_be_bytes(), name.as_slice(), content].concat()
}
