//! Which files may be read; none may be written.
//!
//! Landlock decides when a file is opened: descriptors that are open already stay as they are. Models are loaded at
//! any time, so their folder stays readable, and so do the folders that symbolic links in it lead to when the
//! server starts.

use std::fs;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, LandlockStatus, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};

/// The newest version whose every right is asked for; an older kernel gives what it has.
const WANTED: ABI = ABI::V6;

/// The places where the dynamic linker finds ONNX Runtime's dependencies, and where ONNX Runtime reads the kind of
/// the processor.
const SYSTEM: [&str; 10] = [
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/etc/ld.so.cache",
    "/proc/self",
    "/proc/cpuinfo",
    "/sys/devices/system/cpu",
    "/sys/fs/cgroup",
];

/// Restricts the calling thread and the threads that it starts. Returns the kernel's version of Landlock, 0 where
/// it has none.
pub(super) fn restrict(models_directory: &Path, onnxruntime: &Path) -> Result<u8, RulesetError> {
    let readable = SYSTEM.iter().map(PathBuf::from).chain(places(models_directory, onnxruntime));
    let readable = readable.filter(|path| path.exists());
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(WANTED))?
        .handle_access(AccessNet::from_all(WANTED))?
        .scope(Scope::from_all(WANTED))?
        .create()?
        .add_rules(path_beneath_rules(readable, AccessFs::from_read(WANTED)))?
        .restrict_self()?;
    match status.landlock {
        LandlockStatus::Available { effective_abi, .. } if status.ruleset != RulesetStatus::NotEnforced => {
            Ok(effective_abi as u8)
        }
        _ => Ok(0),
    }
}

fn places(models_directory: &Path, onnxruntime: &Path) -> Vec<PathBuf> {
    let mut places = vec![models_directory.to_owned()];
    let linked = fs::read_dir(models_directory).into_iter().flatten().filter_map(|entry| {
        let entry = entry.ok()?;
        entry.file_type().ok()?.is_symlink().then(|| fs::canonicalize(entry.path()).ok())?
    });
    places.extend(linked);
    // The folder of the library, under its own name and where a link to it leads: its providers lie beside it.
    places.extend(onnxruntime.parent().map(Path::to_owned));
    places.extend(fs::canonicalize(onnxruntime).ok().and_then(|file| file.parent().map(Path::to_owned)));
    places
}
