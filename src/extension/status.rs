//! What `clip_status` shows.

use std::time::Duration;

use pgrx::{IntoDatum, pg_sys};

use crate::client;
use crate::error::Error;
use crate::settings;
use crate::sql_function;

sql_function! {
    /// `clip_embedder_status() → text`: the embedder's status report as JSON. An embedder that is not there or does
    /// not answer is a state, not an error: a monitoring query always gets a row.
    fn clip_embedder_status(_fcinfo) {
        const PATIENCE: Duration = Duration::from_secs(2);
        let json = match client::status(PATIENCE.min(settings::request_timeout())) {
            Ok(json) => json,
            Err(error @ (Error::NotRunning(_) | Error::Backlog | Error::NoWorkerSlot(_))) => absent("stopped", &error),
            Err(error @ (Error::TimedOut(_) | Error::Died)) => absent("unresponsive", &error),
            Err(error) => return Err(error),
        };
        Ok(json.into_datum().unwrap_or(pg_sys::Datum::from(0)))
    }
}

fn absent(state: &str, error: &Error) -> String {
    serde_json::json!({ "state": state, "error": error.to_string() }).to_string()
}
