//! The inputs and outputs of a graph, as it declares them, and the tensors that go in and come out.

use std::borrow::Cow;
use std::fmt;

use half::f16;
use ort::value::{DynValue, Outlet, Tensor, TensorElementType, ValueType};

/// An input or output that is a tensor.
#[derive(Debug, Clone)]
pub(super) struct TensorInfo {
    pub name: String,
    pub element: TensorElementType,
    /// Negative where the dimension is dynamic.
    pub shape: Vec<i64>,
}

impl TensorInfo {
    pub(super) fn of(outlet: &Outlet) -> Option<TensorInfo> {
        let ValueType::Tensor { ty, shape, .. } = outlet.dtype() else { return None };
        Some(TensorInfo { name: outlet.name().to_owned(), element: *ty, shape: shape.to_vec() })
    }

    /// The size of a dimension that is fixed.
    pub(super) fn fixed(&self, dimension: usize) -> Option<usize> {
        usize::try_from(*self.shape.get(dimension)?).ok().filter(|size| *size > 0)
    }

    /// A tensor of ones, with `sizes` for the dynamic dimensions: the value of an input whose result is not read. 1
    /// is a pixel, a token and a mask alike.
    pub(super) fn ones(&self, sizes: &[usize]) -> Result<DynValue, String> {
        let shape: Vec<usize> = sizes
            .iter()
            .enumerate()
            .map(|(dimension, size)| self.fixed(dimension).unwrap_or(*size))
            .collect();
        let count = shape.iter().product();
        let tensor = match self.element {
            TensorElementType::Float32 => {
                Tensor::from_array((shape, vec![1.0f32; count])).map(Tensor::into_dyn)
            }
            TensorElementType::Float16 => {
                Tensor::from_array((shape, vec![f16::ONE; count])).map(Tensor::into_dyn)
            }
            TensorElementType::Uint8 => Tensor::from_array((shape, vec![1u8; count])).map(Tensor::into_dyn),
            TensorElementType::Int32 => Tensor::from_array((shape, vec![1i32; count])).map(Tensor::into_dyn),
            _ => Tensor::from_array((shape, vec![1i64; count])).map(Tensor::into_dyn),
        };
        tensor.map_err(|error| error.to_string())
    }
}

/// As in `pixel_values f32[*, 3, 224, 224]`, with a star for a dynamic dimension.
impl fmt::Display for TensorInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = |size: &i64| if *size > 0 { size.to_string() } else { "*".to_owned() };
        let shape: Vec<String> = self.shape.iter().map(size).collect();
        write!(f, "{} {}[{}]", self.name, self.element, shape.join(", "))
    }
}

/// The output that is the embedding: `[batch, dimensions]` in f32 or f16.
#[derive(Debug)]
pub(super) struct Output {
    pub name: String,
    is_half: bool,
}

impl Output {
    /// An output that declares no shape is held to one at each run.
    pub(super) fn of(info: &TensorInfo) -> Result<Output, String> {
        if !matches!(info.element, TensorElementType::Float32 | TensorElementType::Float16) {
            return Err(format!("its output {info} has neither 32-bit nor 16-bit floats"));
        }
        if !matches!(info.shape.len(), 0 | 2) {
            return Err(format!(
                "its output {info} has {} dimensions where an embedding has two, batch and length",
                info.shape.len()
            ));
        }
        Ok(Output { name: info.name.clone(), is_half: info.element == TensorElementType::Float16 })
    }

    /// The first `wanted` rows of the result of a run over `batch` inputs.
    pub(super) fn rows(
        &self,
        output: &DynValue,
        batch: usize,
        wanted: usize,
    ) -> Result<Vec<Vec<f32>>, String> {
        let failed = |error: ort::Error| error.to_string();
        let (shape, values) = if self.is_half {
            let (shape, values) = output.try_extract_tensor::<f16>().map_err(failed)?;
            (shape, Cow::Owned(values.iter().map(|value| value.to_f32()).collect()))
        } else {
            let (shape, values) = output.try_extract_tensor::<f32>().map_err(failed)?;
            (shape, Cow::Borrowed(values))
        };
        match **shape {
            [rows, dimensions] if rows == batch as i64 && dimensions > 0 => {
                Ok(values.chunks_exact(dimensions as usize).take(wanted).map(<[f32]>::to_vec).collect())
            }
            _ => Err(format!("its output {} has the shape {shape} for a batch of {batch}", self.name)),
        }
    }
}
