//! The embedder's socket, as its clients and its supervisor know it.

mod arrival;
mod descriptor;
mod place;

pub(crate) use self::arrival::{ArrivalSocket, wake_all};
pub(crate) use self::descriptor::ExternalDescriptor;
pub(crate) use self::place::{ASKED, LOCK, SOCKET, STAGED_SOCKET};
