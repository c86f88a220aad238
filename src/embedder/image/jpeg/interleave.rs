//! A sequential JPEG in several scans becomes one in a single scan.
//!
//! The decoder reads several scans of a sequential JPEG wrong, and says nothing. The coefficients are the same in both
//! forms: they are read here and written as the decoder reads them right, and the pixels are those of the single scan.

use super::bits::Bits;
use super::frame::Frame;
use super::huffman::{END_OF_BLOCK, Table, ZEROS};
use super::pick::Pick;
use super::scan::{Blocks, Scan, walk};
use super::sequential::{BLOCK, Coefficient};
use super::{END_OF_IMAGE, FRAME_0, HUFFMAN_TABLES, QUANTIZATION_TABLES, START_OF_IMAGE, START_OF_SCAN, bad};
use crate::error::Error;

/// The coefficients of a picture, by component and block, in the order of the file.
pub(super) struct Coefficients {
    components: Vec<Vec<[i16; BLOCK as usize]>>,
    /// What each component is multiplied by, as its table says it: the precision and the values.
    quantization: Vec<Option<(bool, Vec<u8>)>>,
}

impl Coefficients {
    pub(super) fn new(frame: &Frame) -> Coefficients {
        Coefficients {
            components: frame.components.iter().map(|component| vec![[0; 64]; component.blocks()]).collect(),
            quantization: vec![None; frame.components.len()],
        }
    }

    /// Takes up the blocks of a scan and returns what follows it. A component counts with the table that it has now.
    pub(super) fn read<'a>(
        &mut self,
        data: &'a [u8],
        frame: &Frame,
        scan: &Scan,
        restart_interval: u32,
        tables: Vec<(&Table, &Table)>,
        quantization: &Quantization,
    ) -> Result<&'a [u8], Error> {
        for part in &scan.parts {
            self.quantization[part.component] =
                Some(quantization.table(frame.components[part.component].quantization)?);
        }
        let rows = scan.parts.iter().map(|part| frame.components[part.component].padded.0).collect();
        let mut blocks = Kept { tables, scan, frame, rows, means: [0; 4], all: &mut self.components };
        walk(data, frame, scan, restart_interval, &mut blocks)
    }

    /// Writes the picture in one scan, with `notes` before it: markers and their segments.
    pub(super) fn write(&self, frame: &Frame, notes: &[(u8, &[u8])]) -> Result<Vec<u8>, Error> {
        let mut file = vec![0xff, START_OF_IMAGE];
        for (marker, segment) in notes {
            file.extend([0xff, *marker]);
            file.extend_from_slice(segment);
        }
        for (number, table) in self.quantization.iter().enumerate() {
            let (wide, values) = table.as_ref().ok_or_else(|| bad("quantization table"))?;
            let place = (u8::from(*wide) << 4) | number as u8;
            write_segment(&mut file, QUANTIZATION_TABLES, &[&[place], values.as_slice()].concat());
        }
        let mut header = vec![8];
        header.extend((frame.height as u16).to_be_bytes());
        header.extend((frame.width as u16).to_be_bytes());
        header.push(frame.components.len() as u8);
        let mut scan = vec![frame.components.len() as u8];
        for (number, component) in frame.components.iter().enumerate() {
            let factors = (component.factors.0 << 4 | component.factors.1) as u8;
            header.extend([component.id, factors, number as u8]);
            scan.extend([component.id, 0]);
        }
        scan.extend([0, BLOCK - 1, 0]);
        write_segment(&mut file, FRAME_0, &header);
        write_segment(&mut file, HUFFMAN_TABLES, &codes());
        write_segment(&mut file, START_OF_SCAN, &scan);
        let mut bits = Written { file, buffer: 0, length: 0 };
        self.write_blocks(frame, &mut bits);
        Ok(bits.finish())
    }

    fn write_blocks(&self, frame: &Frame, bits: &mut Written) {
        let mut means = [0; 4];
        let single = frame.components.len() == 1;
        let units = if single { frame.components[0].alone } else { frame.units };
        for y in 0..units.1 {
            for x in 0..units.0 {
                for (number, component) in frame.components.iter().enumerate() {
                    let (across, down) = if single { (1, 1) } else { component.factors };
                    for v in 0..down {
                        for h in 0..across {
                            let row = (y * down + v) as usize * component.padded.0 as usize;
                            let block = &self.components[number][row + (x * across + h) as usize];
                            bits.block(block, &mut means[number]);
                        }
                    }
                }
            }
        }
    }
}

/// The blocks of a scan that are kept.
struct Kept<'a> {
    tables: Vec<(&'a Table, &'a Table)>,
    scan: &'a Scan,
    frame: &'a Frame,
    /// The blocks in a row of each part.
    rows: Vec<u32>,
    /// The last mean of each part, which the next one is given by.
    means: [i16; 4],
    all: &'a mut [Vec<[i16; BLOCK as usize]>],
}

impl Blocks for Kept<'_> {
    fn units<P: Pick>(&mut self, bits: &mut Bits, units: std::ops::Range<usize>) -> Result<(), Error> {
        let row = self.scan.units(self.frame).0 as usize;
        for unit in units {
            let (x, y) = ((unit % row) as u32, (unit / row) as u32);
            for number in 0..self.scan.parts.len() {
                let (across, down) = if self.scan.parts.len() == 1 {
                    (1, 1)
                } else {
                    self.frame.components[self.scan.parts[number].component].factors
                };
                for v in 0..down {
                    for h in 0..across {
                        self.block(bits, number, x * across + h, y * down + v)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn restart(&mut self) -> Result<(), Error> {
        self.means = [0; 4];
        Ok(())
    }
}

impl Kept<'_> {
    fn block(&mut self, bits: &mut Bits, part: usize, x: u32, y: u32) -> Result<(), Error> {
        let (dc, ac) = self.tables[part];
        let place = y as usize * self.rows[part] as usize + x as usize;
        let block = &mut self.all[self.scan.parts[part].component][place];
        bits.fill();
        let size = dc.symbol(bits)?;
        if size > MAX_MEAN_SIZE {
            return Err(bad("coefficient"));
        }
        self.means[part] += value(bits, size);
        if !MEANS.contains(&self.means[part]) {
            return Err(bad("coefficient"));
        }
        block[0] = self.means[part];
        let mut next = 1;
        while next < BLOCK {
            bits.fill();
            match Coefficient::read(ac, bits, next)? {
                Coefficient::None => break,
                Coefficient::Zeros { after } => next = after,
                Coefficient::Value { size, .. } if size > MAX_SIZE => return Err(bad("coefficient")),
                Coefficient::Value { at, size } => {
                    block[usize::from(at)] = value(bits, size);
                    next = at + 1;
                }
            }
        }
        Ok(())
    }
}

/// The most bits of a coefficient, and of the difference of two means, where a sample has 8 bits.
const MAX_SIZE: u8 = 10;
const MAX_MEAN_SIZE: u8 = 11;
/// What a mean can be, so that no two differ by more than that.
const MEANS: std::ops::Range<i16> = -1024..1024;

/// A value of `size` bits: those whose first bit is 0 are negative.
fn value(bits: &mut Bits, size: u8) -> i16 {
    let read = bits.take(size.into()) as i32;
    let negative = size > 0 && read >> (size - 1) == 0;
    (if negative { read - (1 << size) + 1 } else { read }) as i16
}

/// The quantization tables of a decoder.
#[derive(Default)]
pub(super) struct Quantization {
    tables: [Option<(bool, Vec<u8>)>; 4],
}

impl Quantization {
    /// Takes up the tables of a segment.
    pub(super) fn define(&mut self, segment: &[u8]) -> Result<(), Error> {
        let mut rest = segment.get(2..).unwrap_or_default();
        while let Some((place, after)) = rest.split_first() {
            let wide = place >> 4 > 0;
            let length = usize::from(BLOCK) * if wide { 2 } else { 1 };
            let table = self.tables.get_mut(usize::from(place & 15));
            let (values, after) = after.split_at_checked(length).ok_or_else(|| bad("quantization table"))?;
            *table.ok_or_else(|| bad("quantization table"))? = Some((wide, values.to_vec()));
            rest = after;
        }
        Ok(())
    }

    pub(super) fn table(&self, number: u8) -> Result<(bool, Vec<u8>), Error> {
        self.tables[usize::from(number)].clone().ok_or_else(|| bad("quantization table"))
    }
}

fn write_segment(file: &mut Vec<u8>, marker: u8, content: &[u8]) {
    file.extend([0xff, marker]);
    file.extend((content.len() as u16 + 2).to_be_bytes());
    file.extend_from_slice(content);
}

/// The codes of what is written: all of one length, for whatever values there may be. The mean's size has 4 bits, and all
/// else 8.
fn codes() -> Vec<u8> {
    let means = 0..=MAX_MEAN_SIZE;
    let mut definition = vec![0, 0, 0, 0, MAX_MEAN_SIZE + 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    definition.extend(means);
    let values: Vec<u8> = symbols().collect();
    definition.extend([0x10, 0, 0, 0, 0, 0, 0, 0, values.len() as u8, 0, 0, 0, 0, 0, 0, 0, 0]);
    definition.extend(values);
    definition
}

/// A run of zeros and the size of a value, and the two symbols without one.
fn symbols() -> impl Iterator<Item = u8> {
    let values = (0..16).flat_map(|zeros| (1..=MAX_SIZE).map(move |size| zeros << 4 | size));
    [END_OF_BLOCK, ZEROS].into_iter().chain(values)
}

/// The place of a symbol among them.
fn code(zeros: u8, size: u8) -> u32 {
    2 + u32::from(zeros) * u32::from(MAX_SIZE) + u32::from(size) - 1
}

/// The bits that are written.
struct Written {
    file: Vec<u8>,
    buffer: u64,
    length: u32,
}

impl Written {
    fn block(&mut self, block: &[i16; BLOCK as usize], mean: &mut i16) {
        let difference = block[0].wrapping_sub(*mean);
        *mean = block[0];
        let size = size(difference);
        self.push(size.into(), 4);
        self.value(difference, size);
        let mut zeros = 0;
        for coefficient in &block[1..] {
            if *coefficient == 0 {
                zeros += 1;
                continue;
            }
            while zeros > 15 {
                self.push(1, 8);
                zeros -= 16;
            }
            let size = self::size(*coefficient);
            self.push(code(zeros, size), 8);
            self.value(*coefficient, size);
            zeros = 0;
        }
        if zeros > 0 {
            self.push(0, 8);
        }
    }

    fn value(&mut self, value: i16, size: u8) {
        let value = i32::from(value) - i32::from(value < 0);
        self.push(value as u32 & ((1 << size) - 1), size.into());
    }

    fn push(&mut self, bits: u32, count: u32) {
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

    fn finish(mut self) -> Vec<u8> {
        self.push(0x7f, 7);
        self.file.extend([0xff, END_OF_IMAGE]);
        self.file
    }
}

/// The bits that a value takes.
fn size(value: i16) -> u8 {
    (16 - value.unsigned_abs().leading_zeros()) as u8
}
