//! Debian's packages: the library and the SQL for one major, and the programs with ONNX Runtime and the demo model for
//! all of them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::parts::{Parts, shared_files};
use super::release::Release;
use crate::deb::Deb;
use crate::debian::Root;
use crate::layout::{self, Layout};

/// Makes the packages of pg_clip in the folder, and returns their paths.
pub(super) fn make(parts: &Parts, staging: &Path) -> Result<Vec<PathBuf>> {
    let Release { major, version, glibc, architecture } = &parts.release;
    let server = format!("postgresql/{major}");
    let documents = Path::new("/usr/share/doc");
    let layout = Layout {
        library: Path::new("/usr/lib").join(&server).join("lib"),
        extension: Path::new("/usr/share").join(&server).join("extension"),
        programs: "/usr/lib/pg_clip".into(),
        // Models are added there.
        models: "/var/lib/pg_clip/models".into(),
        licences: documents.join("pg-clip-embedder"),
        commands: "/usr/bin".into(),
    };
    let extension = Deb {
        name: format!("postgresql-{major}-pg-clip"),
        entries: layout::of_extension(parts.workspace, &parts.built.library, &layout)?,
        depends: format!(
            "postgresql-{major}, postgresql-{major}-pgvector, pg-clip-embedder (= {version}), libc6 (>= {glibc})"
        ),
        description: format!("CLIP embeddings of images and texts, computed in PostgreSQL {major}"),
        after_removal: None,
    };
    let embedder = Deb {
        name: "pg-clip-embedder".to_owned(),
        entries: shared_files(parts, &layout)?,
        depends: format!("libc6 (>= {glibc}), libstdc++6, libgcc-s1"),
        description: "the embedder of pg_clip, with ONNX Runtime and a demo model".to_owned(),
        after_removal: Some(
            "#!/bin/sh\nset -e\nif [ \"$1\" = purge ]; then rm -rf /var/lib/pg_clip; fi\n".to_owned(),
        ),
    };
    let copyright = parts.workspace.root.join("LICENSE");
    [extension, embedder]
        .iter()
        .map(|package| package.make(version, architecture, &copyright, staging))
        .collect()
}

/// Installs packages in a root, whose own packages have all that they depend on.
pub(crate) fn install(root: &Root, debs: &[PathBuf]) -> Result<()> {
    let folder = root.path().join("packages");
    fs::create_dir_all(&folder)?;
    for deb in debs {
        fs::copy(deb, folder.join(deb.file_name().unwrap_or_default()))?;
    }
    root.run("apt-get install --yes --quiet=2 /packages/*.deb\n")?;
    fs::remove_dir_all(&folder)?;
    Ok(())
}
