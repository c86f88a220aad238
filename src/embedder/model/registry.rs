//! The models of this process, each loaded when it is first asked for.
//!
//! A load runs beside the runtime, one at a time; a request for a model that is being loaded waits for it. All requests
//! that waited for a load that failed get its error, and a later request tries again: an administrator repairs a model
//! without a restart.
//!
//! At most so many models as the bound says stay loaded. When one more has been loaded, the one that was not asked for
//! the longest is unloaded; a model that cannot be loaded unloads no other. The default model stays where the bound is
//! two or more, and the model that is used most where it is three or more: so a client that asks for one name after the
//! other unloads only the models that it had loaded. A batch that runs or waits keeps its model until it is done.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pg_clip_wire::Failure;
use tokio::sync::watch;
use tokio::task;

use super::Model;
use super::folder::{installed, locate};
use crate::error::Error;
use crate::log::{loaded, log_line, warning};
use crate::onnxruntime::OnnxRuntime;

/// All models by name.
pub(crate) struct Registry {
    models_directory: PathBuf,
    runtime: Arc<OnnxRuntime>,
    max_loaded: NonZeroUsize,
    default: String,
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
    Ready {
        model: Arc<Model>,
        uses: Uses,
    },
    /// It was ready, and made room for another one.
    Unloaded,
    Failed {
        failure: Failure,
        since: Instant,
    },
}

/// How much a loaded model is asked for.
#[derive(Debug, Clone, Copy)]
struct Uses {
    last: Instant,
    /// How often since it was loaded, halved whenever a model leaves.
    count: u64,
}

/// For so long a failed load is answered from memory: a thousand requests are one attempt.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Registry {
    /// Keeps at most `max_loaded` models loaded, `default` among them.
    pub(crate) fn new(
        models_directory: &Path,
        runtime: Arc<OnnxRuntime>,
        max_loaded: NonZeroUsize,
        default: String,
    ) -> Registry {
        Registry {
            models_directory: models_directory.to_owned(),
            runtime,
            max_loaded,
            default,
            slots: Mutex::default(),
        }
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
            Some(Slot::Ready { .. } | Slot::Unloaded) => State::Ready,
            Some(Slot::Failed { failure, .. }) => State::Failed(failure.clone()),
            None => match locate(&self.models_directory, name) {
                Ok(_) => State::Loading,
                Err(error) => State::Failed(error.into()),
            },
        }
    }

    /// All loaded models by name, and how long ago each was asked for.
    pub(crate) fn loaded(&self) -> Vec<(Arc<Model>, Duration)> {
        let ready = |slot: &Slot| match slot {
            Slot::Ready { model, uses } => Some((Arc::clone(model), uses.last.elapsed())),
            _ => None,
        };
        let mut models: Vec<(Arc<Model>, Duration)> = self.lock().values().filter_map(ready).collect();
        models.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        models
    }

    /// The names of all installed models in their order, each with why its last load failed.
    pub(crate) fn installed(&self) -> BTreeMap<String, Option<Failure>> {
        let names = installed(&self.models_directory);
        let slots = self.lock();
        let failure = |name: &String| match slots.get(name) {
            Some(Slot::Failed { failure, .. }) => Some(failure.clone()),
            _ => None,
        };
        names.into_iter().map(|name| (name.clone(), failure(&name))).collect()
    }

    fn ready_or_loading(
        self: &Arc<Self>,
        name: &str,
    ) -> Result<Result<Arc<Model>, watch::Receiver<Option<Loaded>>>, Failure> {
        let mut slots = self.lock();
        let previous = match slots.get_mut(name) {
            // Of a GPU that has failed since: the requests that have it get an error each, and later ones the next.
            Some(Slot::Ready { model, .. }) if model.is_stranded() => None,
            Some(Slot::Ready { model, uses }) => {
                *uses = Uses { last: Instant::now(), count: uses.count + 1 };
                return Ok(Ok(Arc::clone(model)));
            }
            Some(Slot::Loading(loading)) => return Ok(Err(loading.clone())),
            Some(Slot::Failed { failure, since }) if since.elapsed() < RETRY_AFTER => {
                return Err(failure.clone());
            }
            Some(Slot::Failed { failure, .. }) => Some(failure.clone()),
            Some(Slot::Unloaded) | None => None,
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
                loaded!(
                    "loaded model \"{name}\" in {:.2} s: {} dimensions, fingerprint {}",
                    started.elapsed().as_secs_f32(),
                    model.dimensions,
                    hex::encode(model.fingerprint)
                );
                Slot::Ready { model: Arc::clone(model), uses: Uses { last: Instant::now(), count: 1 } }
            }
            Err(failure) => {
                if previous.as_ref() != Some(failure) {
                    warning!("{}: {}", failure.message, failure.detail);
                }
                Slot::Failed { failure: failure.clone(), since: Instant::now() }
            }
        };
        let superfluous = {
            let mut slots = self.lock();
            slots.insert(name, slot);
            unload_superfluous(&mut slots, self.max_loaded, &self.default)
        };
        let _ = done.send(Some(loaded));
        for model in superfluous {
            log_line!("unloaded model \"{}\", at most {} stay loaded", model.name, self.max_loaded);
            // To give back a gigabyte takes its time, and no request waits for it. A panic in it is logged.
            let _ = task::spawn_blocking(move || drop(model)).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the models out that are beyond `max_loaded`.
fn unload_superfluous(
    slots: &mut HashMap<String, Slot>,
    max_loaded: NonZeroUsize,
    default: &str,
) -> Vec<Arc<Model>> {
    let uses = |slot: &Slot| if let Slot::Ready { uses, .. } = slot { Some(*uses) } else { None };
    let loaded = slots.iter().filter_map(|(name, slot)| Some((name.clone(), uses(slot)?))).collect();
    let names = superfluous(loaded, max_loaded, default);
    if !names.is_empty() {
        for slot in slots.values_mut() {
            if let Slot::Ready { uses, .. } = slot {
                uses.count /= 2;
            }
        }
    }
    let unload = |name| match slots.insert(name, Slot::Unloaded) {
        Some(Slot::Ready { model, .. }) => Some(model),
        _ => None,
    };
    names.into_iter().filter_map(unload).collect()
}

/// The names of the loaded models that have to leave.
fn superfluous(mut loaded: Vec<(String, Uses)>, max_loaded: NonZeroUsize, default: &str) -> Vec<String> {
    let superfluous = loaded.len().saturating_sub(max_loaded.get());
    if max_loaded.get() >= 2 {
        loaded.retain(|(name, _)| name != default);
    }
    let most_used =
        loaded.iter().max_by_key(|(_, uses)| (uses.count, uses.last)).map(|(name, _)| name.clone());
    if max_loaded.get() >= 3 {
        loaded.retain(|(name, _)| Some(name) != most_used.as_ref());
    }
    loaded.sort_by_key(|(_, uses)| uses.last);
    loaded.into_iter().take(superfluous).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use pg_clip_wire::FailureKind;

    use super::*;
    use crate::image::{demo_runtime, models_directory};
    use crate::onnxruntime::Urgency;

    /// Models that were asked for so often, in the order in which they were asked for the last time.
    fn leave(loaded: &[(&str, u64)], max_loaded: usize) -> Vec<String> {
        let now = Instant::now();
        let uses = |age, count| Uses { last: now + Duration::from_secs(age), count };
        let loaded = (0..).zip(loaded).map(|(age, (name, count))| ((*name).to_owned(), uses(age, *count)));
        superfluous(loaded.collect(), NonZeroUsize::new(max_loaded).unwrap(), "default")
    }

    #[test]
    fn the_one_that_was_not_asked_for_the_longest_leaves() {
        assert_eq!(leave(&[("a", 1), ("b", 1)], 1), ["a"]);
        assert_eq!(leave(&[("a", 1), ("b", 1)], 2), Vec::<String>::new());
        assert_eq!(leave(&[("default", 1), ("b", 1)], 1), ["default"], "there is one place alone");
    }

    #[test]
    fn four_models_in_rotation_drive_out_neither_the_default_nor_the_one_that_is_used_most() {
        assert_eq!(leave(&[("default", 1), ("a", 1), ("b", 1)], 2), ["a"]);
        assert_eq!(leave(&[("default", 1), ("app", 50), ("a", 1), ("b", 1)], 3), ["a"]);
        assert_eq!(leave(&[("app", 50), ("default", 1), ("b", 1), ("c", 1)], 3), ["b"]);
        assert_eq!(leave(&[("default", 0), ("a", 9), ("b", 9), ("c", 9), ("d", 1)], 3), ["a", "b"]);
    }
    fn registry(runtime: &Arc<OnnxRuntime>) -> Arc<Registry> {
        let max_loaded = NonZeroUsize::new(3).unwrap();
        Arc::new(Registry::new(&models_directory(), Arc::clone(runtime), max_loaded, "demo".to_owned()))
    }

    fn demo_of(registry: &Arc<Registry>) -> Arc<Model> {
        let sockets = tokio::runtime::Builder::new_current_thread().build().unwrap();
        sockets.block_on(registry.get("demo")).unwrap()
    }

    fn embed_images(model: &Model, images: usize) -> Vec<Vec<f32>> {
        let pixels = 3 * model.preprocessing.width as usize * model.preprocessing.height as usize;
        let image =
            |seed: usize| -> Vec<f32> { (0..pixels).map(|at| (at * seed % 255) as f32 / 255.0).collect() };
        let images: Vec<Vec<f32>> = (1..=images).map(image).collect();
        let images: Vec<&[f32]> = images.iter().map(Vec::as_slice).collect();
        let rows = model.embed_images(&images, Urgency::Usual).unwrap();
        rows.into_iter().map(Result::unwrap).collect()
    }

    fn are_alike(a: &[Vec<f32>], b: &[Vec<f32>]) -> bool {
        let cosine = |(a, b): (&Vec<f32>, &Vec<f32>)| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        a.len() == b.len() && a.iter().zip(b).map(cosine).all(|cosine| cosine > 0.9999)
    }

    #[test]
    fn a_gpu_computes_until_it_fails_and_then_the_processor_does() {
        let runtime = Arc::new(demo_runtime().with_gpu_of_tests());
        let gpu = runtime.gpu().unwrap();
        assert_eq!(gpu.problem(), None);
        let registry = registry(&runtime);
        let of_gpu = demo_of(&registry);
        assert!(of_gpu.is_on_gpu() && of_gpu.not_on_gpu.is_none());
        assert_eq!(of_gpu.image_batch, 64);
        let vectors = embed_images(&of_gpu, 64);

        gpu.has_failed("CUDA failure 700:\nan illegal memory access was encountered");
        gpu.has_failed("what comes after it");
        assert_eq!(
            gpu.problem().unwrap(),
            "execution provider \"cuda\" failed, cpu computes instead until the embedder starts again: CUDA failure 700: an \
             illegal memory access was encountered."
        );
        let of_processor = demo_of(&registry);
        assert!(!of_processor.is_on_gpu() && of_processor.not_on_gpu.is_none());
        assert_eq!(of_processor.fingerprint, of_gpu.fingerprint);
        assert_eq!(of_processor.image_batch, 16);
        assert!(are_alike(&embed_images(&of_processor, 16), &vectors[..16]));
        assert_eq!(registry.loaded().len(), 1);
    }

    #[test]
    fn a_run_that_fails_on_a_gpu_is_the_error_of_its_calls_and_the_end_of_its_use() {
        let runtime = Arc::new(demo_runtime().with_gpu_of_tests());
        let registry = registry(&runtime);
        let model = demo_of(&registry);
        // The network refuses an image of another size.
        let failure = Failure::from(model.embed_images(&[&[0.0; 3]], Urgency::Usual).unwrap_err());
        assert_eq!(failure.kind, FailureKind::Configuration);
        assert_eq!(failure.message, "GPU failed with model \"demo\"");
        assert_eq!(failure.hint, "Try again: the processor computes from now on.");
        assert!(!runtime.gpu().unwrap().works());
        assert!(!demo_of(&registry).is_on_gpu());
    }

    /// The library of the tests knows no CUDA.
    #[test]
    fn a_model_that_cannot_be_loaded_on_the_gpu_is_computed_by_the_processor() {
        let runtime = Arc::new(demo_runtime().with_untried_cuda());
        let model = demo_of(&registry(&runtime));
        assert!(!model.is_on_gpu());
        let told = model.not_on_gpu.as_deref().unwrap();
        let start = "model \"demo\" cannot be computed on the GPU, cpu computes it instead: ";
        assert!(told.starts_with(start) && told.contains("CUDA execution provider is not enabled"), "{told}");
        assert!(runtime.gpu().unwrap().works(), "other models may be computed there");
        assert_eq!(model.image_batch, 16);
    }
}
