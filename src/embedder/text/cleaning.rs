//! What CLIP does to a text before it looks for tokens.
//!
//! The steps and their order are those of `basic_clean`, `whitespace_clean` and `lower` in OpenAI's
//! `clip/simple_tokenizer.py`: glitches are repaired as ftfy does it, HTML's character references are resolved twice
//! more, white space is collapsed, and the whole is lower-cased with the rule of the final sigma. A `tokenizer.json`
//! has of all this only the white space and a lower case character by character.
//!
//! Left out is ftfy's repair of text that was decoded with the wrong encoding: it guesses, and `tests/parity/texts.md`
//! counts what the guess would change. Every step takes time linear in the length of the text, also where references
//! are nested thousands deep.

mod glitches;
mod references;

use self::references::unescape;

/// Cleans the first `end` bytes of a text. They must be whole words; what follows counts only for whether the last of
/// their lines is HTML.
pub(super) fn clean(text: &str, end: usize) -> String {
    let repaired = glitches::repair(text, end);
    let unescaped = unescape(&repaired);
    let unescaped = unescape(&unescaped);
    let mut collapsed = String::with_capacity(unescaped.len());
    for word in unescaped.split_whitespace() {
        if !collapsed.is_empty() {
            collapsed.push(' ');
        }
        collapsed.push_str(word);
    }
    if collapsed.is_ascii() {
        collapsed.make_ascii_lowercase();
        return collapsed;
    }
    collapsed.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(text: &str) -> String {
        clean(text, text.len())
    }

    #[test]
    fn white_space_is_one_space() {
        assert_eq!(cleaned(" \t a\u{a0}\u{2003}cat \r\n\u{2028} sat\u{3000}"), "a cat sat");
    }

    #[test]
    fn nothing_is_left_of_what_nobody_sees() {
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
