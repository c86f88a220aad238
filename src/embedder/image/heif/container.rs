//! The items of a file, and which of them make its picture.

use heifer_isobmff::boxes::{ColorInfo, Property};
use heifer_isobmff::{BoxIter, HeifFile, ItemId};
use image::metadata::Orientation;

use super::super::format::Format;
use super::super::memory;
use super::refusal::{broken, unsupported};
use super::ycbcr::Colours;
use crate::error::Error;

/// Reads the items of a file. The reader's work grows with the square of their number, and a list of places may be much
/// larger in memory than in the file: both are bounded before.
pub(super) fn parse(format: Format, bytes: &[u8]) -> Result<HeifFile<'_>, Error> {
    let mut lists = 0;
    for outer in BoxIter::new(bytes) {
        let outer = outer.map_err(|error| broken(format, error))?;
        if &outer.header.box_type.0 != b"meta" {
            continue;
        }
        for inner in BoxIter::new(outer.content.get(4..).unwrap_or_default()) {
            let inner = inner.map_err(|error| broken(format, error))?;
            let most = match &inner.header.box_type.0 {
                b"idat" => continue,
                b"iprp" => MAX_PROPERTIES,
                _ => MAX_LIST,
            };
            lists += inner.content.len().max(8);
            if inner.content.len() > most || lists > MAX_LISTS {
                return Err(unsupported(format, "it has too many items"));
            }
            // Extents of no bytes in the file would take memory without end.
            if &inner.header.box_type.0 == b"iloc" && inner.content.get(4..6).is_none_or(has_empty_extents) {
                return Err(broken(format, "it does not say where its items are"));
            }
        }
    }
    HeifFile::parse(bytes).map_err(|error| broken(format, error))
}

/// The most bytes of a list of items, of their properties, and of all of these. 64 KiB are about 3,000 items; a photo of 200
/// megapixels has 800.
const MAX_LIST: usize = 64 << 10;
const MAX_PROPERTIES: usize = 1 << 20;
const MAX_LISTS: usize = MAX_PROPERTIES + 4 * MAX_LIST;

/// Whether neither the offset nor the length of an extent has bytes, by the fields that say how many.
fn has_empty_extents(sizes: &[u8]) -> bool {
    sizes[0] == 0
}

/// How the frames of a picture are coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Hevc,
    Av1,
}

/// A picture that is put together of tiles, row by row, or has one.
pub(super) struct Picture {
    /// Of the whole.
    pub(super) size: (u32, u32),
    pub(super) coding: Coding,
    pub(super) tiles: Vec<ItemId>,
    pub(super) columns: u32,
    /// The size of a tile.
    pub(super) tile: (u32, u32),
    /// The kind of chroma that HEVC has, by its number: 0 is none, 1 to 3 are 4:2:0, 4:2:2 and 4:4:4.
    pub(super) chroma: u8,
    /// How colours are coded, where the container says it.
    pub(super) colours: Option<Colours>,
    /// The visible part of the picture: left, top, width and height.
    pub(super) crop: Option<(u32, u32, u32, u32)>,
    pub(super) orientation: Orientation,
}

impl Picture {
    /// The picture of a file, whose sizes `admit` has to let through.
    pub(super) fn of(
        format: Format,
        file: &HeifFile,
        admit: &impl Fn(u32, u32) -> Result<(), Error>,
    ) -> Result<Picture, Error> {
        let primary = file.primary_item().map_err(|error| broken(format, error))?;
        let (tiles, columns, size) = match &primary.item_type.0 {
            b"grid" => {
                let grid = file.grid(primary.id).map_err(|error| broken(format, error))?;
                let tiles = file.referenced_items(primary.id, b"dimg");
                if tiles.len() != usize::from(grid.rows) * usize::from(grid.columns) {
                    return Err(broken(format, "it has more or fewer tiles than its grid"));
                }
                (tiles.to_vec(), u32::from(grid.columns), (grid.output_width, grid.output_height))
            }
            b"iovl" | b"iden" | b"tmap" => {
                return Err(unsupported(
                    format,
                    "its picture is made of other pictures, laid over each other",
                ));
            }
            _ => (vec![primary.id], 1, declared_size(format, file, primary.id)?),
        };
        admit(size.0, size.1)?;
        let coding = coding(format, file, tiles[0])?;
        let tile = declared_size(format, file, tiles[0])?;
        admit(tile.0, tile.1)?;
        for item in &tiles {
            if self::coding(format, file, *item)? != coding || declared_size(format, file, *item)? != tile {
                return Err(broken(format, "its tiles are not alike"));
            }
            let turned = |property: &Property| {
                matches!(
                    property,
                    Property::CleanAperture { .. } | Property::Rotation(1..) | Property::Mirror(_)
                )
            };
            if *item != primary.id && properties(format, file, *item)?.any(turned) {
                return Err(unsupported(format, "its tiles are turned or cut"));
            }
        }
        let rows = (tiles.len() / columns as usize) as u32;
        let covers = |tiles: u32, tile: u32, whole: u32| {
            let [before, all] = [tiles - 1, tiles].map(|tiles| u64::from(tiles) * u64::from(tile));
            before < whole.into() && u64::from(whole) <= all
        };
        if !covers(columns, tile.0, size.0) || !covers(rows, tile.1, size.1) {
            return Err(broken(format, "its tiles do not fit its size"));
        }
        let mut picture = Picture {
            size,
            coding,
            columns,
            tile,
            chroma: chroma(format, file, &tiles)?,
            colours: colours(format, file, primary.id)?.or(colours(format, file, tiles[0])?),
            tiles,
            crop: None,
            orientation: Orientation::NoTransforms,
        };
        picture.transform(format, properties(format, file, primary.id)?)?;
        Ok(picture)
    }

    /// The memory that decoding a tile of so many pixels takes, in bytes.
    pub(super) fn tile_memory(&self, pixels: u64) -> u64 {
        match self.coding {
            Coding::Hevc => memory::hevc(pixels, self.tile, self.chroma),
            Coding::Av1 => memory::av1(pixels),
        }
    }

    /// Takes up how the picture is cut, turned and mirrored, in this order.
    fn transform<'a>(
        &mut self,
        format: Format,
        properties: impl Iterator<Item = &'a Property>,
    ) -> Result<(), Error> {
        let mut turn = Turn::default();
        for property in properties {
            match *property {
                Property::CleanAperture { width, height, horiz_offset, vert_offset } => {
                    if turn != Turn::default() || self.crop.is_some() {
                        return Err(unsupported(format, "its picture is turned before it is cut"));
                    }
                    let across = cut(self.size.0, width, horiz_offset);
                    let down = cut(self.size.1, height, vert_offset);
                    let ((left, width), (top, height)) =
                        across.zip(down).ok_or_else(|| broken(format, "it is cut to a bad size"))?;
                    self.crop = Some((left, top, width, height));
                }
                Property::Rotation(quarters) => turn = turn.clockwise((4 - quarters % 4) % 4),
                Property::Mirror(top_and_bottom) => {
                    turn = turn.mirrored();
                    if top_and_bottom {
                        turn = turn.clockwise(2);
                    }
                }
                _ => {}
            }
        }
        self.orientation = turn.orientation();
        Ok(())
    }
}

fn properties<'f>(
    format: Format,
    file: &'f HeifFile,
    item: ItemId,
) -> Result<impl Iterator<Item = &'f Property>, Error> {
    file.item_properties(item).map_err(|error| broken(format, error))
}

fn declared_size(format: Format, file: &HeifFile, item: ItemId) -> Result<(u32, u32), Error> {
    let size = file.image_size(item).map_err(|error| broken(format, error))?;
    size.ok_or_else(|| broken(format, "it does not say how large it is"))
}

fn coding(format: Format, file: &HeifFile, item: ItemId) -> Result<Coding, Error> {
    let item = file.item(item).map_err(|error| broken(format, error))?;
    match &item.item_type.0 {
        b"hvc1" => Ok(Coding::Hevc),
        b"av01" => Ok(Coding::Av1),
        b"avc1" => Err(unsupported(format, "its picture is coded as H.264")),
        b"jpeg" => Err(unsupported(format, "its picture is coded as JPEG")),
        b"j2k1" => Err(unsupported(format, "its picture is coded as JPEG 2000")),
        b"unci" => Err(unsupported(format, "its picture is not coded")),
        _ => Err(unsupported(format, "its picture is coded in a way that is not known")),
    }
}

/// The finest kind of chroma that a tile has.
fn chroma(format: Format, file: &HeifFile, tiles: &[ItemId]) -> Result<u8, Error> {
    let mut finest = 0;
    for tile in tiles {
        let config = file.hevc_config(*tile).map_err(|error| broken(format, error))?;
        finest = finest.max(config.map_or(0, |config| config.chroma_format));
    }
    Ok(finest)
}

fn colours(format: Format, file: &HeifFile, item: ItemId) -> Result<Option<Colours>, Error> {
    Ok(properties(format, file, item)?.find_map(|property| match property {
        Property::Color(ColorInfo::Nclx { matrix, full_range, .. }) => {
            Some(Colours { matrix: *matrix, full_range: *full_range })
        }
        _ => None,
    }))
}

/// Where a side of `whole` pixels is cut, and how many are left: by the length that is left, and how far its middle is from
/// the middle of the whole.
fn cut(whole: u32, length: (u32, u32), offset: (i32, u32)) -> Option<(u32, u32)> {
    let ratio = |number: f64, of: u32| (of > 0).then(|| number / f64::from(of));
    let (length, offset) = (ratio(length.0.into(), length.1)?, ratio(offset.0.into(), offset.1)?);
    let middle = offset + (f64::from(whole) - 1.0) / 2.0;
    let start = (middle - (length - 1.0) / 2.0).round();
    let length = length.round();
    let fits = start >= 0.0 && length >= 1.0 && start + length <= f64::from(whole);
    fits.then_some((start as u32, length as u32))
}

/// A picture that is mirrored left to right, or not, and then turned clockwise so many times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Turn {
    mirrored: bool,
    quarters: u8,
}

impl Turn {
    fn clockwise(self, quarters: u8) -> Turn {
        Turn { quarters: (self.quarters + quarters) % 4, ..self }
    }

    /// Mirrored left to right, after the earlier turns.
    fn mirrored(self) -> Turn {
        Turn { mirrored: !self.mirrored, quarters: (4 - self.quarters) % 4 }
    }

    fn orientation(self) -> Orientation {
        match (self.mirrored, self.quarters) {
            (false, 0) => Orientation::NoTransforms,
            (false, 1) => Orientation::Rotate90,
            (false, 2) => Orientation::Rotate180,
            (false, _) => Orientation::Rotate270,
            (true, 0) => Orientation::FlipHorizontal,
            (true, 1) => Orientation::Rotate270FlipH,
            (true, 2) => Orientation::FlipVertical,
            (true, _) => Orientation::Rotate90FlipH,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_follow_one_another() {
        let turn = Turn::default();
        assert_eq!(turn.mirrored().mirrored(), turn);
        assert_eq!(turn.clockwise(3).clockwise(1), turn);
        // Turned to the right and then mirrored is mirrored and then turned to the left.
        assert_eq!(turn.clockwise(1).mirrored(), turn.mirrored().clockwise(3));
        assert_eq!(turn.clockwise(1).mirrored().orientation(), Orientation::Rotate90FlipH);
        assert_eq!(turn.mirrored().clockwise(2).orientation(), Orientation::FlipVertical);
    }

    #[test]
    fn a_side_is_cut_around_its_middle() {
        assert_eq!(cut(100, (100, 1), (0, 1)), Some((0, 100)));
        assert_eq!(cut(100, (50, 1), (0, 1)), Some((25, 50)));
        assert_eq!(cut(100, (50, 1), (25, 1)), Some((50, 50)));
        assert_eq!(cut(100, (99, 1), (-1, 2)), Some((0, 99)));
        for bad in
            [((101, 1), (0, 1)), ((50, 1), (26, 1)), ((50, 0), (0, 1)), ((0, 1), (0, 1)), ((50, 1), (0, 0))]
        {
            assert_eq!(cut(100, bad.0, bad.1), None, "{bad:?}");
        }
    }
}
