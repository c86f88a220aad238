//! How to serve, from the supervisor's command line.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::Args;

use crate::image::JpegScaling;
use crate::onnxruntime::{ON_GPU, ON_PROCESSOR};

/// The options that the supervisor serves with. The guardian passes them on.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServeOptions {
    /// Descriptor of a Unix socket that listens
    #[arg(long, value_name = "FD")]
    pub listen_fd: RawFd,
    /// Folder that holds a folder for each model
    #[arg(long, value_name = "DIR")]
    pub models_directory: PathBuf,
    /// Model to load at start
    #[arg(long, value_name = "NAME")]
    pub model: String,
    /// ONNX Runtime's library
    #[arg(long, value_name = "PATH")]
    pub onnxruntime: PathBuf,
    /// Threads for inference, and for decoding one less; 0 means one for each processor
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub threads: usize,
    /// Most models that stay loaded
    #[arg(long, value_name = "N", default_value = "3")]
    pub max_loaded_models: NonZeroUsize,
    /// Most memory that all decoders together may take, in MB
    #[arg(long, value_name = "MB", default_value_t = 512)]
    pub decoder_memory: u64,
    /// Whether large JPEGs are decoded at a fraction of their size
    #[arg(long, value_name = "ON", default_value = "on")]
    pub jpeg_scaling: JpegScaling,
    /// Where ONNX Runtime computes; where that cannot be, on the processor
    #[arg(long, value_name = "NAME", default_value = "cpu")]
    pub execution_provider: String,
    /// How often the supervisor has started an embedder before this one
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub restarts: u64,
    /// Most requests of one kind that may wait, unless each connection has few
    #[arg(long, value_name = "N", default_value_t = 4096)]
    pub backlog: usize,
}

impl ServeOptions {
    /// The options as they were given, for another process.
    pub(crate) fn to_arguments(&self) -> Vec<OsString> {
        let ServeOptions {
            listen_fd,
            models_directory,
            model,
            onnxruntime,
            threads,
            max_loaded_models,
            decoder_memory,
            jpeg_scaling,
            execution_provider,
            restarts,
            backlog,
        } = self;
        let options: [(&str, OsString); 11] = [
            ("--listen-fd", listen_fd.to_string().into()),
            ("--models-directory", models_directory.into()),
            ("--model", model.into()),
            ("--onnxruntime", onnxruntime.into()),
            ("--threads", threads.to_string().into()),
            ("--max-loaded-models", max_loaded_models.to_string().into()),
            ("--decoder-memory", decoder_memory.to_string().into()),
            ("--jpeg-scaling", jpeg_scaling.name().into()),
            ("--execution-provider", execution_provider.into()),
            ("--restarts", restarts.to_string().into()),
            ("--backlog", backlog.to_string().into()),
        ];
        options
            .into_iter()
            .map(|(name, value)| {
                let mut argument = OsString::from(format!("{name}="));
                argument.push(value);
                argument
            })
            .collect()
    }

    /// The option that no release of the embedder has. It embeds all the same.
    pub(super) fn problem(&self) -> Option<String> {
        let asked = &self.execution_provider;
        (asked != ON_PROCESSOR && asked != ON_GPU).then(|| {
            format!("execution provider \"{asked}\" is not available, {ON_PROCESSOR} computes instead")
        })
    }
}
