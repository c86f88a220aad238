//! Files that ONNX Runtime maps into memory, as long as a session needs them.
//!
//! ONNX Runtime keeps weights of a file mapped where it does not pack them, such as the table of tokens. A file
//! that is overwritten later would change them under a session that was tested and has a fingerprint, and one that
//! is cut would end the process. So mappings that are left after a load are replaced, in their place, by memory
//! with the same bytes.

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::io;
use std::os::linux::fs::MetadataExt;
use std::path::PathBuf;
use std::ptr;
use std::sync::{Condvar, Mutex, PoisonError};

/// Files that a session is being made from. While one lives, no other thread makes a session from the same file, so that
/// the mappings of these files are that session's.
#[derive(Debug)]
pub(super) struct MappedFiles {
    files: Vec<(PathBuf, Identity)>,
}

/// Device and number, as the kernel names a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Identity {
    major: u32,
    minor: u32,
    number: u64,
}

static IN_USE: Mutex<Option<HashSet<Identity>>> = Mutex::new(None);
static RELEASED: Condvar = Condvar::new();

impl MappedFiles {
    /// Waits until no other thread makes a session from one of them.
    pub(super) fn open(paths: &[PathBuf]) -> io::Result<MappedFiles> {
        let mut files = Vec::new();
        for path in paths {
            let path = path.canonicalize()?;
            let identity = Identity::of(&fs::metadata(&path)?);
            if !files.iter().any(|(_, known)| *known == identity) {
                files.push((path, identity));
            }
        }
        let mut in_use = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let set = in_use.get_or_insert_default();
            if files.iter().all(|(_, identity)| !set.contains(identity)) {
                set.extend(files.iter().map(|(_, identity)| *identity));
                return Ok(MappedFiles { files });
            }
            in_use = RELEASED.wait(in_use).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Replaces the mappings of the files by memory with the same bytes. Returns how many bytes.
    pub(super) fn copy_mappings(&self) -> io::Result<usize> {
        let mut copied = 0;
        for mapping in fs::read_to_string("/proc/self/maps")?.lines().filter_map(Mapping::parse) {
            // Of a file on btrfs, or on an overlay, the kernel names another device here than to `stat`.
            if self.files.iter().any(|(path, identity)| *identity == mapping.file || *path == mapping.path) {
                mapping.replace()?;
                copied += mapping.length();
            }
        }
        Ok(copied)
    }
}

impl Drop for MappedFiles {
    fn drop(&mut self) {
        let mut in_use = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(set) = in_use.as_mut() {
            set.retain(|identity| self.files.iter().all(|(_, own)| own != identity));
        }
        RELEASED.notify_all();
    }
}

impl Identity {
    fn of(file: &Metadata) -> Identity {
        let device = file.st_dev();
        Identity { major: libc::major(device), minor: libc::minor(device), number: file.st_ino() }
    }
}

/// A piece of a file in memory: a line of `/proc/self/maps`.
#[derive(Debug, PartialEq, Eq)]
struct Mapping {
    start: usize,
    end: usize,
    file: Identity,
    /// Where the file was when it was mapped.
    path: PathBuf,
}

impl Mapping {
    /// `start-end permissions offset major:minor number path`, all in hexadecimal but the number.
    fn parse(line: &str) -> Option<Mapping> {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let (major, minor) = fields.nth(2)?.split_once(':')?;
        let number = fields.next()?.parse().ok()?;
        // Spaces stand before a path and in it.
        let path = line.find('/').map_or("", |at| &line[at..]);
        let address = |digits| usize::from_str_radix(digits, 16).ok();
        let part = |digits| u32::from_str_radix(digits, 16).ok();
        Some(Mapping {
            start: address(start)?,
            end: address(end)?,
            file: Identity { major: part(major)?, minor: part(minor)?, number },
            path: path.into(),
        })
    }

    fn length(&self) -> usize {
        self.end - self.start
    }

    fn replace(&self) -> io::Result<()> {
        let length = self.length();
        // SAFETY: the kernel chooses where, so that nothing else lies there.
        let copy = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if copy == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the range from `start` is a mapping that can be read, of a file that the session of this thread
        // keeps: no other session that is being made maps this file, and finished ones map it no more. So nothing
        // unmaps the range meanwhile, and code that reads it finds the same bytes before and after. `copy` has this
        // length, and no other code knows it.
        let moved = unsafe {
            ptr::copy_nonoverlapping(self.start as *const u8, copy.cast::<u8>(), length);
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            libc::mremap(copy, length, length, flags, self.start as *mut libc::c_void)
        };
        let moved = if moved == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) };
        if moved.is_err() {
            // SAFETY: it was not moved, and nothing uses it.
            unsafe { libc::munmap(copy, length) };
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd;
    use std::sync::mpsc;
    use std::{slice, thread};

    use super::*;

    #[test]
    fn a_line_of_the_kernel_is_a_mapping_or_none() {
        let line = "7f12a000-7f12c000 rw-p 00003000 fe:01 1234  /models/a b/model.onnx";
        let file = Identity { major: 0xfe, minor: 1, number: 1234 };
        let path = PathBuf::from("/models/a b/model.onnx");
        assert_eq!(Mapping::parse(line), Some(Mapping { start: 0x7f12_a000, end: 0x7f12_c000, file, path }));
        for line in ["", "7f12a000 rw-p", "x-y rw-p 0 0:0 0", "7f12a000-7f12c000 rw-p 0"] {
            assert_eq!(Mapping::parse(line), None, "{line}");
        }
    }

    /// Maps the file from its second page, as ONNX Runtime maps weights.
    fn map(file: &File, length: usize) -> &'static [u8] {
        // SAFETY: the kernel chooses where; the mapping is never undone.
        unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let start =
                libc::mmap(ptr::null_mut(), length, access, libc::MAP_PRIVATE, file.as_raw_fd(), 4096);
            assert_ne!(start, libc::MAP_FAILED);
            slice::from_raw_parts(start.cast::<u8>(), length)
        }
    }

    #[test]
    fn a_file_that_changes_later_changes_nothing_in_memory() {
        let folder = temp_dir::TempDir::new().unwrap();
        let path = folder.path().join("weights");
        let content: Vec<u8> = (0..4 * 4096 + 100_u32).map(|at| (at % 251) as u8).collect();
        fs::write(&path, &content).unwrap();
        let mapped = map(&File::open(&path).unwrap(), 3 * 4096 + 100);
        assert_eq!(mapped, &content[4096..]);
        let files = MappedFiles::open(&[path.clone(), path.clone()]).unwrap();
        assert_eq!(files.copy_mappings().unwrap(), 4 * 4096);
        assert_eq!(files.copy_mappings().unwrap(), 0, "nothing is mapped any more");
        let by_its_path = map(&File::open(&path).unwrap(), 4096);
        let elsewhere = Identity { major: 0, minor: 0, number: 1 };
        let files = MappedFiles { files: vec![(path.canonicalize().unwrap(), elsewhere)] };
        assert_eq!(files.copy_mappings().unwrap(), 4096);
        File::create(&path).unwrap().set_len(10).unwrap();
        assert_eq!(mapped, &content[4096..]);
        assert_eq!(by_its_path, &content[4096..2 * 4096]);
    }

    #[test]
    fn a_file_has_one_session_that_is_being_made() {
        let folder = temp_dir::TempDir::new().unwrap();
        let path = folder.path().join("weights");
        fs::write(&path, "weights").unwrap();
        let first = MappedFiles::open(slice::from_ref(&path)).unwrap();
        let (sender, order) = mpsc::channel();
        thread::scope(|scope| {
            let (path, late) = (path.clone(), sender.clone());
            scope.spawn(move || {
                let second = MappedFiles::open(&[path]).unwrap();
                late.send("second").unwrap();
                drop(second);
            });
            sender.send("first").unwrap();
            drop(first);
        });
        assert_eq!(order.iter().take(2).collect::<Vec<_>>(), ["first", "second"]);
    }
}
