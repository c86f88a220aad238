//! A copy of the server to test that has nothing of pg_clip, and pg_clip in a folder of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command};

use xtask::build::Built;
use xtask::environment::Runtime;
use xtask::install;
use xtask::layout::{self, Layout};
use xtask::places::Places;
use xtask::postgres::Postgres;
use xtask::template;

/// The copy and the folder, which are removed when it is dropped.
pub struct ServerCopy {
    root: PathBuf,
    /// The copied server. Its template of data directories is the original's.
    pub postgres: Postgres,
    /// Of pg_clip alone: `lib`, `share` and `bin`, which are not writable.
    pub pg_clip: PathBuf,
}

impl ServerCopy {
    pub(crate) fn new(places: &Places, installed: &Postgres, name: &str) -> ServerCopy {
        // The copy has no initdb that runs: libraries of the original's clients lie outside of its folders.
        template::ready(places, installed).expect("the original has a template");
        let root = places.base.join(format!("temporary-{}-{name}", process::id()));
        let postgres = Postgres {
            bindir: install::beneath(&root, &installed.bindir),
            sharedir: install::beneath(&root, &installed.sharedir),
            // The server finds it from where its program is; the label of the template is that of this path.
            ..installed.clone()
        };
        let copy = ServerCopy { pg_clip: root.join("pg_clip"), root, postgres };
        copy.copy_server(installed);
        copy.place_pg_clip(places, installed);
        copy
    }

    /// The copy's folder of libraries.
    pub fn pkglibdir(&self) -> PathBuf {
        install::beneath(&self.root, &self.postgres.pkglibdir)
    }

    /// Links the library and the SQL into the copy, in place of earlier links: a server before PostgreSQL 18 has no
    /// search path for extensions.
    pub fn link_into_server(&self, library: &Path, extension: &Path) {
        self.unlink_from_server();
        let (libraries, extensions) = (self.pkglibdir(), self.postgres.sharedir.join("extension"));
        let link = |from: PathBuf, folder: &Path| {
            let to = folder.join(from.file_name().expect("a file has a name"));
            std::os::unix::fs::symlink(&from, to).expect("a link is made");
        };
        link(library.join("pg_clip.so"), &libraries);
        for entry in fs::read_dir(extension).expect("the SQL is listed") {
            link(entry.expect("an entry is read").path(), &extensions);
        }
    }

    /// Takes the links out of the copy again.
    pub fn unlink_from_server(&self) {
        for folder in [&self.pkglibdir(), &self.postgres.sharedir.join("extension")] {
            remove_pg_clip(folder);
        }
    }

    /// A new folder beside the copy.
    pub fn another_folder(&self, name: &str) -> PathBuf {
        let folder = self.root.join(name);
        fs::create_dir(&folder).expect("a folder is made");
        folder
    }

    /// Another copy of the embedder's program, outside of pg_clip's folder.
    pub fn copy_program(&self) -> PathBuf {
        let copy = self.root.join("another_pg_clip_embedder");
        fs::copy(self.pg_clip.join("lib/pg_clip/pg_clip_embedder"), &copy).expect("the program is copied");
        copy
    }

    fn copy_server(&self, installed: &Postgres) {
        let folders = [
            (&installed.bindir, self.postgres.bindir.clone()),
            (&installed.pkglibdir, self.pkglibdir()),
            (&installed.sharedir, self.postgres.sharedir.clone()),
        ];
        for (from, to) in folders {
            fs::create_dir_all(to.parent().expect("a folder has a parent")).expect("a folder is made");
            succeed(Command::new("cp").arg("-a").arg(from).arg(&to));
        }
        let extensions = self.postgres.sharedir.join("extension");
        for folder in
            [self.postgres.bindir.clone(), self.pkglibdir(), self.postgres.sharedir.clone(), extensions]
        {
            remove_pg_clip(&folder);
        }
    }

    fn place_pg_clip(&self, places: &Places, installed: &Postgres) {
        let programs = installed.pkglibdir.join("pg_clip");
        let built = Built {
            library: installed.pkglibdir.join("pg_clip.so"),
            embedder: programs.join("pg_clip_embedder"),
            models: programs.join("pg_clip_models"),
            feeder: Some(installed.bindir.join("pg_clip_feeder")),
        };
        let runtime =
            Runtime { library: programs.join("libonnxruntime.so"), version: None, licences: Vec::new() };
        let layout = Layout::of(&Postgres {
            bindir: self.pg_clip.join("bin"),
            pkglibdir: self.pg_clip.join("lib"),
            sharedir: self.pg_clip.join("share"),
            ..installed.clone()
        });
        let entries =
            layout::of_both(&places.workspace, &built, &runtime, &layout).expect("the files are known");
        install::put_all(&entries, Path::new("/")).expect("pg_clip is placed");
        succeed(Command::new("chmod").args(["-R", "a-w"]).arg(&self.pg_clip));
    }
}

impl Drop for ServerCopy {
    fn drop(&mut self) {
        let _ = Command::new("chmod").args(["-R", "u+w"]).arg(&self.root).status();
        let _ = fs::remove_dir_all(&self.root);
    }
}

#[track_caller]
fn succeed(command: &mut Command) {
    let output = command.output().expect("the command runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn remove_pg_clip(folder: &Path) {
    for entry in fs::read_dir(folder).expect("a folder is listed") {
        let entry = entry.expect("an entry is read");
        if entry.file_name().to_string_lossy().starts_with("pg_clip") {
            let is_folder = entry.file_type().expect("a type is read").is_dir();
            let removed =
                if is_folder { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
            removed.expect("what is pg_clip's is removed");
        }
    }
}
