//! The lane of images: decoders beside each other, then one thread that runs the network.
//!
//! The decoders stay some batches ahead of the network and then wait. Images run in small batches, and bulk images keep
//! one decoder free: what an interactive image waits for is one such batch and its turn, however many images are queued.
//!
//! All threads but the decoder of interactive images stand back behind texts and PostgreSQL's backends. That holds for the
//! network's run of an interactive image too: there is one session for both priorities.

use std::num::NonZeroUsize;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{io, thread};

use pg_clip_wire::Priority;

use super::decoder_memory::DecoderMemory;
use super::fair_queue::Source;
use super::image_queue::{Decodes, ImageQueue, Room};
use super::{Reply, answer, same_model};
use crate::image::{self, JpegScaling};
use crate::model::Model;
use crate::scheduling;
use crate::server::Memory;
use crate::watchdog::Watchdog;

/// An image to embed.
#[derive(Debug)]
pub(crate) struct ImageJob {
    pub model: Arc<Model>,
    /// The image is what follows the first `start` bytes: it is not moved out of the frame that it came in.
    pub frame: Vec<u8>,
    pub start: usize,
    pub max_pixels: u64,
    pub reply: Reply,
    /// The share of the memory for images; given back when the job is dropped.
    pub memory: Memory,
}

/// Where images go. The threads end when this is dropped.
#[derive(Debug)]
pub(crate) struct ImageLane(Arc<Lane>);

/// What the threads of the lane share.
#[derive(Debug)]
struct Lane {
    queue: Queue,
    decoder_memory: DecoderMemory,
    jpeg_scaling: JpegScaling,
    watchdog: Arc<Watchdog>,
}

type Queue = ImageQueue<ImageJob, Prepared>;

/// The most bulk images of one run of the network: an interactive image waits for no more than such a run. On two busy
/// processors the demo model took 9 ms for 4 images and 30 ms for 16: larger batches gain a sixth and wait for three times
/// as long.
const BULK_BATCH: usize = 4;

/// The most interactive images of one run: a search beside an INSERT of many photos waits for no more than such a run.
const INTERACTIVE_BATCH: usize = 8;

/// How many images are kept ready for the network, besides those that are being decoded.
const AHEAD: usize = 16;

impl ImageLane {
    /// Starts the decoders, one more that decodes only interactive images, and a thread that runs the network. There is one
    /// decoder less than there are `threads`, but one at least: beside the network, which uses them all, another one would
    /// take the processors from PostgreSQL. All decoders together take no more memory than `decoder_memory` bytes.
    pub(crate) fn start(
        threads: NonZeroUsize,
        decoder_memory: u64,
        jpeg_scaling: JpegScaling,
        watchdog: Arc<Watchdog>,
    ) -> io::Result<ImageLane> {
        let decoders = (threads.get() - 1).max(1);
        let (queue, decoder_memory) = (Queue::new(decoders + AHEAD), DecoderMemory::new(decoder_memory));
        let lane = ImageLane(Arc::new(Lane { queue, decoder_memory, jpeg_scaling, watchdog }));
        for number in 0..decoders {
            lane.spawn(&format!("decoder {number}"), |lane| {
                scheduling::stand_back();
                lane.decode(Decodes::All);
            })?;
        }
        lane.spawn("decoder", |lane| lane.decode(Decodes::InteractiveOnly))?;
        lane.spawn("image", |lane| {
            scheduling::stand_back();
            lane.work();
        })?;
        Ok(lane)
    }

    pub(crate) fn submit(&self, priority: Priority, source: Source, job: ImageJob) {
        self.0.queue.submit(priority, source, job);
    }

    fn spawn(&self, name: &str, work: impl FnOnce(&Lane) + Send + 'static) -> io::Result<()> {
        let lane = Arc::clone(&self.0);
        thread::Builder::new().name(name.to_owned()).spawn(move || work(&lane)).map(drop)
    }
}

impl Drop for ImageLane {
    fn drop(&mut self) {
        self.0.queue.close();
    }
}

/// An image that is ready for the network.
#[derive(Debug)]
struct Prepared {
    model: Arc<Model>,
    values: Vec<f32>,
    /// How long its decoder took.
    decoding: Duration,
    reply: Reply,
}

impl Lane {
    fn decode(&self, decodes: Decodes) {
        while let Some((job, room)) = self.queue.next_to_decode(decodes) {
            if !job.reply.is_abandoned() {
                // A panic drops the reply, which answers it, and gives the room back.
                let _ = panic::catch_unwind(AssertUnwindSafe(|| self.prepare(job, room)));
            }
        }
    }

    fn prepare(&self, job: ImageJob, room: Room<ImageJob, Prepared>) {
        let image = &job.frame[job.start..];
        let needed = image::needed_memory(image, job.max_pixels);
        let decoder_memory = needed.and_then(|needed| self.decoder_memory.take(needed));
        let busy = self.watchdog.busy("decoding an image");
        let start = Instant::now();
        let values = decoder_memory.and_then(|_taken| {
            image::prepare(image, job.max_pixels, &job.model.preprocessing, self.jpeg_scaling)
        });
        let decoding = start.elapsed();
        drop(busy);
        job.reply.meter.decoded(image.len(), decoding);
        let ImageJob { model, frame, reply, memory, .. } = job;
        drop((frame, memory));
        match values {
            Ok(values) => room.fill(Prepared { model, values, decoding, reply }),
            Err(error) => reply.send(Err(error.into())),
        }
    }

    fn work(&self) {
        let limit = |priority, image: &Prepared| {
            image.model.image_batch.min(match priority {
                Priority::Interactive => INTERACTIVE_BATCH,
                Priority::Bulk => BULK_BATCH,
            })
        };
        let same = |a: &Prepared, b: &Prepared| same_model(&a.model, &b.model);
        while let Some(mut group) = self.queue.next_batch(limit, same) {
            group.retain(|image| !image.reply.is_abandoned());
            let _busy = self.watchdog.busy("embedding a batch of images");
            // A panic drops the replies, which answers them.
            let _ = panic::catch_unwind(AssertUnwindSafe(|| run(group)));
        }
    }
}

fn run(group: Vec<Prepared>) {
    let Some(first) = group.first() else { return };
    let model = Arc::clone(&first.model);
    let images: Vec<&[f32]> = group.iter().map(|image| image.values.as_slice()).collect();
    let waited: Vec<Duration> =
        group.iter().map(|image| image.reply.age().saturating_sub(image.decoding)).collect();
    let start = Instant::now();
    let rows = model.embed_images(&images);
    if rows.is_ok() {
        first.reply.meter.ran(&waited, start.elapsed());
    }
    answer(&model, group.into_iter().map(|image| image.reply), rows);
}
