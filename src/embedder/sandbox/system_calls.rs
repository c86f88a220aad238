//! The system calls that the server never needs.
//!
//! A list of refused calls and not of allowed ones: the C library and ONNX Runtime change their calls from release
//! to release, and a server that dies of an update of the C library embeds nothing. A refused call fails with
//! EPERM, as it would for lack of a right.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::Profile;

/// `include/uapi/asm-generic/unistd.h`: one number on all architectures, which the libc crate does not know on all.
const SYS_FCHMODAT2: libc::c_long = 452;

/// Refused with any arguments.
const REFUSED: [libc::c_long; 91] = [
    // Other machines and other processes: sockets beyond the one that was given, to connect to PostgreSQL above all.
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_process_mrelease,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_get_robust_list,
    libc::SYS_ioprio_set,
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_semctl,
    libc::SYS_msgget,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_msgctl,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
    // Other programs.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Attributes of files, which Landlock does not cover.
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    SYS_FCHMODAT2,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    // Parts of the kernel that are rarely used and often broken.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_personality,
    // The machine.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_syslog,
];

/// The older calls of the same kinds, which later processors do not have.
#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: [libc::c_long; 11] = [
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_kexec_file_load,
];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: [libc::c_long; 0] = [];

/// Take a process first: allowed on this one, under its number or as 0.
const OF_A_PROCESS: [libc::c_long; 5] = [
    libc::SYS_prlimit64,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setattr,
];

/// The refused commands of fcntl: to have the kernel send signals to another process, and to delay another
/// process's opening of a file.
const FCNTL: [libc::c_int; 5] = [libc::F_SETOWN, F_SETSIG, F_SETOWN_EX, libc::F_SETLEASE, libc::F_NOTIFY];
/// Linux, `include/uapi/asm-generic/fcntl.h`.
const F_SETSIG: libc::c_int = 10;
const F_SETOWN_EX: libc::c_int = 15;

/// The refused commands of ioctl: the same for sockets, and to type into a terminal. Linux, `asm-generic/sockios.h`
/// and `asm-generic/ioctls.h`.
const IOCTL: [libc::c_int; 3] = [FIOSETOWN, SIOCSPGRP, TIOCSTI];
const FIOSETOWN: libc::c_int = 0x8901;
const SIOCSPGRP: libc::c_int = 0x8902;
const TIOCSTI: libc::c_int = 0x5412;

/// Restricts the calling thread and the threads that it starts.
pub(super) fn restrict(profile: Profile) -> Result<(), Error> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.into_iter().chain(REFUSED_HERE).map(|call| (call, Vec::new())).collect();
    rules.insert(libc::SYS_clone, vec![new_process()?]);
    rules.insert(libc::SYS_tgkill, vec![of_another_process()?]);
    for call in OF_A_PROCESS {
        rules.insert(call, vec![of_another_process_and_not_0()?]);
    }
    // Where a process is meant, 0 is the calling thread: threads that lower their priority set their own value.
    rules.insert(libc::SYS_setpriority, vec![not_0(0)?, not_0(1)?]);
    rules.insert(libc::SYS_fcntl, one_of(1, &FCNTL)?);
    rules.insert(libc::SYS_ioctl, one_of(1, &IOCTL)?);
    if profile == Profile::Gpu {
        // CUDA's library listens on a socket of no place in the file system, by which it would lend memory to other processes.
        rules.insert(libc::SYS_socket, beyond_local_streams()?);
        rules.remove(&libc::SYS_bind);
        rules.remove(&libc::SYS_listen);
    }
    #[cfg(target_arch = "x86_64")]
    refuse_under_other_numbers(&mut rules);
    install(rules, libc::EPERM)?;
    // The flags of clone3 lie in memory, which a filter cannot read: the C library takes clone where clone3 is missing.
    install(BTreeMap::from([(libc::SYS_clone3, Vec::new())]), libc::ENOSYS)
}

fn install(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: i32) -> Result<(), Error> {
    let processor: TargetArch = std::env::consts::ARCH.try_into()?;
    let refuse = SeccompAction::Errno(errno.unsigned_abs());
    let program: BpfProgram =
        SeccompFilter::new(rules, SeccompAction::Allow, refuse, processor)?.try_into()?;
    seccompiler::apply_filter(&program)
}

/// A clone that is no thread.
fn new_process() -> Result<SeccompRule, Error> {
    let thread = libc::CLONE_THREAD as u64;
    let not_a_thread = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(thread), 0)?;
    Ok(SeccompRule::new(vec![not_a_thread])?)
}

/// A signal to a thread of another process. A process aborts by a signal to itself, and a thread is told by one to
/// lower its priority.
fn of_another_process() -> Result<SeccompRule, Error> {
    Ok(SeccompRule::new(vec![is(0, SeccompCmpOp::Ne, std::process::id())?])?)
}

fn of_another_process_and_not_0() -> Result<SeccompRule, Error> {
    let (not_own, not_0) = (is(0, SeccompCmpOp::Ne, std::process::id())?, is(0, SeccompCmpOp::Ne, 0)?);
    Ok(SeccompRule::new(vec![not_own, not_0])?)
}

fn not_0(argument: u8) -> Result<SeccompRule, Error> {
    Ok(SeccompRule::new(vec![is(argument, SeccompCmpOp::Ne, 0)?])?)
}

/// A socket of a network, or one that sends without being connected. The types of these are 2, 3, 6 and 10: they have the bit 2,
/// and the types of streams, 1 and 5, do not.
fn beyond_local_streams() -> Result<Vec<SeccompRule>, Error> {
    let not_local = is(0, SeccompCmpOp::Ne, libc::AF_UNIX.unsigned_abs())?;
    let unconnected = is(1, SeccompCmpOp::MaskedEq(2), 2)?;
    Ok(vec![SeccompRule::new(vec![not_local])?, SeccompRule::new(vec![unconnected])?])
}

fn one_of(argument: u8, values: &[libc::c_int]) -> Result<Vec<SeccompRule>, Error> {
    let rule = |value: &libc::c_int| {
        Ok(SeccompRule::new(vec![is(argument, SeccompCmpOp::Eq, value.unsigned_abs())?])?)
    };
    values.iter().map(rule).collect()
}

fn is(argument: u8, how: SeccompCmpOp, value: u32) -> Result<SeccompCondition, Error> {
    Ok(SeccompCondition::new(argument, SeccompCmpArgLen::Dword, how, value.into())?)
}

/// The x32 interface offers the same calls with this bit in their numbers, and some under numbers of their own (Linux,
/// `arch/x86/entry/syscalls/syscall_64.tbl`): ioctl, execve, ptrace, rt_sigqueueinfo, kexec_load, get_robust_list, move_pages,
/// rt_tgsigqueueinfo, process_vm_readv, process_vm_writev, execveat.
#[cfg(target_arch = "x86_64")]
fn refuse_under_other_numbers(rules: &mut BTreeMap<i64, Vec<SeccompRule>>) {
    const X32: i64 = 0x4000_0000;
    const OWN: [i64; 11] = [514, 520, 521, 524, 528, 531, 533, 536, 539, 540, 545];
    let same: Vec<_> = rules.iter().map(|(call, rule)| (call | X32, rule.clone())).collect();
    rules.extend(same);
    rules.extend(OWN.map(|call| (call | X32, Vec::new())));
}
