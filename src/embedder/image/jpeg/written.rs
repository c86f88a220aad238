//! A JPEG that is written.

/// Writes a segment and its marker.
pub(super) fn write_segment(file: &mut Vec<u8>, marker: u8, content: &[u8]) {
    file.extend([0xff, marker]);
    file.extend((content.len() as u16 + 2).to_be_bytes());
    file.extend_from_slice(content);
}

/// The most bits of the difference of two means, where a sample has 8 bits.
pub(super) const MAX_MEAN_SIZE: u8 = 11;

/// The codes of the sizes of means: 4 bits for each.
pub(super) fn mean_codes() -> ([u8; 16], Vec<u8>) {
    let mut counts = [0; 16];
    counts[3] = MAX_MEAN_SIZE + 1;
    (counts, (0..=MAX_MEAN_SIZE).collect())
}

/// The data of a scan.
pub(super) struct Written {
    file: Vec<u8>,
    /// The last bits, of which fewer than eight are not in the file yet.
    buffer: u64,
    length: u32,
}

impl Written {
    /// Begins the data behind the file's bytes so far.
    pub(super) fn new(file: Vec<u8>) -> Written {
        Written { file, buffer: 0, length: 0 }
    }

    /// Writes the difference of two means, with [`mean_codes`].
    pub(super) fn mean(&mut self, difference: i16) {
        let size = 16 - difference.unsigned_abs().leading_zeros();
        let value = i32::from(difference) - i32::from(difference < 0);
        self.push(size << size | value as u32 & ((1 << size) - 1), 4 + size);
    }

    /// Writes the lowest bits of a number, at most 32.
    pub(super) fn push(&mut self, bits: u32, count: u32) {
        self.buffer = self.buffer << count | u64::from(bits);
        self.length += count;
        while self.length >= 8 {
            self.length -= 8;
            let byte = (self.buffer >> self.length) as u8;
            self.file.push(byte);
            if byte == 0xff {
                self.file.push(0);
            }
        }
    }

    /// Fills up the last byte.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.push(0x7f, 7);
        self.file
    }
}
