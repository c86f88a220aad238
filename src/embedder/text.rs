//! Texts: tokenized, and remembered.

mod cache;
mod tokenizer;

pub(crate) use self::cache::Cache;
pub(crate) use self::tokenizer::Tokenizer;
