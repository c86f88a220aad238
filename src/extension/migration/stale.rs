//! Rows whose photo has changed, and waits for the queue.
//!
//! A photo that changes all the time never leaves the queue, and its row would hold the migration up for ever. So
//! such a row gets both vectors of its photo's bytes as they are now. Always true: a row is changed only if it
//! still has the checksum that it had when its photo was read. A later change of the photo has the queue write the
//! row after that.

use pg_clip_wire::Priority;
use pgrx::{IntoDatum, pg_sys};

use super::batch::lock_out_the_end;
use super::task::Task;
use crate::client::{self, Input};
use crate::error::Error;
use crate::owned::{Key, Pair};
use crate::spi::{Argument, Spi};
use crate::vector;
use crate::watch::identity::{identity, name_of};
use crate::watch::next::NEXT_EMBEDDING;
use crate::watch::role::{act_as, read_as, with_portable_output};
use crate::watch::target::checksum_of;

/// Rows that are written in one transaction: a backend holds their photos.
const MOST: u32 = 8;

struct Stale {
    key: Key,
    /// The checksum in the row.
    checksum: Vec<u8>,
    image: Vec<u8>,
}

/// Writes some rows anew. Returns how many.
pub(super) fn refresh(spi: &Spi, task: &Task) -> Result<u64, Error> {
    let pair = &task.pair;
    lock_out_the_end(spi, pair)?;
    let next = task.next()?;
    let Some(model) = pair.model.as_deref() else {
        return Ok(0);
    };
    let mut rows = find(spi, pair)?;
    rows.retain(|row| client::check_image_size(row.image.len()).is_ok());
    let images: Vec<&[u8]> = rows.iter().map(|row| row.image.as_slice()).collect();
    let inputs: Vec<Input> = images.iter().map(|image| Input::Image(image)).collect();
    let answers = client::embed(name_of(model), &inputs, Priority::Interactive)?;
    let mut written = 0;
    for ((row, answer), second) in rows.iter().zip(answers).zip(next.embed(&images, Priority::Interactive)) {
        let first = answer.ok().filter(|of| identity(name_of(model), &of.fingerprint) == model);
        // The queue deletes rows whose photos cannot be embedded.
        if let (Some(first), Some(second)) = (first, second) {
            written += write(spi, task, row, [&first.vector, &second])?;
        }
    }
    Ok(written)
}

fn find(spi: &Spi, pair: &Pair) -> Result<Vec<Stale>, Error> {
    let Pair { source, target, target_key, embedding, image, checksum, .. } = pair;
    let query = format!(
        "SELECT t.{target_key}, t.{checksum}, s.{image} FROM {} AS t JOIN {} AS s ON {}
        WHERE t.{embedding} IS NOT NULL AND t.{NEXT_EMBEDDING} IS NULL
            AND s.{image} IS NOT NULL AND sha256(s.{image}) <> t.{checksum}
        ORDER BY t.{target_key} LIMIT {MOST}",
        target.name,
        source.name,
        pair.same_key()
    );
    read_as(target.owner, || {
        with_portable_output(|| {
            let rows = spi.run(&query, &[])?;
            let stale = |(row, key): (usize, Option<Key>)| {
                Some(Stale { key: key?, checksum: rows.bytes(row, 2)?, image: rows.bytes(row, 3)? })
            };
            Ok(rows.all_printed_raw(1).into_iter().enumerate().filter_map(stale).collect())
        })
    })
}

fn write(spi: &Spi, task: &Task, row: &Stale, vectors: [&[f32]; 2]) -> Result<u64, Error> {
    let Pair { target, target_key, embedding, checksum, key_type, .. } = &task.pair;
    let same = format!("t.{target_key} {} $1 AND t.{checksum} = $2", key_type.equal);
    let update = format!(
        "WITH free AS MATERIALIZED (SELECT FROM {target} AS t WHERE {same} FOR UPDATE SKIP LOCKED)
        UPDATE {target} AS t SET {embedding} = $3, {NEXT_EMBEDDING} = $4, {checksum} = $5
        FROM free WHERE {same} RETURNING true",
        target = target.name,
    );
    let [first, second] = vectors
        .map(|vector| Argument { oid: task.extension.vector_type, value: Some(vector::to_datum(vector)) });
    let bytes = |bytes: &[u8]| Argument { oid: pg_sys::BYTEAOID, value: bytes.into_datum() };
    let key = act_as(target.owner, || key_type.argument(Some(&row.key)));
    let arguments = [key, bytes(&row.checksum), first, second, bytes(&checksum_of(&row.image))];
    read_as(target.owner, || Ok(spi.run(&update, &arguments)?.len()))
}
