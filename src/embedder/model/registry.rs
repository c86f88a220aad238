//! The models of this process, each loaded when it is first asked for.
//!
//! A load runs beside the runtime, one at a time; whoever asks for a model that is being loaded waits for it. A load that failed is
//! told to all who waited, and tried again by a later request: an administrator repairs a model without a restart. A
//! loaded model stays until the process ends.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pg_clip_wire::Failure;
use tokio::sync::watch;
use tokio::task;

use super::Model;
use super::folder::locate;
use crate::error::Error;
use crate::log::{log_line, warning};
use crate::onnxruntime::OnnxRuntime;

/// All models by name.
pub(crate) struct Registry {
    models_directory: PathBuf,
    runtime: Arc<OnnxRuntime>,
    slots: Mutex<HashMap<String, Slot>>,
}

/// How far a model is.
#[derive(Debug, Clone)]
pub(crate) enum State {
    Loading,
    Ready,
    Failed(Failure),
}

type Loaded = Result<Arc<Model>, Failure>;

enum Slot {
    Loading(watch::Receiver<Option<Loaded>>),
    Ready(Arc<Model>),
    Failed { failure: Failure, since: Instant },
}

/// For so long a failed load is answered from memory: a thousand requests are one attempt.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Registry {
    pub(crate) fn new(models_directory: &Path, runtime: Arc<OnnxRuntime>) -> Registry {
        Registry { models_directory: models_directory.to_owned(), runtime, slots: Mutex::default() }
    }

    /// The model `name`, after it is loaded.
    pub(crate) async fn get(self: &Arc<Self>, name: &str) -> Loaded {
        let mut loading = match self.ready_or_loading(name)? {
            Ok(model) => return Ok(model),
            Err(loading) => loading,
        };
        let loaded = loading.wait_for(Option::is_some).await;
        let lost = || Err(Error::Internal(format!("the load of model \"{name}\" was lost")).into());
        loaded.ok().and_then(|loaded| loaded.clone()).unwrap_or_else(lost)
    }

    /// How far the model `name` is.
    pub(crate) fn state(&self, name: &str) -> State {
        match self.lock().get(name) {
            Some(Slot::Loading(_)) => State::Loading,
            Some(Slot::Ready(_)) => State::Ready,
            Some(Slot::Failed { failure, .. }) => State::Failed(failure.clone()),
            None => match locate(&self.models_directory, name) {
                Ok(_) => State::Loading,
                Err(error) => State::Failed(error.into()),
            },
        }
    }

    /// All loaded models, by name.
    pub(crate) fn loaded(&self) -> Vec<Arc<Model>> {
        let ready = |slot: &Slot| if let Slot::Ready(model) = slot { Some(Arc::clone(model)) } else { None };
        let mut models: Vec<Arc<Model>> = self.lock().values().filter_map(ready).collect();
        models.sort_by(|a, b| a.name.cmp(&b.name));
        models
    }

    fn ready_or_loading(
        self: &Arc<Self>,
        name: &str,
    ) -> Result<Result<Arc<Model>, watch::Receiver<Option<Loaded>>>, Failure> {
        let mut slots = self.lock();
        let previous = match slots.get(name) {
            Some(Slot::Ready(model)) => return Ok(Ok(Arc::clone(model))),
            Some(Slot::Loading(loading)) => return Ok(Err(loading.clone())),
            Some(Slot::Failed { failure, since }) if since.elapsed() < RETRY_AFTER => {
                return Err(failure.clone());
            }
            Some(Slot::Failed { failure, .. }) => Some(failure.clone()),
            None => None,
        };
        if let Err(error) = locate(&self.models_directory, name) {
            slots.remove(name);
            return Err(error.into());
        }
        let (done, loading) = watch::channel(None);
        slots.insert(name.to_owned(), Slot::Loading(loading.clone()));
        task::spawn(Arc::clone(self).load(name.to_owned(), previous, done));
        Ok(Err(loading))
    }

    /// A failure is logged once, and again when it changes.
    async fn load(
        self: Arc<Self>,
        name: String,
        previous: Option<Failure>,
        done: watch::Sender<Option<Loaded>>,
    ) {
        let started = Instant::now();
        let (registry, model) = (Arc::clone(&self), name.clone());
        let load = move || Model::load(&registry.models_directory, &model, &registry.runtime);
        let loaded = task::spawn_blocking(load).await;
        let panicked = |_| Err(Error::Internal(format!("loading model \"{name}\" panicked")));
        let loaded = loaded.unwrap_or_else(panicked).map(Arc::new).map_err(Failure::from);
        let slot = match &loaded {
            Ok(model) => {
                log_line!(
                    "loaded model \"{name}\" in {:.2} s: {} dimensions, fingerprint {}",
                    started.elapsed().as_secs_f32(),
                    model.dimensions,
                    hex::encode(model.fingerprint)
                );
                Slot::Ready(Arc::clone(model))
            }
            Err(failure) => {
                if previous.as_ref() != Some(failure) {
                    warning!("{}: {}", failure.message, failure.detail);
                }
                Slot::Failed { failure: failure.clone(), since: Instant::now() }
            }
        };
        self.lock().insert(name, slot);
        let _ = done.send(Some(loaded));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
