//! The errors while a model is installed.
//!
//! The embedder's error about a model or a file is passed on as it is; see its own table.

use std::io;
use std::path::PathBuf;

use pg_clip_embedder::Error as EmbedderError;
use pg_clip_embedder::sentence;
use pg_clip_wire::{Failure, FailureKind};

/// Why a model was not installed, listed or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Embedder(#[from] EmbedderError),
    #[error("\"{text}\" is not a repository")]
    BadRepository { text: String },
    #[error("environment variable {variable} cannot be used")]
    BadEnvironment { variable: &'static str, reason: String },
    #[error("{url} cannot be fetched")]
    Unreachable { url: String, reason: String, transient: bool, unreached: bool },
    #[error("hub has no {what}")]
    NotOnHub { what: String, url: String },
    #[error("hub does not give out repository \"{repository}\"")]
    Forbidden { repository: String, token: HubToken, reason: String },
    #[error("repository \"{repository}\" cannot be installed")]
    UnusableRepository { repository: String, reason: String },
    #[error("folder {} cannot be installed", path.display())]
    UnusableFolder { path: PathBuf, reason: String },
    #[error("model has no variant \"{variant}\"")]
    UnknownVariant { variant: String, available: Vec<String> },
    #[error("file \"{file}\" is another one than expected")]
    WrongFile { file: String, expected: String, found: String },
    #[error("{} is no record of a model", path.display())]
    BadRecord { path: PathBuf, reason: String },
    #[error("model \"{name}\" is installed already")]
    AlreadyInstalled { name: String },
    #[error("model \"{name}\" is being installed or removed by another process")]
    Busy { name: String },
    #[error("model \"{name}\" cannot be quantized")]
    Unquantizable { name: String, reason: String },
    #[error("model \"{name}\" loses too much in 8 bits")]
    TooUnlike { name: String, images: f64, texts: f64, least: f64 },
    #[error("models directory {} cannot be written: {source}", path.display())]
    Unwritable { path: PathBuf, source: io::Error },
}

/// Whether there was an access token for a hub, and whether the hub took it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HubToken {
    /// There is none.
    None,
    Accepted,
    /// The hub does not know it; `source` is the variable or the file that it is from.
    Refused {
        source: String,
    },
}

impl Error {
    /// An operating system's error with what was tried, as in "cannot read tokenizer.json".
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let cannot = EmbedderError::io(what);
        move |source| cannot(source).into()
    }

    fn detail(&self) -> String {
        match self {
            Error::BadEnvironment { reason, .. }
            | Error::Unreachable { reason, .. }
            | Error::UnusableRepository { reason, .. }
            | Error::UnusableFolder { reason, .. }
            | Error::BadRecord { reason, .. }
            | Error::Unquantizable { reason, .. } => sentence(reason),
            Error::NotOnHub { url, .. } => format!("The hub does not know {url}."),
            Error::Forbidden { reason, .. } => {
                format!("It is gated, private, or not there. {}", sentence(reason))
            }
            Error::WrongFile { expected, found, .. } => format!("Expected: {expected}. Found: {found}."),
            Error::TooUnlike { images, texts, least, .. } => format!(
                "Mean cosine to its own vectors: {images:.4} of images, {texts:.4} of texts, and at least {least} of \
                 each is demanded. Nothing was installed."
            ),
            _ => String::new(),
        }
    }

    fn hint(&self) -> String {
        match self {
            Error::Embedder(EmbedderError::Io { source, .. }) if is_full(source) => {
                "Make room and give the same command again, or discard the files with `remove`.".to_owned()
            }
            Error::BadRepository { .. } => {
                "Give it as OWNER/NAME or OWNER/NAME@REVISION, or give a name that `pg_clip_embedder catalogue` lists.".to_owned()
            }
            Error::Forbidden { token: HubToken::None, .. } => {
                "Set HF_TOKEN to an access token of an account that may read it.".to_owned()
            }
            Error::Forbidden { token: HubToken::Refused { source }, .. } => format!(
                "The hub refused the token of {source}: set HF_TOKEN to a valid one of an account that may read it."
            ),
            Error::Forbidden { token: HubToken::Accepted, .. } => {
                "Accept its terms on its page, or set HF_TOKEN to the token of an account that may read it."
                    .to_owned()
            }
            Error::UnknownVariant { available, .. } => format!("Its variants: {}.", available.join(", ")),
            Error::Unreachable { unreached: true, .. } => {
                "The same command continues where it stopped. A firewall must let through the host of HF_ENDPOINT, \
                 which is huggingface.co by default, and the hosts that it redirects to: *.hf.co and *.xethub.hf.co."
                    .to_owned()
            }
            Error::Unreachable { transient: true, .. } => "The same command continues where it stopped.".to_owned(),
            Error::Unwritable { .. } => {
                "Run it as a user that can write there, such as with sudo. Or give --models-directory another folder, and set \"clip.models_directory\" to it.".to_owned()
            }
            Error::AlreadyInstalled { .. } => {
                "Give --replace to replace it, or --name to install another one beside it.".to_owned()
            }
            _ => String::new(),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let failure = match &error {
            Error::Embedder(error) => Failure::from(error),
            _ => Failure::new(FailureKind::Configuration, error.to_string()).with_detail(error.detail()),
        };
        match error.hint() {
            hint if hint.is_empty() => failure,
            hint => failure.with_hint(hint),
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}
