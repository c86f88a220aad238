//! See `pg_clip_embedder::fuzzing::image`.
//!
//! A panic of a decoder is an image that cannot be decoded. It must not end the run, as libFuzzer's own hook has it; a
//! panic that is not caught still does.

#![no_main]

use std::sync::Once;

static HOOK: Once = Once::new();

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    HOOK.call_once(|| std::panic::set_hook(Box::new(|panic| eprintln!("caught or fatal: {panic}"))));
    pg_clip_embedder::fuzzing::image(bytes);
});
