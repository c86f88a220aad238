//! The names that a model may have: a folder in the folder of the models, and never a path.

/// The longest name, in bytes.
pub const MAX_MODEL_NAME: usize = 63;

/// Whether `name` may be the name of a model: 1 to 63 letters, digits, `.`, `_` and `-`, the first of them no dot.
pub fn is_model_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=MAX_MODEL_NAME).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::is_model_name;

    #[test]
    fn names_are_not_paths() {
        for name in ["demo", "clip-vit-base-patch32", "ViT-B-32__openai", "a.b", &"x".repeat(63)] {
            assert!(is_model_name(name), "{name}");
        }
        for name in ["", ".", "..", ".hidden", "a/b", "../demo", "a b", "a\0", "é", &"x".repeat(64)] {
            assert!(!is_model_name(name), "{name}");
        }
    }
}
