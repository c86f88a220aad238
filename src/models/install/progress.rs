//! How far an installation is: a bar on a terminal, and lines elsewhere.

use std::io::{IsTerminal, stderr};

use indicatif::{DecimalBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The progress on stderr while files come.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    terminal: bool,
}

impl Progress {
    /// For `total` bytes.
    pub(crate) fn new(total: u64) -> Progress {
        let terminal = stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let template =
            "{msg:30!} [{bar:30}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}";
        let style = ProgressStyle::with_template(template).expect("a template of our own");
        let bar = ProgressBar::with_draw_target(Some(total), target);
        bar.set_style(style.progress_chars("=> "));
        Progress { bar, terminal }
    }

    /// For `count` inputs that the model `name` embeds.
    pub(crate) fn of_inputs(name: &str, count: usize) -> Progress {
        let mut progress = Progress::new(count as u64);
        let template = "{msg:30!} [{bar:30}] {pos}/{len} {eta}";
        let style = ProgressStyle::with_template(template).expect("a template of our own");
        progress.bar.set_style(style.progress_chars("=> "));
        progress.announce(name, &format!("{name} embeds {count} inputs"));
        progress
    }

    /// The next file.
    pub(crate) fn file(&mut self, path: &str, size: u64) {
        self.announce(path, &format!("{path} ({})", DecimalBytes(size)));
    }

    /// Announces the next step: short on a bar, or as a line.
    fn announce(&mut self, short: &str, line: &str) {
        if self.terminal { self.bar.set_message(short.to_owned()) } else { eprintln!("{line}") }
    }

    pub(crate) fn advance(&self, count: u64) {
        self.bar.inc(count);
    }

    /// Takes counted bytes back.
    pub(super) fn take_back(&mut self, bytes: u64) {
        self.bar.dec(bytes);
        self.bar.reset_eta();
    }

    /// So many bytes of a file were there before. They are counted and say nothing about the speed.
    pub(super) fn resume(&mut self, bytes: u64) {
        if bytes > 0 {
            self.bar.reset_eta();
            self.say(&format!("{} are there already", DecimalBytes(bytes)));
        }
    }

    /// A line above the bar.
    pub(super) fn say(&self, line: &str) {
        if self.terminal { self.bar.println(line) } else { eprintln!("{line}") }
    }

    /// Takes the bar away.
    pub(crate) fn finish(self) {
        self.bar.finish_and_clear();
    }
}
