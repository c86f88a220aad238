//! Lines to standard error, for the administrator. They do not break a progress bar.

use std::sync::Mutex;

use indicatif::ProgressBar;

static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// The bar that lines are printed above, where there is one.
pub(crate) fn print_above(bar: Option<ProgressBar>) {
    if let Ok(mut kept) = BAR.lock() {
        *kept = bar;
    }
}

/// Messages of a server may hold what a user wrote: it begins no line of its own, and controls no terminal.
pub(crate) fn line(text: &str) {
    let text = text.replace(char::is_control, "\u{fffd}");
    let bar = BAR.lock().ok().and_then(|bar| bar.clone());
    match bar {
        Some(bar) => bar.suspend(|| eprintln!("{text}")),
        None => eprintln!("{text}"),
    }
}
