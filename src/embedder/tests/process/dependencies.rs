//! The crates that the embedder is linked from: none could speak to a network on its own.

use std::collections::BTreeSet;
use std::env;
use std::path::Path;
use std::process::Command;

/// Crates of TLS and HTTP, and their clients: whole names, and parts of such names.
const NAMES: [&str; 8] = ["h2", "h3", "isahc", "reqwest", "ring", "surf", "tonic", "ureq"];
const PARTS: [&str; 7] = ["aws-lc", "curl", "http", "hyper", "ssl", "tls", "webpki"];

#[test]
fn the_embedder_links_no_client_of_a_network() {
    assert_eq!(clients("pg_clip_embedder"), BTreeSet::new());
    // They are found where they are.
    let installer = clients("pg_clip_models");
    for name in ["ring", "rustls", "ureq"] {
        assert!(installer.contains(name), "{installer:?}");
    }
}

/// The clients among the crates that a package is linked from.
fn clients(package: &str) -> BTreeSet<String> {
    let mut tree = Command::new(env::var_os("CARGO").expect("cargo runs the tests"));
    tree.args(["tree", "--locked", "--edges=normal", "--prefix=none", "--format={p}", "--package", package]);
    tree.current_dir(Path::new(&env::var("CARGO_MANIFEST_DIR").unwrap()));
    let output = tree.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let names: BTreeSet<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains(package) && names.len() > 50, "{names:?}");
    let is_client = |name: &&str| NAMES.contains(name) || PARTS.iter().any(|part| name.contains(part));
    names.into_iter().filter(is_client).map(str::to_owned).collect()
}
