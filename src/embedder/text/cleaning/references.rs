//! HTML's character references: `&eacute;`, `&#233;`, `&#xe9;`.
//!
//! Two readings are needed. Python's `html.unescape` follows the HTML standard and resolves also references without
//! a semicolon. ftfy's `unescape_html` is stricter, wants the semicolon, and knows also names in capitals.

use std::borrow::Cow;

use htmlize::{BARE_ENTITY_MAX_LENGTH, ENTITIES};

/// Resolves the references of a text once, as Python's `html.unescape` does it.
pub(super) fn unescape(text: &str) -> Cow<'_, str> {
    let mut pieces = text.split('&');
    let first = pieces.next().unwrap_or_default();
    if first.len() == text.len() {
        return Cow::Borrowed(text);
    }
    let mut unescaped = String::with_capacity(text.len());
    unescaped.push_str(first);
    for piece in pieces {
        let read = match piece.strip_prefix('#') {
            Some(number) => numeric(number).map(|(meaning, rest)| (Cow::Owned(meaning), rest)),
            None => named(piece),
        };
        match read {
            Some((meaning, rest)) => unescaped.extend([&meaning, rest]),
            None => unescaped.extend(["&", piece]),
        }
    }
    Cow::Owned(unescaped)
}

/// Where the reference starts that the semicolon at the end of a text ends, by ftfy's pattern: `&#?[0-9A-Za-z]{1,24};`.
pub(super) fn start_of_last(text: &str) -> Option<usize> {
    const LONGEST_NAME: usize = 24;

    let before = text.strip_suffix(';')?;
    let name = before.bytes().rev().take(LONGEST_NAME + 1).take_while(u8::is_ascii_alphanumeric).count();
    let before = &before[..before.len() - name];
    let before = before.strip_suffix('#').unwrap_or(before);
    (before.ends_with('&') && (1..=LONGEST_NAME).contains(&name)).then(|| before.len() - 1)
}

/// The meaning of a whole reference, from `&` to `;`, to ftfy.
pub(super) fn resolve(reference: &str) -> Option<Cow<'static, str>> {
    if reference.starts_with("&#") {
        // Also a number that means a semicolon is left alone, as ftfy leaves it.
        let meaning = unescape(reference);
        return (!meaning.contains(';')).then(|| Cow::Owned(meaning.into_owned()));
    }
    if let Some(meaning) = entity(reference) {
        return Some(Cow::Borrowed(meaning));
    }
    if reference.bytes().any(|byte| byte.is_ascii_lowercase()) || unescape(reference) != reference {
        return None;
    }
    let meaning = entity(&reference.to_ascii_lowercase())?;
    Some(Cow::Owned(meaning.to_uppercase()))
}

/// The meaning of a name, with `&` and with or without `;`.
fn entity(name: &str) -> Option<&'static str> {
    ENTITIES.get(name.as_bytes()).and_then(|meaning| str::from_utf8(meaning).ok())
}

/// Reads the name behind a `&`: the longest that is one. Returns the rest, too.
fn named(text: &str) -> Option<(Cow<'static, str>, &str)> {
    let letters = text.bytes().take_while(u8::is_ascii_alphanumeric).count();
    let whole = text[letters..].starts_with(';').then_some(letters + 1);
    let bare = (1..=letters.min(BARE_ENTITY_MAX_LENGTH - 1)).rev();
    whole.into_iter().chain(bare).find_map(|length| {
        let meaning = entity(&format!("&{}", &text[..length]))?;
        Some((Cow::Borrowed(meaning), &text[length..]))
    })
}

/// Reads the number behind a `&#`. Returns the rest, too.
fn numeric(text: &str) -> Option<(String, &str)> {
    let (digits, radix) = match text.strip_prefix(['x', 'X']) {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    let length = digits.bytes().take_while(|digit| char::from(*digit).is_digit(radix)).count();
    let (digits, rest) = digits.split_at(length);
    if digits.is_empty() {
        return None;
    }
    // A number that overflows is beyond the last character.
    let number = u32::from_str_radix(digits, radix).unwrap_or(u32::MAX);
    let meaning = character(number).map(String::from).unwrap_or_default();
    Some((meaning, rest.strip_prefix(';').unwrap_or(rest)))
}

/// The character of a number: the HTML standard reads the control characters of Latin-1 as Windows-1252, and Python
/// leaves out numbers that are no characters.
pub(super) fn character(number: u32) -> Option<char> {
    const WINDOWS_1252: [char; 32] = [
        '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}',
        '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
    ];

    match number {
        0x80..=0x9f => Some(WINDOWS_1252[number as usize - 0x80]),
        0x01..=0x08 | 0x0b | 0x0e..=0x1f | 0x7f | 0xfdd0..=0xfdef => None,
        number if number <= 0x10_ffff && number & 0xfffe == 0xfffe => None,
        number => Some(
            char::from_u32(number).filter(|letter| *letter != '\0').unwrap_or(char::REPLACEMENT_CHARACTER),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_resolved_as_the_standard_says() {
        for (text, meaning) in [
            ("caf&eacute; &amp co &ampersand", "café & co &ersand"),
            ("&notit; &notin; &gtx &g &;", "¬it; ∉ >x &g &;"),
            ("&#233;&#xE9;&#Xe9;&#233x", "ééééx"),
            ("&#128;&#0;&#xd800;&#x110000;&#99999999999;", "€\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
            ("[&#1;&#xfffe;&#x1ffff;&#xfdd0;]", "[]"),
            ("&#; &#x; &#xg;", "&#; &#x; &#xg;"),
            ("&&amp;&", "&&&"),
            ("&NotEqualTilde;&fjlig;", "≂\u{338}fj"),
        ] {
            assert_eq!(unescape(text), meaning);
        }
    }

    #[test]
    fn ftfy_wants_the_semicolon_and_reads_capitals() {
        for (reference, meaning) in [
            ("&eacute;", Some("é")),
            ("&EACUTE;", Some("É")),
            ("&Eacute;", Some("É")),
            ("&eACUTE;", None),
            ("&SZLIG;", Some("SS")),
            ("&ETH;", Some("Ð")),
            ("&NOTIT;", None),
            ("&#59;", None),
            ("&#38;", Some("&")),
            ("&#1;", Some("")),
            ("&#12abc;", None),
        ] {
            assert_eq!(resolve(reference).as_deref(), meaning, "{reference}");
        }
    }
}
