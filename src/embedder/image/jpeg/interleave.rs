//! A sequential JPEG in several scans becomes one in a single scan.
//!
//! The decoder reads several scans of a sequential JPEG wrong, and says nothing. The coefficients are the same in both
//! forms. So the scans are read side by side, a row of units at a time, and their codes are written as they are; only the
//! means are written anew, because each is given by the one before it.

use super::frame::{BLOCK, Frame};
use super::marker::{
    APPLICATION_0, APPLICATION_15, END_OF_IMAGE, FRAME_0, HUFFMAN_TABLES, QUANTIZATION_TABLES,
    START_OF_IMAGE, START_OF_SCAN, segments,
};
use super::quantization;
use super::refusal::broken;
use super::rows::{Block, Row, Rows};
use super::scan::{Scan, Walk};
use super::sequential::ScanTables;
use super::written::{Written, mean_codes, write_segment};
use crate::error::Error;

/// The scans of a picture, whose blocks are all there.
pub(super) struct Scans<'a> {
    scans: Vec<OneScan<'a>>,
    /// The factors of each component; none before it came.
    quantization: Vec<Option<quantization::Table>>,
}

pub(super) struct OneScan<'a> {
    pub(super) scan: Scan,
    pub(super) data: &'a [u8],
    pub(super) restart_interval: u32,
    pub(super) tables: ScanTables,
}

/// The bytes of a file with so many blocks in one scan, made of one of `length` bytes, where about as many of its bytes are
/// 0xff; and at most twice as many. A mean takes up to 15 bits.
pub(super) fn usual_length(length: usize, blocks: usize) -> usize {
    length + 2 * blocks + 2048
}

impl<'a> Scans<'a> {
    pub(super) fn new(frame: &Frame) -> Scans<'a> {
        Scans { scans: Vec::new(), quantization: vec![None; frame.components.len()] }
    }

    /// Takes up a scan. Its components count with the quantization tables that they have now.
    pub(super) fn add(
        &mut self,
        frame: &Frame,
        scan: OneScan<'a>,
        quantization: &quantization::Tables,
    ) -> Result<(), Error> {
        for part in &scan.scan.parts {
            let table = quantization.get(frame.components[part.component].quantization)?;
            self.quantization[part.component] = Some(table.clone());
        }
        self.scans.push(scan);
        Ok(())
    }

    /// Whether this component came.
    pub(super) fn has(&self, component: usize) -> bool {
        self.quantization[component].is_some()
    }

    /// Writes the picture of a file in one scan. The segments of applications stay: they describe the colours and
    /// the orientation.
    pub(super) fn write(&self, frame: &Frame, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        let quantization: Option<Vec<_>> = self.quantization.iter().map(Option::as_ref).collect();
        let quantization = quantization.ok_or_else(|| broken("it ends before its last scan"))?;
        let blocks = frame.components.iter().map(|component| component.blocks()).sum();
        let mut file = Vec::with_capacity(usual_length(bytes.len(), blocks));
        file.extend([0xff, START_OF_IMAGE]);
        for (marker, segment) in segments(bytes).take_while(|(marker, _)| *marker != END_OF_IMAGE) {
            if (APPLICATION_0..=APPLICATION_15).contains(&marker) {
                file.extend([0xff, marker]);
                file.extend_from_slice(segment);
            }
        }
        for (number, table) in (0..).zip(quantization) {
            write_segment(&mut file, QUANTIZATION_TABLES, &table.definition(number));
        }
        self.write_headers(frame, &mut file);
        let mut data = Written::new(file);
        self.write_blocks(frame, &mut data)?;
        let mut file = data.finish();
        file.extend([0xff, END_OF_IMAGE]);
        Ok(file)
    }

    fn write_headers(&self, frame: &Frame, file: &mut Vec<u8>) {
        let mut header = vec![8];
        header.extend((frame.height as u16).to_be_bytes());
        header.extend((frame.width as u16).to_be_bytes());
        header.push(frame.components.len() as u8);
        let mut scan = vec![frame.components.len() as u8];
        for (number, component) in (0..).zip(&frame.components) {
            let factors = (component.factors.0 << 4 | component.factors.1) as u8;
            header.extend([component.id, factors, number]);
            scan.extend([component.id, number]);
        }
        scan.extend([0, BLOCK - 1, 0]);
        write_segment(file, FRAME_0, &header);
        let (counts, values) = mean_codes();
        write_segment(file, HUFFMAN_TABLES, &[&[0], counts.as_slice(), &values].concat());
        for one in &self.scans {
            let mut block = 0;
            for part in &one.scan.parts {
                let table = &one.tables.of(block).ac;
                let definition = [&[1 << 4 | part.component as u8], table.counts.as_slice(), &table.values];
                write_segment(file, HUFFMAN_TABLES, &definition.concat());
                block += frame.components[part.component].unit() as usize;
            }
        }
        write_segment(file, START_OF_SCAN, &scan);
    }

    fn write_blocks(&self, frame: &Frame, data: &mut Written) -> Result<(), Error> {
        let mut readers: Vec<_> = self.scans.iter().map(|one| one.reader(frame)).collect();
        // For each component the scan and the part of it.
        let places: Vec<(usize, usize)> = (0..frame.components.len())
            .filter_map(|component| {
                let part = |one: &OneScan| one.scan.parts.iter().position(|part| part.component == component);
                self.scans.iter().enumerate().find_map(|(scan, one)| Some((scan, part(one)?)))
            })
            .collect();
        let mut means = [0; 4];
        for y in 0..frame.units.1 {
            for (walk, rows) in &mut readers {
                let end = rows.begin(y);
                walk.pass(end, rows)?;
            }
            for x in 0..frame.units.0 as usize {
                for (number, (scan, part)) in places.iter().enumerate() {
                    let factors = frame.components[number].factors;
                    write_unit(&readers[*scan].1.rows[*part], x, factors, &mut means[number], data);
                }
            }
        }
        Ok(())
    }
}

impl<'a> OneScan<'a> {
    fn reader<'s>(&'s self, frame: &'s Frame) -> (Walk<'a>, Rows<'s>) {
        (Walk::new(self.data, self.restart_interval), Rows::new(&self.scan, frame, &self.tables))
    }
}

/// Writes the blocks of a component in unit `x` of a row. One that has no sample of the picture is as the one before it.
fn write_unit(row: &Row, x: usize, (across, down): (u32, u32), mean: &mut i16, data: &mut Written) {
    let mut last: Option<&Block> = None;
    for place in 0..across * down {
        let (h, v) = ((place % across) as usize, (place / across) as usize);
        last = row.block(x * across as usize + h, v).or(last);
        let Some(block) = last else { continue };
        data.mean(block.mean - *mean);
        *mean = block.mean;
        for codes in row.codes(block) {
            data.push(codes.bits, codes.count);
        }
    }
}
