//! Where models and ONNX Runtime are.
//!
//! Without an option, they are where `cargo xtask install` put them, which the `pg_config` beside this program tells: the
//! server's own defaults of `clip.models_directory` and `clip.onnxruntime_library`.

use std::env;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use clap::Args;

use crate::error::Error;
use crate::model::Model;
use crate::onnxruntime::{DISABLE_TELEMETRY, OnnxRuntime};

#[derive(Debug, Args)]
pub(crate) struct ModelsDirectory {
    /// Folder that holds a folder for each model; by default that of the PostgreSQL beside this program
    #[arg(long = "models-directory", value_name = "DIR")]
    given: Option<PathBuf>,
}

impl ModelsDirectory {
    /// The folder.
    pub(super) fn path(&self) -> Result<PathBuf, Error> {
        match &self.given {
            Some(given) => Ok(given.clone()),
            None => Ok(installed("--sharedir", "--models-directory")?.join("models")),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Place {
    #[command(flatten)]
    pub models: ModelsDirectory,
    /// ONNX Runtime's library; by default that of the PostgreSQL beside this program
    #[arg(long, value_name = "PATH")]
    onnxruntime: Option<PathBuf>,
}

impl Place {
    /// Loads the model `name`.
    pub(super) fn load(&self, name: &str) -> Result<Model, Error> {
        Model::load(&self.models.path()?, name, &self.runtime()?)
    }

    /// ONNX Runtime, which is not loaded yet. To be called while the process has one thread.
    pub(super) fn runtime(&self) -> Result<OnnxRuntime, Error> {
        let library = self.library()?;
        // SAFETY: the command line has one thread until it fetches or loads a model, so that no other
        // thread reads the environment.
        unsafe { env::set_var(DISABLE_TELEMETRY, "1") };
        let threads = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Ok(OnnxRuntime::new(library, threads))
    }

    /// ONNX Runtime's library.
    pub(super) fn library(&self) -> Result<PathBuf, Error> {
        match &self.onnxruntime {
            Some(given) => Ok(given.clone()),
            None => Ok(installed("--pkglibdir", "--onnxruntime")?.join("libonnxruntime.so")),
        }
    }
}

/// The folder `pg_clip` in a directory of the PostgreSQL whose programs lie beside this one.
fn installed(directory: &str, option: &'static str) -> Result<PathBuf, Error> {
    let asked = || {
        let pg_config = env::current_exe().ok()?.with_file_name("pg_config");
        let answer = Command::new(pg_config).arg(directory).output().ok()?;
        let path = String::from_utf8(answer.stdout).ok()?;
        answer.status.success().then(|| PathBuf::from(path.trim_end()).join("pg_clip"))
    };
    asked().ok_or(Error::NoPgConfig { option })
}
