//! Images of containers, each in one archive: an image layout of OCI, with the list that engines without it read.
//!
//! A blob is named by its digest, so that an archive can be checked and a layer that an engine has already is not
//! loaded again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::release::Release;
use super::tar::tar;
use crate::command;

pub(super) struct Image {
    /// A name and a version, with a colon between them.
    pub(super) tag: String,
    pub(super) title: String,
    /// Archives of tar, the lowest first.
    pub(super) layers: Vec<PathBuf>,
    pub(super) configuration: Configuration,
}

/// How an engine runs the image; the default is one that is not run.
#[derive(Default)]
pub(super) struct Configuration {
    pub(super) user: &'static str,
    pub(super) entrypoint: &'static [&'static str],
    pub(super) environment: &'static [(&'static str, &'static str)],
    pub(super) volume: Option<&'static str>,
    pub(super) port: Option<&'static str>,
    pub(super) stop_signal: Option<&'static str>,
}

impl Image {
    /// Writes the image into the folder and returns the path of its archive.
    pub(super) fn write(&self, release: &Release, kind: &str, staging: &Path) -> Result<PathBuf> {
        let layout = staging.join(format!("{kind}.layout"));
        let blobs = Blobs { folder: layout.join("blobs/sha256") };
        fs::create_dir_all(&blobs.folder)?;
        let mut digests = Vec::new();
        let mut layers = Vec::new();
        for layer in &self.layers {
            digests.push(format!("sha256:{}", command::sha256(layer)?));
            layers.push(blobs.layer(layer)?);
        }
        let annotations = json!({
            "org.opencontainers.image.title": self.title,
            "org.opencontainers.image.version": release.version,
            "org.opencontainers.image.licenses": "Apache-2.0",
        });
        let configuration = json!({
            "architecture": release.architecture,
            "os": "linux",
            "config": self.configuration.json(&annotations),
            "rootfs": { "type": "layers", "diff_ids": digests },
        });
        let configuration = blobs.json(&configuration, "config")?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type("manifest"),
            "config": configuration,
            "layers": layers,
            "annotations": annotations,
        });
        let mut described = blobs.json(&manifest, "manifest")?;
        described["platform"] = json!({ "architecture": release.architecture, "os": "linux" });
        let version = self.tag.split_once(':').map_or("latest", |(_, version)| version);
        described["annotations"] = json!({
            "org.opencontainers.image.ref.name": version,
            "io.containerd.image.name": format!("localhost/{}", self.tag),
        });
        let index = json!({ "schemaVersion": 2, "mediaType": media_type("index"), "manifests": [described] });
        let path = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap_or_default();
            format!("blobs/{}", digest.replace(':', "/"))
        };
        let listed = json!([{
            "Config": path(&configuration),
            "RepoTags": [self.tag],
            "Layers": layers.iter().map(path).collect::<Vec<_>>(),
        }]);
        fs::write(layout.join("index.json"), index.to_string())?;
        fs::write(layout.join("oci-layout"), json!({ "imageLayoutVersion": "1.0.0" }).to_string())?;
        fs::write(layout.join("manifest.json"), listed.to_string())?;
        let archive = staging.join(format!("{}-{kind}.oci.tar", release.name()));
        let mut tar = tar();
        tar.args(["--owner=0", "--group=0", "--file"]).arg(&archive).arg("--directory").arg(&layout);
        command::output(tar.args(["blobs", "index.json", "manifest.json", "oci-layout"]))?;
        Ok(archive)
    }
}

impl Configuration {
    fn json(&self, labels: &Value) -> Value {
        let mut json = json!({ "Labels": labels });
        let one = |name: &str| BTreeMap::from([(name.to_owned(), json!({}))]);
        if !self.user.is_empty() {
            json["User"] = self.user.into();
        }
        if !self.entrypoint.is_empty() {
            json["Entrypoint"] = self.entrypoint.into();
        }
        if !self.environment.is_empty() {
            json["Env"] = self.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        }
        if let Some(volume) = self.volume {
            json["Volumes"] = json!(one(volume));
        }
        if let Some(port) = self.port {
            json["ExposedPorts"] = json!(one(port));
        }
        if let Some(signal) = self.stop_signal {
            json["StopSignal"] = signal.into();
        }
        json
    }
}

/// Checks every digest in an image's archive, and unpacks its layers into a folder. Returns its configuration.
pub fn unpack(archive: &Path, to: &Path) -> Result<Value> {
    let layout = to.with_extension("layout");
    for folder in [&layout, to] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    command::output(Command::new("tar").arg("--extract").arg("--file").arg(archive).arg("-C").arg(&layout))?;
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json"))?)?;
    let manifest = read(&layout, &index["manifests"][0])?;
    let manifest: Value = serde_json::from_slice(&fs::read(manifest)?)?;
    let configuration: Value = serde_json::from_slice(&fs::read(read(&layout, &manifest["config"])?)?)?;
    let layers = manifest["layers"].as_array().context("an image has layers")?;
    let digests = configuration["rootfs"]["diff_ids"].as_array().context("an image has digests")?;
    ensure!(layers.len() == digests.len(), "{} layers, {} digests", layers.len(), digests.len());
    for (layer, digest) in layers.iter().zip(digests) {
        let packed = read(&layout, layer)?;
        let unpacked = layout.join("layer.tar");
        let into = fs::File::create(&unpacked)?;
        command::run(Command::new("gzip").args(["--decompress", "--stdout"]).arg(packed).stdout(into))?;
        let found = format!("sha256:{}", command::sha256(&unpacked)?);
        ensure!(*digest == found, "a layer is {found} and not {digest}");
        let mut tar = Command::new("tar");
        tar.args(["--extract", "--preserve-permissions", "--numeric-owner", "--file"]).arg(&unpacked);
        command::output(tar.arg("--directory").arg(to))?;
    }
    fs::remove_dir_all(&layout)?;
    Ok(configuration)
}

/// The path of the blob that a descriptor names, once its size and its digest are found to be right.
fn read(layout: &Path, descriptor: &Value) -> Result<PathBuf> {
    let digest = descriptor["digest"].as_str().context("a descriptor names a digest")?;
    let hex = digest.strip_prefix("sha256:").context("a digest is of SHA-256")?;
    let blob = layout.join("blobs/sha256").join(hex);
    let size = fs::metadata(&blob).with_context(|| format!("no blob {digest}"))?.len();
    let found = command::sha256(&blob)?;
    if found != hex || descriptor["size"] != size {
        bail!("{digest} has {size} bytes of {found}, and not {}", descriptor["size"]);
    }
    Ok(blob)
}

struct Blobs {
    folder: PathBuf,
}

impl Blobs {
    /// Adds a layer, packed, and returns its descriptor.
    fn layer(&self, tar: &Path) -> Result<Value> {
        let packed = self.folder.join("layer.tar.gz");
        let into = fs::File::create(&packed)?;
        command::run(Command::new("gzip").args(["--no-name", "--stdout"]).arg(tar).stdout(into))?;
        self.add(&packed, "layer")
    }

    fn json(&self, content: &Value, kind: &str) -> Result<Value> {
        let file = self.folder.join("blob.json");
        fs::write(&file, content.to_string())?;
        self.add(&file, kind)
    }

    /// Gives a file its name, and describes it.
    fn add(&self, file: &Path, kind: &str) -> Result<Value> {
        let digest = command::sha256(file)?;
        let size = fs::metadata(file)?.len();
        fs::rename(file, self.folder.join(&digest))?;
        Ok(json!({ "mediaType": media_type(kind), "digest": format!("sha256:{digest}"), "size": size }))
    }
}

fn media_type(kind: &str) -> String {
    let kind = match kind {
        "layer" => "layer.v1.tar+gzip".to_owned(),
        kind => format!("{kind}.v1+json"),
    };
    format!("application/vnd.oci.image.{kind}")
}
