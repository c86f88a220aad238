//! The server: takes requests from a Unix socket and answers them.
//!
//! It takes connections at once and loads its model meanwhile. Sockets are served by one thread, everything that takes
//! time is done on others. It ends when it is told to, with status 0: where its guardian is gone, a postmaster that is
//! PID 1 may be its parent.

mod admission;
mod connection;
mod signals;
mod status;

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::os::fd::{FromRawFd, RawFd};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use std::{io, process, thread};

use clap::Args;
use pg_clip_wire::FailureKind;
use tokio::net::{UnixListener, UnixStream};
use tokio::{runtime, task, time};

use self::admission::Admission;
pub(crate) use self::admission::Memory;
pub(crate) use self::signals::FATAL;
use self::status::Started;
use crate::batch::{ImageLane, TextLane};
use crate::error::Error;
use crate::image::JpegScaling;
use crate::log::{log_line, warning};
use crate::model::Registry;
use crate::onnxruntime::{EXECUTION_PROVIDER, OnnxRuntime};
use crate::sandbox::{self, Posture};
use crate::stats::Stats;
use crate::watchdog::{self, Watchdog};

/// What the supervisor says about how to serve. The guardian passes it on.
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

    /// What cannot be had of what was asked for. The embedder embeds all the same.
    fn problem(&self) -> Option<String> {
        let asked = &self.execution_provider;
        (asked != EXECUTION_PROVIDER).then(|| {
            format!("execution provider \"{asked}\" is not available, {EXECUTION_PROVIDER} computes instead")
        })
    }
}

/// Serves until a signal ends the process, or fails to start.
pub(crate) fn run(options: ServeOptions) -> ExitCode {
    match serve(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            warning!("embedder cannot start: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What all connections share.
struct Server {
    registry: Arc<Registry>,
    runtime: Arc<OnnxRuntime>,
    texts: TextLane,
    images: ImageLane,
    admission: Arc<Admission>,
    /// The number of the next connection.
    connections: AtomicU64,
    stats: Stats,
    started: Started,
    sandbox: Posture,
    options: ServeOptions,
}

fn serve(options: ServeOptions) -> Result<(), Error> {
    signals::exit_when_told().map_err(Error::io("cannot handle signals"))?;
    raise_descriptor_limit();
    let listener = listener(options.listen_fd)?;
    if let Some(problem) = options.problem() {
        warning!("{problem}");
    }
    let threads = threads(options.threads);
    let sandbox = sandbox::enter(&options.models_directory, &options.onnxruntime);
    let runtime = Arc::new(OnnxRuntime::new(options.onnxruntime.clone(), threads));
    let decoder_memory = options.decoder_memory.saturating_mul(1 << 20);
    let no_thread = || Error::io("cannot start a thread");
    let watchdog = Watchdog::start(watchdog::PATIENCE, end_for_hanging).map_err(no_thread())?;
    let registry = Registry::new(
        &options.models_directory,
        Arc::clone(&runtime),
        options.max_loaded_models,
        options.model.clone(),
    );
    let server = Arc::new(Server {
        registry: Arc::new(registry),
        runtime,
        texts: TextLane::start(threads, Arc::clone(&watchdog)).map_err(no_thread())?,
        images: ImageLane::start(threads, decoder_memory, options.jpeg_scaling, watchdog)
            .map_err(no_thread())?,
        admission: Arc::new(Admission::new(options.backlog)),
        connections: AtomicU64::default(),
        stats: Stats::default(),
        started: Started::now(),
        sandbox,
        options,
    });
    let mut builder = runtime::Builder::new_current_thread();
    // One blocking thread: models are loaded one after the other.
    let sockets = builder.enable_io().enable_time().max_blocking_threads(1).build();
    sockets.map_err(Error::io("cannot start the event loop"))?.block_on(accept(listener, server))
}

/// Status 1 is the guardian's word for a server that died: the supervisor starts the next one.
fn end_for_hanging(what: &str) {
    warning!(
        "{what} takes longer than {} s: the embedder ends, to be started again",
        watchdog::PATIENCE.as_secs()
    );
    // SAFETY: _exit takes any status and does not return. Threads that hang are not waited for.
    unsafe { libc::_exit(1) }
}

async fn accept(listener: StdUnixListener, server: Arc<Server>) -> Result<(), Error> {
    let listener = UnixListener::from_std(listener).map_err(Error::io("cannot listen"))?;
    let first = Arc::clone(&server);
    task::spawn(async move {
        let name = &first.options.model;
        // A failed load is logged where it happens; a model that is not installed fails before.
        if let Err(failure) = first.registry.get(name).await
            && failure.kind == FailureKind::InvalidParameter
        {
            warning!("{}", failure.message);
        }
    });
    log_line!("embedder {} listens in process {}", env!("CARGO_PKG_VERSION"), process::id());
    loop {
        match listener.accept().await {
            Ok((stream, _)) if is_trusted(&stream) => {
                task::spawn(connection::serve(stream, Arc::clone(&server)));
            }
            Ok(_) => warning!("refused a connection of another user"),
            Err(error) => {
                // Most likely no descriptor is left; a connection that ends gives one back.
                warning!("cannot accept a connection: {error}");
                time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// The socket is for PostgreSQL's own processes: the same user, or root.
fn is_trusted(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == nix::unistd::geteuid().as_raw())
}

fn listener(descriptor: RawFd) -> Result<StdUnixListener, Error> {
    let failed = || Error::io(format!("descriptor {descriptor} is no listening Unix socket"));
    if matches!(descriptor, 1 | 2) {
        return Err(failed()(io::Error::from_raw_os_error(libc::EBADF)));
    }
    // SAFETY: the supervisor passed this descriptor to be owned here, and nothing else in this process uses it.
    let listener = unsafe { StdUnixListener::from_raw_fd(descriptor) };
    listener.local_addr().and_then(|_| listener.set_nonblocking(true)).map_err(failed())?;
    Ok(listener)
}

fn threads(wanted: usize) -> NonZeroUsize {
    let available = || thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    NonZeroUsize::new(wanted).unwrap_or_else(available)
}

/// A connection is a descriptor, and PostgreSQL may have more backends than the usual 1,024.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
