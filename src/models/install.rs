//! Installing a model: from a hub, or from a folder.
//!
//! Everything is prepared in a hidden folder inside the models directory and becomes a model by one rename: see
//! [`staging`]. The hash of a file is known before it is fetched, so that any later process continues a file that
//! was cut off: see [`download`].
//!
//! Always true: no model is in its place that was not whole, verified and loaded · no answer of a hub names a file
//! outside the folder of the model.

mod catalogue;
mod digest;
mod download;
mod files;
mod hub;
mod layout;
mod parts;
mod progress;
mod record;
mod refusal;
mod repository;
mod staging;

pub(crate) use self::catalogue::{Entry, catalogue};
pub(crate) use self::digest::Digest;
pub(crate) use self::download::download;
pub(crate) use self::files::{HashedFile, copy, folder_files, tree_size};
pub(crate) use self::hub::Hub;
pub(crate) use self::layout::{Selection, Unselectable, select};
pub(crate) use self::parts::Parts;
pub(crate) use self::progress::Progress;
pub(crate) use self::record::{FileRecord, Origin, Pinned, Pins, Record};
pub(crate) use self::repository::{Repository, Snapshot};
pub(crate) use self::staging::{Staging, remove};
