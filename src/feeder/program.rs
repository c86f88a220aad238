//! `pg_clip_feeder`: see the library's documentation.

use std::process::ExitCode;

fn main() -> ExitCode {
    pg_clip_feeder::command_line::run()
}
