//! Which files may be read; none may be written, but the devices of a GPU where one is asked for.
//!
//! Landlock decides when a file is opened: descriptors that are open already stay as they are. Models are loaded at
//! any time, so their folder stays readable, and so do the folders that symbolic links in it lead to when the
//! server starts.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, make_bitflags, path_beneath_rules,
};

use super::Profile;

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

/// The places where the driver of NVIDIA's GPUs reads what machine it is on, and where CUDA's libraries often lie.
const OF_GPU: [&str; 11] = [
    "/proc/driver/nvidia",
    "/proc/devices",
    "/proc/modules",
    "/proc/meminfo",
    "/proc/sys/vm/mmap_min_addr",
    "/sys/devices",
    "/sys/bus/pci",
    "/sys/module",
    "/usr/local/cuda",
    "/usr/local/nvidia",
    "/usr/share/nvidia",
];

/// Restricts the calling thread and the threads that it starts. Returns the kernel's version of Landlock, 0 where
/// it has none.
pub(super) fn restrict(
    models_directory: &Path,
    onnxruntime: &Path,
    profile: Profile,
) -> Result<u8, RulesetError> {
    let mut readable: Vec<PathBuf> = SYSTEM.iter().map(PathBuf::from).collect();
    readable.extend(places(models_directory, onnxruntime));
    let mut usable = Vec::new();
    if profile == Profile::Gpu {
        readable.extend(OF_GPU.iter().map(PathBuf::from));
        readable.extend(library_path());
        usable.extend(devices(Path::new("/dev")));
    }
    readable.retain(|path| path.exists());
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(WANTED))?
        .handle_access(AccessNet::from_all(WANTED))?
        .scope(Scope::from_all(WANTED))?
        .create()?
        .add_rules(path_beneath_rules(readable, AccessFs::from_read(WANTED)))?
        .add_rules(path_beneath_rules(usable, ON_DEVICES))?
        .restrict_self()?;
    match status.landlock {
        LandlockStatus::Available { effective_abi, .. } if status.ruleset != RulesetStatus::NotEnforced => {
            Ok(effective_abi as u8)
        }
        _ => Ok(0),
    }
}

const ON_DEVICES: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | WriteFile | ReadDir | IoctlDev});

/// The devices of NVIDIA's GPUs, without the one for screens. They are there before the server starts, or not used: the
/// sandbox starts no program that would make them.
fn devices(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_of_gpu = |name: &str| name.starts_with("nvidia") && name != "nvidia-modeset";
    entries
        .filter(|entry| entry.file_name().to_str().is_some_and(is_of_gpu))
        .map(|entry| entry.path())
        .collect()
}

/// The folders that the dynamic linker was told to look into: CUDA's libraries often lie in one.
fn library_path() -> Vec<PathBuf> {
    let given = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    env::split_paths(&given).filter(|folder| folder.is_absolute() && folder != Path::new("/")).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_devices_of_gpus_are_found_and_no_others() {
        let folder = temp_dir::TempDir::new().unwrap();
        let names =
            ["null", "nvidia0", "nvidia-caps", "nvidia-modeset", "nvidia-uvm", "nvidiactl", "nvme0n1", "sda"];
        for name in names {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let mut found = devices(folder.path());
        found.sort();
        let expected = ["nvidia-caps", "nvidia-uvm", "nvidia0", "nvidiactl"];
        assert_eq!(found, expected.map(|name| folder.path().join(name)));
    }
}
