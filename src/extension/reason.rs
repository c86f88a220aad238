//! Why a call is refused: a reason, which has a SQLSTATE, and words.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    DependentObjects,
    InUse,
    InvalidName,
    InvalidParameter,
    NotAllowed,
    NotReady,
    NotSupported,
    NullArgument,
    UndefinedColumn,
    UndefinedRole,
    UndefinedTable,
    WrongObject,
    WrongType,
}

#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    pub(crate) message: String,
    pub(crate) detail: Option<String>,
    pub(crate) hint: Option<String>,
}
