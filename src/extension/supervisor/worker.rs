//! The background worker's main function.

use std::cmp;
use std::ffi::{CStr, OsStr, c_char};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pgrx::pg_sys;

use super::child::{Child, Launch};
use super::listener;
use crate::client::{Interest, LOCK, wait};
use crate::error::Error;
use crate::worker::{accept_signals, reload_settings};
use crate::{lock, settings};

/// The entry point that the postmaster calls in the worker's process. It returns only where another supervisor runs:
/// everything else ends in PostgreSQL's own exit, which leaves the worker to be started again.
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub(crate) extern "C-unwind" fn clip_supervisor_main(_argument: pg_sys::Datum) {
    accept_signals();
    match supervise() {
        Ok(()) => {}
        Err(error) => error.raise(),
    }
}

/// The pause before the next start after an embedder died young, doubled each time up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// An embedder that lived this long died of something new: it is started again at once.
const GOOD_LIFE: Duration = Duration::from_secs(10);

fn supervise() -> Result<(), Error> {
    let Some(_lock) = lock::take(LOCK)? else {
        return Ok(());
    };
    let listener = listener::listen()?;
    let mut launch = current_launch();
    let mut restarts = 0;
    let mut pause = FIRST_PAUSE;
    loop {
        let started = Instant::now();
        match Child::start(&launch, restarts, &listener) {
            Ok(child) => launch = watch(child, launch),
            Err(error) => pgrx::warning!("pg_clip: {error}: {}", launch.program.display()),
        }
        restarts += 1;
        if started.elapsed() >= GOOD_LIFE {
            pause = FIRST_PAUSE;
            continue;
        }
        let next = Instant::now() + pause;
        pause = cmp::min(2 * pause, LONGEST_PAUSE);
        // No process writes to this socket: the latch and the time end the wait. The listener would not do: a
        // connection that comes in makes it readable, and no embedder accepts it.
        let (silent, _other_end) = std::os::unix::net::UnixStream::pair()
            .map_err(|cause| Error::system("make a socket to wait on", cause))?;
        while wait(silent.as_fd(), Interest::Readable, Some(next)) {
            if settings_changed(&mut launch) {
                pause = FIRST_PAUSE;
                break;
            }
        }
    }
}

/// Stays with the embedder until it has ended, by itself or because a setting changed. Returns what the next one is
/// to be started with.
fn watch(mut child: Child, mut launch: Launch) -> Launch {
    loop {
        relay(child.lines());
        if let Some(status) = child.ended() {
            while relay(child.lines()) {}
            pgrx::log!("pg_clip: the embedder ended ({status}), starting it again");
            return launch;
        }
        if child.floods_the_log() {
            pgrx::warning!("pg_clip: the embedder writes to the log without an end, starting it again");
            child.stop();
            return launch;
        }
        if settings_changed(&mut launch) {
            pgrx::log!("pg_clip: a setting changed, starting the embedder again");
            child.stop();
            return launch;
        }
        // Without a deadline it ends by what is written, by the guardian's end, or by the latch.
        wait(child.descriptor(), Interest::Readable, None);
    }
}

/// Writes lines of the embedder to the server log, each at the level that it names. Returns whether there were any.
fn relay(lines: Vec<String>) -> bool {
    for line in &lines {
        match line.strip_prefix("WARNING: ") {
            Some(warning) => pgrx::warning!("pg_clip: {warning}"),
            None => pgrx::log!("pg_clip: {}", line.strip_prefix("LOG: ").unwrap_or(line)),
        }
    }
    !lines.is_empty()
}

/// Reads the configuration files again if the server was asked to. Returns whether that changes the embedder's start.
fn settings_changed(launch: &mut Launch) -> bool {
    if !reload_settings() {
        return false;
    }
    let now = current_launch();
    let changed = now != *launch;
    *launch = now;
    changed
}

fn current_launch() -> Launch {
    let models = match settings::models_directory() {
        installed if installed.is_empty() => {
            installed_path(pg_sys::get_share_path).join("pg_clip").join("models")
        }
        chosen => PathBuf::from(chosen),
    };
    let library = match settings::onnxruntime_library() {
        installed if installed.is_empty() => {
            installed_path(pg_sys::get_pkglib_path).join("pg_clip").join("libonnxruntime.so")
        }
        chosen => PathBuf::from(chosen),
    };
    let arguments = vec![
        "--listen-fd=0".to_owned(),
        format!("--models-directory={}", models.display()),
        format!("--onnxruntime={}", library.display()),
        format!("--threads={}", settings::threads()),
        format!("--max-loaded-models={}", settings::max_loaded_models()),
        format!("--decoder-memory={}", settings::decoder_memory()),
        format!("--jpeg-scaling={}", if settings::jpeg_scaling() { "on" } else { "off" }),
        format!("--execution-provider={}", settings::execution_provider()),
        // A name that cannot be a model's is for the embedder to report: it serves the others.
        format!("--model={}", settings::configured_model()),
    ];
    Launch { program: server_program().with_file_name("pg_clip_embedder"), arguments }
}

/// A directory of this installation, found from where the server's program lies.
fn installed_path(find: unsafe fn(*const c_char, *mut c_char)) -> PathBuf {
    let mut path = [0 as c_char; pg_sys::MAXPGPATH as usize];
    // SAFETY: the server set `my_exec_path` before it started any process; the buffer has the size that is asked for.
    unsafe {
        find(&raw const pg_sys::my_exec_path as *const c_char, path.as_mut_ptr());
        PathBuf::from(OsStr::from_bytes(CStr::from_ptr(path.as_ptr()).to_bytes()))
    }
}

fn server_program() -> PathBuf {
    // SAFETY: the server set `my_exec_path` before it started any process.
    let path = unsafe { CStr::from_ptr(&raw const pg_sys::my_exec_path as *const c_char) };
    Path::new(OsStr::from_bytes(path.to_bytes())).to_owned()
}
