//! The GPU that sessions compute on where one is asked for.
//!
//! A GPU is tried at start, with a graph that needs each of its libraries, and where it does not work the processor computes as
//! if no GPU had been asked for. A session is made on the GPU or not at all; within its runs ONNX Runtime leaves to the processor
//! what works on shapes, and operators that CUDA's provider does not have. A model whose sessions cannot be made there, or fail
//! its self-test there, is computed by the processor alone, and the others stay. A run that fails on the GPU ends its use for as
//! long as the process lives: after most errors of CUDA every later call of the process fails, and one that passed would come
//! again. Models are then loaded anew for the processor.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ort::ep::cuda::ConvAlgorithmSearch;
use ort::ep::{ArenaExtendStrategy, CUDA, ExecutionProviderDispatch};
use ort::logging::LogLevel;

use crate::error::sentence;
use crate::log::warning;

/// The name of the processor as an execution provider.
pub(crate) const ON_PROCESSOR: &str = "cpu";

/// The name of a GPU of NVIDIA's as an execution provider.
pub(crate) const ON_GPU: &str = "cuda";

/// The memory that a session may take on the GPU beside its weights. A run of 64 images of a ViT-L/14 of 336 pixels, whose
/// attention has the largest tensors of the models known, needs two of 1.4 GB, two of 0.6 GB and some of 0.2 GB.
const WORKING_MEMORY: u64 = 5 << 30;

/// The GPU of a process.
#[derive(Debug)]
pub(crate) struct Gpu {
    /// Registers it for a session, which may take so many bytes of its memory.
    provider: fn(usize) -> ExecutionProviderDispatch,
    /// Why it is not used, in a sentence.
    problem: Mutex<Option<String>>,
    /// The last error in ONNX Runtime's own log: of a provider that cannot be loaded it returns less than it logs.
    logged: Mutex<Option<String>>,
}

impl Gpu {
    /// The first GPU of NVIDIA's.
    pub(super) fn cuda() -> Gpu {
        Gpu { provider: cuda, problem: Mutex::default(), logged: Mutex::default() }
    }

    /// The processor in place of a GPU: a machine that has none tests with it how one is used.
    #[cfg(test)]
    pub(super) fn of_tests() -> Gpu {
        use ort::ep::CPU;

        Gpu {
            provider: |_memory| CPU::default().with_arena_allocator(false).build(),
            problem: Mutex::default(),
            logged: Mutex::default(),
        }
    }

    /// Whether sessions are made on it.
    pub(crate) fn works(&self) -> bool {
        lock(&self.problem).is_none()
    }

    /// Why it is not used.
    pub(crate) fn problem(&self) -> Option<String> {
        lock(&self.problem).clone()
    }

    /// Notes that it cannot be used on this machine.
    pub(super) fn is_missing(&self, reason: &str) {
        let logged = lock(&self.logged).take().filter(|logged| !logged.contains(reason));
        let reason = logged.as_deref().unwrap_or(reason);
        self.give_up(&format!("is not available, {ON_PROCESSOR} computes instead"), reason);
    }

    /// Notes that a run failed: from now on models are loaded for the processor.
    pub(crate) fn has_failed(&self, reason: &str) {
        self.give_up(
            &format!("failed, {ON_PROCESSOR} computes instead until the embedder starts again"),
            reason,
        );
    }

    fn give_up(&self, what: &str, reason: &str) {
        let mut problem = lock(&self.problem);
        if problem.is_none() {
            let told = format!("execution provider \"{ON_GPU}\" {what}: {}", plain(reason));
            warning!("{told}");
            *problem = Some(told);
        }
    }

    /// The execution provider of a session whose weights lie in these files.
    pub(super) fn provider(&self, files: &[PathBuf]) -> ExecutionProviderDispatch {
        let size = |file: &PathBuf| file.metadata().map_or(0, |file| file.len());
        let memory = memory_limit(files.iter().map(size).sum());
        (self.provider)(usize::try_from(memory).unwrap_or(usize::MAX)).error_on_failure()
    }

    /// Takes a message of ONNX Runtime's log.
    pub(super) fn log(&self, level: LogLevel, message: &str) {
        if matches!(level, LogLevel::Error | LogLevel::Fatal) {
            *lock(&self.logged) = Some(message.to_owned());
        }
    }
}

fn lock(text: &Mutex<Option<String>>) -> MutexGuard<'_, Option<String>> {
    text.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The most memory of a session on the GPU. Optimizations of a graph hold some weights twice while it is loaded.
fn memory_limit(weights: u64) -> u64 {
    weights.saturating_mul(2).saturating_add(WORKING_MEMORY)
}

/// Memory is taken as it is needed, so that neighbours on the GPU keep theirs. Products of 32-bit floats are computed as such,
/// and not in the 19 bits of TF32: rows that the processor has embedded are compared with them. Heuristics choose how to
/// convolve: a search would run anew for each size of a batch.
fn cuda(memory: usize) -> ExecutionProviderDispatch {
    CUDA::default()
        .with_device_id(0)
        .with_memory_limit(memory)
        .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested)
        .with_conv_algorithm_search(ConvAlgorithmSearch::Heuristic)
        .with_tf32(false)
        .build()
}

/// A message of ONNX Runtime's as a sentence, without its places in source code and the name of the machine.
pub(crate) fn plain(message: &str) -> String {
    let message = message.rsplit_once("[ONNXRuntimeError] : ").map_or(message, |(_, numbered)| {
        // As in `1 : FAIL : Failed to load library`.
        numbered.splitn(3, " : ").nth(2).unwrap_or(numbered)
    });
    let message = message.split(" ; GPU=").next().unwrap_or(message);
    sentence(&message.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As ONNX Runtime 1.31 writes them on machines without CUDA, without a driver, and with one that finds no GPU.
    #[test]
    fn reasons_are_sentences() {
        for (message, expected) in [
            (
                "CUDA execution provider is not enabled in this build.",
                "CUDA execution provider is not enabled in this build.",
            ),
            (
                "/onnxruntime_src/onnxruntime/core/session/provider_bridge_ort.cc:2043 onnxruntime::Provider& \
                 onnxruntime::ProviderLibrary::Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load library \
                 /x/libonnxruntime_providers_cuda.so with error: libcuda.so.1: cannot open shared object file: No such file or directory",
                "Failed to load library /x/libonnxruntime_providers_cuda.so with error: libcuda.so.1: cannot open shared object file: \
                 No such file or directory.",
            ),
            (
                "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version ; GPU=-1 ; hostname=vm ; \
                 file=/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_execution_provider_info.cc ; line=70 ; \
                 expr=cudaGetDeviceCount(&num_devices); ",
                "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version.",
            ),
            ("an illegal memory access\n was encountered", "An illegal memory access was encountered."),
        ] {
            assert_eq!(plain(message), expected);
        }
    }

    #[test]
    fn the_first_problem_is_told() {
        let gpu = Gpu::of_tests();
        gpu.log(LogLevel::Warning, "nothing of interest");
        gpu.log(LogLevel::Error, "Failed to load library x with error: y");
        gpu.is_missing("Failed to load shared library");
        gpu.has_failed("what comes after it");
        assert!(!gpu.works());
        assert_eq!(
            gpu.problem().unwrap(),
            "execution provider \"cuda\" is not available, cpu computes instead: Failed to load library x with error: y."
        );
    }

    #[test]
    fn a_session_may_take_what_its_weights_and_its_largest_batch_need() {
        assert_eq!(memory_limit(1 << 30), 7 << 30);
        assert_eq!(memory_limit(u64::MAX), u64::MAX);
    }
}
