//! What the checks of a JPEG cost beside its decoding.

use std::fs;
use std::hint::black_box;
use std::io::Cursor;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{array, env};

use image::DynamicImage;
use image::codecs::jpeg::JpegDecoder;

use super::jpeg;
use super::parity::golden_files;

const ROUNDS: usize = 40;

#[test]
fn the_checks_of_a_jpeg_cost_a_fraction_of_its_decoding() {
    // Progressive, and with 0.1 bits for a pixel: 17 % and 3 %, where it would be 30 % and 6 % code by code.
    for (kind, most) in [("jpeg-progressive", 22.0), ("size-4032x3024", 4.8)] {
        let files: Vec<_> = golden_files().into_iter().filter(|file| file.name.starts_with(kind)).collect();
        let share = || {
            let mut sum = [Duration::ZERO; 3];
            for file in &files {
                let least = times(&file.bytes).map(|times| times[0]);
                sum = array::from_fn(|at| sum[at] + least[at]);
            }
            percent(sum)
        };
        // A machine that is busy with other things is asked again.
        let shares: Vec<f64> = (0..3).map(|_| share()).take_while(|share| *share > most).collect();
        assert!(shares.len() < 3, "{kind}: {shares:?} %, at most {most} % allowed");
    }
}

#[test]
#[ignore = "a measurement: PG_CLIP_JPEGS names a folder of files"]
fn the_checks_of_a_jpeg_beside_its_decoding() {
    let folder = env::var_os("PG_CLIP_JPEGS").expect("PG_CLIP_JPEGS names a folder");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    println!("| file | markers, ms | scans, ms | decoding, ms | checks / decoding, least | median |");
    println!("|---|---|---|---|---|---|");
    for path in files {
        let times = times(&fs::read(&path).unwrap());
        let [least, median] = [0, ROUNDS / 2].map(|at| times.each_ref().map(|times| times[at]));
        let [markers, scans, decoding] = least.map(|time| time.as_secs_f64() * 1000.0);
        let name = path.file_name().unwrap().display();
        let shares = format!("{:.1} % | {:.1} %", percent(least), percent(median));
        println!("| `{name}` | {markers:.2} | {scans:.2} | {decoding:.2} | {shares} |");
    }
}

/// The sorted times of the markers' walk, the scans' walk and the decoding. Each round has all three, so that what else the
/// machine does touches all alike.
fn times(bytes: &[u8]) -> [Vec<Duration>; 3] {
    let mut times = [(); 3].map(|()| Vec::new());
    for _ in 0..ROUNDS {
        times[0].push(time(|| jpeg::check(bytes, |_, _| Ok(())).unwrap()));
        times[1].push(time(|| jpeg::whole(bytes).unwrap()));
        let decoder = || JpegDecoder::new(Cursor::new(bytes)).unwrap();
        times[2].push(time(|| DynamicImage::from_decoder(decoder()).unwrap()));
    }
    times.map(|mut times| {
        times.sort();
        times
    })
}

fn time<T>(work: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    black_box(work());
    start.elapsed()
}

fn percent([markers, scans, decoding]: [Duration; 3]) -> f64 {
    100.0 * (markers + scans).as_secs_f64() / decoding.as_secs_f64()
}
