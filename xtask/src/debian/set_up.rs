//! Making the root of a release of Debian, and the headers of its PostgreSQL.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::release::Debian;
use super::root::Root;
use crate::command;
use crate::deb::Deb;
use crate::layout::{self, Entry};
use crate::progress::step;

/// Installs PostgreSQL in the new root without a cluster, and fetches the packages that a build for it needs into
/// /fetched.
const INSTALL: &str = r#"
printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
apt-get update --quiet=2
install='apt-get install --yes --quiet=2 --no-install-recommends'
$install postgresql-common
sed -i 's/^#*create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
$install postgresql-$major
mkdir /fetched
cd /fetched
apt-get download --quiet=2 postgresql-$major postgresql-client-$major postgresql-server-dev-$major
if [ -n "$pgvector_from" ]; then
    # The sources of a later release, without making its packages installable.
    mkdir -p lists/partial
    sed "s/^deb \(.*\) $suite /deb-src \1 $pgvector_from /" /etc/apt/sources.list > sources.list
    from='-o Dir::Etc::sourcelist=/fetched/sources.list -o Dir::Etc::sourceparts=- -o Dir::State::lists=/fetched/lists'
    apt-get $from update --quiet=2
    apt-get $from source --quiet=2 --download-only pgvector
else
    apt-get download --quiet=2 postgresql-$major-pgvector
    $install postgresql-$major-pgvector
fi
"#;

/// Leaves nothing that an image would carry for no use.
const CLEAN: &str = "
apt-get clean
rm -rf /fetched /var/lib/apt/lists/* /var/cache/apt/*.bin /var/log/apt /var/log/dpkg.log /var/log/alternatives.log \
    /var/log/bootstrap.log /var/cache/ldconfig/aux-cache /etc/resolv.conf /etc/hostname
";

pub(super) fn set_up(debian: &Debian) -> Result<()> {
    check()?;
    let beside = debian.folder.with_extension("partial");
    if beside.exists() {
        fs::remove_dir_all(&beside).with_context(|| format!("cannot remove {}", beside.display()))?;
    }
    fs::create_dir_all(&beside)?;
    let root = Root::empty(&beside.join("root"))?;
    step(&format!("making a root of {debian} (300 MB)"), || {
        let mut debootstrap = Command::new("debootstrap");
        debootstrap.args(["--variant=minbase", debian.suite]).arg(root.path());
        debootstrap.env("PATH", super_path());
        command::output(&mut debootstrap)
    })?;
    resolve_names(&root)?;
    step(&format!("installing PostgreSQL {} in it", debian.major), || {
        let Debian { major, suite, pgvector_from, .. } = debian;
        let pgvector_from = pgvector_from.unwrap_or_default();
        root.run(&format!("major={major} suite={suite} pgvector_from={pgvector_from}\n{INSTALL}"))
    })?;
    let headers = beside.join("headers");
    for package in fetched(&root, ".deb")? {
        command::output(Command::new("dpkg-deb").arg("--extract").arg(package).arg(&headers))?;
    }
    if debian.pgvector_from.is_some() {
        let package = step("building pgvector for it", || build_pgvector(debian, &root, &beside))?;
        fs::copy(package, root.path().join("fetched/pgvector.deb"))?;
        root.run("dpkg --install /fetched/pgvector.deb\n")?;
    }
    root.run(CLEAN)?;
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--numeric-owner", "--create", "--exclude=./dev/*", "--file"]);
    command::output(tar.arg(beside.join("root.tar")).arg("--directory").arg(root.path()).arg("."))?;
    drop(root);
    fs::rename(&beside, &debian.folder)?;
    Ok(())
}

/// Has the names of hosts resolved in the root as here.
pub(super) fn resolve_names(root: &Root) -> Result<()> {
    let file = "etc/resolv.conf";
    fs::copy(Path::new("/").join(file), root.path().join(file)).context("cannot copy /etc/resolv.conf")?;
    Ok(())
}

fn check() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("a root of Debian is made and entered by root alone: run this as root");
    }
    let mut debootstrap = Command::new("debootstrap");
    if command::status_if_present(debootstrap.arg("--version").env("PATH", super_path()))?.is_none() {
        bail!("debootstrap is not on the PATH: install it (on Debian and Ubuntu: apt install debootstrap)");
    }
    Ok(())
}

/// The PATH with the folders of root's programs.
fn super_path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

fn fetched(root: &Root, end: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(root.path().join("fetched"))?.flatten().map(|entry| entry.path());
    Ok(entries.filter(|path| path.to_string_lossy().ends_with(end)).collect())
}

/// Builds pgvector beside the root, which has no compiler, and returns its package.
fn build_pgvector(debian: &Debian, root: &Root, folder: &Path) -> Result<PathBuf> {
    let sources = folder.join("pgvector");
    fs::create_dir(&sources)?;
    let archives = fetched(root, ".orig.tar.gz")?;
    let archive = archives.first().context("no sources of pgvector")?;
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--strip-components=1", "--file"]).arg(archive);
    command::output(tar.arg("--directory").arg(&sources))?;
    let headers = folder.join("headers");
    let pg_config = headers.join(format!("usr/lib/postgresql/{}/bin/pg_config", debian.major));
    for goal in ["all", "install"] {
        let mut make = Command::new("make");
        // Without code that is tuned to this machine's processor.
        make.args([goal, "--silent", "--jobs=2", "OPTFLAGS=", "with_llvm=no"]).current_dir(&sources);
        command::output(make.arg(format!("PG_CONFIG={}", pg_config.display())))?;
    }
    let server = format!("postgresql/{}", debian.major);
    let (library, extension) = (
        Path::new("usr/lib").join(&server).join("lib"),
        Path::new("usr/share").join(&server).join("extension"),
    );
    let mut entries: Vec<Entry> =
        vec![layout::into(headers.join(&library).join("vector.so"), &Path::new("/").join(&library))];
    for file in fs::read_dir(headers.join(&extension))?.flatten() {
        if file.file_name().to_string_lossy().starts_with("vector") {
            entries.push(layout::into(file.path(), &Path::new("/").join(&extension)));
        }
    }
    let version = fs::read_to_string(sources.join("vector.control"))?;
    let version = version.split('\'').find(|word| word.starts_with(|first: char| first.is_ascii_digit()));
    let package = Deb {
        name: format!("postgresql-{}-pgvector", debian.major),
        entries,
        depends: format!("postgresql-{}", debian.major),
        description: "vectors in PostgreSQL, built of the sources of a later Debian".to_owned(),
        after_removal: None,
    };
    let architecture = command::output(Command::new("dpkg").arg("--print-architecture"))?;
    package.make(
        version.context("pgvector has a version")?,
        architecture.trim_end(),
        &sources.join("LICENSE"),
        folder,
    )
}
