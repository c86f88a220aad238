//! The repairs of ftfy 6.3 (`ftfy.fix_text`) without its guess at encodings.
//!
//! ftfy repeats its repairs until nothing changes. Here one pass reaches the same text: the characters that a
//! repair writes go through the repairs again, and a character reference is resolved as soon as its semicolon is
//! there, also where a repair wrote it.
//!
//! ftfy's line breaks are not here: they are white space, and that is collapsed afterwards.

use std::borrow::Cow;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use super::references;

/// Repairs the first `end` bytes of a text.
///
/// Character references are resolved up to the first line with a `<`, which says that the rest is HTML.
pub(super) fn repair(text: &str, end: usize) -> Cow<'_, str> {
    if text[..end].bytes().all(is_plain) {
        return Cow::Borrowed(&text[..end]);
    }
    let mut repaired = Repaired { text: String::with_capacity(end), html: false, pending: Vec::new() };
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if start >= end {
            break;
        }
        repaired.html |= line.contains('<');
        let line = &line[..line.len().min(end - start)];
        without_terminal_escapes(line).chars().for_each(|character| repaired.take(character));
        start += line.len();
    }
    match is_nfc_quick(repaired.text.chars()) {
        IsNormalized::Yes => Cow::Owned(repaired.text),
        _ => Cow::Owned(repaired.text.nfc().collect()),
    }
}

/// Whether no repair concerns this byte of a text.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~' | b'\t' | b'\n' | b'\r' | b'\x0c') && byte != b'&'
}

/// The text so far.
struct Repaired {
    text: String,
    html: bool,
    /// The characters that a repair wrote and that are not taken yet, the first of them at the end.
    pending: Vec<char>,
}

impl Repaired {
    fn take(&mut self, character: char) {
        self.pending.push(character);
        while let Some(character) = self.pending.pop() {
            if let Some(replacement) = replacement(character) {
                self.pending.extend(replacement.chars().rev());
                continue;
            }
            self.text.push(character);
            if character == ';'
                && !self.html
                && let Some(start) = references::start_of_last(&self.text)
                && let Some(meaning) = references::resolve(&self.text[start..])
            {
                self.pending.extend(meaning.chars().rev());
                self.text.truncate(start);
            }
        }
    }
}

/// The text that ftfy writes for a character, if it does not keep it.
fn replacement(character: char) -> Option<Cow<'static, str>> {
    let replacement = match character {
        '\t' | '\n' | '\x0c' | '\r' | ' '..='~' => return None,
        // Control characters that have no place in a text, annotations, and the byte order mark.
        '\0'..='\x1f' | '\x7f' | '\u{206a}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffc}' => "",
        '\u{80}'..='\u{9f}' => {
            let letter = references::character(character.into()).filter(|letter| *letter != character);
            return letter.map(|letter| Cow::Owned(letter.into()));
        }
        'Ĳ' => "IJ",
        'ĳ' => "ij",
        'ŉ' => "ʼn",
        'Ǳ' => "DZ",
        'ǲ' => "Dz",
        'ǳ' => "dz",
        'Ǆ' => "DŽ",
        'ǅ' => "Dž",
        'ǆ' => "dž",
        'Ǉ' => "LJ",
        'ǈ' => "Lj",
        'ǉ' => "lj",
        'Ǌ' => "NJ",
        'ǋ' => "Nj",
        'ǌ' => "nj",
        'ﬀ' => "ff",
        'ﬁ' => "fi",
        'ﬂ' => "fl",
        'ﬃ' => "ffi",
        'ﬄ' => "ffl",
        'ﬅ' => "ſt",
        'ﬆ' => "st",
        '\u{2bc}' | '\u{2018}'..='\u{201b}' => "'",
        '\u{201c}'..='\u{201f}' => "\"",
        // Full-width and half-width forms have their standard width.
        '\u{3000}' => " ",
        '\u{ff01}'..='\u{ffef}' => {
            let standard: String = character.nfkc().collect();
            return (!standard.starts_with(character)).then_some(Cow::Owned(standard));
        }
        // The two whose canonical form can be a part of a character reference: NFC comes too late for them.
        '\u{37e}' => ";",
        '\u{212a}' => "K",
        _ => return None,
    };
    Some(Cow::Borrowed(replacement))
}

/// A line without the escape sequences that colour a terminal: ESC, `[`, numbers, a letter.
fn without_terminal_escapes(line: &str) -> Cow<'_, str> {
    let mut parts = line.split("\x1b[");
    let Some(first) = parts.next().filter(|first| first.len() < line.len()) else {
        return Cow::Borrowed(line);
    };
    let mut rest = first.to_owned();
    for part in parts {
        let after = part.trim_start_matches(|character: char| character.is_ascii_digit() || character == ';');
        match after.strip_prefix(|character: char| character.is_ascii_alphabetic()) {
            Some(after) => rest.push_str(after),
            // An ESC that begins no sequence goes with the control characters.
            None => rest.extend(["[", part]),
        }
    }
    Cow::Owned(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repaired(text: &str) -> Cow<'_, str> {
        repair(text, text.len())
    }

    #[test]
    fn characters_have_their_standard_form() {
        for (glitch, standard) in [
            ("“curly” ‘quotes’ it’s", "\"curly\" 'quotes' it's"),
            ("ﬂuﬃeﬆ ŉ Ǆ", "fluffiest 'n DŽ"),
            ("ＬＯＵＤ　ＮＯＩＳＥＳ", "LOUD NOISES"),
            ("ｶﾞﾊﾟ", "ガパ"),
            ("a\u{85}b \u{93}c\u{94} \u{81}", "a…b \"c\" \u{81}"),
            ("\u{feff}a\0\u{b}b\u{7f}\u{fffc}", "ab"),
            ("\u{1b}[1;31mred\u{1b}[0m \u{1b}[31", "red [31"),
            ("e\u{301} \u{212b}", "é Å"),
        ] {
            assert_eq!(repaired(glitch), standard);
        }
    }

    #[test]
    fn references_are_resolved_however_they_come_about() {
        for text in [
            "&amp;",
            "&AMP;",
            "&#38;",
            "&#x26;",
            "&amp;amp;",
            "&am&#112;;",
            "&amp\u{37e}",
            "＆amp；",
            "&am\0p;",
            "&amp&semi;",
        ] {
            assert_eq!(repaired(text), "&", "{text}");
        }
        for text in ["&", "&amp", "&;", "&no;", "&#59;", "& amp;", "&#12abc;"] {
            assert_eq!(repaired(text), text);
        }
    }

    #[test]
    fn html_keeps_its_references() {
        assert_eq!(repaired("&lt;\n<b> &lt;\n&lt;"), "<\n<b> &lt;\n&lt;");
        assert_eq!(repair("&lt; <", 4), "&lt;");
    }

    #[test]
    fn a_repaired_text_stays() {
        for text in ["&amp;lt;b&amp;gt; ŉ &#xff06;amp;", "＆＃３８；", "&#x1ff; &IJLIG; &SZLIG;"] {
            assert_eq!(repaired(&repaired(text)), repaired(text));
        }
    }
}
