//! The errors that pg_clip raises, with the SQLSTATE, detail and hint that an application sees.
//!
//! Errors are an interface: an application branches on the SQLSTATE, so each variant has one and keeps it.
//! `XX000` means a defect of pg_clip.

use pg_clip_wire::{Failure, FailureKind, MAX_TEXT_BYTES, PROTOCOL, WireError};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode, pg_sys};

use crate::failure::Failure as CaughtFailure;
use crate::notice;
use crate::reason::{Reason, Refusal};
use crate::sqlstate;
use crate::version::VERSION;
use crate::watch::identity::name_of;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}")]
    Embedder(#[from] Failure),
    #[error("image of {bytes} bytes exceeds clip.max_image_bytes ({limit})")]
    ImageTooLarge { bytes: usize, limit: usize },
    #[error("text of {0} bytes exceeds the limit of {MAX_TEXT_BYTES} bytes")]
    TextTooLong(usize),
    #[error("text is not valid UTF-8")]
    TextNotUtf8,
    #[error("\"{0}\" is not the name of a model")]
    BadModelName(String),
    #[error("the embedder was not ready within {0} ms")]
    NotRunning(u128),
    #[error("the embedder did not answer within {0} ms")]
    TimedOut(u128),
    #[error("the embedder ended during the request")]
    Died,
    #[error("the embedder broke the protocol: {0}")]
    Wire(#[from] WireError),
    #[error("the embedder answered out of turn")]
    OutOfTurn,
    #[error("the embedder sent a vector that is not normalised")]
    NotNormalised,
    #[error("the embedder sent a vector of {found} dimensions of a model whose vectors have {known}")]
    OtherDimensions { found: usize, known: usize },
    #[error("the embedder speaks protocol {theirs} (release {release}), this library speaks {PROTOCOL}")]
    OtherProtocol { theirs: u16, release: String },
    /// It may make other vectors of the same inputs.
    #[error("the embedder is of version {0}, the library of version {VERSION}")]
    OtherEmbedder(String),
    /// The library does not know the tables of this version of the extension.
    #[error("the library is of version {VERSION}, the extension of version {0}")]
    OtherVersion(String),
    #[error("the process behind pg_clip's socket belongs to another user")]
    ForeignPeer,
    #[error("no file descriptor is free for a connection to the embedder")]
    NoDescriptor,
    #[error("the embedder does not take more connections now")]
    Backlog,
    #[error("no background worker slot is free for pg_clip's {0}")]
    NoWorkerSlot(&'static str),
    #[error("could not {action}: {cause}")]
    System { action: &'static str, cause: std::io::Error },
    #[error("function clip_fill_image_embeddings must be called by a trigger AFTER ... FOR EACH STATEMENT")]
    NotAStatementTrigger,
    #[error("trigger \"{0}\" has no transition table {1}")]
    NoTransitionTable(String, &'static str),
    #[error("must be owner of table {0}")]
    NotOwner(String),
    #[error("permission denied for table {0}")]
    NoPrivilege(String),
    #[error("relation {0} does not exist")]
    NoTable(String),
    #[error("relation {0} is not a table")]
    NotATable(String),
    #[error("column \"{column}\" of table {table} does not exist")]
    NoColumn { column: String, table: String },
    #[error("column \"{column}\" of table {table} is of type {found}, not {wanted}")]
    ColumnType { column: String, table: String, found: String, wanted: String },
    #[error("column \"{column}\" of table {table} is a virtual generated column")]
    VirtualColumn { column: String, table: String },
    #[error("column {column} of table {table} is not unique")]
    NotUnique { column: String, table: String },
    #[error("type {0} has no default operator for equality")]
    NoEquality(String),
    #[error("table {0} cannot take its own embeddings")]
    OwnTarget(String),
    #[error("table {watched} and its target {target} have different owners")]
    OwnersDiffer { watched: String, target: String },
    /// A statement of ours would have used it.
    #[error("{0} is not the object that pg_clip has looked up")]
    Namesake(String),
    #[error("deferrable constraints in schema {0} have the names of other constraints there")]
    SharedConstraint(String),
    #[error("table {table} and its partition {partition} have different owners")]
    PartitionOwner { table: String, partition: String },
    #[error("could not obtain a lock on table {0}")]
    Locked(String),
    #[error("other transactions have locked the photos of table {0}")]
    LockedPhotos(String),
    #[error("a row's column {column} is of another type than its statement asks for ({found})")]
    RowType { column: i32, found: pg_sys::Oid },
    #[error("a stored vector is not whole")]
    BrokenVector,
    #[error("the function does not belong to the extension pg_clip")]
    NoExtension,
    #[error("table {0} is not watched")]
    NotWatched(String),
    #[error("table {table} holds vectors of model {held}, not {model}")]
    OtherModel { table: String, held: String, model: String },
    /// The embedder runs and cannot embed with this model.
    #[error("{1}")]
    ModelAway(String, Box<Error>),
    #[error("{}", .0.message)]
    Queue(CaughtFailure),
    #[error("{0}")]
    Refused(#[source] Box<Refusal>),
    #[error("the model changed during the statement")]
    ModelChanged,
    #[error("SPI answered {0}")]
    Spi(i32),
    #[error("{error}")]
    Photo { key: String, table: String, error: Box<Error> },
    #[error("{error}")]
    Element { position: usize, error: Box<Error> },
}

impl Error {
    /// A failed system call of ours.
    pub(crate) fn system(action: &'static str, cause: impl Into<std::io::Error>) -> Error {
        Error::System { action, cause: cause.into() }
    }

    /// Reports the error to PostgreSQL, which ends the statement.
    #[track_caller]
    pub(crate) fn raise(self) -> ! {
        let mut report = ErrorReport::new(self.sqlstate(), self.to_string(), "pg_clip");
        if let Some(detail) = self.detail() {
            report = report.set_detail(detail);
        }
        if let Some(hint) = self.hint() {
            report = report.set_hint(hint);
        }
        report.report(PgLogLevel::ERROR);
        unreachable!("an ERROR does not return")
    }

    /// Writes the error, for which photos wait, to the server's log, with its hint.
    pub(crate) fn log(self) {
        notice::tell(PgLogLevel::LOG, &format!("pg_clip: photos wait: {self}"), self.hint().as_deref());
    }

    /// The SQLSTATE as applications know it: five characters.
    pub(crate) fn sqlstate_text(&self) -> String {
        sqlstate::text_of(self.sqlstate())
    }

    pub(crate) fn sqlstate(&self) -> PgSqlErrorCode {
        use PgSqlErrorCode as Code;
        match self {
            Error::Embedder(failure) => match failure.kind {
                FailureKind::InvalidParameter => Code::ERRCODE_INVALID_PARAMETER_VALUE,
                FailureKind::UndecodableImage => Code::ERRCODE_INVALID_BINARY_REPRESENTATION,
                FailureKind::UnsupportedFormat => Code::ERRCODE_FEATURE_NOT_SUPPORTED,
                FailureKind::LimitExceeded => Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                FailureKind::Overloaded => Code::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
                FailureKind::Configuration => Code::ERRCODE_CONFIG_FILE_ERROR,
                FailureKind::BadOutput | FailureKind::Protocol => Code::ERRCODE_PROTOCOL_VIOLATION,
                FailureKind::OutOfMemory => Code::ERRCODE_OUT_OF_MEMORY,
                FailureKind::Internal => Code::ERRCODE_INTERNAL_ERROR,
            },
            Error::ImageTooLarge { .. } | Error::TextTooLong(_) => Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            Error::TextNotUtf8 => Code::ERRCODE_CHARACTER_NOT_IN_REPERTOIRE,
            Error::BadModelName(_) => Code::ERRCODE_INVALID_PARAMETER_VALUE,
            Error::NotRunning(_) => Code::ERRCODE_CANNOT_CONNECT_NOW,
            Error::TimedOut(_) => Code::ERRCODE_QUERY_CANCELED,
            Error::Died => Code::ERRCODE_CONNECTION_FAILURE,
            Error::Wire(_)
            | Error::OutOfTurn
            | Error::NotNormalised
            | Error::OtherDimensions { .. }
            | Error::ForeignPeer => Code::ERRCODE_PROTOCOL_VIOLATION,
            Error::OtherProtocol { .. }
            | Error::OtherEmbedder(_)
            | Error::OtherVersion(_)
            | Error::NotWatched(_)
            | Error::OtherModel { .. } => Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            Error::NotOwner(_) | Error::NoPrivilege(_) => Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
            Error::NoTable(_) => Code::ERRCODE_UNDEFINED_TABLE,
            Error::NotATable(_) => Code::ERRCODE_WRONG_OBJECT_TYPE,
            Error::NoColumn { .. } => Code::ERRCODE_UNDEFINED_COLUMN,
            Error::ColumnType { .. } | Error::RowType { .. } => Code::ERRCODE_DATATYPE_MISMATCH,
            Error::VirtualColumn { .. } => Code::ERRCODE_FEATURE_NOT_SUPPORTED,
            Error::NoEquality(_) => Code::ERRCODE_UNDEFINED_FUNCTION,
            Error::OwnTarget(_) => Code::ERRCODE_INVALID_PARAMETER_VALUE,
            Error::NotUnique { .. }
            | Error::OwnersDiffer { .. }
            | Error::PartitionOwner { .. }
            | Error::NoExtension
            | Error::SharedConstraint(_)
            | Error::Namesake(_) => Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            Error::Locked(_) | Error::LockedPhotos(_) => Code::ERRCODE_LOCK_NOT_AVAILABLE,
            Error::BrokenVector => Code::ERRCODE_DATA_CORRUPTED,
            Error::NoDescriptor => Code::ERRCODE_TOO_MANY_CONNECTIONS,
            Error::Backlog | Error::NoWorkerSlot(_) => Code::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
            Error::System { .. } => Code::ERRCODE_SYSTEM_ERROR,
            Error::NotAStatementTrigger | Error::NoTransitionTable(..) => {
                Code::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED
            }
            Error::Refused(refusal) => match refusal.reason {
                Reason::DependentObjects => Code::ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
                Reason::InUse => Code::ERRCODE_OBJECT_IN_USE,
                Reason::InvalidName => Code::ERRCODE_INVALID_NAME,
                Reason::InvalidParameter => Code::ERRCODE_INVALID_PARAMETER_VALUE,
                Reason::NotAllowed => Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                Reason::NotReady => Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                Reason::NotSupported => Code::ERRCODE_FEATURE_NOT_SUPPORTED,
                Reason::NullArgument => Code::ERRCODE_NULL_VALUE_NOT_ALLOWED,
                Reason::UndefinedColumn => Code::ERRCODE_UNDEFINED_COLUMN,
                Reason::UndefinedRole => Code::ERRCODE_UNDEFINED_OBJECT,
                Reason::UndefinedTable => Code::ERRCODE_UNDEFINED_TABLE,
                Reason::WrongObject => Code::ERRCODE_WRONG_OBJECT_TYPE,
                Reason::WrongType => Code::ERRCODE_DATATYPE_MISMATCH,
            },
            Error::ModelChanged => Code::ERRCODE_T_R_SERIALIZATION_FAILURE,
            Error::Queue(failure) => failure.code,
            Error::Spi(_) => Code::ERRCODE_INTERNAL_ERROR,
            Error::ModelAway(_, error) | Error::Photo { error, .. } | Error::Element { error, .. } => {
                error.sqlstate()
            }
        }
    }

    fn detail(&self) -> Option<String> {
        let own = match self {
            Error::Embedder(failure) => Some(failure.detail.clone()).filter(|detail| !detail.is_empty()),
            Error::NotRunning(_) => Some("The server log says why it is not running.".to_owned()),
            Error::Refused(refusal) => refusal.detail.clone(),
            _ => None,
        };
        match self {
            Error::Photo { key, table, error } => {
                let place = format!("The photo is that of key {key} in table {table}.");
                Some(error.detail().map_or(place.clone(), |detail| format!("{detail}\n{place}")))
            }
            Error::Element { position, error } => {
                let place = format!("The input is element {position} of the array.");
                Some(error.detail().map_or(place.clone(), |detail| format!("{detail}\n{place}")))
            }
            _ => own,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Embedder(failure) => Some(failure.hint.clone()).filter(|hint| !hint.is_empty()),
            Error::BadModelName(_) => {
                Some("A model is named by the folder that it is installed in, never by a path.".to_owned())
            }
            Error::OtherProtocol { .. } => Some("Install pg_clip again, then restart the server.".to_owned()),
            Error::OtherEmbedder(_) => Some(
                "Restart the server: files that it runs were replaced. If that does not help, install both of one version."
                    .to_owned(),
            ),
            Error::OtherVersion(_) => Some(
                "ALTER EXTENSION pg_clip UPDATE. Where the extension is the newer one, install its library and restart the server."
                    .to_owned(),
            ),
            Error::NoDescriptor => Some("Raise max_files_per_process.".to_owned()),
            Error::NoWorkerSlot(_) => {
                Some("Raise max_worker_processes, or add pg_clip to shared_preload_libraries.".to_owned())
            }
            Error::NotAStatementTrigger => Some(
                "SELECT clip_watch('...') creates the triggers; to write them yourself, see docs/watching.md."
                    .to_owned(),
            ),
            Error::NoTransitionTable(_, clause) => {
                Some(format!("Create the trigger with REFERENCING {clause} AS ...."))
            }
            Error::OtherModel { table, held, model } => {
                let [name, held] = [model, held].map(|identity| name_of(identity));
                Some(format!(
                    "Set clip.model to '{held}', or move the table to the other model: CALL clip_migrate('{table}', '{name}')."
                ))
            }
            Error::NoColumn { .. } | Error::ColumnType { .. } => Some(
                "Source and target need columns of the same types. SELECT clip_watch('...') again can name other columns."
                    .to_owned(),
            ),
            Error::Namesake(_) => {
                Some("Its schema was renamed meanwhile, or it was made by another role: try again.".to_owned())
            }
            Error::SharedConstraint(schema) => {
                Some(format!("GRANT USAGE ON SCHEMA {schema} to the role of the session, or rename the constraints."))
            }
            Error::NotUnique { column, table } => {
                Some(format!("CREATE UNIQUE INDEX ON {table} ({column})"))
            }
            Error::OwnersDiffer { watched, target } => {
                Some(format!("Give both the same owner: ALTER TABLE {target} OWNER TO the owner of {watched}."))
            }
            Error::PartitionOwner { table, partition } => {
                Some(format!("Give both the same owner: ALTER TABLE {partition} OWNER TO the owner of {table}."))
            }
            Error::NotWatched(table) => Some(format!("SELECT clip_watch('{table}')")),
            Error::Refused(refusal) => refusal.hint.clone(),
            Error::Photo { error, .. } | Error::Element { error, .. } => error.hint(),
            _ => None,
        }
    }
}

impl From<Error> for CaughtFailure {
    fn from(error: Error) -> CaughtFailure {
        let model = match &error {
            Error::ModelAway(model, _) => Some(model.clone()),
            _ => None,
        };
        CaughtFailure { code: error.sqlstate(), message: error.to_string(), model, took_too_long: false }
    }
}

impl From<CaughtFailure> for Error {
    fn from(failure: CaughtFailure) -> Error {
        Error::Queue(failure)
    }
}
