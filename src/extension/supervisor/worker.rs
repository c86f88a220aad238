//! The background worker's main function.

use std::cmp;
use std::env;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use pgrx::pg_sys;

use super::child::{Child, LIBRARY_PATH, Launch};
use super::{listener, parts};
use crate::error::Error;
use crate::latch::{Interest, wait};
use crate::socket::LOCK;
use crate::worker::{accept_signals, reload_settings};
use crate::{current_model, lock, settings};

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
/// Of an embedder that loads no model: each of its starts may cost as much as a load.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Of one that died after it had loaded a model. A photo that ends the embedder, sent again and again, must not
/// keep all other photos waiting for longer.
const LONGEST_PAUSE_OF_WORKING: Duration = Duration::from_secs(2);
/// An embedder that lived this long died of something new: it is started again at once.
const GOOD_LIFE: Duration = Duration::from_secs(10);

fn supervise() -> Result<(), Error> {
    let Some(_lock) = lock::take(LOCK)? else {
        return Ok(());
    };
    let listener = listener::listen()?;
    let mut restarts = 0;
    let mut pause = FIRST_PAUSE;
    loop {
        // Looked up for each start: the files may have been installed meanwhile.
        let mut launch = current_launch();
        let started = Instant::now();
        let mut longest = LONGEST_PAUSE;
        match Child::start(&launch, restarts, &listener) {
            Ok(child) => match watch(child, &mut launch) {
                End::SettingChanged => {
                    restarts += 1;
                    pause = FIRST_PAUSE;
                    continue;
                }
                End::Died { has_loaded: true } => longest = LONGEST_PAUSE_OF_WORKING,
                End::Died { has_loaded: false } => {}
            },
            Err(error) => pgrx::warning!("pg_clip: {error}: {}", launch.program.display()),
        }
        restarts += 1;
        if started.elapsed() >= GOOD_LIFE {
            pause = FIRST_PAUSE;
            continue;
        }
        pause = cmp::min(pause, longest);
        let next = Instant::now() + pause;
        pause *= 2;
        // No process writes to this socket: the latch and the time end the wait. A wait on the listener would end
        // at once: a connection that comes in makes it readable, and no embedder accepts it.
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

/// Why an embedder ended.
enum End {
    /// The next one is another one, and owes nothing to how this one fared.
    SettingChanged,
    Died {
        /// Whether it had loaded a model.
        has_loaded: bool,
    },
}

/// Stays with the embedder until it has ended.
fn watch(mut child: Child, launch: &mut Launch) -> End {
    let mut has_loaded = false;
    loop {
        relay(child.lines(), &mut has_loaded);
        if let Some(status) = child.ended() {
            while relay(child.lines(), &mut has_loaded) {}
            pgrx::log!("pg_clip: the embedder ended ({status}), starting it again");
            return End::Died { has_loaded };
        }
        if child.floods_the_log() {
            pgrx::warning!("pg_clip: the embedder writes to the log without an end, starting it again");
            child.stop();
            return End::Died { has_loaded };
        }
        if settings_changed(launch) {
            pgrx::log!("pg_clip: a setting changed, starting the embedder again");
            child.stop();
            return End::SettingChanged;
        }
        // Without a deadline, a line of the log, the guardian's end or the latch ends the wait.
        wait(child.descriptor(), Interest::Readable, None);
    }
}

/// Writes lines of the embedder to the server log, each at the level that it names. Returns whether there were any.
fn relay(lines: Vec<String>, has_loaded: &mut bool) -> bool {
    for line in &lines {
        if let Some(warning) = line.strip_prefix("WARNING: ") {
            pgrx::warning!("pg_clip: {warning}");
        } else if let Some(model) = line.strip_prefix("LOADED: ") {
            *has_loaded = true;
            pgrx::log!("pg_clip: {model}");
        } else {
            pgrx::log!("pg_clip: {}", line.strip_prefix("LOG: ").unwrap_or(line));
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
    let arguments = vec![
        "--listen-fd=0".to_owned(),
        format!("--models-directory={}", parts::models_directory().display()),
        format!("--onnxruntime={}", parts::onnxruntime_library().display()),
        format!("--threads={}", settings::threads()),
        format!("--max-loaded-models={}", settings::max_loaded_models()),
        format!("--decoder-memory={}", settings::decoder_memory()),
        format!("--jpeg-scaling={}", if settings::jpeg_scaling() { "on" } else { "off" }),
        format!("--execution-provider={}", settings::execution_provider()),
        // A name that cannot be a model's is for the embedder to report: it serves the others.
        format!("--model={}", current_model::configured()),
    ];
    // CUDA's libraries often lie where no other setting of the linker leads.
    let library_path = env::var_os(LIBRARY_PATH).filter(|_| settings::execution_provider() == "cuda");
    Launch { program: parts::program(), arguments, library_path }
}
