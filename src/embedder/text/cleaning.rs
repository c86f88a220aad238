//! The cleaning of a text before CLIP looks for tokens.
//!
//! The steps and their order are those of `basic_clean`, `whitespace_clean` and `lower` in OpenAI's
//! `clip/simple_tokenizer.py`: glitches are repaired as ftfy does it, HTML's character references are resolved twice
//! more, white space is collapsed, and the whole is lower-cased with the rule of the final sigma. A `tokenizer.json`
//! has of all this only the white space and a lower case character by character.
//!
//! OpenCLIP has two more ways, with less of that and with more, for models whose configuration says so.
//!
//! ftfy's repair of text that was decoded with the wrong encoding is left out: it guesses, and
//! `tests/parity/texts.md` counts the texts that the guess would change. Every step takes time linear in the length
//! of the text, also where references are nested thousands deep.

mod glitches;
mod references;

use std::borrow::Cow;
use std::fmt;

use self::references::unescape;

/// The cleaning of a text before it is tokenized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cleaning {
    /// Nothing: the file of the tokenizer says all of it.
    Nothing,
    /// Lower case, character by character: SigLIP 2's training, of which its files say nothing.
    LowerCase,
    /// OpenAI's, which OpenCLIP calls "lower".
    Clip,
    /// The same without the lower case: OpenCLIP's "whitespace".
    Whitespace,
    /// OpenAI's, and no ASCII punctuation: OpenCLIP's "canonicalize".
    Canonical,
}

impl fmt::Display for Cleaning {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(match self {
            Cleaning::Nothing => "none",
            Cleaning::LowerCase => "lower case",
            Cleaning::Clip => "glitches, references, white space and lower case",
            Cleaning::Whitespace => "glitches, references and white space",
            Cleaning::Canonical => "glitches, references, punctuation, white space and lower case",
        })
    }
}

/// Cleans the first `end` bytes of a text. They must be whole words; the rest counts only for whether the last of
/// their lines is HTML.
pub(super) fn clean(text: &str, end: usize, cleaning: Cleaning) -> Cow<'_, str> {
    match cleaning {
        Cleaning::Nothing => Cow::Borrowed(&text[..end]),
        Cleaning::LowerCase => Cow::Owned(text[..end].chars().flat_map(char::to_lowercase).collect()),
        Cleaning::Whitespace => Cow::Owned(collapse(&unescape_twice(text, end))),
        Cleaning::Clip => Cow::Owned(lower_case(collapse(&unescape_twice(text, end)))),
        Cleaning::Canonical => {
            let unescaped = unescape_twice(text, end).replace('_', " ");
            let words = unescaped.replace(|character: char| character.is_ascii_punctuation(), "");
            Cow::Owned(lower_case(collapse(&words)))
        }
    }
}

fn unescape_twice(text: &str, end: usize) -> String {
    let repaired = glitches::repair(text, end);
    let unescaped = unescape(&repaired);
    unescape(&unescaped).into_owned()
}

/// Brings each stretch of white space to one space, and takes it away at both ends.
fn collapse(text: &str) -> String {
    let mut collapsed = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !collapsed.is_empty() {
            collapsed.push(' ');
        }
        collapsed.push_str(word);
    }
    collapsed
}

fn lower_case(mut text: String) -> String {
    if text.is_ascii() {
        text.make_ascii_lowercase();
        return text;
    }
    text.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(text: &str) -> String {
        cleaned_as(text, Cleaning::Clip)
    }

    fn cleaned_as(text: &str, cleaning: Cleaning) -> String {
        clean(text, text.len(), cleaning).into_owned()
    }

    /// As open_clip 3.3 has them, `_clean_whitespace` and `_clean_canonicalize`.
    #[test]
    fn a_configuration_may_ask_for_more_or_less() {
        let text = " Caf&eacute;_Zoo:  it\u{2019}s  ΟΔΟΣ!";
        for (cleaning, expected) in [
            (Cleaning::Nothing, text),
            (Cleaning::LowerCase, " caf&eacute;_zoo:  it\u{2019}s  οδοσ!"),
            (Cleaning::Whitespace, "Café_Zoo: it's ΟΔΟΣ!"),
            (Cleaning::Clip, "café_zoo: it's οδος!"),
            (Cleaning::Canonical, "café zoo its οδος"),
        ] {
            assert_eq!(cleaned_as(text, cleaning), expected, "{cleaning:?}");
        }
    }

    #[test]
    fn white_space_is_one_space() {
        assert_eq!(cleaned(" \t a\u{a0}\u{2003}cat \r\n\u{2028} sat\u{3000}"), "a cat sat");
    }

    #[test]
    fn invisible_texts_become_empty() {
        for text in ["", " ", "\0", "\u{feff}", "&nbsp;", "&#1;", "\u{1b}[31m"] {
            assert_eq!(cleaned(text), "", "{text:?}");
        }
    }

    #[test]
    fn a_sigma_at_the_end_of_a_word_is_a_final_one() {
        assert_eq!(cleaned("ΟΔΟΣ ΟΔΥΣΣΕΑΣ ΣΑΣ."), "οδος οδυσσεας σας.");
    }

    #[test]
    fn references_are_resolved_in_html_too_but_twice_only() {
        assert_eq!(cleaned("a &amp;amp;amp; b"), "a & b");
        assert_eq!(cleaned("<b> &amp;amp;amp; b"), "<b> &amp; b");
        assert_eq!(cleaned("this&not that &copy2026"), "this¬ that ©2026");
    }

    #[test]
    fn nested_references_take_linear_time_and_no_stack() {
        let depth = 200_000;
        for (chain, left) in [
            (format!("&{}", "amp;".repeat(depth)), "&"),
            (format!("{};", "&semi".repeat(depth)), ";"),
            (format!("{}&#xff1b;", "&#xff1b".repeat(depth)), ";"),
            (format!("&{}", "#xff06;".repeat(depth)), "&"),
        ] {
            assert_eq!(cleaned(&chain), left);
        }
    }
}
