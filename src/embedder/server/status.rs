//! The embedder's report on itself.

use std::process;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pg_clip_wire::MAX_STATUS_BYTES;
use serde_json::{Value, json};

use super::shared::Server;
use crate::memory;
use crate::model::{Model, State};
use crate::onnxruntime::{ON_GPU, ON_PROCESSOR};

/// The status report: one JSON object.
pub(super) fn report(server: &Server) -> String {
    let loaded = server.registry.loaded();
    let (state, error) = match server.registry.state(&server.options.model) {
        State::Loading => ("loading", problem(server, &loaded)),
        State::Ready => ("ready", problem(server, &loaded)),
        State::Failed(failure) if failure.detail.is_empty() => ("failed", Some(failure.message)),
        State::Failed(failure) => ("failed", Some(format!("{}: {}", failure.message, failure.detail))),
    };
    let models: Vec<Value> = loaded.iter().map(|(model, unused)| describe(model, *unused)).collect();
    let mut report = json!({
        "state": state,
        "error": error,
        "pid": process::id(),
        "started_at": server.started.0,
        "restarts": server.options.restarts,
        "version": env!("CARGO_PKG_VERSION"),
        "onnxruntime": server.runtime.version(),
        "execution_provider": execution_provider(server, &loaded),
        "threads": server.runtime.threads(),
        "resident_bytes": memory::resident_bytes(),
        "peak_resident_bytes": memory::peak_resident_bytes(),
        "sandbox": server.sandbox.report(),
        "models": models,
        "statistics": server.stats.rows(),
        "installed": installed(server),
    });
    if let Value::Object(fields) = &mut report {
        fields.extend(server.stats.totals());
    }
    fit(report, MAX_STATUS_BYTES)
}

/// Why an execution provider that is asked for does not compute, or not all models.
fn problem(server: &Server, loaded: &[(Arc<Model>, Duration)]) -> Option<String> {
    let of_gpu = server.runtime.gpu().and_then(|gpu| gpu.problem());
    let of_models = loaded.iter().filter_map(|(model, _)| model.not_on_gpu.clone());
    let problems: Vec<String> = server.options.problem().into_iter().chain(of_gpu).chain(of_models).collect();
    (!problems.is_empty()).then(|| problems.join(" "))
}

/// What computes the loaded models. None before the first is loaded for a GPU that works.
fn execution_provider(server: &Server, loaded: &[(Arc<Model>, Duration)]) -> Option<&'static str> {
    if !server.runtime.gpu().is_some_and(|gpu| gpu.works()) {
        return Some(ON_PROCESSOR);
    }
    let on_gpu = loaded.iter().filter(|(model, _)| model.is_on_gpu()).count();
    match on_gpu {
        _ if loaded.is_empty() => None,
        0 => Some(ON_PROCESSOR),
        _ if on_gpu == loaded.len() => Some(ON_GPU),
        _ => Some("cuda, cpu"),
    }
}

/// The report as text of at most `limit` bytes: where it is longer, the longest text or list is halved until it fits.
fn fit(mut report: Value, limit: usize) -> String {
    loop {
        let text = report.to_string();
        let fields = report.as_object_mut().into_iter().flatten().map(|(_, value)| value);
        match fields.max_by_key(|value| value.to_string().len()) {
            Some(Value::Array(list)) if text.len() > limit => list.truncate(list.len() / 2),
            Some(Value::String(string)) if text.len() > limit => {
                string.truncate(string.floor_char_boundary(string.len() / 2));
            }
            _ => return text,
        }
    }
}

fn describe(model: &Model, unused: Duration) -> Value {
    let used_at = SystemTime::now() - unused;
    json!({
        "name": model.name,
        "fingerprint": hex::encode(model.fingerprint),
        "dimensions": model.dimensions,
        "image_size": model.preprocessing.width,
        "context_length": model.tokenizer.context_length(),
        "unpadded_text": model.unpadded_text,
        "image_batch": model.image_batch,
        "text_batch": model.text_batch,
        "memory_bytes": model.memory_bytes,
        "last_used_at": used_at.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()),
    })
}

/// The installed models in the order of their names, and why those that cannot be loaded cannot.
fn installed(server: &Server) -> Vec<Value> {
    let models = server.registry.installed().into_iter().map(|(name, failure)| {
        let error =
            failure.map(|failure| if failure.detail.is_empty() { failure.message } else { failure.detail });
        json!({ "name": name, "error": error })
    });
    models.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_that_is_too_long_loses_the_ends_of_its_longest_parts() {
        let model = json!({ "name": "m".repeat(63), "fingerprint": "f".repeat(64) });
        let long =
            json!({ "pid": 1, "error": "é".repeat(100_000), "models": vec![model; 10_000], "sandbox": null });
        let text = fit(long, MAX_STATUS_BYTES);
        assert!(text.len() <= MAX_STATUS_BYTES && text.len() > MAX_STATUS_BYTES / 4, "{}", text.len());
        let report: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&report["pid"], &report["sandbox"]), (&json!(1), &Value::Null));
        assert_eq!(report["models"][0]["name"], "m".repeat(63));

        let short = json!({ "models": [1, 2, 3] });
        assert_eq!(fit(short.clone(), MAX_STATUS_BYTES), short.to_string());
        assert_eq!(
            fit(json!({ "pid": 12345 }), 4),
            json!({ "pid": 12345 }).to_string(),
            "nothing can be cut"
        );
    }
}
