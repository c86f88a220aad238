//! Texts: cleaned, tokenized, and remembered.

mod cache;
mod cleaning;
mod openai;
#[cfg(test)]
mod parity;
mod tokenizer;

pub(crate) use self::cache::Cache;
pub(crate) use self::cleaning::Cleaning;
pub(crate) use self::tokenizer::Tokenizer;
