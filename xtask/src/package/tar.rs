//! Packing archives.

use std::process::Command;

/// A tar that packs the named files of a folder, with the owners' numbers.
pub(super) fn tar() -> Command {
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--numeric-owner", "--create"]);
    tar
}
