//! Text in the place of an image: its kind, and the mistake that made it.
//!
//! These are the commonest mistakes of uploads, and an image decoder gives the same error for all of them.

/// A kind of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Text {
    Base64,
    DataUrl,
    /// Digits with `\x` before them, as PostgreSQL writes bytes
    Bytea,
    Hexadecimal,
    /// A file whose bytes were taken for characters
    Mangled,
    Html,
    Buffer,
    Json,
    LfsPointer,
    Url,
    Path,
    Other,
}

impl Text {
    /// The kind of the bytes, as in "the bytes are …".
    pub(super) fn name(self) -> &'static str {
        match self {
            Text::Base64 => "text in base64",
            Text::DataUrl => "a data URL",
            Text::Bytea => "text with hexadecimal digits behind \\x",
            Text::Hexadecimal => "text with hexadecimal digits",
            Text::Mangled => "a file that was read as text, which replaced some of its bytes",
            Text::Html => "an HTML page",
            Text::Buffer => "a Buffer of Node.js as JSON",
            Text::Json => "JSON",
            Text::LfsPointer => "a pointer of Git LFS",
            Text::Url => "a URL",
            Text::Path => "the path of a file",
            Text::Other => "text",
        }
    }

    pub(super) fn hint(self) -> &'static str {
        match self {
            Text::Base64 => "Decode it, as decode(…, 'base64') does.",
            Text::DataUrl => "Decode the text behind its comma, as decode(…, 'base64') does.",
            Text::Bytea => "Cast the text to bytea.",
            Text::Hexadecimal => "Decode it, as decode(…, 'hex') does.",
            Text::Mangled => "Read the file as bytes: from text it cannot be restored.",
            Text::Html => "Look at the request that was to bring the image: a server answered with a page.",
            Text::Buffer => "Pass the Buffer itself as the parameter.",
            Text::Json | Text::Other => "Pass the bytes of an image file.",
            Text::LfsPointer => "Fetch the file with `git lfs pull`.",
            Text::Url => "Pass the bytes that are at the URL: the server fetches nothing.",
            Text::Path => "Pass the bytes of the file: the server opens no files.",
        }
    }
}

/// The kind of text that `bytes` begin with.
pub(super) fn recognise(bytes: &[u8]) -> Option<Text> {
    if MANGLED.iter().any(|start| bytes.starts_with(start)) {
        return Some(Text::Mangled);
    }
    let text = start(bytes)?;
    let lower = text.to_ascii_lowercase();
    let starts = |with: &[&str]| with.iter().any(|start| lower.starts_with(start));
    let found = if starts(&["<!doctype html", "<html"]) || lower.starts_with('<') && has_tag(&lower) {
        Text::Html
    } else if starts(&["data:"]) {
        Text::DataUrl
    } else if starts(&["version https://git-lfs"]) {
        Text::LfsPointer
    } else if starts(&["http://", "https://", "s3://", "gs://", "file://"]) {
        Text::Url
    } else if text.starts_with(['{', '[']) {
        let packed: String = text.split_ascii_whitespace().collect();
        if packed.starts_with(r#"{"type":"Buffer""#) { Text::Buffer } else { Text::Json }
    } else if text.strip_prefix("\\x").is_some_and(is_hexadecimal) {
        Text::Bytea
    } else if is_path(text) {
        Text::Path
    } else if text.len() >= 8 && is_hexadecimal(text) {
        Text::Hexadecimal
    } else if is_base64(text) {
        Text::Base64
    } else {
        Text::Other
    };
    Some(found)
}

/// Files that begin with bytes above 0x7f, which became the replacement character of UTF-8 or were taken for Latin-1: JPEG
/// and PNG.
const MANGLED: [&[u8]; 4] = [
    b"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd",
    b"\xef\xbf\xbdPNG",
    b"\xc3\xbf\xc3\x98\xc3\xbf",
    b"\xc2\x89PNG",
];

/// The first KiB of a text, without the mark and the spaces before it.
fn start(bytes: &[u8]) -> Option<&str> {
    let head = &bytes[..bytes.len().min(1024)];
    let text = match str::from_utf8(head) {
        Ok(text) => text,
        // The last character may be cut.
        Err(error) if error.error_len().is_none() => str::from_utf8(&head[..error.valid_up_to()]).ok()?,
        Err(_) => return None,
    };
    let text = text.trim_start_matches('\u{feff}').trim();
    let is_text = |character: char| !character.is_control() || character.is_ascii_whitespace();
    (!text.is_empty() && text.chars().all(is_text)).then_some(text)
}

fn has_tag(lower: &str) -> bool {
    ["<head", "<body", "<title", "<div", "<script"].iter().any(|tag| lower.contains(tag))
}

fn is_hexadecimal(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// One line that ends as the name of a picture does, or begins as a path.
fn is_path(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let endings =
        [".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".heic", ".heif", ".avif", ".tif", ".tiff"];
    let root = text.starts_with("./") || text.starts_with("../") || text.get(1..3) == Some(":\\");
    !text.contains('\n')
        && text.len() < 1024
        && (root || endings.iter().any(|ending| lower.ends_with(ending)))
}

/// Base64 of either alphabet, in lines or not.
fn is_base64(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"+/-_=".contains(&byte);
    let mut digits = text.bytes().filter(|byte| !byte.is_ascii_whitespace());
    let first_line = text.lines().next().unwrap_or_default();
    first_line.len() >= 20 && !first_line.contains(' ') && digits.all(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_of_uploads_are_told_apart() {
        let jpeg = "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsKCwsNDhIQDQ4R";
        let hexadecimal = "ffd8ffe000104a46494600010100000100010000ffdb0043";
        for (bytes, expected) in [
            (jpeg.as_bytes(), Text::Base64),
            (b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAAB\nCAYAAAAfFcSJAAAADUlEQVR42mNk", Text::Base64),
            (format!("data:image/jpeg;base64,{jpeg}").as_bytes(), Text::DataUrl),
            (format!("\\x{hexadecimal}").as_bytes(), Text::Bytea),
            (hexadecimal.as_bytes(), Text::Hexadecimal),
            (String::from_utf8_lossy(b"\xff\xd8\xff\xe0\0\x10JFIF\0").as_bytes(), Text::Mangled),
            (String::from_utf8_lossy(b"\x89PNG\r\n\x1a\n\0").as_bytes(), Text::Mangled),
            ("\u{ff}\u{d8}\u{ff}\u{e0}\0".as_bytes(), Text::Mangled),
            (b"\n<!DOCTYPE html>\n<html><body><svg/></body></html>", Text::Html),
            (b"\xef\xbb\xbf<html>", Text::Html),
            (b"<!-- a comment --><body>403 Forbidden</body>", Text::Html),
            (br#"{"type":"Buffer","data":[255,216,255]}"#, Text::Buffer),
            (br#"{"type": "Buffer", "data": [255]}"#, Text::Buffer),
            (br#"{"error":"not found"}"#, Text::Json),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n", Text::LfsPointer),
            (b"https://example.com/cat.jpg", Text::Url),
            (b"photos/2026/cat 1.JPG", Text::Path),
            (b"/var/lib/photos/cat.heic\n", Text::Path),
            (b"C:\\Users\\me\\cat", Text::Path),
            ("ein Foto einer Katze, schön".as_bytes(), Text::Other),
            (b"<?xml version=\"1.0\"?><Error><Code>NoSuchKey</Code></Error>", Text::Other),
        ] {
            assert_eq!(recognise(bytes), Some(expected), "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_text_that_is_cut_within_a_character_is_text() {
        assert_eq!(recognise("é".repeat(1024)[..].as_bytes()), Some(Text::Other));
        assert_eq!(recognise(format!("x{}", "é".repeat(1024)).as_bytes()), Some(Text::Other));
    }

    #[test]
    fn bytes_are_no_text() {
        for bytes in [&b""[..], b" \n", b"\0\0\0\x18", b"\xff\xd8", b"text\0with a zero", b"\x89PNG"] {
            assert_eq!(recognise(bytes), None, "{bytes:?}");
        }
    }
}
