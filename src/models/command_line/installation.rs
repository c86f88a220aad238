//! The steps that `fetch` and `import` share: their options, the check by the loader, and the messages at the end.
//! `quantize` has the last two as well.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;
use humantime::format_rfc3339_seconds;
use indicatif::DecimalBytes;
use nix::sys::stat::{Mode, umask};
use pg_clip_embedder::{Model, OnnxRuntime, Place};

use crate::error::Error;
use crate::install::{FileRecord, Origin, Pins, Record, Selection, Staging, Unselectable, select};

#[derive(Debug, Args)]
pub(crate) struct InstallOptions {
    /// Name of the model; by default that of its source, with its variant
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Precision of the graphs: fp32, fp16, int8, or another one that is there; fp32 by default
    #[arg(long, value_name = "VARIANT")]
    variant: Option<String>,
    /// Demand that FILE has this sha256; may be given several times
    #[arg(long, value_name = "FILE=HEX", value_parser = parse_pin, conflicts_with = "lock")]
    sha256: Vec<(String, String)>,
    /// Demand the files that FILE lists, and no others: the model.json of an installed model
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,
    /// Replace an installed model of the same name
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    place: Place,
}

/// An installation that has begun.
pub(super) struct Installation<'a> {
    options: &'a InstallOptions,
    runtime: OnnxRuntime,
    /// The lock file.
    pub lock: Option<Record>,
    pub pins: Pins,
}

impl InstallOptions {
    /// Reads the options and the pins, so that their errors are known before anything is fetched.
    pub(super) fn begin(&self) -> Result<Installation<'_>, Error> {
        write_for_the_server();
        let runtime = self.place.runtime()?;
        runtime.ensure_loaded()?;
        let lock = self.lock.as_deref().map(Record::read).transpose()?;
        let mut files: BTreeMap<String, String> = self.sha256.iter().cloned().collect();
        if let Some(lock) = &lock {
            files.extend(lock.files.iter().map(|(path, file)| (path.clone(), file.sha256.clone())));
        }
        Ok(Installation { options: self, runtime, pins: Pins { files, complete: lock.is_some() }, lock })
    }
}

impl Installation<'_> {
    /// The files of the model among `paths`, checked against the pins as far as their names tell.
    pub(super) fn select(
        &self,
        paths: &[&str],
        unusable: impl FnOnce(String) -> Error,
    ) -> Result<Selection, Error> {
        let locked = self.lock.as_ref().map(|lock| lock.variant.as_str());
        let variant = self.options.variant.as_deref().or(locked);
        let selection = select(paths, variant).map_err(|reason| match reason {
            Unselectable::Unknown(reason) => unusable(reason),
            Unselectable::NoVariant(available) => {
                Error::UnknownVariant { variant: variant.unwrap_or("fp32").to_owned(), available }
            }
        })?;
        self.pins.check_names(selection.files.iter().map(String::as_str))?;
        Ok(selection)
    }

    /// The staging folder of a model from `source`, such as the last part of a repository's name.
    pub(super) fn stage(&self, source: &str, variant: &str) -> Result<Staging, Error> {
        let default = || if variant == "fp32" { source.to_owned() } else { format!("{source}-{variant}") };
        let name = self.options.name.clone().unwrap_or_else(default);
        let staging = Staging::open(&self.options.place.models.path()?, &name)?;
        if let Err(error) = staging.refuse_installed(self.options.replace) {
            staging.discard_if_empty();
            return Err(error);
        }
        Ok(staging)
    }

    /// Loads the model where it was prepared, and puts it in its place. A model that does not load is removed.
    pub(super) fn finish(
        &self,
        staging: Staging,
        source: Origin,
        variant: String,
        licence: Option<String>,
        files: BTreeMap<String, FileRecord>,
    ) -> Result<(), Error> {
        let installed_at = format_rfc3339_seconds(SystemTime::now()).to_string();
        let record = Record { source, variant, licence, installed_at, files };
        let model = match load_prepared(&staging, &record, &self.runtime) {
            Ok(model) => model,
            Err(error) => {
                staging.discard()?;
                return Err(error);
            }
        };
        staging.install()?;
        print(&record, &model);
        Ok(())
    }
}

/// Makes files that the server's user can read, whichever user runs this program.
pub(super) fn write_for_the_server() {
    umask(Mode::from_bits_truncate(0o022));
}

/// Leaves the files of the record and no others, and loads them as a model where they were prepared.
pub(super) fn load_prepared(
    staging: &Staging,
    record: &Record,
    runtime: &OnnxRuntime,
) -> Result<Model, Error> {
    staging.keep_only(record.files.keys().map(String::as_str))?;
    record.write(&staging.model())?;
    Ok(Model::load(&staging.path, &staging.name, runtime)?)
}

/// Says what was installed, and how it is used.
pub(super) fn print(record: &Record, model: &Model) {
    println!("model           {}", model.name);
    println!("source          {}", record.source);
    println!("variant         {}", record.variant);
    println!("licence         {}", record.licence.as_deref().unwrap_or("not stated"));
    println!("size            {} in {} files", DecimalBytes(record.size()), record.files.len());
    println!("fingerprint     {}", hex::encode(model.fingerprint));
    println!("dimensions      {}", model.dimensions);
    println!();
    println!("ALTER SYSTEM SET clip.model = '{}';", model.name);
    println!("SELECT pg_reload_conf();");
    println!(
        "-- where tables have vectors of another model, instead: CALL clip_migrate('TABLE', '{}');",
        model.name
    );
}

fn parse_pin(text: &str) -> Result<(String, String), String> {
    match text.rsplit_once('=') {
        Some((file, hex))
            if !file.is_empty() && hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) =>
        {
            Ok((file.to_owned(), hex.to_ascii_lowercase()))
        }
        _ => Err("it is not a file, an equals sign, and 64 hexadecimal digits".to_owned()),
    }
}
