//! A batch of photos that the embedder has, and the vectors known so far.

use std::collections::HashMap;
use std::rc::Rc;

use pg_clip_wire::{Failure as Answered, Priority};

use super::claim::Job;
use super::failure::is_away;
use super::finish::{Finished, Outcome, is_of_bytes};
use super::read::{Found, Photo};
use super::sql::MOST_ATTEMPTS;
use crate::client::Embedding;
use crate::error::Error;
use crate::failure::Failure;
use crate::settings;
use crate::watch::identity::identity;
use crate::watch::next::Next;
use crate::watch::target::{Checksum, Known};

/// Which model photos of a table are embedded with.
pub(super) struct Model {
    pub(super) name: String,
    /// As the target's model column has it.
    pub(super) identity: String,
    /// The model that the target is being moved to.
    pub(super) next: Option<Next>,
    /// The quoted name of the table.
    pub(super) table: String,
}

/// Photos of one table that were read, and that the embedder has unless their vectors are known.
pub(super) struct Begun {
    pub(super) model: Rc<Model>,
    pub(super) found: Vec<Found>,
    vectors: HashMap<Checksum, Result<Known, Failure>>,
    /// The images that the embedder was sent, in this order.
    pub(super) fresh: Vec<Checksum>,
    /// Whether it is one photo that is to be embedded alone.
    pub(super) is_alone: bool,
    /// Whether the embedder has had photos of other batches at the same time: if it dies, this batch need not be
    /// the reason.
    pub(super) is_blameless: bool,
}

/// A job without a result.
pub(super) enum Undone {
    /// It gets another turn.
    Again(Job),
    /// The embedder is away, and why.
    Away(Job, Failure),
}

impl Begun {
    pub(super) fn new(
        model: &Rc<Model>,
        found: Vec<Found>,
        known: HashMap<Checksum, Known>,
        is_alone: bool,
    ) -> Begun {
        let vectors = known.into_iter().map(|(checksum, vectors)| (checksum, Ok(vectors))).collect();
        Begun { model: Rc::clone(model), found, vectors, fresh: Vec::new(), is_alone, is_blameless: false }
    }

    /// Takes the vectors that are `kept`, and returns the images that are to be sent to the embedder: each image
    /// without a known vector, once, unless a batch before brings its vector.
    pub(super) fn take_fresh(
        &mut self,
        kept: impl Fn(Checksum) -> Option<Vec<f32>>,
        is_on_its_way: impl Fn(Checksum) -> bool,
    ) -> Vec<Rc<[u8]>> {
        let mut images = Vec::new();
        for found in &self.found {
            let Photo::Whole { checksum, image, .. } = &found.photo else {
                continue;
            };
            if self.vectors.contains_key(checksum)
                || self.fresh.contains(checksum)
                || is_on_its_way(*checksum)
            {
                continue;
            }
            if let Some(vector) = kept(*checksum) {
                self.vectors.insert(*checksum, Ok(Known { vector, next: None }));
            } else {
                self.fresh.push(*checksum);
                images.push(Rc::clone(image));
            }
        }
        images
    }

    /// Whether it will have the model's vector of these bytes.
    pub(super) fn brings(&self, model: &Model, checksum: Checksum) -> bool {
        self.model.identity == model.identity && self.fresh.contains(&checksum)
    }

    /// Takes the results of the fresh photos.
    pub(super) fn take_answers(&mut self, answers: Vec<Result<Embedding, Answered>>) {
        for (checksum, answer) in self.fresh.iter().zip(answers) {
            let answer = answer.map_err(Error::from).and_then(|embedding| self.model.vector(embedding));
            let vectors_of = |vector| Known { vector, next: None };
            self.vectors.insert(*checksum, answer.map(vectors_of).map_err(Failure::from));
        }
    }

    /// The fresh photos have failed.
    pub(super) fn take_failure(&mut self, failure: &Failure) {
        for checksum in &self.fresh {
            self.vectors.insert(*checksum, Err(failure.clone()));
        }
    }

    /// Takes the vectors of the same bytes from a batch that came back before.
    pub(super) fn take_from(&mut self, other: &Begun) {
        for found in &self.found {
            let Photo::Whole { checksum, .. } = &found.photo else {
                continue;
            };
            if other.brings(&self.model, *checksum)
                && let Some(vectors) = other.vectors.get(checksum)
            {
                self.vectors.entry(*checksum).or_insert_with(|| vectors.clone());
            }
        }
    }

    /// Adds the vectors of the model that the target is being moved to, where there are none yet. `kept` returns
    /// vectors that were made before.
    pub(super) fn add_next(&mut self, kept: impl Fn(&str, Checksum) -> Option<Vec<f32>>) {
        let Some(next) = &self.model.next else {
            return;
        };
        let mut without: Vec<(Checksum, &[u8])> = Vec::new();
        for found in &self.found {
            let Photo::Whole { checksum, image, .. } = &found.photo else {
                continue;
            };
            let Some(Ok(known @ Known { next: None, .. })) = self.vectors.get_mut(checksum) else {
                continue;
            };
            match kept(&next.identity, *checksum) {
                Some(vector) => known.next = Some(vector),
                None if without.iter().any(|(other, _)| other == checksum) => {}
                None => without.push((*checksum, image)),
            }
        }
        let images: Vec<&[u8]> = without.iter().map(|(_, image)| *image).collect();
        for ((checksum, _), vector) in without.iter().zip(next.embed(&images, Priority::Bulk)) {
            if let Some(Ok(known)) = self.vectors.get_mut(checksum) {
                known.next = vector;
            }
        }
    }

    /// The photos with their results, and the jobs without one.
    pub(super) fn outcomes(self) -> (Vec<Finished>, Vec<Undone>) {
        let (mut finished, mut undone) = (Vec::new(), Vec::new());
        for Found { job, photo } in self.found {
            let outcome = match photo {
                Photo::Whole { version, checksum, .. } => match self.vectors.get(&checksum) {
                    Some(Ok(vectors)) => Outcome::Embedded { version, checksum, vectors: vectors.clone() },
                    Some(Err(failure)) if is_away(failure.code) => {
                        undone.push(Undone::Away(job, failure.clone()));
                        continue;
                    }
                    Some(Err(failure)) => {
                        let dead = is_of_bytes(failure.code) || job.attempts >= MOST_ATTEMPTS;
                        Outcome::Failed { failure: failure.clone(), dead }
                    }
                    // The batch that was to bring it did not come back.
                    None => {
                        undone.push(Undone::Again(job));
                        continue;
                    }
                },
                Photo::TooLarge(bytes) => {
                    let error = Error::ImageTooLarge { bytes, limit: settings::max_image_bytes() };
                    Outcome::Failed { failure: error.into(), dead: true }
                }
                Photo::Absent => Outcome::Absent,
                Photo::Unread => {
                    undone.push(Undone::Again(job));
                    continue;
                }
            };
            finished.push(Finished { job, outcome });
        }
        (finished, undone)
    }

    pub(super) fn jobs(self) -> Vec<Job> {
        self.found.into_iter().map(|found| found.job).collect()
    }
}

impl Model {
    fn vector(&self, embedding: Embedding) -> Result<Vec<f32>, Error> {
        if identity(&self.name, &embedding.fingerprint) == self.identity {
            Ok(embedding.vector)
        } else {
            Err(Error::ModelChanged)
        }
    }
}
