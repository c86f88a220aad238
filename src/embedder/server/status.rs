//! What the embedder says about itself.

use std::fs;
use std::process;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::Server;
use crate::model::{Model, State};

/// When this process started to serve, in seconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(super) struct Started(f64);

impl Started {
    pub(super) fn now() -> Started {
        Started(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()))
    }
}

/// The status report: one JSON object.
pub(super) fn report(server: &Server) -> String {
    let (state, error) = match server.registry.state(&server.options.model) {
        State::Loading => ("loading", None),
        State::Ready => ("ready", None),
        State::Failed(failure) if failure.detail.is_empty() => ("failed", Some(failure.message)),
        State::Failed(failure) => ("failed", Some(format!("{}: {}", failure.message, failure.detail))),
    };
    let models: Vec<Value> = server.registry.loaded().iter().map(|model| describe(model)).collect();
    let mut report = json!({
        "state": state,
        "error": error,
        "pid": process::id(),
        "started_at": server.started.0,
        "restarts": server.options.restarts,
        "version": env!("CARGO_PKG_VERSION"),
        "onnxruntime": server.runtime.version(),
        "execution_provider": server.options.execution_provider,
        "threads": server.runtime.threads(),
        "resident_bytes": resident_bytes(),
        "sandbox": server.sandbox.report(),
        "models": models,
    });
    if let Value::Object(fields) = &mut report {
        fields.extend(server.stats.report());
    }
    report.to_string()
}

fn describe(model: &Model) -> Value {
    json!({
        "name": model.name,
        "fingerprint": hex::encode(model.fingerprint),
        "dimensions": model.dimensions,
        "image_size": model.preprocessing.width,
        "context_length": model.tokenizer.context_length(),
        "unpadded_text": model.unpadded_text,
    })
}

/// The memory of this process that is in RAM, where the system tells it.
fn resident_bytes() -> Option<u64> {
    let pages: u64 = fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
    // SAFETY: sysconf takes any name and touches no memory of ours.
    let page_size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    Some(pages * u64::try_from(page_size).ok()?)
}
