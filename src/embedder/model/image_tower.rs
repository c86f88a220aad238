//! The half of a model that sees.

use ort::session::Session;
use ort::value::Tensor;

use super::graph::TensorInfo;
use super::text_tower::rows;
use super::{MAX_BATCH, Preprocessing};

/// A graph from `[batch, 3, height, width]` to `[batch, dimensions]`, in f32.
#[derive(Debug)]
pub(super) struct ImageTower {
    session: Session,
    input: TensorInfo,
    output: String,
    width: usize,
    height: usize,
}

impl ImageTower {
    pub(super) fn new(session: Session, input: TensorInfo, output: String) -> Result<ImageTower, String> {
        if input.fixed(1).is_some_and(|channels| channels != 3) {
            return Err(format!("its input \"{}\" does not take three channels", input.name));
        }
        Ok(ImageTower { session, input, output, width: 0, height: 0 })
    }

    /// Takes the size of images from the preprocessing, which must be the graph's own where that one is fixed.
    pub(super) fn reconcile(&mut self, preprocessing: Preprocessing) -> Result<Preprocessing, String> {
        let (width, height) = (preprocessing.width as usize, preprocessing.height as usize);
        let (fixed_width, fixed_height) = (self.input.fixed(3), self.input.fixed(2));
        if fixed_width.is_some_and(|fixed| fixed != width)
            || fixed_height.is_some_and(|fixed| fixed != height)
        {
            let size = |fixed: Option<usize>| fixed.map_or("any".to_owned(), |size| size.to_string());
            return Err(format!(
                "its image tower takes {} x {} pixels, and its preprocessing makes {width} x {height}",
                size(fixed_width),
                size(fixed_height)
            ));
        }
        (self.width, self.height) = (width, height);
        Ok(preprocessing)
    }

    /// The number of values of one image.
    pub(super) fn input_values(&self) -> usize {
        3 * self.height * self.width
    }

    /// The most images that one run takes.
    pub(super) fn batch_limit(&self) -> usize {
        self.input.fixed(0).unwrap_or(MAX_BATCH)
    }

    /// Runs the graph over at most [`ImageTower::batch_limit`] images: one row each, as the graph gives it.
    pub(super) fn run(&mut self, images: &[&[f32]]) -> Result<Vec<Vec<f32>>, String> {
        let batch = self.input.fixed(0).unwrap_or(images.len());
        // A graph of a fixed batch is filled up with images that nobody asked for.
        let filled = images.iter().cycle().take(batch);
        let values: Vec<f32> = filled.flat_map(|image| image.iter().copied()).collect();
        let shape = [batch, 3, self.height, self.width];
        let tensor = Tensor::from_array((shape, values)).map_err(|error| error.to_string())?;
        let outputs =
            self.session.run(vec![(self.input.name.as_str(), tensor)]).map_err(|error| error.to_string())?;
        rows(&outputs, &self.output, batch, images.len())
    }
}
