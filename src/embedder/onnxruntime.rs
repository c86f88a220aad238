//! ONNX Runtime, loaded from the library that the settings name.
//!
//! The library is loaded by the first model and not at start: a missing one is then an answer that names the file,
//! and the server goes on. ONNX Runtime writes telemetry into the home folder unless `ORT_DISABLE_TELEMETRY` is set
//! before it is loaded, which the guardian does; without the variable, the library is not loaded.

mod gpu;
mod mapped_file;
mod outline;
mod shared_session;

use std::env;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::mem;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};

use nix::unistd::{Pid, gettid};
use ort::environment::{Environment, ThreadManager};
use ort::ep::CPU;
use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::sys::OrtApiBase;
use ort::value::{Outlet, Tensor, ValueType};

pub(crate) use self::gpu::{Gpu, ON_GPU, ON_PROCESSOR, plain};
use self::mapped_file::MappedFiles;
pub(crate) use self::outline::Outline;
use self::shared_session::Runs;
pub(crate) use self::shared_session::{SharedSession, Urgency};
use crate::error::Error;
use crate::scheduling;

/// The environment variable that keeps ONNX Runtime from writing telemetry.
pub(crate) const DISABLE_TELEMETRY: &str = "ORT_DISABLE_TELEMETRY";

/// One ONNX Runtime for the process, and how its sessions are made.
pub struct OnnxRuntime {
    library: PathBuf,
    threads: NonZeroUsize,
    /// None where none is asked for.
    gpu: Option<Arc<Gpu>>,
    loaded: Mutex<Option<Loaded>>,
}

#[derive(Clone)]
struct Loaded {
    environment: Environment,
    version: String,
}

impl OnnxRuntime {
    /// Remembers where the library is; nothing is loaded yet.
    pub fn new(library: PathBuf, threads: NonZeroUsize) -> OnnxRuntime {
        OnnxRuntime { library, threads, gpu: None, loaded: Mutex::new(None) }
    }

    /// Computes on a GPU, where that works. Loads the library, and takes a second or more.
    pub(crate) fn with_cuda(self) -> OnnxRuntime {
        self.with_gpu(Gpu::cuda())
    }

    fn with_gpu(mut self, gpu: Gpu) -> OnnxRuntime {
        let gpu = self.gpu.insert(Arc::new(gpu));
        let gpu = Arc::clone(gpu);
        // A library that cannot be loaded is each model's error, too.
        let tried =
            self.sessions().map_err(|error| error.to_string()).and_then(|sessions| sessions.try_gpu(&gpu));
        if let Err(reason) = tried {
            gpu.is_missing(&reason);
        }
        self
    }

    /// The same library, whose processor computes as if it were a GPU.
    #[cfg(test)]
    pub(crate) fn with_gpu_of_tests(&self) -> OnnxRuntime {
        self.again().with_gpu(Gpu::of_tests())
    }

    /// The same library with a GPU that was not tried.
    #[cfg(test)]
    pub(crate) fn with_untried_cuda(&self) -> OnnxRuntime {
        OnnxRuntime { gpu: Some(Arc::new(Gpu::cuda())), ..self.again() }
    }

    #[cfg(test)]
    fn again(&self) -> OnnxRuntime {
        let loaded = self.lock().clone();
        OnnxRuntime {
            library: self.library.clone(),
            threads: self.threads,
            gpu: None,
            loaded: Mutex::new(loaded),
        }
    }

    /// The GPU that is asked for.
    pub(crate) fn gpu(&self) -> Option<&Arc<Gpu>> {
        self.gpu.as_ref()
    }

    /// The number of threads of each session.
    pub(crate) fn threads(&self) -> usize {
        self.threads.get()
    }

    /// The version of the library, such as "1.31.1", once it is loaded.
    pub(crate) fn version(&self) -> Option<String> {
        self.lock().as_ref().map(|loaded| loaded.version.clone())
    }

    /// Loads the library where it was not loaded yet, or says why it cannot be used.
    pub fn ensure_loaded(&self) -> Result<(), Error> {
        self.sessions().map(drop)
    }

    /// The runtime and the options that sessions are made from. Loads the library where it was not loaded yet.
    pub(crate) fn sessions(&self) -> Result<Sessions, Error> {
        let mut loaded = self.lock();
        if loaded.is_none() {
            let reason = |reason| Error::UnusableRuntime { path: self.library.clone(), reason };
            *loaded = Some(self.load().map_err(reason)?);
        }
        let loaded = loaded.as_ref().expect("loaded above");
        let spins_briefly = can_spin_briefly(&loaded.version);
        let gpu = self.gpu.clone().filter(|gpu| gpu.works());
        Ok(Sessions { environment: loaded.environment.clone(), threads: self.threads(), spins_briefly, gpu })
    }

    fn load(&self) -> Result<Loaded, String> {
        if env::var_os(DISABLE_TELEMETRY).is_none_or(|value| value != "1") {
            return Err(format!("the environment variable {DISABLE_TELEMETRY} must be 1"));
        }
        File::open(&self.library).map_err(|error| error.to_string())?;
        let mut environment = ort::init_from(&self.library)
            .map_err(|error| error.to_string())?
            .with_name("pg_clip")
            .with_telemetry(false);
        if let Some(gpu) = self.gpu.clone() {
            environment = environment
                .with_logger(Arc::new(move |level, _category, _id, _place, message| gpu.log(level, message)));
        }
        let environment = environment.build().map_err(|error| error.to_string())?;
        Ok(Loaded { environment, version: version(&self.library).unwrap_or_else(|| "unknown".to_owned()) })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Loaded>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes sessions.
pub(crate) struct Sessions {
    environment: Environment,
    threads: usize,
    spins_briefly: bool,
    /// None where the processor computes.
    gpu: Option<Arc<Gpu>>,
}

impl Sessions {
    /// The GPU that sessions are made on.
    pub(crate) fn gpu(&self) -> Option<&Arc<Gpu>> {
        self.gpu.as_ref()
    }

    /// Makes sessions on the processor.
    pub(crate) fn on_processor(&self) -> Sessions {
        Sessions { environment: self.environment.clone(), gpu: None, ..*self }
    }

    /// Runs a graph that needs the driver, a kernel for the GPU at hand, and the libraries for products and convolutions.
    fn try_gpu(&self, gpu: &Arc<Gpu>) -> Result<(), String> {
        let failed = |error: ort::Error| error.to_string();
        let session = || -> ort::Result<Session> {
            Session::builder(&self.environment)?
                .with_intra_threads(1)?
                .with_log_level(LogLevel::Error)?
                .with_execution_providers([gpu.provider(&[])])?
                .commit_from_memory(TRIAL)
        };
        let session = SharedSession::new(session().map_err(failed)?, Runs::OnGpu(Arc::clone(gpu)));
        let input =
            || Tensor::from_array(([1usize, 1, 1, 1], vec![1f32])).map(Tensor::into_dyn).map_err(failed);
        let output = session.run(&[("x", input()?), ("w", input()?)], "z", Urgency::Usual)?;
        match output.try_extract_tensor::<f32>().map_err(failed)?.1 {
            [1.0] => Ok(()),
            other => Err(format!("the product of 1 and 1 is {other:?}")),
        }
    }

    /// Loads a graph.
    ///
    /// A thread that waits for the next piece of a run spins for 30 µs before it sleeps: the next piece comes
    /// within that time, and to wake a thread takes as long. On two idle processors a text took 0.8 (fp32) and 0.65
    /// (int8) of the time that it took without, and no more processor time; beside one busy process 1.0 and 1.15,
    /// beside two 0.73 and 0.82. ONNX Runtime's default of about a millisecond gains no more, and takes 1.4 times
    /// as long beside a busy process: the machine is PostgreSQL's. Shapes differ from run to run, so that memory
    /// patterns would only be collected. Without an arena the memory of a large batch goes back to the system when
    /// it is answered; at batch 1 no loss of speed was seen. Weights are packed for the processor at load: of a
    /// ViT-B/32's image tower, 350 MB, that takes 200 MB, and without it an image takes a third more time. Failures
    /// are returned, and need not be logged as well.
    ///
    /// Signed 8-bit weights are multiplied exactly. On a processor without VNNI, ONNX Runtime's default kernels for them add
    /// pairs of products in 16 bits, which saturate: vectors of int8 models would depend on the processor. With VNNI the
    /// default kernels are exact, and an image takes two thirds of the time that it takes with the option.
    ///
    /// The threads of a session that takes images have a lower priority than all others. A graph of both towers takes images
    /// also where it is run for a text.
    ///
    /// Large weights are read from where they lie, see [`outline`], in the graph itself or in `external_data`; the session
    /// needs none of these files any more.
    ///
    /// On a GPU the processor computes no more than shapes: one thread is enough.
    pub(crate) fn open(&self, graph: &Path, external_data: &[PathBuf]) -> Result<SharedSession, String> {
        let failed = |error: io::Error| error.to_string();
        let paths = [&[graph.to_owned()], external_data].concat();
        let files = MappedFiles::open(&paths).map_err(failed)?;
        let inside = if external_data.is_empty() { Inside::of(graph).map_err(failed)? } else { None };
        let pool = Pool::default();
        let (threads, runs, provider) = match &self.gpu {
            Some(gpu) => (1, Runs::OnGpu(Arc::clone(gpu)), gpu.provider(&paths)),
            None => {
                let provider = CPU::default().with_arena_allocator(false).build();
                (self.threads, Runs::of_threads(self.threads), provider)
            }
        };
        let session = || -> ort::Result<Session> {
            let builder = Session::builder(&self.environment)?
                .with_optimization_level(GraphOptimizationLevel::All)?
                .with_intra_threads(threads)?
                .with_inter_threads(1)?
                .with_thread_manager(pool.clone())?
                .with_intra_op_spinning(self.spins_briefly)?
                .with_config_entry(SPIN_DURATION_US, "30")?
                .with_inter_op_spinning(false)?
                .with_memory_pattern(false)?
                .with_config_entry(EXACT_8_BIT_PRODUCTS, if has_vnni() { "0" } else { "1" })?
                .with_log_level(LogLevel::Fatal)?
                .with_execution_providers([provider])?;
            match inside {
                Some(Inside { folder, outline }) => {
                    builder.with_config_entry(FOLDER_OF_WEIGHTS, folder)?.commit_from_memory(&outline.bytes)
                }
                None => { builder }.commit_from_file(graph),
            }
        };
        let session = session().map_err(|error| error.to_string())?;
        files.copy_mappings().map_err(failed)?;
        if session.inputs().iter().any(takes_images) {
            pool.threads().iter().copied().for_each(scheduling::lower_priority_of);
        }
        Ok(SharedSession::new(session, runs))
    }
}

/// An ONNX file: `z = MatMul(Conv(x, w), w)`, all of them f32[1, 1, 1, 1].
const TRIAL: &[u8] = include_bytes!("onnxruntime/trial.onnx");

/// A graph whose large weights lie in its own file.
struct Inside {
    /// The folder that weights are named in.
    folder: String,
    outline: Outline,
}

impl Inside {
    /// None for a graph that is loaded from its file.
    fn of(graph: &Path) -> io::Result<Option<Inside>> {
        // ONNX Runtime takes weights from below the folder: where a link leads counts.
        let graph = graph.canonicalize()?;
        let text = |part: Option<&OsStr>| part.and_then(OsStr::to_str).map(str::to_owned);
        let folder = text(graph.parent().map(Path::as_os_str));
        let (Some(folder), Some(name)) = (folder, text(graph.file_name())) else { return Ok(None) };
        let outline = Outline::read(File::open(&graph)?, Some(&name))?;
        Ok(outline.filter(|outline| outline.left_out > 0).map(|outline| Inside { folder, outline }))
    }
}

// As in ONNX Runtime's `onnxruntime_session_options_config_keys.h`.
const EXACT_8_BIT_PRODUCTS: &str = "session.x64quantprecision";
const FOLDER_OF_WEIGHTS: &str = "session.model_external_initializers_file_folder_path";
const SPIN_DURATION_US: &str = "session.intra_op.spin_duration_us";

/// Whether a release of ONNX Runtime knows [`SPIN_DURATION_US`]. An older one ignores it and would spin for long.
fn can_spin_briefly(version: &str) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or_default());
    (numbers.next(), numbers.next()) >= (Some(1), Some(31))
}

/// Whether the processor adds products of 8 bits in 32 bits.
fn has_vnni() -> bool {
    #[cfg(target_arch = "x86_64")]
    let has = is_x86_feature_detected!("avx512vnni") || is_x86_feature_detected!("avxvnni");
    #[cfg(not(target_arch = "x86_64"))]
    let has = false;
    has
}

/// An input of rank 4: `[batch, 3, height, width]`.
fn takes_images(input: &Outlet) -> bool {
    matches!(input.dtype(), ValueType::Tensor { shape, .. } if shape.len() == 4)
}

/// The threads that a session starts while it is made; the thread that runs it is one more.
#[derive(Clone, Default)]
struct Pool(Arc<Mutex<Vec<Pid>>>);

impl Pool {
    fn threads(&self) -> MutexGuard<'_, Vec<Pid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ThreadManager for Pool {
    type Thread = JoinHandle<()>;

    /// Starts a thread and waits until it has told its id.
    fn create(&self, work: impl FnOnce() + Send + 'static) -> ort::Result<JoinHandle<()>> {
        let (sender, id) = mpsc::sync_channel(1);
        let thread = thread::Builder::new().name("inference".to_owned()).spawn(move || {
            let _ = sender.send(gettid());
            work();
        });
        let thread = thread.map_err(|error| ort::Error::new(error.to_string()))?;
        self.threads().extend(id.recv());
        Ok(thread)
    }

    fn join(thread: JoinHandle<()>) -> ort::Result<()> {
        thread.join().map_err(|_| ort::Error::new("a thread of a session panicked"))
    }
}

/// The version of the loaded library at `path`. `ort` reads it and keeps it to itself.
fn version(path: &Path) -> Option<String> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    // SAFETY: `path` ends with a zero byte. RTLD_NOLOAD only counts a reference to a library that is loaded; it is
    // never given back, and `ort` never unloads the library either.
    let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
    if library.is_null() {
        return None;
    }
    // SAFETY: `library` is a handle of dlopen, and the name ends with a zero byte.
    let function = unsafe { libc::dlsym(library, c"OrtGetApiBase".as_ptr()) };
    if function.is_null() {
        return None;
    }
    // SAFETY: ONNX Runtime's C interface declares OrtGetApiBase with this type.
    let get_api_base: unsafe extern "C" fn() -> *const OrtApiBase = unsafe { mem::transmute(function) };
    // SAFETY: OrtGetApiBase takes nothing and returns a static table, whose GetVersionString returns a static string
    // that ends with a zero byte.
    let version = unsafe { CStr::from_ptr(((*get_api_base()).GetVersionString)()) };
    Some(version.to_str().ok()?.to_owned())
}
