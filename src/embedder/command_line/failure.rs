//! A failure, as psql prints one.

use std::process::ExitCode;

use pg_clip_wire::Failure;

/// Prints a failure to standard error. The status to end with.
pub fn fail(failure: impl Into<Failure>) -> ExitCode {
    let Failure { message, detail, hint, .. } = failure.into();
    eprintln!("ERROR:  {message}");
    for (name, text) in [("DETAIL", &detail), ("HINT", &hint)] {
        if !text.is_empty() {
            eprintln!("{name}:  {text}");
        }
    }
    ExitCode::FAILURE
}
