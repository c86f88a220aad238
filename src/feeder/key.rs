//! The references that a row may have: a key below the store's prefix, and nothing else.
//!
//! A reference is data of a user. It becomes the last part of a request's path, as it stands: it is no URL, and can
//! name no other host, scheme or folder. Characters with a meaning to a server or a file system on the way are
//! refused before any request.

use object_store::path::Path;

/// S3's limit, in bytes. Google's is the same, Azure's is 1,024 characters.
const LONGEST: usize = 1024;

/// Why a reference is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    #[error("it is empty")]
    Empty,
    #[error("it is longer than {LONGEST} bytes")]
    TooLong,
    #[error("it begins or ends with a slash")]
    OuterSlash,
    #[error("it has an empty part, as URLs have behind their scheme; a key is below the store's prefix")]
    EmptyPart,
    #[error("it has a part \".\" or \"..\"")]
    Dots,
    #[error("it has a backslash")]
    Backslash,
    #[error("it has a control or an invisible character")]
    Invisible,
}

/// The path of an object below the store's prefix.
///
/// Letters of any script are taken, and so are spaces and percent signs: they are encoded on the way, and name only
/// the object of that name.
pub fn parse(reference: &str) -> Result<Path, BadKey> {
    if reference.is_empty() {
        return Err(BadKey::Empty);
    }
    if reference.len() > LONGEST {
        return Err(BadKey::TooLong);
    }
    if reference.starts_with('/') || reference.ends_with('/') {
        return Err(BadKey::OuterSlash);
    }
    if reference.contains('\\') {
        return Err(BadKey::Backslash);
    }
    if reference.chars().any(is_invisible) {
        return Err(BadKey::Invisible);
    }
    for part in reference.split('/') {
        // Percent signs are encoded, but a server that decodes twice must find no way up either.
        let decoded = part.replace("%2e", ".").replace("%2E", ".");
        match decoded.as_str() {
            "" => return Err(BadKey::EmptyPart),
            "." | ".." => return Err(BadKey::Dots),
            _ => {}
        }
    }
    Path::parse(reference).map_err(|_| BadKey::Dots)
}

/// Control characters, and invisible ones that change how a text reads.
fn is_invisible(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::{BadKey, parse};

    #[test]
    fn takes_keys() {
        for key in [
            "a.jpg",
            "2026/11/küche 1.jpg",
            "100%.png",
            "a%2Fb.jpg",
            "写真/ピザ.heic",
            "a?b#c&d=e.jpg",
            "...",
            "c:/x",
        ] {
            assert_eq!(parse(key).map(|path| path.to_string()), Ok(key.to_owned()));
        }
    }

    #[test]
    fn refuses_all_else() {
        let long = "k".repeat(2000);
        let cases = [
            ("", BadKey::Empty),
            (long.as_str(), BadKey::TooLong),
            ("../../etc/passwd", BadKey::Dots),
            ("a/../b", BadKey::Dots),
            ("a/./b", BadKey::Dots),
            ("%2e%2E/secret", BadKey::Dots),
            (".%2e/secret", BadKey::Dots),
            ("http://127.0.0.1/", BadKey::OuterSlash),
            ("http://169.254.169.254/latest/meta-data", BadKey::EmptyPart),
            ("s3://other/x", BadKey::EmptyPart),
            ("//host/x", BadKey::OuterSlash),
            ("/etc/passwd", BadKey::OuterSlash),
            ("photos/", BadKey::OuterSlash),
            ("..\\..\\x", BadKey::Backslash),
            ("a\0b", BadKey::Invisible),
            ("a\nb", BadKey::Invisible),
            ("gpj.\u{202e}exe", BadKey::Invisible),
            ("a\u{200b}b", BadKey::Invisible),
        ];
        for (reference, why) in cases {
            assert_eq!(parse(reference), Err(why), "{reference:?}");
        }
    }
}
