//! The SQL scripts of the release that is being made.
//!
//! Their parts lie in `sql/`, one concern each, and are put together here in the order in which they build on each other.
//! The scripts of releases, and of the ways between them, lie there whole: they are never edited again.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::upgrade_script::upgrade_script;

/// The parts in their order.
const PARTS: [&str; 12] = [
    "preamble.sql",
    LIBRARY,
    "embedding.sql",
    "search.sql",
    "watching.sql",
    "queue.sql",
    "backlog.sql",
    "feeding.sql",
    "backfill.sql",
    "migration.sql",
    "monitoring.sql",
    "models.sql",
];

/// The part that looks whether the library is that of the script: an upgrade begins with it too.
const LIBRARY: &str = "library.sql";

/// How a part names the release that is being made.
const VERSION: &str = "@version@";

/// The release that is being made. The control file says the same, or nothing is assembled.
const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// Puts the scripts of `sql/` together in `folder`: the one that installs the release that is being made, and the one that
/// brings the last release to it. Returns their paths.
pub(crate) fn assemble(root: &Path, folder: &Path) -> Result<Vec<PathBuf>> {
    let sql = root.join("sql");
    check_parts(&sql)?;
    let version = version(&root.join("pg_clip.control"))?;
    if version != RELEASE {
        bail!("pg_clip.control names {version} as the default version, and Cargo.toml is of {RELEASE}");
    }
    let part = |part: &str| Ok::<_, anyhow::Error>(read(&sql.join(part))?.replace(VERSION, RELEASE));
    let mut install = String::new();
    for name in PARTS {
        install += part(name)?.trim_end();
        install += "\n\n";
    }
    let mut scripts = vec![(format!("pg_clip--{RELEASE}.sql"), install.trim_end().to_owned() + "\n")];
    if let Some(last) = last_release(&sql)? {
        let header = format!(
            "\\echo Use \"ALTER EXTENSION pg_clip UPDATE TO '{RELEASE}'\" to load this file. \\quit\n\n{}\n",
            part(LIBRARY)?
        );
        let before = header + &part("upgrade/before.sql")?;
        let from = read(&sql.join(format!("pg_clip--{last}.sql")))?;
        let upgrade = upgrade_script(&from, &install, &before, &part("upgrade/after.sql")?)?;
        scripts.push((format!("pg_clip--{last}--{RELEASE}.sql"), upgrade));
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let write = |(name, script): (String, String)| {
        let path = folder.join(name);
        fs::write(&path, script).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    };
    scripts.into_iter().map(write).collect()
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The newest of the releases whose install scripts lie in `sql`.
fn last_release(sql: &Path) -> Result<Option<String>> {
    let mut releases = releases(sql)?;
    releases.sort_by_key(|version| numbers(version));
    Ok(releases.pop())
}

/// The releases whose install scripts lie in `sql`.
fn releases(sql: &Path) -> Result<Vec<String>> {
    let mut releases = Vec::new();
    for entry in fs::read_dir(sql).with_context(|| format!("cannot read {}", sql.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let version = name.strip_prefix("pg_clip--").and_then(|name| name.strip_suffix(".sql"));
        releases.extend(version.filter(|version| !version.contains("--")).map(str::to_owned));
    }
    Ok(releases)
}

/// A version as it is compared.
fn numbers(version: &str) -> Vec<u32> {
    version.split('.').map(|number| number.parse().unwrap_or_default()).collect()
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
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use sha2::{Digest, Sha256};

    use super::{PARTS, RELEASE, numbers, releases, version};
    use crate::command;
    use crate::workspace::Workspace;

    fn root() -> PathBuf {
        Workspace::find().expect("a test runs in a checkout").root
    }

    /// A database of any encoding reads the script, and most have no other characters.
    #[test]
    fn the_script_is_ascii() {
        let by_hand = ["upgrade/before.sql", "upgrade/after.sql"];
        for part in PARTS.into_iter().chain(by_hand) {
            let text = fs::read_to_string(root().join("sql").join(part)).expect("a part is read");
            let odd = text.lines().enumerate().find(|(_, line)| !line.is_ascii());
            assert_eq!(odd, None, "{part}");
        }
    }

    #[test]
    fn crates_control_file_and_changelog_are_of_one_version() {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["metadata", "--no-deps", "--offline", "--format-version", "1"]).current_dir(root());
        let metadata = command::output(&mut cargo).expect("cargo knows the workspace");
        let metadata: serde_json::Value = serde_json::from_str(&metadata).expect("JSON");
        let packages = metadata["packages"].as_array().expect("packages");
        assert!(packages.len() > 5, "{packages:?}");
        for package in packages {
            assert_eq!(package["version"], RELEASE, "{}", package["name"]);
        }
        assert_eq!(version(&root().join("pg_clip.control")).expect("a version"), RELEASE);
        let changelog = fs::read_to_string(root().join("CHANGELOG.md")).expect("the changelog is read");
        let newest = changelog.lines().find(|line| line.starts_with("## ")).expect("a release");
        assert_eq!(newest.split(' ').nth(1), Some(RELEASE), "{newest}");
    }

    #[test]
    fn a_way_leads_from_each_release_to_this_one() {
        let sql = root().join("sql");
        let released = releases(&sql).expect("the releases are listed");
        assert!(!released.is_empty());
        assert!(released.iter().all(|version| numbers(version) < numbers(RELEASE)), "{released:?}");
        let folder = std::env::temp_dir().join(format!("pg_clip-scripts-{}", std::process::id()));
        let assembled = super::assemble(&root(), &folder).expect("the scripts are assembled");
        let mut names: BTreeSet<String> = names_of(&sql);
        names.extend(names_of(&folder));
        fs::remove_dir_all(&folder).expect("the folder is removed");
        assert_eq!(assembled.len(), 2);
        let mut order = released.clone();
        order.sort_by_key(|version| numbers(version));
        order.push(RELEASE.to_owned());
        for pair in order.windows(2) {
            let step = format!("pg_clip--{}--{}.sql", pair[0], pair[1]);
            assert!(names.contains(&step), "{step} is missing in {names:?}");
        }
    }

    fn names_of(folder: &Path) -> BTreeSet<String> {
        let entries = fs::read_dir(folder).expect("a folder is listed");
        let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with("pg_clip--")).collect()
    }

    /// Databases of that release have the script's objects. A change goes into a new one.
    #[test]
    fn the_scripts_of_releases_are_never_edited() {
        let sql = root().join("sql");
        let sums = fs::read_to_string(sql.join("released.sha256")).expect("the sums are read");
        let mut listed = BTreeSet::new();
        for line in sums.lines() {
            let (sum, name) = line.split_once("  ").expect("a line of sha256sum");
            let digest = Sha256::digest(fs::read(sql.join(name)).expect(name));
            let found: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(found, sum, "{name}");
            listed.insert(name.to_owned());
        }
        assert_eq!(listed, names_of(&sql));
    }
}
