//! A bill of materials as CycloneDX has it: the parts of the library and the programs, for scanners.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::crates::Crate;
use super::release::Release;
use crate::command;
use crate::environment::Runtime;

const ONNXRUNTIME: &str = "onnxruntime";
const MODEL: &str = "pg_clip-demo-model";

/// The bill of one build.
pub(super) fn of(crates: &[Crate], runtime: &Runtime, release: &Release) -> Result<Value> {
    let name = release.name();
    let mut components: Vec<Value> = crates.iter().map(component).collect();
    let mut library = json!({
        "type": "library", "bom-ref": ONNXRUNTIME, "name": ONNXRUNTIME,
        "licenses": [{ "expression": "MIT" }],
        "hashes": [{ "alg": "SHA-256", "content": command::sha256(&runtime.library)? }],
    });
    if let Some(version) = runtime.version {
        library["version"] = version.into();
        library["purl"] = format!("pkg:pypi/onnxruntime@{version}").into();
    }
    components.push(library);
    components.push(json!({
        "type": "machine-learning-model", "bom-ref": MODEL, "name": MODEL, "version": release.version,
    }));
    let of_crate = |each: &Crate| json!({ "ref": each.id, "dependsOn": each.dependencies });
    let mut dependencies: Vec<Value> = crates.iter().map(of_crate).collect();
    let ours = crates.iter().filter(|each| each.is_ours()).map(|each| each.id.as_str());
    let parts: Vec<&str> = ours.chain([ONNXRUNTIME, MODEL]).collect();
    dependencies.push(json!({ "ref": name, "dependsOn": parts }));
    crates.first().context("cargo names no crate")?;
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": {
            "type": "application", "bom-ref": name, "name": "pg_clip", "version": release.version,
            "licenses": [{ "expression": "Apache-2.0" }],
        } },
        "components": components,
        "dependencies": dependencies,
    }))
}

fn component(each: &Crate) -> Value {
    let Crate { id, name, version, licence, sha256, .. } = each;
    let mut component = json!({ "type": "library", "bom-ref": id, "name": name, "version": version });
    if let Some(licence) = licence {
        component["licenses"] = json!([{ "expression": licence }]);
    }
    if let Some(sha256) = sha256 {
        component["purl"] = format!("pkg:cargo/{name}@{version}").into();
        component["hashes"] = json!([{ "alg": "SHA-256", "content": sha256 }]);
    }
    component
}
