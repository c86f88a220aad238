//! The report that `clip_status` shows.

use std::collections::BTreeMap;
use std::time::Duration;

use pg_clip_wire::{Failure, FailureKind};
use pgrx::{IntoDatum, PgLogLevel, pg_sys};
use serde_json::{Value, json};

use crate::client;
use crate::error::Error;
use crate::notice;
use crate::settings;
use crate::sql_function::sql_function;
use crate::version::VERSION;
use crate::watch::registry::argument;

sql_function! {
    /// `clip_embedder_status(says_why bool) → text`: the embedder's status report as JSON, its failures by SQLSTATE. An embedder
    /// that is not there or does not answer is a state, not an error: a monitoring query always gets a row, or is told by a
    /// notice why it gets none.
    fn clip_embedder_status(fcinfo) {
        const PATIENCE: Duration = Duration::from_secs(2);
        // SAFETY: `fcinfo` is that of the running function. SQL declares it STRICT with this argument; that of 0.1.0 has none.
        let says_why = unsafe { if (*fcinfo).nargs > 0 { argument(fcinfo, 0) } else { None } };
        let says_why = says_why.is_some_and(|says_why| says_why.value() != 0);
        let absent = |state, error: Error| {
            if says_why {
                tell_why(&error);
            }
            absent(state, &error)
        };
        let json = match client::status(PATIENCE.min(settings::request_timeout())) {
            Ok(json) => with_sqlstates(&json)?,
            Err(error @ (Error::NotRunning(_) | Error::Backlog | Error::NoWorkerSlot(_))) => absent("stopped", error),
            Err(error @ (Error::TimedOut(_) | Error::Died)) => absent("unresponsive", error),
            Err(error @ (Error::OtherEmbedder(_) | Error::OtherProtocol { .. })) => absent("of another version", error),
            Err(error) => return Err(error),
        };
        Ok(json.into_datum().unwrap_or(pg_sys::Datum::from(0)))
    }
}

/// The report, with failures counted by SQLSTATE in place of the embedder's kinds.
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

/// A view that has no row says why. A notice does not reach the server's log, unlike a warning, each time that it is read.
fn tell_why(error: &Error) {
    let message = format!("the embedder gives no report: {error}");
    let hint = "It is being started, cannot be started, or hangs: the server's log and clip_status say more.";
    notice::tell(PgLogLevel::NOTICE, &message, Some(hint));
}

fn absent(state: &str, error: &Error) -> String {
    json!({ "state": state, "error": error.to_string(), "library": VERSION }).to_string()
}
