//! The lane of images: decoders beside each other, then one thread that runs the network.
//!
//! The decoders stay a batch or two ahead of the network and then wait, so that prepared images never fill the memory.

use std::panic::{self, AssertUnwindSafe};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::{io, thread};

use tokio::sync::OwnedSemaphorePermit;

use super::{Reply, answer, pull, same_model, split_group};
use crate::image;
use crate::model::Model;
use crate::stats::Stats;

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
    pub memory: OwnedSemaphorePermit,
}

/// Where images go. The threads end when this is dropped.
#[derive(Debug)]
pub(crate) struct ImageLane(Sender<ImageJob>);

/// The most images that one pull takes.
const BATCH: usize = 16;

impl ImageLane {
    /// Starts `decoders` threads that decode and one that runs the network.
    pub(crate) fn start(decoders: usize, stats: Arc<Stats>) -> io::Result<ImageLane> {
        let (sender, queue) = mpsc::channel();
        let (prepared_sender, prepared) = mpsc::sync_channel(BATCH);
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..decoders {
            let (queue, prepared_sender) = (Arc::clone(&queue), prepared_sender.clone());
            let name = format!("decoder {number}");
            thread::Builder::new().name(name).spawn(move || decode(&queue, &prepared_sender))?;
        }
        thread::Builder::new().name("image".to_owned()).spawn(move || work(&prepared, &stats))?;
        Ok(ImageLane(sender))
    }

    pub(crate) fn submit(&self, job: ImageJob) {
        // A lane that is gone drops the reply, which is an answer.
        let _ = self.0.send(job);
    }
}

/// An image that is ready for the network.
struct Prepared {
    model: Arc<Model>,
    values: Vec<f32>,
    reply: Reply,
}

fn decode(queue: &Mutex<Receiver<ImageJob>>, prepared: &SyncSender<Prepared>) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        if job.reply.is_abandoned() {
            continue;
        }
        let image = &job.frame[job.start..];
        let values = image::prepare(image, job.max_pixels, &job.model.preprocessing);
        let ImageJob { model, frame, reply, memory, .. } = job;
        drop((frame, memory));
        match values {
            Ok(values) => {
                if prepared.send(Prepared { model, values, reply }).is_err() {
                    return;
                }
            }
            Err(error) => reply.send(Err(error.into())),
        }
    }
}

fn work(queue: &Receiver<Prepared>, stats: &Stats) {
    while let Some(mut images) = pull(queue, BATCH) {
        images.retain(|image| !image.reply.is_abandoned());
        while let Some(first) = images.first() {
            let limit = first.model.image_batch;
            let group = split_group(&mut images, limit, |a, b| same_model(&a.model, &b.model));
            // A panic drops the replies, which answers them.
            let _ = panic::catch_unwind(AssertUnwindSafe(|| run(group, stats)));
        }
    }
}

fn run(group: Vec<Prepared>, stats: &Stats) {
    let Some(first) = group.first() else { return };
    let model = Arc::clone(&first.model);
    let images: Vec<&[f32]> = group.iter().map(|image| image.values.as_slice()).collect();
    let rows = model.embed_images(&images);
    if rows.is_ok() {
        stats.image_batches.add(1);
        stats.image_inferences.add(images.len());
    }
    answer(&model, group.into_iter().map(|image| image.reply), rows);
}
