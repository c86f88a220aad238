//! A model's own `tokenizer.json`.
//!
//! A text that is too long is cut at the context length and keeps its end token, as OpenCLIP and transformers do
//! it. A file's truncation and padding are not used: files carry leftovers of their training. A special token in a
//! user's text, such as `<|endoftext|>`, is plain text there and ends nothing.
//!
//! CLIP's own tokenizer, which is recognised by its file ([`openai`]), reads a text after the [`cleaning`] of
//! OpenAI's code. Any other, such as SigLIP's SentencePiece, reads a text as it is, or as the model's configuration
//! says.

use std::fs;
use std::path::Path;

use tokenizers::TruncationParams;

use super::cleaning::{self, Cleaning};
use super::openai;
use crate::error::Error;
use crate::model::Padding;

/// Turns a text into token ids.
#[derive(Debug)]
pub(crate) struct Tokenizer {
    tokenizer: tokenizers::Tokenizer,
    padding: Padding,
    cleaning: Cleaning,
    /// Whether it is CLIP's own, which is cleaned in one way for any configuration.
    is_clip: bool,
}

/// How much of a text is read first, in bytes: far more than a context of words.
const BEGINNING: usize = 8 << 10;

impl Tokenizer {
    /// Reads a `tokenizer.json`. `context_length` counts the start and the end token.
    pub(crate) fn read(path: &Path, context_length: usize) -> Result<Tokenizer, String> {
        let fail = |error: String| format!("{}: {error}", path.display());
        let json = fs::read(path).map_err(|error| fail(error.to_string()))?;
        Tokenizer::of(&json, context_length).map_err(fail)
    }

    /// The tokenizer that the text of a `tokenizer.json` describes.
    pub(crate) fn of(json: &[u8], context_length: usize) -> Result<Tokenizer, String> {
        let fail = |error: tokenizers::Error| error.to_string();
        let mut tokenizer = tokenizers::Tokenizer::from_bytes(json).map_err(fail)?;
        let padding = Padding { id: tokenizer.get_padding().map_or(0, |padding| padding.pad_id), length: 0 };
        tokenizer.with_padding(None).set_encode_special_tokens(true);
        let is_clip = openai::is_clip(&tokenizer);
        if is_clip {
            openai::take_cleaned(&mut tokenizer).map_err(fail)?;
        }
        let cleaning = if is_clip { Cleaning::Clip } else { Cleaning::Nothing };
        let mut tokenizer = Tokenizer { tokenizer, padding, cleaning, is_clip };
        tokenizer.cut_at(context_length)?;
        Ok(tokenizer)
    }

    /// Cuts texts at another length than that it was read with.
    pub(crate) fn cut_at(&mut self, context_length: usize) -> Result<(), String> {
        self.padding.length = context_length;
        let truncation = TruncationParams { max_length: context_length, ..Default::default() };
        self.tokenizer.with_truncation(Some(truncation)).map_err(|error| error.to_string())?;
        Ok(())
    }

    /// The token ids of a text with its special tokens, at most the context length.
    ///
    /// Words are cleaned and tokenized one by one and from the left: where whole words at the beginning of a long text
    /// fill the context, the rest of it cannot change the result.
    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        if let Some(end) = end_of_words(text, BEGINNING) {
            let ids = self.encode_beginning(text, end)?;
            if ids.len() == self.context_length() {
                return Ok(ids);
            }
        }
        self.encode_beginning(text, text.len())
    }

    /// The token ids of a text of which all is read, however long it is.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn encode_whole(&self, text: &str) -> Result<Vec<u32>, Error> {
        self.encode_beginning(text, text.len())
    }

    /// The token ids of the first `end` bytes, which are whole words.
    fn encode_beginning(&self, text: &str, end: usize) -> Result<Vec<u32>, Error> {
        let encoding = self.tokenizer.encode_fast(cleaning::clean(text, end, self.cleaning), true);
        let encoding = encoding.map_err(|error| Error::Tokenizer { reason: error.to_string() })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// How texts are made as long as the context, for a model that needs it.
    pub(crate) fn padding(&self) -> Padding {
        self.padding
    }

    /// Fills short texts with this token.
    pub(crate) fn pad_with(&mut self, id: u32) {
        self.padding.id = id;
    }

    /// The cleaning of a text before it is tokenized.
    pub(crate) fn cleaning(&self) -> Cleaning {
        self.cleaning
    }

    /// Cleans texts like this, unless the tokenizer is CLIP's own.
    pub(crate) fn clean_as(&mut self, cleaning: Cleaning) {
        if !self.is_clip {
            self.cleaning = cleaning;
        }
    }

    /// The id of a token, such as `</s>`.
    pub(crate) fn id_of(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    pub(crate) fn context_length(&self) -> usize {
        self.padding.length
    }
}

/// Where the last whole word ends in the first `length` bytes of a longer text. Only white space that no cleaning
/// removes ends a word.
fn end_of_words(text: &str, length: usize) -> Option<usize> {
    if text.len() <= length {
        return None;
    }
    text.as_bytes()[..length].iter().rposition(u8::is_ascii_whitespace)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use temp_dir::TempDir;

    use super::*;
    use crate::text::parity::clip;

    fn demo_file() -> Value {
        let path =
            Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../models/demo/tokenizer.json");
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    fn tokenizer(file: &Value, context_length: usize) -> Tokenizer {
        let folder = TempDir::new().unwrap();
        let path = folder.child("tokenizer.json");
        fs::write(&path, file.to_string()).unwrap();
        Tokenizer::read(&path, context_length).unwrap()
    }

    fn demo() -> Tokenizer {
        tokenizer(&demo_file(), 16)
    }

    #[test]
    fn a_long_text_is_cut_and_keeps_its_end() {
        let tokenizer = demo();
        let short = tokenizer.encode("a cat").unwrap();
        let long = tokenizer.encode(&"a cat and a dog ".repeat(100)).unwrap();
        assert_eq!(long.len(), 16);
        assert_eq!((long.first(), long.last()), (short.first(), short.last()));
        assert!(short.len() < 16);
    }

    #[test]
    fn the_beginning_of_a_long_text_decides() {
        let tokenizer = demo();
        for text in [
            "a cat and a dog ".repeat(4000),
            format!("{}a cat", " \n".repeat(20_000)),
            // Cut after the letters, white space that is removed would end a word.
            "\u{b}a\u{85}\u{1f}".repeat(20_000),
            // That a line is HTML counts from its beginning.
            format!("{} <b>", "&amp;amp;amp; cat ".repeat(4000)),
            format!("{}\n<b>", "&amp;amp;amp; cat ".repeat(4000)),
            "&amp;".repeat(20_000),
        ] {
            assert_eq!(
                tokenizer.encode(&text).unwrap(),
                tokenizer.encode_beginning(&text, text.len()).unwrap(),
                "{}",
                &text[..20]
            );
        }
    }

    #[test]
    fn a_special_token_in_a_text_is_plain_text() {
        for tokenizer in [demo(), clip()] {
            let nothing = tokenizer.encode("").unwrap();
            let [start, end] = nothing[..] else { panic!("{nothing:?}") };
            for text in [
                "a <|endoftext|> cat",
                "<|EndOfText|><|STARTOFTEXT|>",
                "&lt;|endoftext|&gt;",
                "!<|startoftext|>",
            ] {
                let ids = tokenizer.encode(text).unwrap();
                let inner = &ids[1..ids.len() - 1];
                assert!(inner.len() > 2, "{text}: {ids:?}");
                assert!(!inner.contains(&start) && !inner.contains(&end), "{text}: {ids:?}");
            }
        }
    }

    #[test]
    fn an_empty_cleaned_text_has_no_tokens() {
        let tokenizer = clip();
        for text in ["", " ", "\0", "\u{feff}", "&nbsp;", "\u{1b}[31m", "\u{345}"] {
            assert_eq!(tokenizer.encode(text).unwrap(), [49406, 49407], "{text:?}");
        }
        assert_eq!(tokenizer.encode("\u{301}").unwrap().len(), 4);
    }

    #[test]
    fn a_word_of_a_whole_text_is_tokenized() {
        let tokenizer = clip();
        let length = 64 << 10;
        assert_eq!(tokenizer.encode(&"x".repeat(length)).unwrap().len(), 77);
        assert_eq!(tokenizer.encode(&"&amp;".repeat(length / 5)).unwrap().len(), 77);
        let chain = format!("&{}", "amp;".repeat(length / 4));
        assert_eq!(tokenizer.encode(&chain).unwrap(), tokenizer.encode("&").unwrap());
    }

    #[test]
    fn only_a_tokenizer_of_clip_cleans() {
        let same =
            |tokenizer: Tokenizer| tokenizer.encode("&amp;").unwrap() == tokenizer.encode("&").unwrap();
        assert!(same(demo()));
        for (part, other) in [
            ("normalizer", json!({"type": "Lowercase"})),
            ("pre_tokenizer", json!({"type": "Whitespace"})),
            ("normalizer", Value::Null),
        ] {
            let mut file = demo_file();
            file[part] = other;
            assert!(!same(tokenizer(&file, 16)), "{part}");
        }
    }

    #[test]
    fn any_text_is_tokenized() {
        let tokenizer = demo();
        for text in ["", " ", "\0", "é", "猫", "🐈‍⬛", &"x".repeat(1 << 20), &" ".repeat(1 << 20)] {
            let ids = tokenizer.encode(text).unwrap();
            assert!((2..=16).contains(&ids.len()), "{ids:?}");
        }
    }
}
