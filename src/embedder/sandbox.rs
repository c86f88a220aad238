//! The rights that the server gives up before it takes the first byte of a user.
//!
//! The server has the postmaster's user: a decoder that is taken over could write to the data directory, send
//! signals to the postmaster, and connect to PostgreSQL as the superuser of its own socket. So before it starts a
//! thread it restricts itself, for ever: files are read beneath the places of models and libraries and nowhere else
//! ([`filesystem`]), and system calls that it never needs are refused ([`system_calls`]). The listening socket and
//! the log are descriptors that it was given.
//!
//! A GPU is used through devices of the kernel. A server that is asked to compute on one keeps more rights than others, see
//! [`Profile::Gpu`], and so does what takes it over.
//!
//! Each layer is as strong as the kernel allows, and on an older kernel the embedder embeds all the same: [`Posture`]
//! says what holds, in the server log and in `clip_status`. `pg_clip_embedder sandbox` tries it out.

mod filesystem;
mod system_calls;

use std::path::Path;

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use serde_json::{Value, json};

use crate::log::warning;
use crate::onnxruntime::ON_GPU;

/// The work that the sandbox leaves possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// The processor computes.
    Processor,
    /// A GPU of NVIDIA's computes: its devices may be opened and given orders, facts about the machine may be read, and
    /// a stream socket may be listened on, without which CUDA's library does not start. It can be connected to nothing.
    Gpu,
}

impl Profile {
    /// Of the execution provider that is asked for.
    pub(crate) fn of(execution_provider: &str) -> Profile {
        if execution_provider == ON_GPU { Profile::Gpu } else { Profile::Processor }
    }
}

/// The parts of the sandbox that hold in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Posture {
    /// Whether system calls that the server never needs are refused.
    pub system_calls: bool,
    /// The version of Landlock that restricts files, 1 or above; 0 where the kernel has none. From 6 on it also keeps
    /// signals and abstract sockets inside.
    pub landlock: u8,
    /// Whether no program can be executed with more rights.
    pub no_new_privileges: bool,
    /// For which work it was entered.
    pub profile: Profile,
}

/// Restricts this process and every thread that it starts from now on. Called by its only thread.
pub(crate) fn enter(models_directory: &Path, onnxruntime: &Path, profile: Profile) -> Posture {
    let no_new_privileges = prctl::set_no_new_privs().is_ok();
    // A core dump would hold the photos of users.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    let landlock = filesystem::restrict(models_directory, onnxruntime, profile).unwrap_or_else(|reason| {
        warning!("files are not restricted: {reason}");
        0
    });
    let system_calls = system_calls::restrict(profile).map_err(|reason| {
        warning!("system calls are not restricted: {reason}");
    });
    Posture { system_calls: system_calls.is_ok(), landlock, no_new_privileges, profile }
}

impl Posture {
    /// The posture in the status report.
    pub(crate) fn report(self) -> Value {
        let mut report = json!({
            "system_calls": self.system_calls,
            "landlock": self.landlock,
            "no_new_privileges": self.no_new_privileges,
        });
        if self.profile == Profile::Gpu {
            report["gpu_devices"] = true.into();
        }
        report
    }
}
