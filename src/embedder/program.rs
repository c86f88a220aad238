//! The program; all of it is in the library, which the fuzz targets use as well.

use std::process::ExitCode;

fn main() -> ExitCode {
    pg_clip_embedder::main()
}
