//! See `pg_clip_embedder::fuzzing::model`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pg_clip_embedder::fuzzing::model(bytes));
