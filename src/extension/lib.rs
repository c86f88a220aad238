//! pg_clip inside PostgreSQL: SQL functions that embed images and texts with CLIP, and a trigger that fills
//! `image_embeddings`.
//!
//! A backend holds no model, no decoder and no thread: it is a client of the embedder, a process of its own that
//! the supervisor starts and watches. Always true:
//!
//! * no call into PostgreSQL happens outside a backend's only thread;
//! * no wait is uninterruptible: each one is on a latch together with a socket;
//! * an answer of the embedder reaches the call that asked for it, or none;
//! * no file name comes from a user: a setting that names a file is `sighup`.
//!
//! The SQL surface is written by hand in `sql/`; this crate only exports the symbols that it names.

mod alone;
mod at_commit;
mod attempt;
mod backfill;
mod batch_limits;
mod catalog;
mod catalog_row;
mod caught;
mod client;
mod concurrent_index;
mod coverage;
mod current_model;
mod embed;
mod embedding_row;
mod encoding;
mod error;
mod explain;
mod extensions;
mod failure;
mod latch;
mod lock;
mod memo;
mod migration;
mod nested_settings;
mod notice;
mod owned;
mod partition_tree;
mod procedure;
mod queue;
mod reason;
mod refusal;
mod releases;
mod report;
mod server_error;
mod session_lock;
mod settings;
mod socket;
mod spi;
mod sql_function;
mod sqlstate;
mod status;
mod subscriptions;
mod supervisor;
mod time_limit;
mod timeout;
mod varlena;
mod vector;
mod version;
mod wait;
mod watch;
mod watching;
mod worker;

pgrx::pg_module_magic!(name, version);

#[pgrx::pg_guard]
pub extern "C-unwind" fn _PG_init() {
    // pg_upgrade starts the server to move catalogs: nothing of ours may run in it.
    // SAFETY: a plain read of a variable that the server set before it loaded this library.
    if unsafe { pgrx::pg_sys::IsBinaryUpgrade } {
        return;
    }
    current_model::define();
    settings::define();
    explain::install_hooks();
    spi::install_hook();
    supervisor::register_at_server_start();
    queue::register_at_server_start();
}
