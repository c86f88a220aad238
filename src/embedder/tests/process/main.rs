//! The embedder as PostgreSQL sees it: a process behind a Unix socket.
//!
//! These tests need the demo model, `models/demo`, and ONNX Runtime, whose library `PG_CLIP_ONNXRUNTIME` names.

mod embedder;
mod guard;
mod scheduling;
mod serve;
