//! The token ids are those of OpenAI's SimpleTokenizer (`tests/parity/texts.py`).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;

use flate2::read::GzDecoder;
use serde_json::Value;

use super::Tokenizer;

const CONTEXT_LENGTH: usize = 77;

fn golden(name: &str) -> BufReader<GzDecoder<File>> {
    let path =
        PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../tests/data/clip").join(name);
    BufReader::new(GzDecoder::new(File::open(path).unwrap()))
}

/// The tokenizer of OpenAI's CLIP, as transformers writes it.
pub(super) fn clip() -> Tokenizer {
    let mut file = String::new();
    golden("tokenizer.json.gz").read_to_string(&mut file).unwrap();
    Tokenizer::of(file.as_bytes(), CONTEXT_LENGTH).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn token_ids_equal_openais() {
    let tokenizer = clip();
    let mut lines =
        golden("texts.jsonl.gz").lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap());
    let header: Value = lines.next().unwrap();
    let mut compared = 0;
    let mut differing: BTreeMap<String, u64> = BTreeMap::new();
    let mut wrong = Vec::new();
    for line in lines {
        let [kind, text, openai, difference @ ..] = line.as_array().unwrap().as_slice() else {
            panic!("{line} is no line of the golden data")
        };
        let encoded = tokenizer.encode(text.as_str().unwrap()).unwrap();
        let expected = ids(difference.get(1).unwrap_or(openai));
        if encoded != expected {
            wrong.push(format!("{kind} {text}: {encoded:?} instead of {expected:?}"));
        }
        if encoded != ids(openai) {
            let why = difference.first().and_then(Value::as_str).unwrap_or("unknown");
            *differing.entry(why.to_owned()).or_default() += 1;
        }
        compared += 1;
    }
    println!("{compared} strings, differing from OpenAI: {differing:?}");
    assert!(wrong.is_empty(), "{} strings are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(compared, header["strings"].as_u64().unwrap());
    assert!(compared >= 20_000);
    assert_eq!(serde_json::to_value(differing).unwrap(), header["differing"]);
}

#[test]
fn token_ids_of_the_demo_model_equal_its_golden_data() {
    let repository = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../..");
    let golden: Value =
        serde_json::from_slice(&fs::read(repository.join("tests/data/golden/demo.json")).unwrap()).unwrap();
    let context_length = golden["context"].as_u64().unwrap() as usize;
    let tokenizer = Tokenizer::read(&repository.join("models/demo/tokenizer.json"), context_length).unwrap();
    for text in golden["texts"].as_array().unwrap() {
        assert_eq!(
            tokenizer.encode(text["text"].as_str().unwrap()).unwrap(),
            ids(&text["input_ids"]),
            "{text}"
        );
    }
}
