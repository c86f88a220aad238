//! The embedder as PostgreSQL sees it, a process behind a Unix socket; and as a person at a command line does.
//!
//! These tests need the demo model, `models/demo`, and ONNX Runtime, whose library `PG_CLIP_ONNXRUNTIME` names.

mod embedder;
mod fetch;
mod guard;
mod sandbox;
mod hub;
mod import;
mod installer;
mod scheduling;
mod serve;
