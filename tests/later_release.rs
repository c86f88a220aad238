//! A later release of pg_clip, for tests: the files of this one, with another version in the programs and the SQL.
//!
//! Each file is renamed into its place, as `make install` and package managers do: running processes keep the old
//! one.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::server_copy::ServerCopy;

/// The release that is tested.
const TESTED: &str = env!("CARGO_PKG_VERSION");

impl ServerCopy {
    /// Puts the files of a later release over those in pg_clip's folder, and returns its version.
    ///
    /// The copied server finds the library by a link already; the SQL is linked into it where it is new.
    pub fn install_later_release(&self) -> String {
        let (series, last) = TESTED.rsplit_once('.').expect("a version has points");
        let (major, minor) = series.rsplit_once('.').expect("a version has three numbers");
        let next: u32 = minor.parse::<u32>().expect("a number") + 1;
        let later = format!("{major}.{next}.{last}");
        assert_eq!(later.len(), TESTED.len(), "a version that takes as many bytes");

        let status = Command::new("chmod").args(["-R", "u+w"]).arg(&self.pg_clip).status();
        assert!(status.expect("chmod runs").success());
        // A compiler may write the last digit of a short text apart from the text before it.
        let (from, to) = (format!("{series}."), format!("{major}.{next}."));
        for file in ["lib/pg_clip.so", "lib/pg_clip/pg_clip_embedder"] {
            let file = self.pg_clip.join(file);
            let content = fs::read(&file).expect("a program is read");
            put(&file, &replaced(content, from.as_bytes(), to.as_bytes()), 0o755);
        }
        let sql = self.pg_clip.join("share/extension");
        let of_the_tested = |file: &str| fs::read_to_string(sql.join(file)).expect("the SQL is read");
        let control = of_the_tested("pg_clip.control").replace(TESTED, &later);
        let install = of_the_tested(&format!("pg_clip--{TESTED}.sql")).replace(TESTED, &later);
        // An update begins as an installation does: with a look at the library.
        let (check, _) = install.split_once("$do$;").expect("the SQL looks at the library first");
        let update = format!("{check}$do$;\n");
        for (name, text) in [
            ("pg_clip.control".to_owned(), control),
            (format!("pg_clip--{later}.sql"), install),
            (format!("pg_clip--{TESTED}--{later}.sql"), update),
        ] {
            put(&sql.join(&name), text.as_bytes(), 0o644);
            let link = self.postgres.sharedir.join("extension").join(&name);
            if fs::symlink_metadata(&link).is_err() {
                symlink(sql.join(&name), link).expect("a link is made");
            }
        }
        later
    }
}

fn put(file: &Path, content: &[u8], mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    let beside = file.with_extension("new");
    fs::write(&beside, content).expect("a file is written");
    fs::set_permissions(&beside, fs::Permissions::from_mode(mode)).expect("its mode is set");
    fs::rename(&beside, file).expect("it takes its place");
}

#[track_caller]
fn replaced(mut content: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    let found: Vec<usize> = (0..content.len()).filter(|&at| content[at..].starts_with(from)).collect();
    assert!(!found.is_empty(), "a program that names no version");
    for at in found {
        content[at..at + to.len()].copy_from_slice(to);
    }
    content
}
