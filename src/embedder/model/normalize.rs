//! The length of vectors.

/// Scales a vector to length 1, in f32, or says what is wrong with it.
pub(super) fn normalize(mut vector: Vec<f32>) -> Result<Vec<f32>, &'static str> {
    let norm = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    if !norm.is_finite() {
        return Err("a vector that is not finite");
    }
    if norm < f32::MIN_POSITIVE {
        return Err("a vector of length 0");
    }
    vector.iter_mut().for_each(|value| *value /= norm);
    Ok(vector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_gets_length_1() {
        assert_eq!(normalize(vec![3.0, 4.0]), Ok(vec![0.6, 0.8]));
    }

    #[test]
    fn a_vector_without_a_direction_is_refused() {
        assert!(normalize(vec![0.0; 4]).is_err());
        assert!(normalize(vec![1.0, f32::NAN]).is_err());
        assert!(normalize(vec![1.0, f32::INFINITY]).is_err());
    }
}
