//! The command line, in a models directory of its own.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::Duration;
use std::{env, thread};

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigHandler, Signal, signal};
use pg_clip_embedder::{Model, OnnxRuntime};
use serde_json::Value;

/// The model that comes with the project.
pub(crate) const MODEL: &str = "demo";

/// The longest wait of a test, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A models directory, and the commands that work on it.
pub(crate) struct Installer {
    folder: temp_dir::TempDir,
    /// The variables of the environment, beside the bare minimum.
    pub environment: Vec<(String, String)>,
}

/// The exit status and the output of a command.
#[derive(Debug)]
pub(crate) struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Installer {
    /// With the hub at `endpoint`.
    pub(crate) fn new(endpoint: &str) -> Installer {
        let environment = vec![("HF_ENDPOINT".to_owned(), endpoint.to_owned())];
        Installer { folder: temp_dir::TempDir::new().unwrap(), environment }
    }

    pub(crate) fn models_directory(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// A command, to be changed or started.
    pub(crate) fn command<T: AsRef<OsStr>>(&self, subcommand: &str, arguments: &[T]) -> Command {
        let mut command = Command::new(program());
        // The machine's variables, such as a proxy or a user's token, must not reach the tests.
        command
            .env_clear()
            .env("HOME", self.folder.path().join(".home"))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .arg(subcommand)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if subcommand != "catalogue" {
            command.arg("--models-directory").arg(self.folder.path());
        }
        if ["fetch", "import", "quantize"].contains(&subcommand) {
            command.arg("--onnxruntime").arg(onnxruntime());
        }
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run<T: AsRef<OsStr>>(&self, subcommand: &str, arguments: &[T]) -> Said {
        Said::of(self.command(subcommand, arguments).output().unwrap())
    }

    /// Runs a command that can write no more than `bytes` bytes into a file.
    pub(crate) fn run_where_disk_is_full<T: AsRef<OsStr>>(
        &self,
        subcommand: &str,
        arguments: &[T],
        bytes: u64,
    ) -> Said {
        let mut command = self.command(subcommand, arguments);
        let limit = move || {
            // Otherwise the limit would kill.
            // SAFETY: SIG_IGN is no handler that could run.
            unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }?;
            Ok(setrlimit(Resource::RLIMIT_FSIZE, bytes, bytes)?)
        };
        // SAFETY: signal and setrlimit are async-signal-safe.
        unsafe { command.pre_exec(limit) };
        Said::of(command.output().unwrap())
    }

    /// Runs a command that must not fail, and gives its output.
    pub(crate) fn succeed<T: AsRef<OsStr>>(&self, subcommand: &str, arguments: &[T]) -> String {
        let said = self.run(subcommand, arguments);
        assert_eq!(said.code, Some(0), "{}", said.err);
        said.out
    }

    /// Runs a command that must fail, and leave no model; gives its output.
    pub(crate) fn fail<T: AsRef<OsStr>>(&self, subcommand: &str, arguments: &[T]) -> String {
        let before = self.models();
        let said = self.run(subcommand, arguments);
        assert_eq!(said.code, Some(1), "{}{}", said.out, said.err);
        assert_eq!(said.out, "");
        assert!(said.err.contains("ERROR:  "), "{}", said.err);
        assert_eq!(self.models(), before);
        said.err
    }

    /// The installed models: the folders whose names are not hidden.
    pub(crate) fn models(&self) -> Vec<String> {
        self.names(|name| !name.starts_with('.'))
    }

    /// The staging folders.
    pub(crate) fn staged(&self) -> Vec<String> {
        self.names(|name| name.starts_with('.'))
    }

    /// The record of a model.
    pub(crate) fn record(&self, name: &str) -> Value {
        let text = fs::read(self.folder.path().join(name).join("model.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// Loads an installed model, as the embedder does it.
    pub(crate) fn load(&self, name: &str) -> Model {
        static RUNTIME: LazyLock<OnnxRuntime> =
            LazyLock::new(|| OnnxRuntime::new(onnxruntime(), thread::available_parallelism().unwrap()));
        Model::load(self.folder.path(), name, &RUNTIME).unwrap()
    }

    fn names(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| wanted(name)).collect();
        names.sort();
        names
    }
}

impl Said {
    pub(crate) fn of(output: Output) -> Said {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// The folder of the models that come with the project.
pub(crate) fn models_directory() -> PathBuf {
    let models = repository().join("models").canonicalize().unwrap();
    assert!(models.join(MODEL).join("tokenizer.json").is_file(), "no demo model in {}", models.display());
    models
}

/// The folder of the files that tests read.
pub(crate) fn data() -> PathBuf {
    repository().join("tests/data")
}

fn repository() -> PathBuf {
    Path::new(&env::var("CARGO_MANIFEST_DIR").unwrap()).join("../..")
}

/// The program that was built with this test, whichever folder the checkout has been moved to since.
fn program() -> PathBuf {
    let test = env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().join("pg_clip_models")
}

/// The library that the tests were given.
fn onnxruntime() -> PathBuf {
    let library = env::var_os("PG_CLIP_ONNXRUNTIME");
    library.expect("PG_CLIP_ONNXRUNTIME names no library of ONNX Runtime: run `cargo xtask test`").into()
}
