//! The embedder as PostgreSQL sees it, a process behind a Unix socket; and as a person at a command line does.
//!
//! These tests need the demo model, `models/demo`, and ONNX Runtime, whose library `PG_CLIP_ONNXRUNTIME` names.

mod embedder;
mod fair_shares;
mod fetch;
mod guard;
mod hub;
mod hub_manners;
mod import;
mod installer;
mod models;
mod quantize;
mod refused_models;
mod sandbox;
mod scheduling;
mod serve;
