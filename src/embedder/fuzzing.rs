//! The functions that the fuzz targets of `fuzz/` call with random bytes, and the checks of their results.
//!
//! The tests below run the same on the seeds of the repository and on mutations of them. So each test run compiles
//! the code of the targets, and tries the inputs again that a fuzz run has found once, without cargo-fuzz.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::LazyLock;

use flate2::read::GzDecoder;
use pg_clip_wire::{Answer, FrameHeader, Request};

use crate::image::{self, JpegScaling};
use crate::model::{Interpolation, Preprocessing, ResizeMode};
use crate::text::Tokenizer;

const CONTEXT_LENGTH: usize = 77;

/// Small, so that a run decodes many images; above it the limit on pixels takes hold, which is tested elsewhere.
const MAX_PIXELS: u64 = 1 << 20;

const CLIP: Preprocessing = Preprocessing {
    width: 224,
    height: 224,
    resize_mode: ResizeMode::Shortest(224),
    interpolation: Interpolation::Bicubic,
    mean: [0.5; 3],
    std: [0.25; 3],
};

/// A stream of frames, read as the embedder reads requests and as a backend reads answers: a frame that is accepted
/// is written back as it was.
pub fn wire(mut stream: &[u8]) {
    while let Some((head, rest)) = stream.split_first_chunk::<{ FrameHeader::SIZE }>() {
        let Ok(header) = FrameHeader::parse(*head) else { return };
        let body = &rest[..header.length.min(rest.len())];
        stream = &rest[body.len()..];
        if let Ok(request) = Request::decode(header.kind, body) {
            let mut written = Vec::new();
            if request.encode_head(&mut written).is_ok() {
                written.extend_from_slice(request.payload());
                let again = Request::decode(header.kind, &written[FrameHeader::SIZE..]);
                assert_eq!(again.as_ref(), Ok(&request));
            }
        }
        let answer = Answer::decode(header.kind, body);
        // A backend refuses a header that is none of an answer's before it reads the body.
        assert!(answer.is_err() || FrameHeader::parse_answer(*head).is_ok());
        if let Ok(answer) = answer {
            let mut written = Vec::new();
            answer.encode(&mut written).expect("a frame that was read can be written");
            let again =
                Answer::decode(header.kind, &written[FrameHeader::SIZE..]).expect("a written frame is read");
            // NaN is not equal to itself, and its bytes are.
            let mut once_more = Vec::new();
            again.encode(&mut once_more).expect("a frame that was read can be written");
            assert_eq!(written, once_more);
        }
    }
}

/// An image file, as far as the input of a tower: whole and finite, or an error.
pub fn image(bytes: &[u8]) {
    if let Ok(values) = image::prepare(bytes, MAX_PIXELS, &CLIP, JpegScaling::On) {
        assert_eq!(values.len(), 3 * 224 * 224);
        assert!(values.iter().all(|value| value.is_finite()));
    }
}

/// A text, as far as the token ids: a start, an end, and at most a context between them.
pub fn tokenizer(bytes: &[u8]) {
    static TOKENIZERS: LazyLock<[Tokenizer; 2]> = LazyLock::new(|| {
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo/tokenizer.json");
        [Tokenizer::read(&demo, CONTEXT_LENGTH).expect("the demo's tokenizer is read"), clip()]
    });
    let text = String::from_utf8_lossy(bytes);
    for tokenizer in TOKENIZERS.iter() {
        let nothing = tokenizer.encode("").expect("an empty text is tokenized");
        let ids = tokenizer.encode(&text).expect("any text is tokenized");
        assert!((2..=CONTEXT_LENGTH).contains(&ids.len()), "{} tokens", ids.len());
        assert_eq!((ids.first(), ids.last()), (nothing.first(), nothing.last()));
        let inner = &ids[1..ids.len() - 1];
        assert!(!inner.contains(&nothing[0]) && !inner.contains(&nothing[1]), "{ids:?}");
        assert_eq!(ids, tokenizer.encode_whole(&text).expect("any text is tokenized"));
    }
}

/// The tokenizer of OpenAI's CLIP.
fn clip() -> Tokenizer {
    let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/clip/tokenizer.json.gz");
    let packed = File::open(packed).expect("the tokenizer of CLIP is in the repository");
    let mut json = Vec::new();
    GzDecoder::new(packed).read_to_end(&mut json).expect("it is unpacked");
    Tokenizer::of(&json, CONTEXT_LENGTH).expect("it is read")
}

/// A file of a model: as a graph, and as each of the JSON files.
pub fn model(bytes: &[u8]) {
    crate::model::fuzzing::read(bytes);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use fastrand::Rng;

    /// Mutations of each seed: a few seconds in all for each target, in the build that the tests have.
    const MUTATIONS: usize = 60;

    /// Runs a target on the seeds in these folders, and on mutations of them that are the same each time.
    fn replay(target: fn(&[u8]), folders: &[&str], mutations: usize) {
        let mut random = Rng::with_seed(20_261_126);
        let seeds: Vec<Vec<u8>> = folders.iter().flat_map(|folder| files(folder)).collect();
        assert!(seeds.len() >= 4, "{} seeds in {folders:?}", seeds.len());
        for seed in &seeds {
            target(seed);
            for _ in 0..mutations {
                let mut bytes = seed.clone();
                for _ in 0..random.usize(1..4) {
                    mutate(&mut random, &mut bytes, &seeds);
                }
                target(&bytes);
            }
        }
    }

    fn files(folder: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../..").join(folder);
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.is_file());
        paths.sort();
        // Large pictures are decoded by the other tests.
        paths.iter().map(|path| fs::read(path).unwrap()).filter(|bytes| bytes.len() < 64 << 10).collect()
    }

    fn mutate(random: &mut Rng, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let at = random.usize(..=bytes.len());
        // Headers describe the rest: they are changed more often than their size asks for.
        let near = random.usize(..=bytes.len().min(64));
        match random.u8(..8) {
            0 => bytes.truncate(at),
            1 => bytes.insert(near, random.u8(..)),
            2 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
            3 | 4 if near < bytes.len() => bytes[near] = *random.choice(&[0, 1, 0x7f, 0x80, 0xff]).unwrap(),
            5 if near + 4 <= bytes.len() => {
                let number = *random.choice(&[0, 1, 0x7fff_ffff, u32::MAX, 65_536, 0x0100_0000]).unwrap();
                bytes[near..near + 4].copy_from_slice(&number.to_le_bytes());
            }
            6 => {
                let other = &seeds[random.usize(..seeds.len())];
                let from = random.usize(..=other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => {
                let end = (at + random.usize(..64)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                bytes.splice(near..near, copy);
            }
        }
    }

    #[test]
    fn frames_of_the_seeds_and_their_mutations_are_read_or_refused() {
        replay(super::wire, &["fuzz/seeds/wire"], 20 * MUTATIONS);
    }

    #[test]
    fn images_of_the_seeds_and_their_mutations_are_decoded_or_refused() {
        replay(super::image, &["fuzz/seeds/image", "tests/data/images"], MUTATIONS / 5);
    }

    #[test]
    fn texts_of_the_seeds_and_their_mutations_are_tokenized() {
        replay(super::tokenizer, &["fuzz/seeds/tokenizer"], MUTATIONS);
    }

    #[test]
    fn files_of_models_and_their_mutations_are_read_or_refused() {
        replay(super::model, &["fuzz/seeds/model"], 20 * MUTATIONS);
    }
}
