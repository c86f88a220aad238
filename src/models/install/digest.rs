//! The hash that a file must have.
//!
//! A hub knows the sha256 of the files that it keeps outside git (those of Git LFS), and of the others git's own
//! name: the sha1 over `blob <length>\0` and the bytes. The record of a model holds the sha256 of every file.

use std::fmt;

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// The hash by which a hub names a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Digest {
    Sha256([u8; 32]),
    GitBlob([u8; 20]),
}

impl Digest {
    /// A sha256 of 64 hexadecimal digits.
    pub(crate) fn sha256(text: &str) -> Option<Digest> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok().map(|()| Digest::Sha256(bytes))
    }

    /// Git's name of a blob, of 40 hexadecimal digits.
    pub(crate) fn git_blob(text: &str) -> Option<Digest> {
        let mut bytes = [0; 20];
        hex::decode_to_slice(text, &mut bytes).ok().map(|()| Digest::GitBlob(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Digest::Sha256(bytes) => write!(formatter, "sha256 {}", hex::encode(bytes)),
            Digest::GitBlob(bytes) => write!(formatter, "git blob {}", hex::encode(bytes)),
        }
    }
}

/// Hashes a file both ways while it is written.
#[derive(Debug)]
pub(crate) struct Hasher {
    sha256: Sha256,
    git_blob: Sha1,
}

/// Both hashes of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hashes {
    pub sha256: [u8; 32],
    git_blob: [u8; 20],
}

impl Hasher {
    /// For a file of `size` bytes.
    pub(crate) fn new(size: u64) -> Hasher {
        Hasher { sha256: Sha256::new(), git_blob: Sha1::new_with_prefix(format!("blob {size}\0")) }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.git_blob.update(bytes);
    }

    pub(crate) fn finish(self) -> Hashes {
        Hashes { sha256: self.sha256.finalize().into(), git_blob: self.git_blob.finalize().into() }
    }
}

impl Hashes {
    /// The hash of the same kind as `other`, to be compared with it.
    pub(crate) fn like(&self, other: &Digest) -> Digest {
        match other {
            Digest::Sha256(_) => Digest::Sha256(self.sha256),
            Digest::GitBlob(_) => Digest::GitBlob(self.git_blob),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_equal_those_of_sha256sum_and_git() {
        let mut hasher = Hasher::new(6);
        hasher.update(b"hello\n");
        let hashes = hasher.finish();
        // `printf 'hello\n' | sha256sum` and `printf 'hello\n' | git hash-object --stdin`.
        let sha256 =
            Digest::sha256("5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03").unwrap();
        let git_blob = Digest::git_blob("ce013625030ba8dba906f756967f9e9ca394464a").unwrap();
        assert_eq!(hashes.like(&sha256), sha256);
        assert_eq!(hashes.like(&git_blob), git_blob);
    }

    #[test]
    fn a_text_that_is_no_hash_is_none() {
        for text in ["", "00", "zz", &"0".repeat(63), &"g".repeat(64), &"0".repeat(65)] {
            assert_eq!((Digest::sha256(text), Digest::git_blob(text)), (None, None), "{text}");
        }
    }
}
