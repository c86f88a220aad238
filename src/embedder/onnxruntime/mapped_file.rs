//! Files that ONNX Runtime maps into memory, as long as a session needs them.
//!
//! Of weights in a file ONNX Runtime keeps a mapping where it does not pack them, of the table of tokens for one. A file
//! that is overwritten later would change them under a session that was tested and has a fingerprint, and one that is cut
//! would end the process. So what is still mapped after a load is replaced, in its place, by memory with the same bytes.

use std::collections::HashSet;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::linux::fs::MetadataExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::ptr;
use std::slice;
use std::sync::{Condvar, Mutex, PoisonError};

/// Files that a session is being made from. While one lives, no other thread makes a session from the same file, so that
/// the mappings of these files are that session's.
#[derive(Debug)]
pub(super) struct MappedFiles {
    files: Vec<(File, Identity)>,
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
            let file = File::open(path)?;
            let identity = Identity::of(&file.metadata()?);
            if !files.iter().any(|(_, known)| *known == identity) {
                files.push((file, identity));
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

    /// Replaces what is mapped of the files by memory with the same bytes: how many bytes.
    pub(super) fn copy_what_is_mapped(&self) -> io::Result<usize> {
        let mut copied = 0;
        for mapping in fs::read_to_string("/proc/self/maps")?.lines().filter_map(Mapping::parse) {
            if let Some((file, _)) = self.files.iter().find(|(_, identity)| *identity == mapping.file) {
                mapping.replace(file)?;
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
    /// In the file.
    offset: u64,
    file: Identity,
}

impl Mapping {
    /// `start-end permissions offset major:minor number path`, all in hexadecimal but the number.
    fn parse(line: &str) -> Option<Mapping> {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let offset = fields.nth(1)?;
        let (major, minor) = fields.next()?.split_once(':')?;
        let hexadecimal = |digits| u64::from_str_radix(digits, 16).ok();
        let part = |digits| u32::from_str_radix(digits, 16).ok();
        Some(Mapping {
            start: usize::try_from(hexadecimal(start)?).ok()?,
            end: usize::try_from(hexadecimal(end)?).ok()?,
            offset: hexadecimal(offset)?,
            file: Identity { major: part(major)?, minor: part(minor)?, number: fields.next()?.parse().ok()? },
        })
    }

    fn length(&self) -> usize {
        self.end - self.start
    }

    fn replace(&self, file: &File) -> io::Result<()> {
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
        // SAFETY: `copy` is a mapping of this length that nothing else knows; it is readable and writable, and zero.
        let bytes = unsafe { slice::from_raw_parts_mut(copy.cast::<u8>(), length) };
        // What is mapped beyond the end of the file is zero as well.
        let here = usize::try_from(file.metadata()?.len().saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let read = file.read_exact_at(&mut bytes[..here.min(length)], self.offset);
        let moved = read.and_then(|()| {
            // SAFETY: the range from `start` is a mapping of the file, which the session of this thread keeps: no other
            // session that is being made maps this file, and those that were made map it no more. So nothing unmaps the
            // range meanwhile, and what reads it finds the same bytes before and after. `bytes` is not used any more.
            let moved = unsafe {
                libc::mremap(
                    copy,
                    length,
                    length,
                    libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
                    self.start as *mut libc::c_void,
                )
            };
            if moved == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
        });
        if moved.is_err() {
            // SAFETY: it was not moved, and nothing uses it.
            unsafe { libc::munmap(copy, length) };
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn a_line_of_the_kernel_is_a_mapping_or_none() {
        let line = "7f12a000-7f12c000 rw-p 00003000 fe:01 1234  /models/a b/model.onnx";
        let file = Identity { major: 0xfe, minor: 1, number: 1234 };
        assert_eq!(
            Mapping::parse(line),
            Some(Mapping { start: 0x7f12_a000, end: 0x7f12_c000, offset: 0x3000, file })
        );
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
        assert_eq!(files.copy_what_is_mapped().unwrap(), 4 * 4096);
        assert_eq!(files.copy_what_is_mapped().unwrap(), 0, "nothing is mapped any more");
        File::create(&path).unwrap().set_len(10).unwrap();
        assert_eq!(mapped, &content[4096..]);
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
