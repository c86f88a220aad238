//! The state that all connections share.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use super::admission::Admission;
use super::options::ServeOptions;
use crate::batch::{ImageLane, TextLane};
use crate::model::Registry;
use crate::onnxruntime::OnnxRuntime;
use crate::sandbox::Posture;
use crate::stats::Stats;

/// The server, as its connections see it.
pub(super) struct Server {
    pub(super) registry: Arc<Registry>,
    pub(super) runtime: Arc<OnnxRuntime>,
    pub(super) texts: TextLane,
    pub(super) images: ImageLane,
    pub(super) admission: Arc<Admission>,
    /// The number of the next connection.
    pub(super) connections: AtomicU64,
    pub(super) stats: Stats,
    pub(super) started: Started,
    pub(super) sandbox: Posture,
    pub(super) options: ServeOptions,
}

/// When this process started to serve, in seconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(super) struct Started(pub(super) f64);

impl Started {
    pub(super) fn now() -> Started {
        Started(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()))
    }
}
