//! Where models and ONNX Runtime are.
//!
//! Without an option, they are beside this program, where the server finds them too: its own defaults of
//! `clip.models_directory` and `clip.onnxruntime_library`.

use std::env;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread;

use clap::Args;

use crate::error::Error;
use crate::model::Model;
use crate::onnxruntime::{DISABLE_TELEMETRY, OnnxRuntime};

#[derive(Debug, Args)]
pub struct ModelsDirectory {
    /// Folder that holds a folder for each model; by default `models` beside this program
    #[arg(long = "models-directory", value_name = "DIR")]
    given: Option<PathBuf>,
}

impl ModelsDirectory {
    /// The folder.
    pub fn path(&self) -> Result<PathBuf, Error> {
        match &self.given {
            Some(given) => Ok(given.clone()),
            None => beside("models", "--models-directory"),
        }
    }
}

#[derive(Debug, Args)]
pub struct Place {
    #[command(flatten)]
    pub models: ModelsDirectory,
    /// ONNX Runtime's library; by default `libonnxruntime.so` beside this program
    #[arg(long, value_name = "PATH")]
    onnxruntime: Option<PathBuf>,
}

impl Place {
    /// Loads the model `name`.
    pub fn load(&self, name: &str) -> Result<Model, Error> {
        Model::load(&self.models.path()?, name, &self.runtime()?)
    }

    /// ONNX Runtime, which is not loaded yet. To be called while the process has one thread.
    pub fn runtime(&self) -> Result<OnnxRuntime, Error> {
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
            None => beside("libonnxruntime.so", "--onnxruntime"),
        }
    }
}

/// A file or folder beside this program, in whose folder all of them are installed. Where a symbolic link started the
/// program, it is the folder that the link leads to.
fn beside(name: &'static str, option: &'static str) -> Result<PathBuf, Error> {
    let beside = env::current_exe().ok().map(|program| program.with_file_name(name));
    beside.filter(|path| path.exists()).ok_or(Error::NotBeside { name, option })
}
