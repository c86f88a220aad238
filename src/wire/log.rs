//! The lines that the embedder writes for the server log.

/// The longest line that is passed on, in bytes: the rest is cut off.
pub const MAX_LOG_LINE: usize = 8 << 10;

/// Puts the lines together that come in pieces, and keeps no more than one of them.
#[derive(Debug, Default)]
pub struct LogLines {
    /// The start of a line whose end has not come yet.
    partial: Vec<u8>,
    is_cut: bool,
}

impl LogLines {
    /// Takes the next piece, and returns the lines that end in it.
    pub fn take(&mut self, piece: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = part.strip_suffix(b"\n").map_or((part, false), |text| (text, true));
            let kept = text.len().min(MAX_LOG_LINE - self.partial.len());
            self.partial.extend_from_slice(&text[..kept]);
            self.is_cut |= kept < text.len();
            if ends {
                let mut line = String::from_utf8_lossy(&self.partial).into_owned();
                if self.is_cut {
                    line.push('…');
                }
                // A line of the server log ends at a NUL.
                lines.push(line.replace('\0', " "));
                *self = LogLines::default();
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_in_pieces() {
        let mut lines = LogLines::default();
        assert_eq!(lines.take(b"LOG: on"), Vec::<String>::new());
        assert_eq!(lines.take(b"e\nWARNING: two\n\nLOG: th"), ["LOG: one", "WARNING: two", ""]);
        assert_eq!(lines.take(b"ree \xff\0\n"), ["LOG: three \u{fffd} "]);
    }

    #[test]
    fn a_line_without_an_end_takes_no_more_than_the_longest() {
        let mut lines = LogLines::default();
        for _ in 0..1000 {
            assert!(lines.take(&[b'x'; 1000]).is_empty());
        }
        assert_eq!(lines.partial.len(), MAX_LOG_LINE);
        let cut = lines.take(b"end\nnext\n");
        assert_eq!(cut, [format!("{}…", "x".repeat(MAX_LOG_LINE)), "next".to_owned()]);
    }
}
