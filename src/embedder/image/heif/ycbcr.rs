//! Luma and chroma become RGB of 8 bits.
//!
//! Source: ITU-T H.273.

use image::RgbImage;

/// A frame as a decoder leaves it: luma, and two planes of chroma that may have fewer samples.
pub(super) trait Frame {
    /// Of the luma.
    fn size(&self) -> (u32, u32);

    /// Bits of a sample.
    fn bits(&self) -> u32;

    /// How many pixels a sample of chroma has across and down, as powers of two. Nothing where the frame is grey.
    fn chroma(&self) -> Option<(u32, u32)>;

    /// Whether values are interpolated between the samples of chroma, as Pillow's decoder of the format does it.
    const SMOOTH: bool;

    /// How the frame says that its colours are coded.
    fn colours(&self) -> Colours;

    /// Copies samples from the start of a row of a plane: 0 is luma, 1 and 2 are chroma.
    fn row(&self, plane: usize, y: u32, into: &mut [u16]);
}

/// How colours are coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Colours {
    /// The number of the matrix.
    pub(super) matrix: u16,
    /// Whether samples use all values, or leave some free at both ends.
    pub(super) full_range: bool,
}

impl Colours {
    /// Nothing for a matrix that is not known.
    pub(super) fn coefficients(self) -> Option<Coefficients> {
        let (red, blue) = match self.matrix {
            IDENTITY => {
                return Some(Coefficients { identity: true, ..Coefficients::new(0.0, 0.0, self.full_range) });
            }
            1 => (0.2126, 0.0722),
            4 => (0.30, 0.11),
            // Unspecified is as BT.601.
            2 | 5 | 6 => (0.299, 0.114),
            7 => (0.212, 0.087),
            9 => (0.2627, 0.0593),
            _ => return None,
        };
        Some(Coefficients::new(red, blue, self.full_range))
    }
}

/// The planes are green, blue and red.
const IDENTITY: u16 = 0;

/// The factors of chroma.
#[derive(Debug, Clone, Copy)]
pub(super) struct Coefficients {
    red: f32,
    green: (f32, f32),
    blue: f32,
    identity: bool,
    full_range: bool,
}

impl Coefficients {
    /// By the shares of red and blue in luma.
    fn new(red: f32, blue: f32, full_range: bool) -> Coefficients {
        let green = 1.0 - red - blue;
        Coefficients {
            red: 2.0 * (1.0 - red),
            green: (2.0 * (1.0 - blue) * blue / green, 2.0 * (1.0 - red) * red / green),
            blue: 2.0 * (1.0 - blue),
            identity: false,
            full_range,
        }
    }
}

/// Draws the first pixels of a frame, as many as `tile` has, at a place of the canvas, and as many as that takes.
pub(super) fn draw(
    frame: &impl Frame,
    tile: (u32, u32),
    coefficients: Coefficients,
    place: (u32, u32),
    canvas: &mut RgbImage,
) {
    let width = tile.0.min(canvas.width() - place.0) as usize;
    let height = tile.1.min(canvas.height() - place.1);
    let levels = Levels::new(frame.bits(), coefficients);
    let mut luma = vec![0; width];
    let mut chroma = frame
        .chroma()
        .map(|(across, down)| [1, 2].map(|plane| Chroma::new(frame, plane, (across, down), tile, width)));
    for y in 0..height {
        frame.row(0, y, &mut luma);
        let start = ((place.1 + y) as usize * canvas.width() as usize + place.0 as usize) * 3;
        let pixels = (**canvas)[start..start + 3 * width].as_chunks_mut::<3>().0;
        match &mut chroma {
            None => {
                for (pixel, luma) in pixels.iter_mut().zip(&luma) {
                    *pixel = [to_byte(levels.luma(*luma)); 3];
                }
            }
            Some([blue, red]) => {
                blue.read(frame, y);
                red.read(frame, y);
                let samples = luma.iter().zip(blue.line.iter().zip(&red.line));
                for (pixel, (luma, (blue, red))) in pixels.iter_mut().zip(samples) {
                    *pixel = levels.colour(*luma, *blue, *red, coefficients);
                }
            }
        }
    }
}

/// The range of samples: from 0 to 255, and for chroma from half of that below 0 to half above.
struct Levels {
    black: f32,
    luma: f32,
    middle: f32,
    chroma: f32,
}

impl Levels {
    fn new(bits: u32, coefficients: Coefficients) -> Levels {
        let most = (1_u32 << bits) as f32 - 1.0;
        let step = (1_u32 << (bits - 8)) as f32;
        let middle = if coefficients.identity { 0.0 } else { (1_u32 << (bits - 1)) as f32 };
        match (coefficients.full_range, coefficients.identity) {
            (true, _) => Levels { black: 0.0, luma: 255.0 / most, middle, chroma: 255.0 / most },
            (false, identity) => {
                let luma = 255.0 / (219.0 * step);
                let (middle, chroma) =
                    if identity { (16.0 * step, luma) } else { (middle, 255.0 / (224.0 * step)) };
                Levels { black: 16.0 * step, luma, middle, chroma }
            }
        }
    }

    fn luma(&self, sample: u16) -> f32 {
        (f32::from(sample) - self.black) * self.luma
    }

    #[inline(always)]
    fn colour(&self, luma: u16, blue: f32, red: f32, by: Coefficients) -> [u8; 3] {
        let luma = self.luma(luma);
        let [blue, red] = [blue, red].map(|sample| (sample - self.middle) * self.chroma);
        if by.identity {
            return [red, luma, blue].map(to_byte);
        }
        [luma + by.red * red, luma - by.green.0 * blue - by.green.1 * red, luma + by.blue * blue].map(to_byte)
    }
}

fn to_byte(level: f32) -> u8 {
    // The cast keeps values within a byte.
    (level + 0.5) as u8
}

/// A plane of chroma, read row by row at the size of luma. Where values are interpolated, a sample stands in the middle of
/// its pixels.
struct Chroma {
    plane: usize,
    across: u32,
    down: u32,
    /// The last row that there is.
    last: u32,
    samples: Vec<u16>,
    /// The row that a pixel is in, and its neighbour above or below.
    near: Vec<f32>,
    line: Vec<f32>,
}

impl Chroma {
    fn new(
        frame: &impl Frame,
        plane: usize,
        (across, down): (u32, u32),
        tile: (u32, u32),
        width: usize,
    ) -> Chroma {
        let columns = ((frame.size().0.min(tile.0)) as usize).div_ceil(1 << across);
        let last = (frame.size().1.min(tile.1)).div_ceil(1 << down) - 1;
        let samples = vec![0; columns];
        Chroma { plane, across, down, last, samples, near: vec![0.0; columns], line: vec![0.0; width] }
    }

    /// Reads the samples that belong to a row of luma.
    fn read<F: Frame>(&mut self, frame: &F, y: u32) {
        let row = (y >> self.down).min(self.last);
        frame.row(self.plane, row, &mut self.samples);
        for (value, sample) in self.near.iter_mut().zip(&self.samples) {
            *value = (*sample).into();
        }
        if self.down > 0 && F::SMOOTH {
            let other = if y & 1 == 0 { row.saturating_sub(1) } else { (row + 1).min(self.last) };
            frame.row(self.plane, other, &mut self.samples);
            for (value, sample) in self.near.iter_mut().zip(&self.samples) {
                *value = 0.75 * *value + 0.25 * f32::from(*sample);
            }
        }
        if self.across == 0 {
            let width = self.line.len();
            self.line.copy_from_slice(&self.near[..width]);
            return;
        }
        if !F::SMOOTH {
            for (x, value) in self.line.iter_mut().enumerate() {
                *value = self.near[x >> self.across];
            }
            return;
        }
        let last = self.near.len() - 1;
        for (x, value) in self.line.iter_mut().enumerate() {
            let at = x / 2;
            let other = if x & 1 == 0 { at.saturating_sub(1) } else { (at + 1).min(last) };
            *value = 0.75 * self.near[at] + 0.25 * self.near[other];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two rows of two pixels of one colour.
    struct Flat {
        samples: [u16; 3],
        bits: u32,
        chroma: Option<(u32, u32)>,
    }

    impl Frame for Flat {
        const SMOOTH: bool = true;

        fn size(&self) -> (u32, u32) {
            (2, 2)
        }

        fn bits(&self) -> u32 {
            self.bits
        }

        fn chroma(&self) -> Option<(u32, u32)> {
            self.chroma
        }

        fn colours(&self) -> Colours {
            Colours { matrix: 2, full_range: true }
        }

        fn row(&self, plane: usize, _: u32, into: &mut [u16]) {
            into.fill(self.samples[plane]);
        }
    }

    fn colour(samples: [u16; 3], bits: u32, matrix: u16, full_range: bool) -> [u8; 3] {
        let frame = Flat { samples, bits, chroma: Some((1, 1)) };
        let mut canvas = RgbImage::new(2, 2);
        let coefficients = Colours { matrix, full_range }.coefficients().unwrap();
        draw(&frame, (2, 2), coefficients, (0, 0), &mut canvas);
        assert!(canvas.pixels().all(|pixel| pixel == canvas.get_pixel(0, 0)));
        canvas.get_pixel(0, 0).0
    }

    #[test]
    fn colours_follow_the_standard() {
        assert_eq!(colour([16, 128, 128], 8, 1, false), [0; 3]);
        assert_eq!(colour([235, 128, 128], 8, 9, false), [255; 3]);
        assert_eq!(colour([255, 128, 128], 8, 6, true), [255; 3]);
        assert_eq!(colour([1023, 512, 512], 10, 6, true), [255; 3]);
        assert_eq!(colour([64, 512, 512], 10, 6, false), [0; 3]);
        // Red of BT.601, and of BT.709 in 10 bits.
        assert_eq!(colour([76, 85, 255], 8, 6, true), [254, 0, 0]);
        assert_eq!(colour([250, 409, 960], 10, 1, false), [255, 0, 0]);
        assert_eq!(colour([10, 20, 30], 8, 0, true), [30, 10, 20]);
        assert!(Colours { matrix: 8, full_range: true }.coefficients().is_none());
    }

    #[test]
    fn a_frame_without_chroma_is_grey() {
        let frame = Flat { samples: [100, 0, 0], bits: 8, chroma: None };
        let mut canvas = RgbImage::new(3, 2);
        draw(&frame, (2, 2), frame.colours().coefficients().unwrap(), (1, 0), &mut canvas);
        assert_eq!(canvas.get_pixel(1, 1).0, [100; 3]);
        assert_eq!(canvas.get_pixel(0, 0).0, [0; 3]);
    }
}
