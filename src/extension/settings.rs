//! The settings, all named `clip.*`: all but `clip.model`, which is [`crate::current_model`]'s.
//!
//! A setting that the embedder reads is `sighup`: a session cannot have an embedder of its own. A limit by which
//! one session could cost other sessions more is for superusers. A setting that names a file is `sighup` and hidden
//! from ordinary users. Any role may set the rest, so that it can be set for a role or a database.

use std::ffi::CString;
use std::time::Duration;

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

static ENABLED: GucSetting<bool> = GucSetting::<bool>::new(true);
/// 32 MiB: customers' photos have 2-12 MiB, and no service that takes uploads allows much more.
static MAX_IMAGE_BYTES: GucSetting<i32> = GucSetting::<i32>::new(32 << 20);
/// 50 megapixels, as imgproxy has it: 150 MB once decoded, above what phones make.
static MAX_IMAGE_PIXELS: GucSetting<i32> = GucSetting::<i32>::new(50_000_000);
/// 30 s: an embedder that starts needs a second or two, a full-size image under one on a slow machine.
static REQUEST_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(30_000);
/// 60 s: the delay of a photo whose wake was missed, by a restart or a prepared transaction.
static QUEUE_POLL_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(60);
static THREADS: GucSetting<i32> = GucSetting::<i32>::new(0);
/// 3: a model, one that it is replaced by, and one more. A ViT-B/32 takes about 1 GB.
static MAX_LOADED_MODELS: GucSetting<i32> = GucSetting::<i32>::new(3);
/// 512 MB: as much as the largest image may take, or ten photos of 12 megapixels at once.
static DECODER_MEMORY: GucSetting<i32> = GucSetting::<i32>::new(512);
static JPEG_SCALING: GucSetting<bool> = GucSetting::<bool>::new(true);
static EXECUTION_PROVIDER: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"cpu"));
static EMBEDDER_PROGRAM: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static ONNXRUNTIME_LIBRARY: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static MODELS_DIRECTORY: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));

/// Declares the settings to the server, beside `clip.model`, and reserves the prefix `clip.`.
pub(crate) fn define() {
    GucRegistry::define_bool_guc(
        c"clip.enabled",
        c"Lets the triggers of watched tables embed photos.",
        c"Where it is off, photos are stored without an embedding. Functions that are called by name still work.",
        &ENABLED,
        GucContext::Userset,
        GucFlags::empty(),
    );
    GucRegistry::define_int_guc(
        c"clip.max_image_bytes",
        c"Sets the size above which an image is refused unread.",
        c"",
        &MAX_IMAGE_BYTES,
        1,
        i32::try_from(pg_clip_wire::MAX_IMAGE_BYTES).expect("1 GiB fits"),
        GucContext::Suset,
        GucFlags::UNIT_BYTE,
    );
    GucRegistry::define_int_guc(
        c"clip.max_image_pixels",
        c"Sets the number of pixels above which an image is refused undecoded.",
        c"",
        &MAX_IMAGE_PIXELS,
        1,
        i32::MAX,
        GucContext::Suset,
        GucFlags::empty(),
    );
    GucRegistry::define_int_guc(
        c"clip.request_timeout",
        c"Sets how long a call waits for the embedder without any progress.",
        c"A call with many inputs makes progress with each answer.",
        &REQUEST_TIMEOUT,
        1,
        i32::MAX,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"clip.queue_poll_interval",
        c"Sets how often each database is searched for photos that were not announced.",
        c"A photo is announced when it is committed; this is for photos whose announcement was missed.",
        &QUEUE_POLL_INTERVAL,
        1,
        i32::MAX / 1000,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"clip.threads",
        c"Sets the number of threads that the embedder computes with.",
        c"0 means one for each processor that the server may use.",
        &THREADS,
        0,
        1024,
        GucContext::Sighup,
        GucFlags::empty(),
    );
    GucRegistry::define_int_guc(
        c"clip.max_loaded_models",
        c"Sets the number of models that stay loaded.",
        c"When one more is used, the one that was not used the longest is unloaded.",
        &MAX_LOADED_MODELS,
        1,
        64,
        GucContext::Sighup,
        GucFlags::empty(),
    );
    GucRegistry::define_int_guc(
        c"clip.decoder_memory",
        c"Sets the memory that all images being decoded may take together.",
        c"An image waits until there is enough; one that needs more is refused.",
        &DECODER_MEMORY,
        // Each PNG is reckoned to take 64 MB for the parts beside its picture.
        128,
        i32::MAX / 1024,
        GucContext::Sighup,
        GucFlags::UNIT_MB,
    );
    GucRegistry::define_bool_guc(
        c"clip.jpeg_scaling",
        c"Decodes large JPEGs at a fraction of their size.",
        c"At a half or less, where three times the model's size is left. Off, each pixel is decoded.",
        &JPEG_SCALING,
        GucContext::Sighup,
        GucFlags::empty(),
    );
    GucRegistry::define_string_guc(
        c"clip.execution_provider",
        c"Sets what the embedder computes on.",
        c"cpu, or cuda for a GPU of NVIDIA's; where that does not work, the embedder computes on the processor, and says so.",
        &EXECUTION_PROVIDER,
        GucContext::Sighup,
        GucFlags::empty(),
    );
    GucRegistry::define_string_guc(
        c"clip.embedder_program",
        c"Sets the path of the embedder's program.",
        c"Empty means the one that was installed with pg_clip.",
        &EMBEDDER_PROGRAM,
        GucContext::Sighup,
        GucFlags::SUPERUSER_ONLY,
    );
    GucRegistry::define_string_guc(
        c"clip.onnxruntime_library",
        c"Sets the path of ONNX Runtime's shared library.",
        c"Empty means the one that was installed with pg_clip.",
        &ONNXRUNTIME_LIBRARY,
        GucContext::Sighup,
        GucFlags::SUPERUSER_ONLY,
    );
    GucRegistry::define_string_guc(
        c"clip.models_directory",
        c"Sets the directory that holds the installed models.",
        c"Empty means the one that was installed with pg_clip.",
        &MODELS_DIRECTORY,
        GucContext::Sighup,
        GucFlags::SUPERUSER_ONLY,
    );
    // SAFETY: the prefix is a constant string, and all settings with it are defined.
    unsafe { pgrx::pg_sys::MarkGUCPrefixReserved(c"clip".as_ptr()) };
}

pub(crate) fn enabled() -> bool {
    ENABLED.get()
}

pub(crate) fn max_image_bytes() -> usize {
    usize::try_from(MAX_IMAGE_BYTES.get()).expect("the least value is 1")
}

pub(crate) fn max_image_pixels() -> u64 {
    u64::try_from(MAX_IMAGE_PIXELS.get()).expect("the least value is 1")
}

pub(crate) fn request_timeout() -> Duration {
    Duration::from_millis(u64::try_from(REQUEST_TIMEOUT.get()).expect("the least value is 1"))
}

pub(crate) fn queue_poll_interval() -> Duration {
    Duration::from_secs(u64::try_from(QUEUE_POLL_INTERVAL.get()).expect("the least value is 1"))
}

pub(crate) fn threads() -> i32 {
    THREADS.get()
}

pub(crate) fn max_loaded_models() -> i32 {
    MAX_LOADED_MODELS.get()
}

pub(crate) fn jpeg_scaling() -> bool {
    JPEG_SCALING.get()
}

/// In megabytes.
pub(crate) fn decoder_memory() -> i32 {
    DECODER_MEMORY.get()
}

pub(crate) fn execution_provider() -> String {
    text(&EXECUTION_PROVIDER)
}

/// Empty where the installed program is meant.
pub(crate) fn embedder_program() -> String {
    text(&EMBEDDER_PROGRAM)
}

/// Empty where the installed library is meant.
pub(crate) fn onnxruntime_library() -> String {
    text(&ONNXRUNTIME_LIBRARY)
}

/// Empty where the installed models are meant.
pub(crate) fn models_directory() -> String {
    text(&MODELS_DIRECTORY)
}

fn text(setting: &GucSetting<Option<CString>>) -> String {
    setting.get().map(|value| value.to_string_lossy().into_owned()).unwrap_or_default()
}
