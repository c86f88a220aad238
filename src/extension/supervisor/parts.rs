//! Where the embedder's program, ONNX Runtime and the models are.
//!
//! Each is looked for by itself: where its setting says; in the folder `pg_clip` beside this library, wherever the server
//! loaded it from; where releases without that folder installed it. So pg_clip runs from a folder of its own that the
//! server finds by `dynamic_library_path` or by a symbolic link, such as a read-only volume.

use std::ffi::{CStr, OsStr, c_char, c_void};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use pgrx::pg_sys;

use crate::settings;

pub(super) fn program() -> PathBuf {
    chosen(settings::embedder_program())
        .unwrap_or_else(|| find("pg_clip_embedder", || server_program().with_file_name("pg_clip_embedder")))
}

pub(super) fn onnxruntime_library() -> PathBuf {
    chosen(settings::onnxruntime_library()).unwrap_or_else(|| {
        let name = "libonnxruntime.so";
        find(name, || server_folder(pg_sys::get_pkglib_path).join(FOLDER).join(name))
    })
}

pub(super) fn models_directory() -> PathBuf {
    chosen(settings::models_directory()).unwrap_or_else(|| {
        find("models", || server_folder(pg_sys::get_share_path).join(FOLDER).join("models"))
    })
}

/// The name of the folder beside the library, and of the server's folders for pg_clip.
const FOLDER: &str = "pg_clip";

fn chosen(setting: String) -> Option<PathBuf> {
    Some(setting).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// The path of a file or folder. Where there is none, the first place that was tried, so that an error names it.
fn find(name: &str, installed: impl FnOnce() -> PathBuf) -> PathBuf {
    let mut places: Vec<PathBuf> =
        library_folders().into_iter().map(|folder| folder.join(FOLDER).join(name)).collect();
    places.push(installed());
    let found = places.iter().position(|place| place.exists());
    places.swap_remove(found.unwrap_or(0))
}

/// The folder that the server loaded this library from, then the one that a symbolic link there leads to.
fn library_folders() -> Vec<PathBuf> {
    let Some(library) = library() else { return Vec::new() };
    let real = fs::canonicalize(&library).ok();
    let mut folders: Vec<PathBuf> = [Some(library), real]
        .into_iter()
        .flatten()
        .filter_map(|file| file.parent().map(Path::to_owned))
        .collect();
    folders.dedup();
    folders
}

/// The path of this library, as the server gave it to the dynamic linker.
fn library() -> Option<PathBuf> {
    let own = library as fn() -> Option<PathBuf> as *const c_void;
    // SAFETY: an all-zero value is one of a struct of pointers; dladdr fills it for any address, and the name that it
    // points to stays while the library is loaded, which is for as long as this code runs.
    unsafe {
        let mut information: libc::Dl_info = std::mem::zeroed();
        if libc::dladdr(own, &raw mut information) == 0 || information.dli_fname.is_null() {
            return None;
        }
        Some(PathBuf::from(OsStr::from_bytes(CStr::from_ptr(information.dli_fname).to_bytes())))
    }
}

/// A directory of this server, found from where its program lies.
fn server_folder(find: unsafe fn(*const c_char, *mut c_char)) -> PathBuf {
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
    PathBuf::from(OsStr::from_bytes(path.to_bytes()))
}
