//! The parts of packages.

use std::path::PathBuf;

use anyhow::Result;

use super::release::Release;
use crate::build::Built;
use crate::environment::Environment;
use crate::layout::{self, Entry, Layout};
use crate::workspace::Workspace;

/// The parts of a package.
pub(super) struct Parts<'a> {
    pub(super) workspace: &'a Workspace,
    pub(super) environment: &'a Environment,
    pub(super) built: &'a Built,
    pub(super) release: Release,
    /// The licences of the crates in the built files.
    pub(super) licences: PathBuf,
}

/// All files for one PostgreSQL, with the licences of the crates that are linked into them.
pub(super) fn files(parts: &Parts, layout: &Layout) -> Result<Vec<Entry>> {
    let mut entries = layout::of_extension(parts.workspace, &parts.built.library, layout)?;
    entries.extend(shared_files(parts, layout)?);
    Ok(entries)
}

/// The files that any number of PostgreSQLs can share.
pub(super) fn shared_files(parts: &Parts, layout: &Layout) -> Result<Vec<Entry>> {
    let mut entries = layout::of_embedder(parts.workspace, parts.built, parts.environment.runtime(), layout)?;
    entries.push(layout::into(parts.licences.clone(), &layout.licences));
    Ok(entries)
}
