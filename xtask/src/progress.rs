//! A task's messages while it works: always on standard error, so that standard output holds answers only.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Says one line.
pub fn say(message: &str) {
    eprintln!("{message}");
}

/// Does `work` under a spinner; where standard error is no terminal, the message is a plain line.
pub fn step<T>(message: &str, work: impl FnOnce() -> T) -> T {
    let spinner = ProgressBar::new_spinner();
    if spinner.is_hidden() {
        say(message);
    }
    spinner.set_message(message.to_owned());
    spinner.enable_steady_tick(Duration::from_millis(100));
    let result = work();
    spinner.finish_and_clear();
    result
}

/// A bar over `length` things; where standard error is no terminal, the message is a plain line.
pub fn bar(message: &str, length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length);
    if bar.is_hidden() {
        say(message);
    }
    let style = ProgressStyle::with_template("{msg} {bar:40} {pos}/{len} {eta}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())).with_message(message.to_owned())
}
