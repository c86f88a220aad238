//! CLIP's tokenizer as OpenAI wrote it.
//!
//! A `tokenizer.json` of CLIP holds the right tokens and merges, but its cleaning is only roughly CLIP's: its
//! normaliser cleans less than CLIP does, and its split minds the case. Where a file is CLIP's, both are replaced.

use serde_json::{Value, json};
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{ModelWrapper, Result, SplitDelimiterBehavior, Tokenizer};

/// The words that `clip/simple_tokenizer.py` finds in a text that is lower-cased, but for the special tokens:
/// without them a text cannot have one. The pattern there ignores case: Python's `regex` then takes a long s for an
/// s, and the iota below of Greek, which has a letter as its upper case, for nothing at all.
const WORDS: &str = r"'[sſ]|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}\x{345}]+";

/// The words in a file of transformers. Newer files have the special tokens in front.
const WORDS_IN_FILE: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// Whether a tokenizer is CLIP's: byte pairs that mark the end of a word with `</w>`, with exactly the normaliser and
/// the words that transformers writes for CLIP.
pub(super) fn is_clip(tokenizer: &Tokenizer) -> bool {
    let marks_ends = matches!(
        tokenizer.get_model(),
        ModelWrapper::BPE(model) if model.end_of_word_suffix.as_deref() == Some("</w>")
    );
    let normalizer = json!({
        "type": "Sequence",
        "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Lowercase"},
        ],
    });
    let written = |part: serde_json::Result<Value>| part.unwrap_or_default();
    let split = written(serde_json::to_value(tokenizer.get_pre_tokenizer()));
    let words = split["pretokenizers"][0]["pattern"]["Regex"].as_str();
    marks_ends
        && written(serde_json::to_value(tokenizer.get_normalizer())) == normalizer
        && words.is_some_and(|words| words.ends_with(WORDS_IN_FILE))
}

/// Makes CLIP's tokenizer take cleaned texts, and split them as OpenAI does.
pub(super) fn take_cleaned(tokenizer: &mut Tokenizer) -> Result<()> {
    let words = SplitPattern::Regex(WORDS.to_owned());
    let split = Split::new(words, SplitDelimiterBehavior::Removed, true)?;
    let bytes = ByteLevel::new(false, true, false);
    let steps = Sequence::new(vec![split.into(), bytes.into()]);
    tokenizer
        .with_normalizer(None::<NormalizerWrapper>)?
        .with_pre_tokenizer(Some(PreTokenizerWrapper::Sequence(steps)));
    Ok(())
}
