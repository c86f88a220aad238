//! `sandbox`: the acts that the server could not do on this machine if it were taken over.
//!
//! The acts are tried from inside, with arguments that would do no harm where they are allowed. A kernel that refuses an
//! act for another reason refuses it all the same.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{self, Command, ExitCode};

use clap::Args;

use super::failure::fail;
use super::place::Place;
use crate::onnxruntime::ON_PROCESSOR;
use crate::sandbox::{self, Profile};

#[derive(Debug, Args)]
pub(crate) struct SandboxOptions {
    #[command(flatten)]
    pub place: Place,
    /// What the server computes on: a GPU needs rights of its own
    #[arg(long, value_name = "NAME", default_value = ON_PROCESSOR)]
    pub execution_provider: String,
}

/// Enters the sandbox, tries the acts, and prints a line for each. Fails where one is allowed.
pub(crate) fn run(SandboxOptions { place, execution_provider }: &SandboxOptions) -> ExitCode {
    let (models_directory, library) = match (place.models.path(), place.library()) {
        (Ok(models_directory), Ok(library)) => (models_directory, library),
        (Err(error), _) | (_, Err(error)) => return fail(error),
    };
    let profile = Profile::of(execution_provider);
    let posture = sandbox::enter(&models_directory, &library, profile);
    println!("system calls      {}", if posture.system_calls { "restricted" } else { "not restricted" });
    println!(
        "files             {}",
        match posture.landlock {
            0 => "not restricted: the kernel has no Landlock".to_owned(),
            version => format!("restricted by Landlock {version}"),
        }
    );
    println!("new privileges    {}", if posture.no_new_privileges { "impossible" } else { "possible" });
    let mut allowed = 0;
    for (act, outcome) in acts(&models_directory) {
        match outcome {
            Err(error) if is_refusal(&error) => println!("refused           {act}"),
            Err(error) => println!("failed            {act}: {error}"),
            Ok(()) => {
                println!("ALLOWED           {act}");
                allowed += 1;
            }
        }
    }
    if allowed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES | libc::ENOSYS))
}

fn acts(models_directory: &Path) -> Vec<(&'static str, io::Result<()>)> {
    let written = models_directory.join(".written-by-the-sandbox-command");
    let parent = libc::c_long::from(nix::unistd::getppid().as_raw());
    let own = libc::c_long::from(process::id());
    // SAFETY: the call takes numbers alone.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, parent as libc::id_t) }.into();
    vec![
        ("read /etc/passwd", fs::read("/etc/passwd").map(drop)),
        ("list the root folder", fs::read_dir("/").map(drop)),
        ("read another process's memory", fs::read(format!("/proc/{parent}/mem")).map(drop)),
        ("write to the models folder", fs::write(&written, "")),
        ("write to /tmp", fs::write("/tmp/.written-by-the-sandbox-command", "")),
        ("make a folder", fs::create_dir("/tmp/.made-by-the-sandbox-command")),
        // It is not empty, and would stay.
        ("remove a folder", fs::remove_dir("/etc")),
        ("run a program", Command::new("/bin/true").status().map(drop)),
        ("connect to a server of PostgreSQL", UnixStream::connect("/tmp/.s.PGSQL.5432").map(drop)),
        ("listen on a Unix socket", UnixListener::bind("/tmp/.bound-by-the-sandbox-command").map(drop)),
        ("listen on a network socket", TcpListener::bind("127.0.0.1:0").map(drop)),
        ("make a socket that sends to any name", UnixDatagram::unbound().map(drop)),
        ("make a pair of sockets", UnixStream::pair().map(drop)),
        // Signal 0 asks whether a signal could be sent.
        ("signal the parent process", call(libc::SYS_kill, [parent, 0, 0, 0])),
        ("signal a thread of the parent process", call(libc::SYS_tgkill, [parent, parent, 0, 0])),
        ("get a handle on a process", call(libc::SYS_pidfd_open, [parent, 0, 0, 0])),
        ("read memory with process_vm_readv", call(libc::SYS_process_vm_readv, [own, 0, 0, 0])),
        ("trace the parent process", call(libc::SYS_ptrace, [PTRACE_SEIZE, parent, 0, 0])),
        ("start a process with clone", call(libc::SYS_clone, [CLONE_BAD, 0, 1, 0])),
        ("start a process with clone3", call(libc::SYS_clone3, [0, 0, 0, 0])),
        ("change the mode of a file", call(libc::SYS_fchmod, [2, 0o600, 0, 0])),
        ("leave a namespace", call(libc::SYS_unshare, [0, 0, 0, 0])),
        ("mount a file system", call(libc::SYS_mount, [0, 0, 0, 0])),
        ("change the root folder", call(libc::SYS_chroot, [c"/".as_ptr() as libc::c_long, 0, 0, 0])),
        ("load a program into the kernel", call(libc::SYS_bpf, [0, 0, 0, 0])),
        ("set up io_uring", call(libc::SYS_io_uring_setup, [0, 0, 0, 0])),
        ("measure the kernel", call(libc::SYS_perf_event_open, [0, 0, 0, 0])),
        ("handle page faults", call(libc::SYS_userfaultfd, [0, 0, 0, 0])),
        ("use the kernel's keys", call(libc::SYS_keyctl, [0, 0, 0, 0])),
        ("share memory with another process", call(libc::SYS_shmget, [0, 4096, 0, 0])),
        // There is no segment and no set of this number.
        ("remove shared memory", call(libc::SYS_shmctl, [-1, libc::IPC_RMID.into(), 0, 0])),
        ("change a semaphore", call(libc::SYS_semop, [-1, 0, 0, 0])),
        // Without a new limit it reads the old one, to nowhere.
        ("limit the parent process", call(libc::SYS_prlimit64, [parent, libc::RLIMIT_NOFILE.into(), 0, 0])),
        ("move the parent process to a processor", call(libc::SYS_sched_setaffinity, [parent, 0, 0, 0])),
        ("schedule the parent process", call(libc::SYS_sched_setscheduler, [parent, -1, 0, 0])),
        ("set the parent process's priority", call(libc::SYS_setpriority, [PRIO_PROCESS, parent, nice, 0])),
        // No user has this number.
        ("set the priority of a user", call(libc::SYS_setpriority, [PRIO_USER, 0x7fff_ffff, nice, 0])),
        ("set the parent process's priority for disks", call(libc::SYS_ioprio_set, [1, parent, 0, 0])),
        ("move the parent process's memory", call(libc::SYS_migrate_pages, [parent, 0, 0, 0])),
        // 0 has it sent to no process.
        ("have signals sent by a descriptor", call(libc::SYS_fcntl, [2, libc::F_SETOWN.into(), 0, 0])),
        ("have signals sent by a socket", call(libc::SYS_ioctl, [2, FIOSETOWN, 0, 0])),
        ("set the clock", call(libc::SYS_clock_settime, [0, 0, 0, 0])),
        ("use the x32 interface", call(libc::SYS_kill | X32, [parent, 0, 0, 0])),
    ]
}

const PTRACE_SEIZE: libc::c_long = 0x4206;
/// Both flags together are an error to the kernel, so that an allowed call starts nothing.
const CLONE_BAD: libc::c_long = (libc::CLONE_NEWNS | libc::CLONE_FS) as libc::c_long;
const X32: libc::c_long = 0x4000_0000;
const PRIO_PROCESS: libc::c_long = 0;
const PRIO_USER: libc::c_long = 2;
const FIOSETOWN: libc::c_long = 0x8901;

fn call(number: libc::c_long, arguments: [libc::c_long; 4]) -> io::Result<()> {
    let [first, second, third, fourth] = arguments;
    // SAFETY: the calls above take numbers, null pointers that the kernel checks, and one string that ends with a zero
    // byte; none of them touches memory of this process.
    match unsafe { libc::syscall(number, first, second, third, fourth, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
