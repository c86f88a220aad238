//! A matrix in 8 bits.
//!
//! Symmetric, with a scale for each column, which is a channel of the product's result: `q = round(w / s)` with `s
//! = max |w| / 127` over the column, rounded half to even. ONNX Runtime's `quantize_dynamic` does the same with
//! `per_channel=True` and `weight_type=QInt8`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use half::{bf16, f16};

use super::onnx::{self, Tensor};
use super::products::Weights;

/// A matrix `[rows, columns]` in 8 bits, row by row.
#[derive(Debug, PartialEq)]
pub(super) struct Quantized {
    /// Bytes of i8.
    pub values: Vec<u8>,
    /// One for each column.
    pub scales: Vec<f32>,
}

const LARGEST: f32 = 127.0;

/// Quantizes the matrix that is `factor` times the values of a tensor, which has `weights.rows × weights.columns` of
/// them.
pub(super) fn quantize(values: &[f32], weights: &Weights, factor: f32) -> Result<Quantized, String> {
    let Weights { rows, columns, transposed, .. } = *weights;
    let at = |row: usize, column: usize| {
        factor * if transposed { values[column * rows + row] } else { values[row * columns + column] }
    };
    let mut scales = vec![0_f32; columns];
    for row in 0..rows {
        for (column, scale) in scales.iter_mut().enumerate() {
            let value = at(row, column).abs();
            if !value.is_finite() {
                return Err(format!("tensor {} has a value that is not finite", weights.tensor));
            }
            *scale = scale.max(value);
        }
    }
    // A column of nothing but zeros has any scale.
    let scale = |largest: f32| if largest / LARGEST > 0.0 { largest / LARGEST } else { 1.0 };
    scales.iter_mut().for_each(|largest| *largest = scale(*largest));
    let mut quantized = Vec::with_capacity(rows * columns);
    for row in 0..rows {
        for (column, scale) in scales.iter().enumerate() {
            let value = (at(row, column) / scale).round_ties_even().clamp(-LARGEST, LARGEST);
            quantized.push((value as i8).cast_unsigned());
        }
    }
    Ok(Quantized { values: quantized, scales })
}

/// The values of a tensor of f32, f16 or bf16; values in a file are looked for in `folder`.
pub(super) fn values(tensor: &Tensor, folder: &Path) -> Result<Vec<f32>, String> {
    let count = tensor.shape.iter().try_fold(1_i64, |count, size| count.checked_mul(*size)).unwrap_or(-1);
    let bytes = if tensor.is_external() { outside(tensor, folder)? } else { tensor.raw.to_vec() };
    let pairs = || bytes.chunks_exact(2).map(|pair| [pair[0], pair[1]]);
    // In a graph without raw bytes, the 16 bits of a half stand in an i32.
    let halves = || tensor.ints.iter().map(|bits| (*bits as u16).to_le_bytes());
    let values: Vec<f32> = match tensor.element {
        onnx::FLOAT if bytes.is_empty() => tensor.floats.clone(),
        onnx::FLOAT => bytes
            .chunks_exact(4)
            .map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]))
            .collect(),
        onnx::FLOAT16 => pairs().chain(halves()).map(|pair| f16::from_le_bytes(pair).to_f32()).collect(),
        onnx::BFLOAT16 => pairs().chain(halves()).map(|pair| bf16::from_le_bytes(pair).to_f32()).collect(),
        other => return Err(format!("tensor {} is of the element type {other}", tensor.name)),
    };
    if i64::try_from(values.len()) != Ok(count) {
        return Err(format!(
            "tensor {} has {} values where its shape says {count}",
            tensor.name,
            values.len()
        ));
    }
    Ok(values)
}

/// The bytes of a tensor in a file beside its graph.
pub(super) fn outside(tensor: &Tensor, folder: &Path) -> Result<Vec<u8>, String> {
    let place = tensor.external()?;
    let path = folder.join(&place.location);
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = File::open(&path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let length = place.length.unwrap_or_else(|| size.saturating_sub(place.offset));
    if place.offset.checked_add(length).is_none_or(|end| end > size) {
        return Err(format!("{} ends before tensor {}", path.display(), tensor.name));
    }
    let length = usize::try_from(length).map_err(|error| error.to_string())?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, place.offset).map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(rows: usize, columns: usize, transposed: bool) -> Weights {
        Weights { tensor: "w".to_owned(), constant: None, transposed, rows, columns }
    }

    #[test]
    fn each_column_uses_its_whole_range() {
        let quantized = quantize(&[1.0, -0.5, 0.0, -2.0, 0.25, 0.0], &weights(2, 3, false), 1.0).unwrap();
        assert_eq!(quantized.scales, [2.0 / 127.0, 0.5 / 127.0, 1.0]);
        let values: Vec<i8> = quantized.values.iter().map(|value| value.cast_signed()).collect();
        // 63.5 is rounded to the even 64.
        assert_eq!(values, [64, -127, 0, -127, 64, 0]);
    }

    #[test]
    fn a_transposed_matrix_and_a_factor_are_the_same_as_without() {
        let straight = quantize(&[2.0, -1.0, 0.0, -4.0, 0.5, 6.0], &weights(2, 3, false), 1.0).unwrap();
        let turned = quantize(&[1.0, -2.0, -0.5, 0.25, 0.0, 3.0], &weights(2, 3, true), 2.0).unwrap();
        assert_eq!(straight, turned);
    }

    #[test]
    fn values_that_are_not_finite_are_refused() {
        for value in [f32::NAN, f32::INFINITY] {
            assert!(quantize(&[1.0, value], &weights(1, 2, false), 1.0).unwrap_err().contains("not finite"));
        }
    }

    #[test]
    fn values_are_read_in_every_form() {
        let expected = [1.0, -2.5];
        let tensor = |element, raw: Vec<u8>| Tensor::inside("w", element, &[1, 2], raw);
        let raw = expected.iter().flat_map(|value: &f32| value.to_le_bytes()).collect();
        let halves = expected.map(|value| f16::from_f32(value).to_bits());
        let cases = [
            tensor(onnx::FLOAT, raw),
            Tensor { floats: expected.to_vec(), ..tensor(onnx::FLOAT, Vec::new()) },
            tensor(onnx::FLOAT16, halves.iter().flat_map(|bits| bits.to_le_bytes()).collect()),
            Tensor { ints: halves.map(i32::from).to_vec(), ..tensor(onnx::FLOAT16, Vec::new()) },
            tensor(
                onnx::BFLOAT16,
                expected.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect(),
            ),
        ];
        for tensor in cases {
            assert_eq!(values(&tensor, Path::new("")).unwrap(), expected, "{tensor:?}");
        }
        assert!(values(&tensor(onnx::FLOAT, vec![0; 4]), Path::new("")).is_err());
    }
}
