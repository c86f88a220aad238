//! Counters of the feeder's work, and serving them to Prometheus.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::log;

/// They only grow, until the feeder starts again.
#[derive(Debug, Default)]
pub struct Counters {
    pub claimed: Counter,
    pub fetched: Counter,
    pub fetched_bytes: Counter,
    pub embedded: Counter,
    pub copied: Counter,
    pub removed: Counter,
    /// To be tried again.
    pub failed: Counter,
    pub dead: Counter,
    pub later: Counter,
    pub gone: Counter,
    pub database_errors: Counter,
}

#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    /// Counts the outcome of a photo, by the name that `clip_feed` has for it.
    pub(crate) fn count_outcome(&self, outcome: &str) {
        let counter = match outcome {
            "embedded" => &self.embedded,
            "copied" => &self.copied,
            "removed" => &self.removed,
            "failed" => &self.failed,
            "dead" => &self.dead,
            "later" => &self.later,
            _ => &self.gone,
        };
        counter.add(1);
    }

    /// Photos whose jobs have ended.
    pub(crate) fn done(&self) -> u64 {
        [&self.embedded, &self.copied, &self.removed, &self.dead].map(Counter::get).iter().sum()
    }

    /// In Prometheus' text format 0.0.4.
    pub fn text(&self) -> String {
        let outcomes = [
            ("embedded", &self.embedded),
            ("copied", &self.copied),
            ("removed", &self.removed),
            ("failed", &self.failed),
            ("dead", &self.dead),
            ("later", &self.later),
            ("gone", &self.gone),
        ];
        let mut text = "# HELP pg_clip_feeder_photos_total Photos by what became of them.\n\
            # TYPE pg_clip_feeder_photos_total counter\n"
            .to_owned();
        for (outcome, counter) in outcomes {
            text += &format!("pg_clip_feeder_photos_total{{outcome=\"{outcome}\"}} {}\n", counter.get());
        }
        let others = [
            ("claimed_total", "Photos that were claimed.", &self.claimed),
            ("fetched_total", "Photos whose bytes were fetched.", &self.fetched),
            ("fetched_bytes_total", "Bytes of fetched photos.", &self.fetched_bytes),
            ("database_errors_total", "Statements that failed.", &self.database_errors),
        ];
        for (name, help, counter) in others {
            let name = format!("pg_clip_feeder_{name}");
            text += &format!("# HELP {name} {help}\n# TYPE {name} counter\n{name} {}\n", counter.get());
        }
        text
    }
}

/// Serves the counters, and says where.
pub(crate) async fn serve(address: SocketAddr, counters: Arc<Counters>) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    log::line(&format!("serving metrics at http://{}/metrics", listener.local_addr()?));
    tokio::spawn(async move {
        const PATIENCE: Duration = Duration::from_secs(5);
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // No descriptor is free, for now.
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let counters = counters.clone();
            tokio::spawn(async move {
                let _ = tokio::time::timeout(PATIENCE, answer(stream, &counters)).await;
            });
        }
    });
    Ok(())
}

const PAUSE: Duration = Duration::from_millis(100);
/// The most bytes of a request that are read.
const LONGEST_REQUEST: usize = 16 << 10;

async fn answer(mut stream: TcpStream, counters: &Counters) -> io::Result<()> {
    // The whole head is read: a connection that is closed with bytes unread takes the answer with it.
    let (mut request, mut part) = (Vec::new(), [0; 1024]);
    while !request.windows(4).any(|bytes| bytes == b"\r\n\r\n") && request.len() < LONGEST_REQUEST {
        match stream.read(&mut part).await? {
            0 => break,
            length => request.extend_from_slice(&part[..length]),
        }
    }
    let is_metrics = [&b"GET /metrics "[..], b"GET /metrics?"].iter().any(|start| request.starts_with(start));
    let (status, body) =
        if is_metrics { ("200 OK", counters.text()) } else { ("404 Not Found", String::new()) };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\
        Connection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}
