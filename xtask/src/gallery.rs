//! The gallery: a page in which the demo's photos are searched, on a small server in node.
//!
//! It reads the demo's two tables as a role of its own, which has no other right.

use std::process::Command;

use anyhow::Result;

use crate::cluster::Cluster;
use crate::demo;
use crate::node_package;
use crate::places::Places;
use crate::psql::{self, Database};

pub const ROLE: &str = "gallery";

const GRANTS: &str = "\
DO $$ BEGIN CREATE ROLE gallery LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
GRANT SELECT ON customer_photos, image_embeddings TO gallery;";

/// The gallery's server, to be run, on a cluster that has the extension; loads the demo's photos where they are missing.
pub fn server(places: &Places, cluster: &Cluster) -> Result<Command> {
    let folder = node_package::installed(places, "examples/gallery")?;
    let database = demo::loaded(places, cluster)?;
    database.run(GRANTS)?;
    let mut node = Command::new("node");
    node.arg("server.js").current_dir(folder);
    psql::connect(&mut node, &database, ROLE);
    Ok(node)
}

/// The database of the gallery.
pub fn database(cluster: &Cluster) -> Database<'_> {
    Database { cluster, name: demo::DATABASE }
}
