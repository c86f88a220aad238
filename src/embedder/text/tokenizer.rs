//! A model's own `tokenizer.json`.
//!
//! A text that is too long is cut at the context length and keeps its end token, as OpenCLIP and transformers do it.
//! What a file says about truncation and padding is not used: files carry leftovers of their training. A special token
//! in a user's text, such as `<|endoftext|>`, is plain text there and ends nothing.

use std::path::Path;

use tokenizers::TruncationParams;

use crate::error::Error;
use crate::model::Padding;

/// Turns a text into token ids.
#[derive(Debug)]
pub(crate) struct Tokenizer {
    tokenizer: tokenizers::Tokenizer,
    padding: Padding,
}

/// How much of a text is tokenized first, in bytes: far more than a context of words.
const BEGINNING: usize = 8 << 10;

impl Tokenizer {
    /// Reads a `tokenizer.json`. `context_length` counts the start and the end token.
    pub(crate) fn read(path: &Path, context_length: usize) -> Result<Tokenizer, String> {
        let fail = |error: tokenizers::Error| format!("{}: {error}", path.display());
        let mut tokenizer = tokenizers::Tokenizer::from_file(path).map_err(fail)?;
        let padding = Padding {
            id: tokenizer.get_padding().map_or(0, |padding| padding.pad_id),
            length: context_length,
        };
        tokenizer
            .with_truncation(Some(TruncationParams { max_length: context_length, ..Default::default() }))
            .map_err(fail)?
            .with_padding(None)
            .set_encode_special_tokens(true);
        Ok(Tokenizer { tokenizer, padding })
    }

    /// The token ids of a text with its special tokens, at most the context length.
    ///
    /// Words are tokenized one by one and from the left: where whole words at the beginning of a long text fill the
    /// context, the rest of it, which may be a second's work, cannot change the result.
    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        let beginning = &text[..text.floor_char_boundary(BEGINNING)];
        if beginning.len() < text.len()
            && let Some(end) = beginning.rfind(char::is_whitespace)
        {
            let ids = self.encode_all(&beginning[..end])?;
            if ids.len() == self.context_length() {
                return Ok(ids);
            }
        }
        self.encode_all(text)
    }

    fn encode_all(&self, text: &str) -> Result<Vec<u32>, Error> {
        let encoding = self.tokenizer.encode_fast(text, true);
        let encoding = encoding.map_err(|error| Error::Tokenizer { reason: error.to_string() })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// How texts are made as long as the context, for a model that needs it.
    pub(crate) fn padding(&self) -> Padding {
        self.padding
    }

    pub(crate) fn context_length(&self) -> usize {
        self.padding.length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demo() -> Tokenizer {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo/tokenizer.json");
        Tokenizer::read(&path, 16).unwrap()
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
        for text in ["a cat and a dog ".repeat(4000), format!("{}a cat", " \n".repeat(20_000))] {
            assert_eq!(tokenizer.encode(&text).unwrap(), tokenizer.encode_all(&text).unwrap());
        }
    }

    #[test]
    fn a_special_token_in_a_text_is_plain_text() {
        let tokenizer = demo();
        let end = *tokenizer.encode("a cat").unwrap().last().unwrap();
        let ids = tokenizer.encode("a <|endoftext|> cat").unwrap();
        assert_eq!(ids.iter().filter(|id| **id == end).count(), 1);
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
