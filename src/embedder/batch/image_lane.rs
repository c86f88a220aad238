//! The lane of images: decoders beside each other, then as many threads that run the network as there are processors.
//!
//! The decoders stay some batches ahead of the network and then wait. Each run of the network takes one batch; runs go on
//! beside each other, see [`crate::onnxruntime::SharedSession`], so that the network never waits for a decoder while
//! another image is ready, and no processor for the end of another one's part. Bulk batches are bounded by the time that
//! they take. One decoder and one thread of the network take only interactive images: these wait for no bulk image,
//! however many are queued.
//!
//! All threads but these two have a lower priority than texts and PostgreSQL's backends, and so do the threads of the network's
//! session, which help both: there is one session for both priorities.

use std::num::NonZeroUsize;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{io, thread};

use pg_clip_wire::{Priority, Work};

use super::decoder_memory::DecoderMemory;
use super::fair_queue::Source;
use super::idle_memory::IdleMemory;
use super::image_queue::{ImageQueue, Room, Takes};
use super::{Reply, answer, same_model, share};
use crate::image::{self, JpegScaling};
use crate::memory;
use crate::model::Model;
use crate::onnxruntime::Urgency;
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

/// The state that the threads of the lane share.
#[derive(Debug)]
struct Lane {
    queue: Queue,
    decoder_memory: DecoderMemory,
    idle_memory: IdleMemory,
    jpeg_scaling: JpegScaling,
    watchdog: Arc<Watchdog>,
}

type Queue = ImageQueue<ImageJob, Prepared>;

/// How long a run of bulk images should take at most. A batch of 4 takes 0.88 of the time of 4 images one by one
/// (ViT-B/32 in fp32, 240 ms on two processors), and one of 8 no less than two of 4: for models as large or larger, batches beyond
/// this gain nothing. Small models gain by larger ones.
const BULK_RUN: Duration = Duration::from_millis(250);

/// The most interactive images of one run: a search beside an INSERT of many photos waits for no more than such a run.
const INTERACTIVE_BATCH: usize = 8;

/// How many images are kept ready for the network, besides the images that are being decoded.
const AHEAD: usize = 16;

/// The same for a GPU: two of its batches.
const AHEAD_OF_GPU: usize = 128;

/// How long a run of interactive images on a GPU should take at most: some tens of images.
const INTERACTIVE_RUN_ON_GPU: Duration = Duration::from_millis(50);

/// For how long no image has come when free memory is given back: far longer than the pauses between an uploader's photos.
const IDLE: Duration = Duration::from_secs(5);

impl ImageLane {
    /// Starts the decoders and `threads` threads that run the network, and one more of each for interactive images alone.
    /// There is one decoder less than there are `threads`, but one at least: beside the network, which uses them all,
    /// another one would take the processors from PostgreSQL. All decoders together take no more memory than
    /// `decoder_memory` bytes.
    ///
    /// On a GPU two threads run the network, so that one batch is made up while the other one runs, and more images are kept
    /// ready.
    pub(crate) fn start(
        threads: NonZeroUsize,
        on_gpu: bool,
        decoder_memory: u64,
        jpeg_scaling: JpegScaling,
        watchdog: Arc<Watchdog>,
    ) -> io::Result<ImageLane> {
        let decoders = (threads.get() - 1).max(1);
        let (networks, ahead) = if on_gpu { (2, AHEAD_OF_GPU) } else { (threads.get(), AHEAD) };
        let (queue, decoder_memory) = (Queue::new(decoders + ahead), DecoderMemory::new(decoder_memory));
        let idle_memory = IdleMemory::new(IDLE);
        let lane = ImageLane(Arc::new(Lane { queue, decoder_memory, idle_memory, jpeg_scaling, watchdog }));
        for number in 0..decoders {
            lane.spawn(&format!("decoder {number}"), |lane| {
                scheduling::lower_priority();
                lane.decode(Takes::All);
            })?;
        }
        for number in 0..networks {
            lane.spawn(&format!("image {number}"), |lane| {
                scheduling::lower_priority();
                lane.work(Takes::All);
            })?;
        }
        lane.spawn("decoder", |lane| lane.decode(Takes::InteractiveOnly))?;
        lane.spawn("image", |lane| lane.work(Takes::InteractiveOnly))?;
        lane.spawn("idle memory", |lane| {
            scheduling::lower_priority();
            lane.idle_memory.watch(memory::give_back);
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
        self.0.idle_memory.close();
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
    fn decode(&self, takes: Takes) {
        while let Some((job, room)) = self.queue.next_to_decode(takes) {
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
            image::prepare_timed(image, job.max_pixels, &job.model.preprocessing, self.jpeg_scaling)
        });
        let decoding = start.elapsed();
        drop(busy);
        job.reply.meter.prepared(image.len(), decoding, values.as_ref().ok().map(|(_, resizing)| *resizing));
        let ImageJob { model, frame, reply, memory, .. } = job;
        drop((frame, memory));
        match values {
            Ok((values, _)) => room.fill(Prepared { model, values, decoding, reply }),
            Err(error) => {
                reply.send(Err(error.into()));
                self.idle_memory.used();
            }
        }
    }

    fn work(&self, takes: Takes) {
        let limit = |priority, image: &Prepared| {
            image.model.image_batch.min(match priority {
                Priority::Interactive if image.model.is_on_gpu() => {
                    image.model.image_pace.most_within(INTERACTIVE_RUN_ON_GPU)
                }
                Priority::Interactive => INTERACTIVE_BATCH,
                Priority::Bulk => image.model.image_pace.most_within(BULK_RUN),
            })
        };
        let same = |a: &Prepared, b: &Prepared| same_model(&a.model, &b.model);
        let urgency = if takes == Takes::InteractiveOnly { Urgency::Urgent } else { Urgency::Usual };
        while let Some(mut group) = self.queue.next_batch(takes, limit, same) {
            group.retain(|image| !image.reply.is_abandoned());
            let _busy = self.watchdog.busy("embedding a batch of images");
            // A panic drops the replies, which answers them.
            let _ = panic::catch_unwind(AssertUnwindSafe(|| run(group, urgency)));
            self.idle_memory.used();
        }
    }
}

fn run(group: Vec<Prepared>, urgency: Urgency) {
    let Some(first) = group.first() else { return };
    let model = Arc::clone(&first.model);
    let images: Vec<&[f32]> = group.iter().map(|image| image.values.as_slice()).collect();
    let waited: Vec<Duration> =
        group.iter().map(|image| image.reply.age().saturating_sub(image.decoding)).collect();
    let start = Instant::now();
    let rows = model.embed_images(&images, urgency);
    let (time, batch) = (start.elapsed(), images.len());
    if rows.is_ok() {
        model.image_pace.ran(batch, time);
        first.reply.meter.ran(&waited, time);
    }
    let share = share(time, batch);
    let requests = group.into_iter().map(|image| (image.reply, Work::new(image.decoding, Some(share))));
    answer(&model, requests, rows);
}
