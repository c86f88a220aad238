//! Embedding the bytes that a feeder brought. No transaction is open meanwhile.

use std::collections::HashMap;

use pg_clip_wire::Priority;

use crate::client::{self, Embedding, Input};
use crate::error::Error;
use crate::failure::Failure;
use crate::queue::failure::is_away;
use crate::watch::identity::identity;
use crate::watch::next::Next;
use crate::watch::target::{Checksum, Known};

/// Which model photos are embedded with.
pub(super) struct Model {
    pub(super) name: String,
    /// As the target's model column has it.
    pub(super) identity: String,
    /// The model that the target is being moved to.
    pub(super) next: Option<Next>,
}

/// The vectors of some bytes, or why they have none.
pub(super) type Vectors = HashMap<Checksum, Result<Known, Failure>>;

impl Model {
    pub(super) fn look_up(name: String, next: Option<Next>) -> Result<Model, Error> {
        let fingerprint = match client::describe(&name) {
            Ok(description) => description.fingerprint,
            Err(error @ Error::Embedder(_)) => return Err(Error::ModelAway(name, Box::new(error))),
            Err(error) => return Err(error),
        };
        let identity = identity(&name, &fingerprint);
        Ok(Model { name, identity, next })
    }

    /// Embeds images, each once, that have no vector in `known`. An error is one of the embedder and of no image.
    pub(super) fn embed(
        &self,
        images: &[(Checksum, &[u8])],
        known: HashMap<Checksum, Known>,
    ) -> Result<Vectors, Error> {
        let mut vectors: Vectors = known.into_iter().map(|(checksum, known)| (checksum, Ok(known))).collect();
        let mut fresh: Vec<(Checksum, &[u8])> = Vec::new();
        for image in images {
            if !vectors.contains_key(&image.0) && fresh.iter().all(|(other, _)| *other != image.0) {
                fresh.push(*image);
            }
        }
        for ((checksum, _), answer) in fresh.iter().zip(self.answers(&fresh)?) {
            vectors.insert(*checksum, answer.map(|vector| Known { vector, next: None }));
        }
        self.add_next(images, &mut vectors);
        Ok(vectors)
    }

    fn answers(&self, images: &[(Checksum, &[u8])]) -> Result<Vec<Result<Vec<f32>, Failure>>, Error> {
        let inputs: Vec<Input> = images.iter().map(|(_, image)| Input::Image(image)).collect();
        match client::embed(&self.name, &inputs, Priority::Bulk) {
            Ok(answers) => {
                answers.into_iter().map(|answer| self.of_an_image(answer.map_err(Error::from))).collect()
            }
            // A photo may be the cause. A photo that was sent alone has failed; several are sent again one by one.
            Err(error @ (Error::Died | Error::TimedOut(_))) if images.len() <= 1 => {
                Ok(images.iter().map(|_| Err(copy(&error))).collect())
            }
            Err(Error::Died | Error::TimedOut(_)) => {
                let alone = images.chunks(1).map(|image| self.answers(image));
                Ok(alone.collect::<Result<Vec<_>, Error>>()?.into_iter().flatten().collect())
            }
            Err(error) => Err(error),
        }
    }

    /// The vector, or the image's failure; an error where the embedder failed.
    fn of_an_image(&self, answer: Result<Embedding, Error>) -> Result<Result<Vec<f32>, Failure>, Error> {
        match answer {
            Ok(embedding) if identity(&self.name, &embedding.fingerprint) != self.identity => {
                Err(Error::ModelChanged)
            }
            Ok(embedding) => Ok(Ok(embedding.vector)),
            Err(error) if is_away(error.sqlstate()) => Err(error),
            Err(error) => Ok(Err(error.into())),
        }
    }

    /// Adds the vectors of the model that the target is being moved to, where there are none yet.
    fn add_next(&self, images: &[(Checksum, &[u8])], vectors: &mut Vectors) {
        let Some(next) = &self.next else {
            return;
        };
        let mut without: Vec<(Checksum, &[u8])> = Vec::new();
        for image in images {
            let lacks = matches!(vectors.get(&image.0), Some(Ok(Known { next: None, .. })));
            if lacks && without.iter().all(|(other, _)| *other != image.0) {
                without.push(*image);
            }
        }
        let bytes: Vec<&[u8]> = without.iter().map(|(_, image)| *image).collect();
        for ((checksum, _), vector) in without.iter().zip(next.embed(&bytes, Priority::Bulk)) {
            if let Some(Ok(known)) = vectors.get_mut(checksum) {
                known.next = vector;
            }
        }
    }
}

fn copy(error: &Error) -> Failure {
    Failure::of_report(error.sqlstate(), &error.to_string())
}
