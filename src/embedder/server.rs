//! The server: takes requests from a Unix socket and answers them.
//!
//! It takes connections at once and loads its model meanwhile. Sockets are served by one thread, everything that takes
//! time is done on others. It ends when it is told to, with status 0: where its guardian is gone, a postmaster that is
//! PID 1 may be its parent.

mod admission;
mod connection;
mod options;
mod shared;
mod signals;
mod status;

use std::num::NonZeroUsize;
use std::os::fd::{FromRawFd, RawFd};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use std::{io, process, thread};

use pg_clip_wire::FailureKind;
use tokio::net::{UnixListener, UnixStream};
use tokio::{runtime, task, time};

use self::admission::Admission;
pub(crate) use self::admission::Memory;
pub(crate) use self::options::ServeOptions;
use self::shared::{Server, Started};
pub(crate) use self::signals::FATAL;
use crate::batch::{ImageLane, TextLane};
use crate::error::Error;
use crate::log::{log_line, warning};
use crate::model::Registry;
use crate::onnxruntime::OnnxRuntime;
use crate::sandbox::{self, Profile};
use crate::stats::Stats;
use crate::watchdog::{self, Watchdog};

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

fn serve(options: ServeOptions) -> Result<(), Error> {
    signals::exit_when_told().map_err(Error::io("cannot handle signals"))?;
    raise_descriptor_limit();
    let listener = listener(options.listen_fd)?;
    if let Some(problem) = options.problem() {
        warning!("{problem}");
    }
    let threads = threads(options.threads);
    let profile = Profile::of(&options.execution_provider);
    let sandbox = sandbox::enter(&options.models_directory, &options.onnxruntime, profile);
    let runtime = OnnxRuntime::new(options.onnxruntime.clone(), threads);
    let runtime = Arc::new(if profile == Profile::Gpu { runtime.with_cuda() } else { runtime });
    let on_gpu = runtime.gpu().is_some_and(|gpu| gpu.works());
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
        images: ImageLane::start(threads, on_gpu, decoder_memory, options.jpeg_scaling, watchdog)
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
        // A failed load is logged by the registry; a model that is not installed fails before.
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
