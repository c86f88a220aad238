//! The embedder as PostgreSQL sees it, a process behind a Unix socket; and as a person at a command line does.
//!
//! These tests need the demo model, `models/demo`, and ONNX Runtime, whose library `PG_CLIP_ONNXRUNTIME` names.

mod dependencies;
mod embedder;
mod fair_shares;
mod guard;
mod installer;
mod models;
mod refused_models;
mod sandbox;
mod scheduling;
mod serve;
