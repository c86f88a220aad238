//! The crates that the library and the programs are made of, as cargo resolved them for this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::command;
use crate::workspace::Workspace;

pub(super) struct Crate {
    /// Cargo's identifier of it.
    pub(super) id: String,
    pub(super) name: String,
    pub(super) version: String,
    /// An expression of SPDX.
    pub(super) licence: Option<String>,
    /// The folder of its sources.
    pub(super) folder: PathBuf,
    /// Of the archive in the registry, in hexadecimal; none for a crate of the checkout.
    pub(super) sha256: Option<String>,
    /// The identifiers of the crates that it is built with and stays linked to.
    pub(super) dependencies: Vec<String>,
}

impl Crate {
    pub(super) fn is_ours(&self) -> bool {
        self.sha256.is_none()
    }
}

/// The packages that are built.
const BUILT: [&str; 4] = ["pg_clip", "pg_clip_embedder", "pg_clip_models", "pg_clip_feeder"];

/// All crates of the built files, in the order of their names; without those of build scripts and tests alone.
pub(super) fn linked(workspace: &Workspace, major: u32) -> Result<Vec<Crate>> {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut cargo = workspace.cargo();
    cargo.args(["metadata", "--locked", "--format-version", "1", "--filter-platform", &target]);
    cargo.args(["--no-default-features", "--features", &format!("pg_clip/pg{major}")]);
    let metadata: Value = serde_json::from_str(&command::output(&mut cargo)?).context("cargo metadata")?;
    let checksums = checksums(&fs::read_to_string(workspace.root.join("Cargo.lock"))?);
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let (packages, nodes) = (list(&metadata["packages"]), list(&metadata["resolve"]["nodes"]));
    let dependencies: BTreeMap<String, Vec<String>> =
        nodes.iter().map(|node| (text(&node["id"]), linked_dependencies(node))).collect();

    let mut wanted: Vec<String> = packages
        .iter()
        .filter(|package| BUILT.contains(&package["name"].as_str().unwrap_or_default()))
        .map(|package| text(&package["id"]))
        .collect();
    let mut found = BTreeSet::new();
    while let Some(id) = wanted.pop() {
        if found.insert(id.clone()) {
            wanted.extend(dependencies.get(&id).into_iter().flatten().cloned());
        }
    }
    let mut crates: Vec<Crate> = packages
        .iter()
        .filter(|package| found.contains(&text(&package["id"])))
        .map(|package| {
            let (id, name, version) =
                (text(&package["id"]), text(&package["name"]), text(&package["version"]));
            let manifest = PathBuf::from(text(&package["manifest_path"]));
            Crate {
                licence: package["license"].as_str().map(|licence| licence.replace('/', " OR ")),
                folder: manifest.parent().unwrap_or(&manifest).to_owned(),
                sha256: checksums.get(&(name.clone(), version.clone())).cloned(),
                dependencies: dependencies.get(&id).cloned().unwrap_or_default(),
                id,
                name,
                version,
            }
        })
        .collect();
    crates.sort_by(|one, other| (&one.name, &one.version).cmp(&(&other.name, &other.version)));
    Ok(crates)
}

/// The dependencies of a node of cargo's graph that are neither for tests nor for build scripts.
fn linked_dependencies(node: &Value) -> Vec<String> {
    let is_linked = |dependency: &&Value| {
        dependency["dep_kinds"]
            .as_array()
            .is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()))
    };
    let dependencies = node["deps"].as_array().map(Vec::as_slice).unwrap_or_default();
    dependencies.iter().filter(is_linked).map(|dependency| text(&dependency["pkg"])).collect()
}

/// The checksums in Cargo.lock, by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let packages = lock.split("[[package]]").skip(1);
    packages
        .filter_map(|package| {
            let field = |name: &str| {
                package
                    .lines()
                    .find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \"")?.strip_suffix('"'))
            };
            Some(((field("name")?.to_owned(), field("version")?.to_owned()), field("checksum")?.to_owned()))
        })
        .collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
