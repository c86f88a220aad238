//! The errors of the embedder, and how an application sees them.
//!
//! Messages are lower-case and without a full stop, details and hints are sentences, as PostgreSQL's own are. A hint
//! stands only where there is something to do.

use std::io;
use std::path::PathBuf;

use pg_clip_wire::{Failure, FailureKind, WireError};

/// Why an input has no embedding, or a model no session.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("image is empty")]
    EmptyImage,
    #[error("image has no pixels: it is {width} pixels wide and {height} high")]
    NoPixels { width: u32, height: u32 },
    #[error("image format is not recognised")]
    UnknownFormat,
    #[error("image format is not recognised: the bytes are {found}")]
    TextForImage { found: &'static str, hint: &'static str },
    #[error("{format} images are not supported")]
    UnsupportedFormat { format: &'static str },
    #[error("{format} image has a feature that is not supported")]
    UnsupportedFeature { format: &'static str, reason: String },
    #[error("{format} image cannot be decoded")]
    BrokenImage { format: &'static str, reason: String },
    #[error("image has {pixels} pixels, and at most {limit} are allowed")]
    TooManyPixels { width: u32, height: u32, pixels: u64, limit: u64 },
    #[error("image is {width} pixels wide and {height} high, and at most {limit} are allowed a side")]
    SideTooLong { width: u32, height: u32, limit: u32 },
    #[error("JPEG image has more than {limit} scans")]
    TooManyScans { limit: usize },
    #[error("image needs more memory than its decoder may take")]
    DecoderMemory { limit: u64 },
    #[error("image needs {needed} bytes to be decoded, and all decoders together may take {limit}")]
    AllDecodersMemory { needed: u64, limit: u64 },

    #[error("\"{name}\" is not a model's name")]
    BadModelName { name: String },
    #[error("model \"{name}\" is not installed")]
    UnknownModel { name: String, installed: Vec<String> },
    #[error("model \"{name}\" cannot be used")]
    UnusableModel { name: String, reason: String },
    #[error("ONNX Runtime cannot be used")]
    UnusableRuntime { path: PathBuf, reason: String },
    #[error("text cannot be tokenized")]
    Tokenizer { reason: String },
    #[error("model \"{model}\" gave {what}")]
    BadOutput { model: String, what: String },
    #[error("GPU failed with model \"{model}\"")]
    Gpu { model: String, reason: String },
    #[error("inference with model \"{model}\" failed")]
    Inference { model: String, reason: String },

    #[error("{name} is not beside this program")]
    NotBeside { name: &'static str, option: &'static str },
    #[error("{} cannot be started: {source}", program.display())]
    NoInstaller { program: PathBuf, source: io::Error },

    #[error("embedder has {limit} requests waiting and takes no more")]
    Overloaded { limit: usize },
    #[error("request breaks the protocol: {0}")]
    Protocol(#[from] WireError),
    #[error("internal error of the embedder: {0}")]
    Internal(String),

    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
}

impl Error {
    /// An operating system's error with what was tried, as in "cannot read tokenizer.json".
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }

    fn kind(&self) -> FailureKind {
        match self {
            Error::EmptyImage
            | Error::NoPixels { .. }
            | Error::BadModelName { .. }
            | Error::UnknownModel { .. } => FailureKind::InvalidParameter,
            Error::UnknownFormat | Error::TextForImage { .. } | Error::BrokenImage { .. } => {
                FailureKind::UndecodableImage
            }
            Error::UnsupportedFormat { .. } | Error::UnsupportedFeature { .. } => {
                FailureKind::UnsupportedFormat
            }
            Error::TooManyPixels { .. }
            | Error::SideTooLong { .. }
            | Error::TooManyScans { .. }
            | Error::DecoderMemory { .. }
            | Error::AllDecodersMemory { .. } => FailureKind::LimitExceeded,
            Error::Overloaded { .. } => FailureKind::Overloaded,
            Error::UnusableModel { .. }
            | Error::UnusableRuntime { .. }
            | Error::Gpu { .. }
            | Error::NotBeside { .. }
            | Error::NoInstaller { .. }
            | Error::Io { .. } => FailureKind::Configuration,
            Error::BadOutput { .. } => FailureKind::BadOutput,
            Error::Protocol(_) => FailureKind::Protocol,
            Error::Tokenizer { .. } | Error::Inference { .. } | Error::Internal(_) => FailureKind::Internal,
        }
    }

    fn detail(&self) -> String {
        match self {
            Error::BrokenImage { reason, .. }
            | Error::UnsupportedFeature { reason, .. }
            | Error::UnusableModel { reason, .. }
            | Error::Tokenizer { reason }
            | Error::Gpu { reason, .. }
            | Error::Inference { reason, .. } => sentence(reason),
            Error::UnusableRuntime { path, reason } => {
                format!("Library: {}. {}", path.display(), sentence(reason))
            }
            Error::TooManyPixels { width, height, .. } => {
                format!("The image is {width} pixels wide and {height} high.")
            }
            Error::DecoderMemory { limit } => format!("The limit is {limit} bytes."),
            Error::UnknownFormat | Error::TextForImage { .. } | Error::UnsupportedFormat { .. } => {
                "Supported formats are JPEG, PNG, WebP, GIF, BMP, TIFF, HEIC and AVIF.".to_owned()
            }
            _ => String::new(),
        }
    }

    fn hint(&self) -> String {
        match self {
            Error::UnknownModel { installed, .. } if installed.is_empty() => {
                "No model is installed.".to_owned()
            }
            Error::UnknownModel { installed, .. } => format!("Installed models: {}.", installed.join(", ")),
            Error::TooManyPixels { .. } => {
                "Scale the image down, or raise \"clip.max_image_pixels\".".to_owned()
            }
            Error::AllDecodersMemory { .. } => {
                "Scale the image down, or raise \"clip.decoder_memory\".".to_owned()
            }
            Error::TextForImage { hint, .. } => (*hint).to_owned(),
            Error::UnsupportedFormat { format } if format.ends_with("JPEG") => {
                "Convert the image to a baseline or progressive JPEG, PNG or WebP.".to_owned()
            }
            Error::UnsupportedFormat { .. } => "Convert the image to JPEG, PNG or WebP.".to_owned(),
            Error::Overloaded { .. } => "Try again later, or with fewer connections.".to_owned(),
            Error::BadModelName { .. } => {
                "A model's name has letters, digits, dots, hyphens and underscores.".to_owned()
            }
            Error::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                let user = user();
                format!(
                    "The program runs as user \"{user}\". Give that user the permission, or run the program as one that has it, such as with sudo."
                )
            }
            Error::NotBeside { option, .. } => format!("Give {option}."),
            Error::NoInstaller { .. } => {
                "It is installed together with this program, and lies beside it: install pg_clip once more."
                    .to_owned()
            }
            Error::Gpu { .. } => "Try again: the processor computes from now on.".to_owned(),
            Error::UnusableRuntime { .. } => {
                "Set \"clip.onnxruntime_library\" to the file of an ONNX Runtime of version 1.24 or later."
                    .to_owned()
            }
            _ => String::new(),
        }
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Failure {
        Failure::new(error.kind(), error.to_string()).with_detail(error.detail()).with_hint(error.hint())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::from(&error)
    }
}

/// The name of the user that this process runs as; its number where there is no name, or where it cannot be looked up.
fn user() -> String {
    let id = nix::unistd::geteuid();
    nix::unistd::User::from_uid(id).ok().flatten().map_or_else(|| id.to_string(), |user| user.name)
}

/// Another library's message as a sentence of ours.
pub fn sentence(reason: &str) -> String {
    let reason = reason.trim().trim_end_matches('.');
    let mut characters = reason.chars();
    match characters.next() {
        Some(first) => format!("{}{}.", first.to_uppercase(), characters.as_str()),
        None => String::new(),
    }
}
