//! `pg_clip_models` as a person at a command line sees it, and as a hub does.
//!
//! These tests need the demo model, `models/demo`, and ONNX Runtime, whose library `PG_CLIP_ONNXRUNTIME` names.

mod fetch;
mod hub;
mod hub_manners;
mod import;
mod installer;
mod quantize;
