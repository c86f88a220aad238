//! What `clip_status` shows.

use std::collections::BTreeMap;
use std::time::Duration;

use pg_clip_wire::{Failure, FailureKind};
use pgrx::{IntoDatum, pg_sys};
use serde_json::{Value, json};

use crate::client;
use crate::error::Error;
use crate::settings;
use crate::sql_function;
use crate::watch::home::VERSION;

sql_function! {
    /// `clip_embedder_status() → text`: the embedder's status report as JSON, its failures by SQLSTATE. An embedder that is not there or does
    /// not answer is a state, not an error: a monitoring query always gets a row.
    fn clip_embedder_status(_fcinfo) {
        const PATIENCE: Duration = Duration::from_secs(2);
        let json = match client::status(PATIENCE.min(settings::request_timeout())) {
            Ok(json) => with_sqlstates(&json)?,
            Err(error @ (Error::NotRunning(_) | Error::Backlog | Error::NoWorkerSlot(_))) => absent("stopped", &error),
            Err(error @ (Error::TimedOut(_) | Error::Died)) => absent("unresponsive", &error),
            Err(error @ (Error::OtherEmbedder(_) | Error::OtherProtocol { .. })) => absent("of another version", &error),
            Err(error) => return Err(error),
        };
        Ok(json.into_datum().unwrap_or(pg_sys::Datum::from(0)))
    }
}

/// The report with what the embedder counted by its kinds of failures counted by their SQLSTATEs.
fn with_sqlstates(json: &str) -> Result<String, Error> {
    let mut report: Value = serde_json::from_str(json).map_err(|_| Error::OutOfTurn)?;
    let rows = report.get_mut("statistics").and_then(Value::as_array_mut);
    for row in rows.into_iter().flatten().filter_map(Value::as_object_mut) {
        let failures = row.remove("failures");
        let mut by_sqlstate: BTreeMap<String, u64> = BTreeMap::new();
        for (number, count) in failures.as_ref().and_then(Value::as_object).into_iter().flatten() {
            let kind = number.parse().map_err(|_| Error::OutOfTurn)?;
            let sqlstate = Error::from(Failure::new(FailureKind::from_byte(kind)?, "")).sqlstate_text();
            *by_sqlstate.entry(sqlstate).or_default() += count.as_u64().unwrap_or_default();
        }
        row.insert("errors".to_owned(), by_sqlstate.values().sum::<u64>().into());
        row.insert("errors_by_sqlstate".to_owned(), json!(by_sqlstate));
    }
    if let Some(report) = report.as_object_mut() {
        report.insert("library".to_owned(), VERSION.into());
    }
    Ok(report.to_string())
}

fn absent(state: &str, error: &Error) -> String {
    json!({ "state": state, "error": error.to_string(), "library": VERSION }).to_string()
}
