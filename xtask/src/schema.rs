//! The SQL script of the release that is being made.
//!
//! Its parts lie in `sql/`, one concern each, and are put together here in the order in which they build on each other.
//! The scripts of releases, and of the ways between them, lie there whole: they are never edited again.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The parts in their order.
const PARTS: [&str; 10] = [
    "preamble.sql",
    "embedding.sql",
    "search.sql",
    "watching.sql",
    "queue.sql",
    "feeding.sql",
    "backfill.sql",
    "migration.sql",
    "monitoring.sql",
    "models.sql",
];

/// Puts the script of `sql/` together in `folder` and returns its path, which names the control file's version.
pub(crate) fn assemble(root: &Path, folder: &Path) -> Result<PathBuf> {
    let sql = root.join("sql");
    check_parts(&sql)?;
    let mut script = String::new();
    for part in PARTS {
        let part = sql.join(part);
        let text = fs::read_to_string(&part).with_context(|| format!("cannot read {}", part.display()))?;
        script += text.trim_end();
        script += "\n\n";
    }
    let path = folder.join(format!("pg_clip--{}.sql", version(&root.join("pg_clip.control"))?));
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&path, script.trim_end().to_owned() + "\n"))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// A part that is not in the list would never be installed.
fn check_parts(sql: &Path) -> Result<()> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(sql).with_context(|| format!("cannot read {}", sql.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".sql") && !name.starts_with("pg_clip--") {
            found.insert(name);
        }
    }
    let listed = PARTS.map(str::to_owned).into();
    if found != listed {
        let odd: Vec<&String> = found.symmetric_difference(&listed).collect();
        bail!("sql/ and the list of its parts differ by {odd:?}");
    }
    Ok(())
}

pub(crate) fn version(control: &Path) -> Result<String> {
    let text = fs::read_to_string(control).with_context(|| format!("cannot read {}", control.display()))?;
    let version = text.lines().find_map(|line| line.strip_prefix("default_version = '")?.strip_suffix('\''));
    version.map(str::to_owned).with_context(|| format!("{} names no default_version", control.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::PARTS;
    use crate::workspace::Workspace;

    /// A database of any encoding reads the script, and most have no other characters.
    #[test]
    fn the_script_is_ascii() {
        let sql = Workspace::find().expect("a test runs in a checkout").root.join("sql");
        for part in PARTS {
            let text = fs::read_to_string(sql.join(part)).expect("a part is read");
            let odd = text.lines().enumerate().find(|(_, line)| !line.is_ascii());
            assert_eq!(odd, None, "{part}");
        }
    }
}
