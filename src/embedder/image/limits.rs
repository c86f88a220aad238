//! Pictures at the limits, of each format: one that is just allowed is decoded within the memory that was reckoned for it, and
//! one whose header says a little more is refused.
//!
//! A picture is decoded in a process of its own, by the same test. The growth of its address space
//! counts: in it are the allocations of decoders in C, and those that are not touched because the picture has one colour.

use std::borrow::Cow;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::{env, fs};

use flate2::read::GzDecoder;
use gif::{Encoder, Frame};
use image::ExtendedColorType;
use image::codecs::webp::WebPEncoder;
use memchr::memmem;
use mozjpeg::{ColorSpace, Compress};

use super::JpegScaling::{self, Off, On};
use super::made::{flat_jpeg_in_scans, packed_zeros, png, tiff};
use super::memory::MAX_DECODER_MEMORY;
use super::parity::WITHOUT_MEAN;
use super::{format, header, prepare};
use crate::error::Error;

const MAX_PIXELS: u64 = 50_000_000;

/// Beside the decoder and the file: the rows between the passes of the resize, and free memory of the allocator.
const BESIDES: u64 = 8 << 20;

/// A picture that is at a limit, and the same bytes with a header that says more.
struct Picture {
    bytes: Vec<u8>,
    larger: Vec<u8>,
}

macro_rules! at_the_limit {
    ($($name:ident $scaling:ident $make:expr;)*) => {
        $(#[test]
        fn $name() {
            keeps_to_its_memory(concat!("image::limits::", stringify!($name)), $scaling, || $make);
        })*
    };
}

at_the_limit! {
    png_rgba_of_16_bits Off black_png((8_000, 5_300), 16, RGBA, false);
    png_rgba_of_16_bits_interlaced Off black_png((8_000, 5_300), 16, RGBA, true);
    png_rgb Off black_png((8_000, 6_250), 8, RGB, false);
    webp_lossless Off lossless_webp();
    webp_lossy Off lossy_webp();
    webp_with_alpha Off webp_of_alpha();
    webp_animated Off animated_webp();
    gif_of_one_colour Off flat_gif();
    bmp_in_run_lengths Off bmp_in_runs();
    bmp_of_one_bit_without_a_place Off bmp_of_bits();
    jpeg_baseline Off jpeg(false, (2, 2));
    jpeg_baseline_scaled On jpeg(false, (2, 2));
    jpeg_progressive Off jpeg(true, (1, 1));
    jpeg_progressive_scaled On jpeg(true, (1, 1));
    jpeg_in_scans Off jpeg_of_scans();
    jpeg_in_scans_scaled On jpeg_of_scans();
    tiff_rgb Off tiff_of((8_000, 6_250), 3, 8);
    tiff_rgba_of_16_bits Off tiff_of((8_000, 4_190), 4, 16);
    heic_420 Off heif("420.heic", 5_312 + 64);
    heic_444 Off heif("444.heic", 4_288 + 64);
    heic_in_tiles_and_cut Off heif("grid.heic", 6_120);
    avif_420 Off heif("420.avif", 4_260);
    avif_444_with_grain Off heif("444.avif", 4_260);
    avif_in_tiles Off heif("grid.avif", 6_120);
}

/// Names the file that the process is to decode.
const FILE: &str = "PG_CLIP_TEST_FILE";

fn keeps_to_its_memory(test: &str, scaling: JpegScaling, make: fn() -> Picture) {
    if let Some(file) = env::var_os(FILE) {
        return measure(Path::new(&file), scaling);
    }
    // One after the other: each takes half a gigabyte.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Picture { bytes, larger } = make();
    let format = format::recognise(&bytes).unwrap();
    header::check(format, &bytes, MAX_PIXELS).unwrap();
    let refused = header::check(format, &larger, MAX_PIXELS).unwrap_err();
    assert!(matches!(refused, Error::TooManyPixels { .. } | Error::DecoderMemory { .. }), "{refused:?}");
    let refused = header::check(format, &bytes, MAX_PIXELS * 98 / 100);
    let reckoned = header::needed_memory(format, &bytes, MAX_PIXELS).unwrap();
    let share = reckoned * 100 / MAX_DECODER_MEMORY;
    assert!(refused.is_err() || share >= 98, "it is at no limit: {share} % of the memory");

    let folder = temp_dir::TempDir::new().unwrap();
    let file = folder.child("picture");
    fs::write(&file, &bytes).unwrap();
    let length = bytes.len() as u64;
    drop((bytes, larger));
    let mut decoder = Command::new(env::current_exe().unwrap());
    // With more than one arena, the address space says little of allocations.
    decoder.args(["--exact", test, "--nocapture"]).env(FILE, &file).env("MALLOC_ARENA_MAX", "1");
    let output = decoder.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stdout));
    let grown: u64 = said.lines().find_map(|line| line.strip_prefix(GROWN)).unwrap().parse().unwrap();
    eprintln!("{test}: {grown} bytes, {reckoned} reckoned, {length} in the file");
    // Whole pictures have 24 million pixels or more.
    assert!(scaling == On || grown > 3 * 24_000_000, "{grown} bytes hold no whole picture");
    assert!(grown <= reckoned + length + BESIDES, "{grown} bytes, {reckoned} reckoned");
}

const GROWN: &str = "grown by ";

fn measure(file: &Path, scaling: JpegScaling) {
    let bytes = fs::read(file).unwrap();
    let before = status("VmSize:");
    prepare(&bytes, MAX_PIXELS, &WITHOUT_MEAN, scaling).unwrap();
    eprintln!("{GROWN}{}", status("VmPeak:") - before);
}

/// A size of this process, in bytes.
fn status(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

impl Picture {
    /// One whose header says more where it has these bytes.
    fn of(bytes: Vec<u8>, at: usize, number: &[u8]) -> Picture {
        let mut larger = bytes.clone();
        larger[at..at + number.len()].copy_from_slice(number);
        Picture { bytes, larger }
    }
}

/// A file of tests/data/limits, which tests/parity/limits.py makes.
fn made(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../tests/data/limits");
    fs::read(folder.join(name)).unwrap()
}

/// One whose picture is said to have this height.
fn heif(name: &str, height: u32) -> Picture {
    let bytes = made(name);
    let mut larger = bytes.clone();
    // The size of a picture, behind a version; and of a grid, in its own data.
    for at in memmem::find_iter(&bytes, b"ispe") {
        larger[at + 12..at + 16].copy_from_slice(&height.to_be_bytes());
    }
    let grid =
        memmem::find(&bytes, b"mdat").map(|at| at + 4).filter(|at| bytes[*at..].starts_with(&[0, 0, 2, 3]));
    if let Some(at) = grid {
        larger[at + 6..at + 8].copy_from_slice(&u16::try_from(height).unwrap().to_be_bytes());
    }
    Picture { bytes, larger }
}

const RGB: u8 = 2;
const RGBA: u8 = 6;

fn black_png((width, height): (u32, u32), depth: u8, colours: u8, interlaced: bool) -> Picture {
    /// First column, first row, and the steps of both.
    const PASSES: [[u32; 4]; 7] =
        [[0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2]];
    let pixel = u64::from(depth / 8) * if colours == RGBA { 4 } else { 3 };
    let passes = if interlaced { &PASSES[..] } else { &[[0, 0, 1, 1]] };
    let length = passes.iter().map(|[left, top, right, down]| {
        let (columns, rows) = ((width - left).div_ceil(*right), (height - top).div_ceil(*down));
        u64::from(rows) * (1 + u64::from(columns) * pixel)
    });
    let data = packed_zeros(length.sum());
    let with = |height: u32| {
        let mut header = [0; 13];
        header[..4].copy_from_slice(&width.to_be_bytes());
        header[4..8].copy_from_slice(&height.to_be_bytes());
        (header[8], header[9], header[12]) = (depth, colours, interlaced.into());
        png(header, &[(b"IDAT", &data)])
    };
    Picture { bytes: with(height), larger: with(height + 50) }
}

fn lossless_webp() -> Picture {
    // Behind its signature, 14 bits of each side less one.
    let packed = (WEBP_WIDTH - 1) | (6_260 - 1) << 14;
    Picture::of(flat_webp(6_250), 21, &packed.to_le_bytes()[..3])
}

fn lossy_webp() -> Picture {
    Picture::of(riff(&[webp_chunk(b"VP8 ", &lossy_frame(6_250))]), 28, &6_260_u16.to_le_bytes())
}

/// The alpha channel is packed as a picture without loss is, without a head of its own.
fn webp_of_alpha() -> Picture {
    const ALPHA: u8 = 0x10;
    let height: u32 = 6_100;
    let chunks = [canvas(ALPHA, height), alpha_chunk(height), webp_chunk(b"VP8 ", &lossy_frame(height))];
    Picture::of(riff(&chunks), 27, &6_110_u32.to_le_bytes()[..3])
}

fn animated_webp() -> Picture {
    const ALPHA_AND_ANIMATION: u8 = 0x12;
    let height: u32 = 5_160;
    // At no place, of this size, for a second.
    let sides = [&(WEBP_WIDTH - 1).to_le_bytes()[..3], &(height - 1).to_le_bytes()[..3]].concat();
    let head = [&[0; 6], sides.as_slice(), &[0xe8, 3, 0, 0]].concat();
    let frame = [head, alpha_chunk(height), webp_chunk(b"VP8 ", &lossy_frame(height))].concat();
    let chunks =
        [canvas(ALPHA_AND_ANIMATION, height), webp_chunk(b"ANIM", &[0; 6]), webp_chunk(b"ANMF", &frame)];
    Picture::of(riff(&chunks), 27, &5_170_u32.to_le_bytes()[..3])
}

const WEBP_WIDTH: u32 = 8_000;

/// The coded picture of lossy.webp, of which as many rows count as its head says.
fn lossy_frame(height: u32) -> Vec<u8> {
    let mut file = Vec::new();
    GzDecoder::new(made("lossy.webp.gz").as_slice()).read_to_end(&mut file).unwrap();
    let mut frame = file.split_off(20);
    frame[8..10].copy_from_slice(&height.to_le_bytes()[..2]);
    frame
}

fn flat_webp(height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let pixels = vec![0x40; 3 * WEBP_WIDTH as usize * height as usize];
    let encoder = WebPEncoder::new_lossless(&mut bytes);
    encoder.encode(&pixels, WEBP_WIDTH, height, ExtendedColorType::Rgb8).unwrap();
    bytes
}

fn alpha_chunk(height: u32) -> Vec<u8> {
    const PACKED: u8 = 1;
    // Behind the heads of the file, of its chunk, and of its picture.
    webp_chunk(b"ALPH", &[&[PACKED], &flat_webp(height)[25..]].concat())
}

fn canvas(flags: u8, height: u32) -> Vec<u8> {
    let [width, height] = [WEBP_WIDTH, height].map(|side| (side - 1).to_le_bytes());
    webp_chunk(b"VP8X", &[&[flags, 0, 0, 0], &width[..3], &height[..3]].concat())
}

fn webp_chunk(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap();
    let end: &[u8] = if content.len().is_multiple_of(2) { &[] } else { &[0] };
    [name, length.to_le_bytes().as_slice(), content, end].concat()
}

fn riff(chunks: &[Vec<u8>]) -> Vec<u8> {
    webp_chunk(b"RIFF", &[b"WEBP", chunks.concat().as_slice()].concat())
}

fn flat_gif() -> Picture {
    let (width, height) = (8_000, 6_250);
    let mut bytes = Vec::new();
    let indices = vec![1; usize::from(width) * usize::from(height)];
    let frame = Frame { width, height, buffer: Cow::Owned(indices), ..Frame::default() };
    let mut encoder = Encoder::new(&mut bytes, width, height, &[0, 0, 0, 90, 120, 150]).unwrap();
    encoder.write_frame(&frame).unwrap();
    drop(encoder);
    Picture::of(bytes, 8, &6_260_u16.to_le_bytes())
}

/// The header of a BMP of 8,000 × 6,250 pixels, with a palette of black and a grey.
fn bmp_header(place: u32, bits: u16, compression: u32) -> Vec<u8> {
    let mut bytes = b"BM\0\0\0\0\0\0\0\0".to_vec();
    for field in
        [place, 40, 8_000, 6_250, 1 | u32::from(bits) << 16, compression, 0, 0, 0, 2, 0, 0, 0x80_8080]
    {
        bytes.extend(field.to_le_bytes());
    }
    bytes
}

fn bmp_in_runs() -> Picture {
    let mut bytes = bmp_header(62, 8, 1);
    let row = [[255, 1].repeat(31), vec![95, 1, 0, 0]].concat();
    bytes.extend(row.repeat(6_250));
    bytes.extend([0, 1]);
    Picture::of(bytes, 22, &6_260_u32.to_le_bytes())
}

/// The decoder is given a copy that says where the pixels are.
fn bmp_of_bits() -> Picture {
    let mut bytes = bmp_header(0, 1, 0);
    bytes.resize(bytes.len() + 1_000 * 6_250, 0x5a);
    Picture::of(bytes, 22, &6_260_u32.to_le_bytes())
}

fn jpeg(progressive: bool, chroma: (u8, u8)) -> Picture {
    let (width, height) = (8_000, 6_250);
    let mut encoder = Compress::new(ColorSpace::JCS_RGB);
    encoder.set_fastest_defaults();
    encoder.set_size(width, height);
    encoder.set_chroma_sampling_pixel_sizes(chroma, chroma);
    if progressive {
        encoder.set_progressive_mode();
    }
    let mut encoder = encoder.start_compress(Vec::new()).unwrap();
    let row = [90, 120, 150].repeat(width);
    (0..height).for_each(|_| encoder.write_scanlines(&row).unwrap());
    larger_jpeg(encoder.finish().unwrap())
}

fn jpeg_of_scans() -> Picture {
    larger_jpeg(flat_jpeg_in_scans(8_000, 6_250, &[]))
}

fn larger_jpeg(bytes: Vec<u8>) -> Picture {
    let frame = [0xc0, 0xc2].iter().find_map(|marker| memmem::find(&bytes, &[0xff, *marker, 0, 17, 8]));
    Picture::of(bytes, frame.unwrap() + 5, &6_260_u16.to_be_bytes())
}

fn tiff_of((width, height): (u32, u32), samples: u32, bits: u32) -> Picture {
    // The fourth sample is an alpha channel.
    let alpha: &[(u16, u32)] = if samples == 4 { &[(338, 2)] } else { &[] };
    let bytes = tiff((width, height), samples, bits, alpha);
    let entry = [b"\x01\x01\x04\0\x01\0\0\0", height.to_le_bytes().as_slice()].concat();
    let at = memmem::find(&bytes, &entry).unwrap() + 8;
    Picture::of(bytes, at, &(height + 20).to_le_bytes())
}
