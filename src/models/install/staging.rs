//! The hidden folder in which a model is prepared, `.NAME.staging` in the models directory.
//!
//! It holds the model's folder, so that one rename puts it in its place and the loader finds it by its name before.
//! The process that works in it has it locked; the lock goes with the process. The next `fetch` of the same name
//! continues the files that a cut leaves there, or `remove` removes them.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use pg_clip_embedder::{Error as EmbedderError, installed};
use pg_clip_wire::is_model_name;

use crate::error::Error;

/// The staging folder of a model, locked.
#[derive(Debug)]
pub(crate) struct Staging {
    models_directory: PathBuf,
    pub name: String,
    /// The hidden folder, which is to the loader a models directory of one model.
    pub path: PathBuf,
    _lock: File,
}

impl Staging {
    /// Makes the staging folder of the model `name`, or continues one that is there.
    pub(crate) fn open(models_directory: &Path, name: &str) -> Result<Staging, Error> {
        if !is_model_name(name) {
            return Err(EmbedderError::BadModelName { name: name.to_owned() }.into());
        }
        let path = models_directory.join(format!(".{name}.staging"));
        let cannot = || Error::io(format!("cannot make {}", path.display()));
        let lock = loop {
            match fs::create_dir(&path) {
                Err(source) if is_refused(&source) => {
                    return Err(Error::Unwritable { path: models_directory.to_owned(), source });
                }
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(cannot()(error)),
                _ => {}
            }
            match lock(&path) {
                Ok(Some(lock)) => break lock,
                Ok(None) => {}
                Err(TryLockError::WouldBlock) => return Err(Error::Busy { name: name.to_owned() }),
                Err(TryLockError::Error(error)) => return Err(cannot()(error)),
            }
        };
        Ok(Staging {
            models_directory: models_directory.to_owned(),
            name: name.to_owned(),
            path,
            _lock: lock,
        })
    }

    /// Refuses to go on where the model is installed and may not be replaced.
    pub(crate) fn refuse_installed(&self, replace: bool) -> Result<(), Error> {
        if !replace && self.place().symlink_metadata().is_ok() {
            return Err(Error::AlreadyInstalled { name: self.name.clone() });
        }
        Ok(())
    }

    /// The folder that will be the model.
    pub(crate) fn model(&self) -> PathBuf {
        self.path.join(&self.name)
    }

    /// Where a file of the model is prepared; its folder is made.
    pub(crate) fn file(&self, path: &str) -> Result<PathBuf, Error> {
        let file = self.model().join(path);
        let folder = file.parent().unwrap_or(&self.path);
        fs::create_dir_all(folder).map_err(Error::io(format!("cannot make {}", folder.display())))?;
        Ok(file)
    }

    /// Removes all files but `files`, such as those of another variant.
    pub(crate) fn keep_only<'a>(&self, files: impl Iterator<Item = &'a str>) -> Result<(), Error> {
        let kept: Vec<PathBuf> = files.map(|path| self.model().join(path)).collect();
        let cannot = Error::io(format!("cannot tidy {}", self.model().display()));
        keep_only(&self.model(), &kept).map_err(cannot)
    }

    /// Makes the model's folder durable and puts it in its place.
    pub(crate) fn install(self) -> Result<(), Error> {
        let place = self.place();
        let cannot = || Error::io(format!("cannot install {}", place.display()));
        sync_folders(&self.model()).map_err(cannot())?;
        if place.symlink_metadata().is_ok() {
            // Both names change places in one step, so that there is a whole model at any moment.
            renameat2(AT_FDCWD, &self.model(), AT_FDCWD, &place, RenameFlags::RENAME_EXCHANGE)
                .map_err(|errno| cannot()(errno.into()))?;
        } else {
            fs::rename(self.model(), &place).map_err(cannot())?;
        }
        sync(&self.models_directory).map_err(cannot())?;
        self.discard()
    }

    /// Removes the staging folder where nothing was prepared in it.
    pub(crate) fn discard_if_empty(self) {
        // Fails where something is there, which is then kept.
        let _ = fs::remove_dir(&self.path);
    }

    /// Removes the staging folder and all that is in it.
    pub(crate) fn discard(self) -> Result<(), Error> {
        fs::remove_dir_all(&self.path).map_err(Error::io(format!("cannot remove {}", self.path.display())))
    }

    fn place(&self) -> PathBuf {
        self.models_directory.join(&self.name)
    }
}

/// Removes the model `name`, and the rest of an unfinished installation of it. It is gone in one step, whatever
/// happens while its files are deleted.
pub(crate) fn remove(models_directory: &Path, name: &str) -> Result<(), Error> {
    if !is_model_name(name) {
        return Err(EmbedderError::BadModelName { name: name.to_owned() }.into());
    }
    let there = |path: PathBuf| path.symlink_metadata().is_ok();
    if !there(models_directory.join(name)) && !there(models_directory.join(format!(".{name}.staging"))) {
        let installed = installed(models_directory);
        return Err(EmbedderError::UnknownModel { name: name.to_owned(), installed }.into());
    }
    let staging = Staging::open(models_directory, name)?;
    if there(staging.place()) {
        let removed = staging.path.join("removed");
        let cannot = || Error::io(format!("cannot remove {}", staging.place().display()));
        if there(removed.clone()) {
            fs::remove_dir_all(&removed).map_err(cannot())?;
        }
        fs::rename(staging.place(), &removed).map_err(cannot())?;
        sync(models_directory).map_err(cannot())?;
    }
    staging.discard()
}

/// Locks a folder; nothing where another process removed it meanwhile.
fn lock(path: &Path) -> Result<Option<File>, TryLockError> {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let folder = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        folder => folder.map_err(TryLockError::Error)?,
    };
    folder.try_lock()?;
    let locked = folder.metadata().map(identity).map_err(TryLockError::Error)?;
    Ok(fs::metadata(path).is_ok_and(|metadata| identity(metadata) == locked).then_some(folder))
}

fn keep_only(folder: &Path, kept: &[PathBuf]) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.symlink_metadata()?.is_dir() && kept.iter().any(|file| file.starts_with(&path)) {
            keep_only(&path, kept)?;
        } else if path.symlink_metadata()?.is_dir() {
            fs::remove_dir_all(&path)?;
        } else if !kept.contains(&path) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Makes the entries of a folder, and of the folders inside it, durable.
fn sync_folders(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            sync_folders(&path)?;
        }
    }
    sync(folder)
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn is_refused(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_staging_folder_has_one_owner_at_a_time() {
        let models = temp_dir::TempDir::new().unwrap();
        let first = Staging::open(models.path(), "m").unwrap();
        assert!(matches!(Staging::open(models.path(), "m"), Err(Error::Busy { .. })));
        assert!(Staging::open(models.path(), "other").is_ok());
        drop(first);
        assert!(Staging::open(models.path(), "m").is_ok());
    }

    #[test]
    fn only_the_files_of_the_model_are_installed() {
        let models = temp_dir::TempDir::new().unwrap();
        let staging = Staging::open(models.path(), "m").unwrap();
        for path in ["a", "onnx/b", "onnx/stale", "old/c", "stale"] {
            fs::write(staging.file(path).unwrap(), path).unwrap();
        }
        staging.keep_only(["a", "onnx/b"].into_iter()).unwrap();
        staging.install().unwrap();
        let mut names: Vec<_> =
            fs::read_dir(models.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["m"]);
        for (path, there) in
            [("a", true), ("onnx/b", true), ("onnx/stale", false), ("old", false), ("stale", false)]
        {
            assert_eq!(models.path().join("m").join(path).exists(), there, "{path}");
        }
    }

    #[test]
    fn a_model_is_replaced_only_on_demand() {
        let models = temp_dir::TempDir::new().unwrap();
        for (content, replace) in [("old", false), ("new", true)] {
            let staging = Staging::open(models.path(), "m").unwrap();
            assert_eq!(staging.refuse_installed(false).is_err(), replace);
            staging.refuse_installed(replace).unwrap();
            fs::write(staging.file("a").unwrap(), content).unwrap();
            staging.install().unwrap();
            assert_eq!(fs::read_to_string(models.path().join("m/a")).unwrap(), content);
        }
        assert_eq!(fs::read_dir(models.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_model_is_removed_with_the_rest_of_another_attempt() {
        let models = temp_dir::TempDir::new().unwrap();
        let refused = |name| match remove(models.path(), name) {
            Err(Error::Embedder(error)) => error,
            other => panic!("{other:?}"),
        };
        assert!(matches!(refused("m"), EmbedderError::UnknownModel { .. }));
        assert!(matches!(refused("../m"), EmbedderError::BadModelName { .. }));
        fs::create_dir(models.path().join("m")).unwrap();
        fs::write(Staging::open(models.path(), "m").unwrap().file("a").unwrap(), "").unwrap();
        remove(models.path(), "m").unwrap();
        assert_eq!(fs::read_dir(models.path()).unwrap().count(), 0);
    }
}
