//! Filling the second column, a few rows at a time.

use pg_clip_wire::Priority;
use pgrx::{IntoDatum, PgSqlErrorCode, pg_sys};

use super::task::Task;
use crate::client::{self, Embedding, Input};
use crate::error::Error;
use crate::owned::{Key, Pair};
use crate::spi::{Argument, Spi};
use crate::vector;
use crate::watch::identity::identity;
use crate::watch::next::{NEXT_EMBEDDING, Next};
use crate::watch::role::{act_as, read_as, with_portable_output};

/// The result of a batch.
#[derive(Default)]
pub(super) struct Batch {
    /// The key before the next batch; nothing at the end.
    pub(super) last: Option<Key>,
    pub(super) seen: u64,
    pub(super) filled: u64,
    /// Why a photo could not be embedded.
    pub(super) failure: Option<String>,
}

/// The rows of a batch: those without a vector of the new model, after a key up to another one.
struct Range<'a> {
    pair: &'a Pair,
    after: Argument,
    last: Argument,
}

/// Fills the next rows after a key.
pub(super) fn fill(spi: &Spi, task: &Task, after: Option<&Key>) -> Result<Batch, Error> {
    let Task { pair, extension, .. } = task;
    let owner = pair.target.owner;
    lock_out_the_end(spi, pair)?;
    let next = task.next()?;
    let next_keys = if task.is_conversion() { next_to_convert(pair) } else { next_keys(pair) };
    let keys = read_as(owner, || {
        with_portable_output(|| {
            Ok::<_, Error>(spi.run(&next_keys, &[pair.key_type.argument(after)])?.all_printed_raw(1))
        })
    })?;
    let Some(last) = keys.last().cloned().flatten() else {
        // A row without a key stays without a second vector.
        return Ok(Batch { seen: keys.len() as u64, ..Batch::default() });
    };
    let (from, to) = act_as(owner, || (pair.key_type.argument(after), pair.key_type.argument(Some(&last))));
    let range = Range { pair, after: from, last: to };
    let mut batch = Batch { last: Some(last), seen: keys.len() as u64, ..Batch::default() };
    if task.is_conversion() {
        batch.filled = range.convert(spi)?;
        return Ok(batch);
    }
    let photos = range.photos(spi)?;
    // No row is locked while photos are embedded.
    for (photo, embedded) in photos.iter().zip(embed(&photos, next)?) {
        match embedded {
            Ok(vector) => {
                batch.filled += range.write(spi, extension.vector_type, &photo.checksum, &vector)?
            }
            Err(error) if is_of_a_photo(error.sqlstate()) => {
                batch.failure.get_or_insert(error.to_string());
            }
            Err(error) => return Err(error),
        }
    }
    batch.filled += range.copy(spi)?;
    Ok(batch)
}

/// Keeps the migration from being abandoned or finished in the middle of a transaction that writes vectors.
pub(super) fn lock_out_the_end(spi: &Spi, pair: &Pair) -> Result<(), Error> {
    // Constraint triggers that the owner deferred would run at the commit, as the caller.
    spi.run("SET CONSTRAINTS ALL IMMEDIATE", &[])?;
    let lock = format!("LOCK TABLE {} IN ROW EXCLUSIVE MODE", pair.target.name);
    act_as(pair.target.owner, || spi.run(&lock, &[]).map(|_| ()))
}

struct Photo {
    checksum: Vec<u8>,
    image: Vec<u8>,
}

impl Range<'_> {
    /// Which rows these are, with the keys as `$1` and `$2`.
    fn rows(&self) -> String {
        let Pair { target_key, embedding, key_type, .. } = self.pair;
        format!(
            "($1 IS NULL OR t.{target_key} {} $1) AND t.{target_key} {} $2
            AND t.{NEXT_EMBEDDING} IS NULL AND t.{embedding} IS NOT NULL",
            key_type.above, key_type.at_most
        )
    }

    /// The photos whose bytes are those of the rows, each once, and not those whose vector is in the table already.
    fn photos(&self, spi: &Spi) -> Result<Vec<Photo>, Error> {
        let Pair { source, target, checksum, image, .. } = self.pair;
        let query = format!(
            "SELECT DISTINCT ON (t.{checksum}) t.{checksum}, s.{image}
            FROM {} AS t JOIN {} AS s ON {}
            WHERE {} AND NOT EXISTS (SELECT {}) AND sha256(s.{image}) = t.{checksum} ORDER BY t.{checksum}",
            target.name,
            source.name,
            self.pair.same_key(),
            self.rows(),
            self.same_bytes()
        );
        read_as(target.owner, || {
            let rows = spi.run(&query, &[self.after, self.last])?;
            let count = usize::try_from(rows.len()).expect("a batch");
            let photo = |row| Some(Photo { checksum: rows.bytes(row, 1)?, image: rows.bytes(row, 2)? });
            Ok((0..count).filter_map(photo).collect())
        })
    }

    /// Writes the vector of a photo. A row whose photo has changed meanwhile has another checksum, and is left to a
    /// later batch. Returns how many rows have it now.
    fn write(
        &self,
        spi: &Spi,
        vector_type: pg_sys::Oid,
        checksum: &[u8],
        vector: &[f32],
    ) -> Result<u64, Error> {
        let has_checksum = format!("t.{} = $4", self.pair.checksum);
        let arguments = [
            self.after,
            self.last,
            Argument { oid: vector_type, value: Some(vector::to_datum(vector)) },
            Argument { oid: pg_sys::BYTEAOID, value: checksum.into_datum() },
        ];
        self.update(spi, "$3", &has_checksum, &arguments)
    }

    /// Gives rows their own vectors in the new type. Returns how many.
    fn convert(&self, spi: &Spi) -> Result<u64, Error> {
        self.update(spi, &format!("t.{}", self.pair.embedding), "true", &[self.after, self.last])
    }

    /// Copies vectors that the same bytes have already. Returns how many.
    fn copy(&self, spi: &Spi) -> Result<u64, Error> {
        let same = self.same_bytes();
        let value = format!("(SELECT d.{NEXT_EMBEDDING} {same} LIMIT 1)");
        self.update(spi, &value, &format!("EXISTS (SELECT {same})"), &[self.after, self.last])
    }

    /// Gives rows a vector, but not rows that another transaction has locked: a batch waits for no row, and so for
    /// no transaction that waits for the batch.
    fn update(&self, spi: &Spi, value: &str, condition: &str, arguments: &[Argument]) -> Result<u64, Error> {
        let Pair { target, target_key, key_type, .. } = self.pair;
        let rows = self.rows();
        let update = format!(
            "WITH free AS MATERIALIZED (
                SELECT t.{target_key} AS key FROM {target} AS t WHERE {rows} AND {condition} FOR UPDATE SKIP LOCKED)
            UPDATE {target} AS t SET {NEXT_EMBEDDING} = {value}
            FROM free WHERE t.{target_key} {} free.key AND {rows} AND {condition} RETURNING true",
            key_type.equal,
            target = target.name,
        );
        read_as(target.owner, || Ok(spi.run(&update, arguments)?.len()))
    }

    /// Rows with the bytes of row `t` and a vector of the new model.
    fn same_bytes(&self) -> String {
        let Pair { target, checksum, .. } = self.pair;
        format!(
            "FROM {} AS d WHERE d.{checksum} = t.{checksum} AND d.{NEXT_EMBEDDING} IS NOT NULL",
            target.name
        )
    }
}

/// As many rows as the embedder takes at once, and not more bytes than a backend should hold; the sizes stand in the
/// rows, whose photos are not read for it.
fn next_keys(pair: &Pair) -> String {
    let Pair { source, target, target_key, image, embedding, key_type, .. } = pair;
    format!(
        "SELECT key FROM (
            SELECT key, row_number() OVER rising AS number, sum(size) OVER rising AS bytes FROM (
                SELECT t.{target_key} AS key, coalesce(octet_length(s.{image}), 0) AS size
                FROM {} AS t LEFT JOIN {} AS s ON {}
                WHERE t.{embedding} IS NOT NULL AND t.{NEXT_EMBEDDING} IS NULL
                    AND ($1 IS NULL OR t.{target_key} {} $1)
                ORDER BY t.{target_key} LIMIT 32) AS next
            WINDOW rising AS (ORDER BY key)) AS counted
        WHERE number = 1 OR bytes <= 33554432 ORDER BY key",
        target.name,
        source.name,
        pair.same_key(),
        key_type.above
    )
}

/// As many rows as one transaction writes while other sessions wait for them.
fn next_to_convert(pair: &Pair) -> String {
    let Pair { target, target_key, embedding, key_type, .. } = pair;
    format!(
        "SELECT t.{target_key} FROM {} AS t
        WHERE t.{embedding} IS NOT NULL AND t.{NEXT_EMBEDDING} IS NULL
            AND ($1 IS NULL OR t.{target_key} {} $1)
        ORDER BY t.{target_key} LIMIT 500",
        target.name, key_type.above
    )
}

/// Embeds photos with the new model: an answer for each.
fn embed(photos: &[Photo], next: &Next) -> Result<Vec<Result<Vec<f32>, Error>>, Error> {
    let vector = |embedding: Embedding| {
        if identity(&next.model, &embedding.fingerprint) == next.identity {
            Ok(embedding.vector)
        } else {
            Err(Error::ModelChanged)
        }
    };
    let fits = |photo: &Photo| client::check_image_size(photo.image.len());
    let inputs: Vec<Input> =
        photos.iter().filter(|photo| fits(photo).is_ok()).map(|photo| Input::Image(&photo.image)).collect();
    // As bulk work, these would wait behind other tables' photos for ever.
    let answers = match client::embed(&next.model, &inputs, Priority::Interactive) {
        Ok(answers) => answers.into_iter().map(|answer| answer.map_err(Error::from)).collect(),
        // A photo may be the reason: each is sent again alone.
        Err(error) if is_of_a_photo(error.sqlstate()) => {
            inputs.iter().map(|input| client::embed_one(&next.model, *input)).collect::<Vec<_>>()
        }
        Err(error) => return Err(error),
    };
    let mut answers = answers.into_iter();
    Ok(photos
        .iter()
        .map(|photo| {
            fits(photo)?;
            answers.next().ok_or(Error::OutOfTurn)?.and_then(vector)
        })
        .collect())
}

/// Whether an error is one of a photo: the other photos are embedded all the same.
fn is_of_a_photo(code: PgSqlErrorCode) -> bool {
    [
        PgSqlErrorCode::ERRCODE_INVALID_BINARY_REPRESENTATION,
        PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        PgSqlErrorCode::ERRCODE_CONNECTION_FAILURE,
    ]
    .contains(&code)
}
