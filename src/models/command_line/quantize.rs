//! `quantize`: an 8-bit model out of one that is installed.

use std::process::ExitCode;
use std::time::SystemTime;

use clap::Args;
use humantime::format_rfc3339_seconds;
use pg_clip_embedder::{Error as EmbedderError, Model, OnnxRuntime, Place, fail, locate};

use super::installation::{load_prepared, print, write_for_the_server};
use crate::error::Error;
use crate::install::{Origin, Record, Staging};
use crate::quantize::{Cosines, Fidelity, LEAST_MEAN, Outcome, Plan, VARIANT, Vectors};

#[derive(Debug, Args)]
pub(crate) struct QuantizeOptions {
    /// Installed model to quantize
    #[arg(value_name = "NAME")]
    pub source: String,
    /// Name of the new model; by default that of its source with -int8
    #[arg(long = "as", alias = "name", value_name = "NAME")]
    pub name: Option<String>,
    /// Replace an installed model of the same name
    #[arg(long)]
    pub replace: bool,
    #[command(flatten)]
    pub place: Place,
}

/// Installs the new model, or prints why not.
pub(crate) fn run(options: &QuantizeOptions) -> ExitCode {
    match quantize(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error),
    }
}

fn quantize(options: &QuantizeOptions) -> Result<(), Error> {
    write_for_the_server();
    let runtime = options.place.runtime()?;
    runtime.ensure_loaded()?;
    let plan = Plan::of(&options.place.models.path()?, &options.source)?;
    let name = options.name.clone().unwrap_or_else(|| format!("{}-{VARIANT}", options.source));
    let staging = Staging::open(&options.place.models.path()?, &name)?;
    if let Err(error) = staging.refuse_installed(options.replace) {
        staging.discard_if_empty();
        return Err(error);
    }
    match prepare(options, plan, &staging, &runtime) {
        Ok((record, model)) => {
            staging.install()?;
            print(&record, &model);
            Ok(())
        }
        Err(error) => {
            staging.discard()?;
            Err(error)
        }
    }
}

/// Makes the new model, and holds it against its source before anything is installed.
fn prepare(
    options: &QuantizeOptions,
    plan: Plan,
    staging: &Staging,
    runtime: &OnnxRuntime,
) -> Result<(Record, Model), Error> {
    let models_directory = options.place.models.path()?;
    let fingerprint = plan.fingerprint;
    let (outcomes, files) = plan.write(staging)?;
    let folder = locate(&models_directory, &options.source)?;
    // One model after the other, so that both need not fit into memory.
    let source = Model::load(&models_directory, &options.source, runtime)?;
    if source.fingerprint != fingerprint {
        let reason = "its files were changed meanwhile".to_owned();
        return Err(Error::Unquantizable { name: options.source.clone(), reason });
    }
    let expected = Vectors::of(&source)?;
    drop(source);

    let earlier = match Record::of(&folder) {
        Ok(record) => record,
        // A repository may have a model.json of its own, which is no record.
        Err(Error::BadRecord { .. }) => None,
        Err(error) => return Err(error),
    };
    let (origin, licence) = earlier.map_or((None, None), |record| (Some(record.source), record.licence));
    let source = Origin::Quantized {
        model: options.source.clone(),
        fingerprint: hex::encode(fingerprint),
        origin: origin.map(Box::new),
    };
    let installed_at = format_rfc3339_seconds(SystemTime::now()).to_string();
    let record = Record { source, variant: VARIANT.to_owned(), licence, installed_at, files };
    let model = load_prepared(staging, &record, runtime).map_err(|error| match error {
        Error::Embedder(EmbedderError::UnusableModel { reason, .. }) => Error::Unquantizable {
            name: options.source.clone(),
            reason: format!("in 8 bits it fails its test: {reason}"),
        },
        other => other,
    })?;
    let fidelity = expected.compare(&Vectors::of(&model)?);
    if !fidelity.is_enough() {
        let Fidelity { images, texts, .. } = fidelity;
        return Err(Error::TooUnlike {
            name: options.source.clone(),
            images: images.mean,
            texts: texts.mean,
            least: LEAST_MEAN,
        });
    }
    tell(&outcomes, &fidelity);
    Ok((record, model))
}

fn tell(outcomes: &[Outcome], fidelity: &Fidelity) {
    for Outcome { path, quantized, kept } in outcomes {
        println!("graph           {path}: {quantized} of {} products in 8 bits", quantized + kept);
    }
    for (what, Cosines { count, mean, least }) in [("images", &fidelity.images), ("texts", &fidelity.texts)] {
        println!("{what:16}cosine to the source {mean:.5} on average, {least:.5} at least, of {count}");
    }
    let ([before, after], count) = (fidelity.found, fidelity.images.count);
    println!("recall          {after} of {count} names find their photo first, with the source {before}");
}
