//! One file from the hub, whole and verified.
//!
//! Bytes that are there already are kept: the next attempt, of this process or of a later one, asks for the rest. A
//! file that was put together from several attempts and is wrong is fetched once more in one piece, because a
//! machine that lost its power may have written less than it reported; a file of one piece that is wrong is
//! refused.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use super::digest::{Hasher, Hashes};
use super::hub::{Content, Hub};
use super::progress::Progress;
use super::refusal::Retries;
use super::repository::{RemoteFile, Snapshot};
use crate::error::Error;

/// Fetches a file to `target`, continuing the bytes that are there, and gives its sha256.
pub(crate) fn download(
    hub: &Hub,
    snapshot: &Snapshot,
    file: &RemoteFile,
    target: &Path,
    progress: &mut Progress,
) -> Result<[u8; 32], Error> {
    let mut transfer = Transfer::open(file, target, progress)?;
    let mut again = true;
    loop {
        transfer.run(hub, snapshot)?;
        let hashes = transfer.finish()?;
        let found = hashes.like(&file.digest);
        if found == file.digest {
            return Ok(hashes.sha256);
        }
        if !(transfer.pieced && again) {
            fs::remove_file(target).map_err(Error::io(format!("cannot remove {}", target.display())))?;
            return Err(Error::WrongFile {
                file: file.path.clone(),
                expected: file.digest.to_string(),
                found: found.to_string(),
            });
        }
        again = false;
        transfer.restart()?;
    }
}

/// A file that is being fetched.
struct Transfer<'a> {
    expected: &'a RemoteFile,
    target: &'a Path,
    file: File,
    hasher: Hasher,
    /// How many bytes are there, and hashed.
    have: u64,
    /// Whether they are of several attempts.
    pieced: bool,
    progress: &'a mut Progress,
}

impl<'a> Transfer<'a> {
    fn open(
        expected: &'a RemoteFile,
        target: &'a Path,
        progress: &'a mut Progress,
    ) -> Result<Transfer<'a>, Error> {
        let cannot = || Error::io(format!("cannot open {}", target.display()));
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(target);
        let file = file.map_err(cannot())?;
        let there = file.metadata().map_err(cannot())?.len();
        let hasher = Hasher::new(expected.size);
        let mut transfer = Transfer { expected, target, file, hasher, have: 0, pieced: false, progress };
        if there > expected.size {
            transfer.restart()?;
        } else {
            let mut tee = Tee { hasher: &mut transfer.hasher, progress: transfer.progress };
            transfer.have = io::copy(&mut transfer.file, &mut tee).map_err(transfer.cannot("read"))?;
            transfer.pieced = transfer.have > 0;
            transfer.progress.resume(transfer.have);
        }
        Ok(transfer)
    }

    /// Fetches the missing bytes, from a server that may be cut off or be away for a while.
    fn run(&mut self, hub: &Hub, snapshot: &Snapshot) -> Result<(), Error> {
        let path = &snapshot.url_path(self.expected);
        let mut retries = Retries::default();
        let mut furthest = self.have;
        while self.have < self.expected.size {
            let failure = match hub.open(path, self.have) {
                Ok(content) => match self.receive(content)? {
                    Ok(()) => continue,
                    Err(error) => hub.cut_off(path, &error),
                },
                Err(refusal) => refusal,
            };
            if self.have > furthest {
                furthest = self.have;
                retries = Retries::default();
            }
            let wait = retries.wait(failure, |line| self.progress.say(line));
            wait.map_err(|refusal| snapshot.refused(hub, refusal))?;
        }
        Ok(())
    }

    /// Writes what the server sends. The inner error is the server's, the outer one is ours.
    fn receive(&mut self, mut content: Content) -> Result<Result<(), io::Error>, Error> {
        if content.start != self.have {
            self.restart()?;
        }
        self.pieced |= self.have > 0;
        let mut buffer = vec![0; 1 << 16];
        while self.have < self.expected.size {
            let count = match content.reader.read(&mut buffer) {
                Ok(0) => return Ok(Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Ok(Err(error)),
            };
            let wanted = usize::try_from(self.expected.size - self.have).unwrap_or(usize::MAX);
            let bytes = &buffer[..count.min(wanted)];
            self.file.write_all(bytes).map_err(self.cannot("write"))?;
            self.hasher.update(bytes);
            self.have += bytes.len() as u64;
            self.progress.advance(bytes.len() as u64);
        }
        Ok(Ok(()))
    }

    /// Forgets the bytes that are there.
    fn restart(&mut self) -> Result<(), Error> {
        self.file.set_len(0).map_err(self.cannot("empty"))?;
        self.file.rewind().map_err(self.cannot("empty"))?;
        self.progress.take_back(self.have);
        self.hasher = Hasher::new(self.expected.size);
        self.have = 0;
        self.pieced = false;
        Ok(())
    }

    /// Makes the file durable, and gives its hashes.
    fn finish(&mut self) -> Result<Hashes, Error> {
        self.file.sync_all().map_err(self.cannot("write"))?;
        Ok(std::mem::replace(&mut self.hasher, Hasher::new(self.expected.size)).finish())
    }

    fn cannot(&self, what: &str) -> impl FnOnce(io::Error) -> Error + use<> {
        Error::io(format!("cannot {what} {}", self.target.display()))
    }
}

/// Hashes bytes that are there already, and counts them.
struct Tee<'a> {
    hasher: &'a mut Hasher,
    progress: &'a mut Progress,
}

impl Write for Tee<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.progress.advance(bytes.len() as u64);
        self.hasher.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
