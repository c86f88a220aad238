//! The arguments of `clip_watch`.

use pgrx::pg_sys;

use crate::encoding::c_string;
use crate::error::Error;
use crate::refusal::{Reason, refuse};
use crate::varlena::Utf8;
use crate::watch::extension_schema::ExtensionSchema;
use crate::watch::registry::argument;
use crate::watch::registry::oid_of;

/// Names as the catalogs have them, not quoted.
pub(super) struct Request {
    pub(super) source: pg_sys::Oid,
    /// The name of the target, as SQL has it.
    pub(super) target: String,
    pub(super) mode: String,
    /// The column of the photos, or of their references.
    pub(super) image: String,
    pub(super) is_by_reference: bool,
    pub(super) key: Option<String>,
    pub(super) project: Option<String>,
    pub(super) target_key: String,
    pub(super) embedding: String,
    pub(super) checksum: String,
    pub(super) model: String,
    pub(super) target_project: Option<String>,
    /// The type of the embeddings.
    pub(super) storage: Option<Storage>,
    /// Whether rows that logical replication applies are embedded too.
    pub(super) is_replicated: bool,
}

/// How an embedding is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Storage {
    /// 4 bytes a dimension.
    Vector,
    /// 2 bytes a dimension.
    Halfvec,
}

impl Storage {
    /// Refuses any other name.
    pub(crate) fn read(text: &str) -> Result<Storage, Error> {
        [Storage::Vector, Storage::Halfvec].into_iter().find(|storage| storage.name() == text).ok_or_else(
            || {
                refuse(Reason::InvalidParameter, format!("storage \"{text}\" is not known"))
                    .with_hint("Embeddings are stored as 'vector' or as 'halfvec'.")
            },
        )
    }

    /// That of a column of embeddings.
    pub(crate) fn of(extension: &ExtensionSchema, type_oid: pg_sys::Oid) -> Storage {
        if type_oid == extension.halfvec_type { Storage::Halfvec } else { Storage::Vector }
    }

    /// pgvector's type.
    pub(crate) fn type_oid(self, extension: &ExtensionSchema) -> pg_sys::Oid {
        match self {
            Storage::Vector => extension.vector_type,
            Storage::Halfvec => extension.halfvec_type,
        }
    }

    /// The name of pgvector's type, with which the names of its operator classes begin.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Storage::Vector => "vector",
            Storage::Halfvec => "halfvec",
        }
    }

    /// Whether rows are as small as they can be where an embedding lies in its row: two or more of them fit a page. An embedding
    /// outside of it takes three pages to read instead of one or none.
    pub(crate) fn fits_a_row(self, dimensions: u16) -> bool {
        const HALF_A_PAGE: usize = 4080;
        /// The bytes of a row beside its embedding.
        const OTHER_COLUMNS: usize = 264;
        let bytes = match self {
            Storage::Vector => 4,
            Storage::Halfvec => 2,
        };
        usize::from(dimensions) * bytes + OTHER_COLUMNS <= HALF_A_PAGE
    }
}

impl Request {
    /// # Safety
    /// `fcinfo` is that of `clip_watch`.
    pub(super) unsafe fn read(fcinfo: pg_sys::FunctionCallInfo) -> Result<Request, Error> {
        // SAFETY: the caller vouches for the arguments: a regclass, two texts, nine names, a text and a bool, each perhaps NULL.
        let (text, name) = unsafe {
            (
                |index| {
                    argument(fcinfo, index).map(|datum| Utf8::new(datum).map(Utf8::into_string)).transpose()
                },
                |index| argument(fcinfo, index).map(|datum| c_string(datum.cast_mut_ptr())),
            )
        };
        let required = |value: Option<String>, parameter: &str| {
            value.ok_or_else(|| refuse(Reason::NullArgument, format!("{parameter} must not be NULL")))
        };
        // SAFETY: as above.
        let Some(source) = (unsafe { argument(fcinfo, 0) }) else {
            return Err(refuse(Reason::UndefinedTable, "the table to watch must be named"));
        };
        let reference = name(11);
        // SAFETY: as above.
        let is_replicated = unsafe { argument(fcinfo, 13) }.is_some_and(|replicated| replicated.value() != 0);
        let default = if reference.is_some() || is_replicated { ASYNC } else { SYNC };
        let mode = text(2)?.unwrap_or_else(|| default.to_owned());
        if mode != SYNC && mode != ASYNC {
            return Err(refuse(Reason::InvalidParameter, format!("mode \"{mode}\" is not known"))
                .with_hint("The modes are 'sync' and 'async'."));
        }
        if reference.is_some() && mode == SYNC {
            return Err(refuse(Reason::NotSupported, "a table of references cannot be watched in sync mode")
                .with_detail("No process of the server fetches a photo: a feeder brings its bytes later.")
                .with_hint("Leave the mode out."));
        }
        if is_replicated && mode == SYNC {
            return Err(refuse(Reason::NotSupported, "replicated photos cannot be embedded in sync mode")
                .with_detail(
                    "Each would hold up the subscription, and one that cannot be decoded would end it.",
                )
                .with_hint("Leave the mode out."));
        }
        let image = required(name(3), "image_column")?;
        if reference.is_some() && image != IMAGE {
            let message = "image_column and reference_column must not both be named";
            return Err(refuse(Reason::InvalidParameter, message));
        }
        Ok(Request {
            source: oid_of(source),
            target: required(text(1)?, "target")?,
            mode,
            is_by_reference: reference.is_some(),
            image: reference.unwrap_or(image),
            key: name(4),
            project: name(5),
            target_key: required(name(6), "target_key_column")?,
            embedding: required(name(7), "embedding_column")?,
            checksum: required(name(8), "checksum_column")?,
            model: required(name(9), "model_column")?,
            target_project: name(10),
            storage: text(12)?.as_deref().map(Storage::read).transpose()?,
            is_replicated,
        })
    }

    pub(super) fn is_async(&self) -> bool {
        self.mode == ASYNC
    }
}

const SYNC: &str = "sync";
const ASYNC: &str = "async";
/// The names that SQL passes where no column is named.
const IMAGE: &str = "image";
