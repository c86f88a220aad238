//! An image of any shape becomes one of the model's.
//!
//! The reference is torchvision's `Resize(224, BICUBIC)` and `CenterCrop(224)` on a Pillow image, which is what CLIP was
//! trained with: the shorter side to 224, the longer side in exact integer arithmetic, the crop offset rounded half to
//! even. A crop that is off by one pixel changes more than everything else here together. Only the pixels of the crop
//! are computed, from the same sampling grid, so that a strip of 1 × 65,535 pixels costs no more than a photo.
//!
//! Pillow resizes along the rows first and then along the columns, and rounds and clips to 8 bits in between: where edges
//! are sharp, the other order is off by several grey levels. (From release 13 on it turns that round for tall images.)

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{
    FilterType, IntoImageView, PixelType, ResizeAlg, ResizeError, ResizeOptions, Resizer,
};
use image::metadata::Orientation;
use image::{DynamicImage, RgbImage};

use super::decode::Decoded;
use crate::error::Error;
use crate::model::{Interpolation, Preprocessing, ResizeMode};

/// Resizes, crops and turns an image upright. Which part of it is wanted depends on the size of the whole, also where its
/// pixels are fewer.
pub(super) fn resize(image: &Decoded, preprocessing: &Preprocessing) -> Result<RgbImage, Error> {
    let defect =
        |error: &dyn std::error::Error| Error::Internal(format!("an image cannot be resized: {error}"));
    let Decoded { pixels, orientation, size, scale } = image;
    let source = ImageRef::new(pixels.width(), pixels.height(), pixels.as_raw(), PixelType::U8x3);
    let source = source.map_err(|error| defect(&error))?;
    let x = Axis { size: size.0, scale: *scale, pixels: pixels.width() };
    let y = Axis { size: size.1, scale: *scale, pixels: pixels.height() };
    let [first, second] = window(*size, *orientation, preprocessing).passes(x, y);
    let between = first.run(&source, preprocessing.interpolation).map_err(|error| defect(&error))?;
    let resized = second.run(&between, preprocessing.interpolation).map_err(|error| defect(&error))?;

    let (width, height) = (resized.width(), resized.height());
    let pixels = RgbImage::from_raw(width, height, resized.into_vec());
    let mut upright = DynamicImage::ImageRgb8(pixels.expect("the resizer fills width × height pixels"));
    upright.apply_orientation(*orientation);
    Ok(upright.into_rgb8())
}

/// An axis of a decoded image.
#[derive(Debug, Clone, Copy)]
struct Axis {
    /// The length of the whole, of which the pixels are a `scale`th.
    size: u32,
    scale: u32,
    pixels: u32,
}

/// The part of the resized image that is wanted, in the image as it is stored.
#[derive(Debug, PartialEq, Eq)]
struct Window {
    x: Span,
    y: Span,
    /// Whether the rows of the stored image are the columns of the upright one.
    transposed: bool,
}

impl Window {
    /// The passes over an image of these axes: one pass along the rows of the upright image, then one along its
    /// columns. The first one leaves out the pixels that the second does not read.
    fn passes(&self, width: Axis, height: Axis) -> [Pass; 2] {
        let (x, y) = (self.x.source(width), self.y.source(height));
        let size = (self.x.length, self.y.length);
        if self.transposed {
            let (left, columns) = self.x.read(width);
            let first = Pass { x: Part::pixels(left, columns), y, size: (columns, size.1) };
            [first, Pass { x: x.after(left), y: Part::pixels(0, size.1), size }]
        } else {
            let (top, rows) = self.y.read(height);
            let first = Pass { x, y: Part::pixels(top, rows), size: (size.0, rows) };
            [first, Pass { x: Part::pixels(0, size.0), y: y.after(top), size }]
        }
    }
}

/// A resize along one axis.
struct Pass {
    x: Part,
    y: Part,
    /// The size after the pass: width and height in pixels. The axis that is not resized keeps its part's length.
    size: (u32, u32),
}

impl Pass {
    fn run(
        &self,
        source: &impl IntoImageView,
        interpolation: Interpolation,
    ) -> Result<Image<'static>, ResizeError> {
        let filter = match interpolation {
            // Catmull-Rom is the bicubic filter with a = -0.5, Pillow's.
            Interpolation::Bicubic => FilterType::CatmullRom,
            Interpolation::Bilinear => FilterType::Bilinear,
        };
        let Pass { x, y, size: (width, height) } = *self;
        let options = ResizeOptions::new()
            .resize_alg(ResizeAlg::Convolution(filter))
            .crop(x.start, y.start, x.length, y.length);
        let mut resized = Image::new(width, height, PixelType::U8x3);
        Resizer::new().resize(source, &mut resized, &options)?;
        Ok(resized)
    }
}

/// A part of one axis of a source image, in pixels.
#[derive(Debug, Clone, Copy)]
struct Part {
    start: f64,
    length: f64,
}

impl Part {
    fn pixels(start: u32, length: u32) -> Part {
        Part { start: start.into(), length: length.into() }
    }

    /// The same part where the axis begins `pixels` later.
    fn after(self, pixels: u32) -> Part {
        Part { start: self.start - f64::from(pixels), ..self }
    }
}

/// A part of one axis of the resized image, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    start: u32,
    length: u32,
    /// The length of the whole axis.
    resized: u32,
}

impl Span {
    /// The part of a source axis that becomes the span.
    fn source(self, axis: Axis) -> Part {
        let scale = |at: u32| {
            f64::from(at) * f64::from(axis.size) / (f64::from(self.resized) * f64::from(axis.scale))
        };
        let start = scale(self.start);
        Part { start, length: scale(self.start + self.length) - start }
    }

    /// Start and length of the pixels that the filter reads of that axis: the bicubic one, which is the wider, goes
    /// two pixels beyond the part, and where the axis shrinks two pixels of the resized one.
    fn read(self, axis: Axis) -> (u32, u32) {
        let Part { start, length } = self.source(axis);
        let shrunk = f64::from(axis.size) / (f64::from(self.resized) * f64::from(axis.scale));
        let support = 2.0 * shrunk.max(1.0);
        // The bounds lie within the axis, whose size is a u32.
        let first = (start - support).floor().max(0.0) as u32;
        let last = (start + length + support).ceil().min(axis.pixels.into()) as u32;
        (first, last - first)
    }

    fn mirrored(self) -> Span {
        Span { start: self.resized - self.length - self.start, ..self }
    }
}

fn window(stored: (u32, u32), orientation: Orientation, preprocessing: &Preprocessing) -> Window {
    // Which stored axes the orientation swaps, and which it mirrors; as `DynamicImage::apply_orientation`.
    let (transposed, mirror_x, mirror_y) = match orientation {
        Orientation::NoTransforms => (false, false, false),
        Orientation::FlipHorizontal => (false, true, false),
        Orientation::FlipVertical => (false, false, true),
        Orientation::Rotate180 => (false, true, true),
        Orientation::Rotate90FlipH => (true, false, false),
        Orientation::Rotate90 => (true, false, true),
        Orientation::Rotate270 => (true, true, false),
        Orientation::Rotate270FlipH => (true, true, true),
    };
    let (width, height) = if transposed { (stored.1, stored.0) } else { stored };
    let (wanted_width, wanted_height) = (preprocessing.width, preprocessing.height);
    let (x, y) = match preprocessing.resize_mode {
        ResizeMode::Squash => (whole(wanted_width), whole(wanted_height)),
        ResizeMode::Shortest(side) => (
            middle(scaled(width, width.min(height), side), wanted_width),
            middle(scaled(height, width.min(height), side), wanted_height),
        ),
    };
    let (x, y) = if transposed { (y, x) } else { (x, y) };
    let mirrored = |span: Span, mirror| if mirror { span.mirrored() } else { span };
    Window { x: mirrored(x, mirror_x), y: mirrored(y, mirror_y), transposed }
}

/// The length of a side after the shortest one became `target`: torchvision's `int(target * long / short)`.
fn scaled(side: u32, shortest: u32, target: u32) -> u32 {
    let scaled = u64::from(target) * u64::from(side) / u64::from(shortest);
    u32::try_from(scaled).expect("both sides are at most 65,535 and the target at most 4,096")
}

fn whole(length: u32) -> Span {
    Span { start: 0, length, resized: length }
}

/// The middle of an axis: torchvision's `int(round((resized - length) / 2))`, where Python rounds half to even.
fn middle(resized: u32, length: u32) -> Span {
    let half = (resized - length) / 2;
    let odd = (resized - length) % 2;
    Span { start: half + odd * (half % 2), length, resized }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resize(image: &RgbImage, orientation: Orientation, preprocessing: &Preprocessing) -> RgbImage {
        super::resize(&Decoded::whole(image.clone(), orientation), preprocessing).unwrap()
    }

    fn clip() -> Preprocessing {
        Preprocessing {
            width: 224,
            height: 224,
            resize_mode: ResizeMode::Shortest(224),
            interpolation: Interpolation::Bicubic,
            mean: [0.0; 3],
            std: [1.0; 3],
        }
    }

    fn gradient(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            image::Rgb([(255 * x / width) as u8, (255 * y / height) as u8, ((x + y) % 256) as u8])
        })
    }

    const ALL: [Orientation; 8] = [
        Orientation::NoTransforms,
        Orientation::Rotate90,
        Orientation::Rotate180,
        Orientation::Rotate270,
        Orientation::FlipHorizontal,
        Orientation::FlipVertical,
        Orientation::Rotate90FlipH,
        Orientation::Rotate270FlipH,
    ];

    #[test]
    fn the_crop_is_rounded_half_to_even() {
        let starts = [224, 225, 226, 227, 228, 229, 230, 231].map(|resized| middle(resized, 224).start);
        assert_eq!(starts, [0, 0, 1, 2, 2, 2, 3, 4]);
    }

    #[test]
    fn the_longer_side_is_an_exact_integer() {
        assert_eq!(scaled(4032, 3024, 224), 298);
        assert_eq!(scaled(640, 480, 224), 298);
        assert_eq!(scaled(3, 3, 224), 224);
        assert_eq!(scaled(65_535, 1, 224), 14_679_840);
    }

    #[test]
    fn every_shape_becomes_the_models() {
        for (width, height) in
            [(224, 224), (640, 480), (480, 640), (1, 1), (1, 5000), (5000, 1), (225, 224), (3, 1000)]
        {
            for orientation in ALL {
                let resized = resize(&gradient(width, height), orientation, &clip());
                assert_eq!(resized.dimensions(), (224, 224), "{width} x {height}");
            }
        }
    }

    #[test]
    fn an_image_of_the_models_size_stays_as_it_is() {
        let image = gradient(224, 224);
        assert_eq!(resize(&image, Orientation::NoTransforms, &clip()), image);
    }

    #[test]
    fn turning_before_or_after_the_resize_is_the_same() {
        for (width, height) in [(500, 301), (301, 500), (227, 224)] {
            for orientation in ALL {
                let image = gradient(width, height);
                let mut turned = DynamicImage::ImageRgb8(image.clone());
                turned.apply_orientation(orientation);
                let expected = resize(&turned.into_rgb8(), Orientation::NoTransforms, &clip());
                let found = resize(&image, orientation, &clip());
                let off = expected.as_raw().iter().zip(found.as_raw()).map(|(a, b)| a.abs_diff(*b)).max();
                assert!(off <= Some(1), "{orientation:?} of {width} x {height} is off by {off:?}");
            }
        }
    }

    #[test]
    fn the_window_has_the_pixels_of_the_whole() {
        let image = gradient(500, 300);
        let whole_height = Preprocessing { width: 373, resize_mode: ResizeMode::Squash, ..clip() };
        let whole = resize(&image, Orientation::NoTransforms, &whole_height);
        let cropped = image::imageops::crop_imm(&whole, 74, 0, 224, 224).to_image();
        let found = resize(&image, Orientation::NoTransforms, &clip());
        let off = cropped.as_raw().iter().zip(found.as_raw()).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(off <= Some(1), "off by {off:?}");
    }
}
