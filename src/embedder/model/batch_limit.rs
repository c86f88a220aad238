//! How many inputs one run of a graph may take.

use super::tensor::TensorInfo;

/// Beyond it a processor gains nothing, and the first of a batch waits for the last.
const MOST: usize = 16;

/// Enough to keep a GPU busy.
pub(super) const MOST_ON_GPU: usize = 64;

/// The most inputs of a run of the graph that takes them as `input`: 1 where it quantizes by the largest value of a whole
/// batch, its own number where that is fixed.
pub(super) fn batch_limit(input: &TensorInfo, quantizes_dynamically: bool, on_gpu: bool) -> usize {
    let most = if on_gpu { MOST_ON_GPU } else { MOST };
    if quantizes_dynamically { 1 } else { input.fixed(0).unwrap_or(most) }
}
