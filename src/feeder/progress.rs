//! How far the feeder is: a bar on a terminal, lines elsewhere.

use std::io::{IsTerminal, stderr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinHandle;

use crate::log;
use crate::metrics::Counters;

const BAR_EVERY: Duration = Duration::from_millis(200);
const SHORTEST: Duration = Duration::from_millis(10);

pub(crate) struct Progress {
    counters: Arc<Counters>,
    /// Photos that wait, as far as this feeder knows.
    waiting: Arc<AtomicU64>,
    bar: Option<ProgressBar>,
    task: JoinHandle<()>,
    start: Instant,
}

impl Progress {
    /// A line comes so often.
    pub(crate) fn start(counters: Arc<Counters>, line_every: Duration) -> Progress {
        let waiting = Arc::new(AtomicU64::new(0));
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} photos {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        log::print_above(bar.clone());
        let task = tokio::spawn(show(counters.clone(), waiting.clone(), bar.clone(), line_every));
        Progress { counters, waiting, bar, task, start: Instant::now() }
    }

    pub(crate) fn waiting(&self) -> Arc<AtomicU64> {
        self.waiting.clone()
    }

    /// The last line gives the sums.
    pub(crate) fn end(self) {
        self.task.abort();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        log::print_above(None);
        let took = humantime::format_duration(Duration::from_secs(self.start.elapsed().as_secs()));
        log::line(&format!("{} in {took}", said(&self.counters)));
    }
}

async fn show(
    counters: Arc<Counters>,
    waiting: Arc<AtomicU64>,
    bar: Option<ProgressBar>,
    line_every: Duration,
) {
    let mut last = 0;
    loop {
        tokio::time::sleep(if bar.is_some() { BAR_EVERY } else { line_every.max(SHORTEST) }).await;
        let (done, waiting) = (counters.done(), waiting.load(Ordering::Relaxed));
        if let Some(bar) = &bar {
            bar.set_length(done.max(done + waiting));
            bar.set_position(done);
            bar.set_message(format!("{} failed", counters.dead.get()));
        } else if done != last {
            log::line(&format!("{}, {waiting} wait", said(&counters)));
            last = done;
        }
    }
}

fn said(counters: &Counters) -> String {
    let [embedded, copied, dead] =
        [&counters.embedded, &counters.copied, &counters.dead].map(|one| one.get());
    format!("{embedded} photos embedded, {copied} with the vector of the same bytes, {dead} given up")
}
