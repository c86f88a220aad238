//! See `pg_clip_embedder::fuzzing::wire`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pg_clip_embedder::fuzzing::wire(bytes));
