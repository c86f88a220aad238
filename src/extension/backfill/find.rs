//! Which photos are to be embedded, a page at a time.

use crate::error::Error;
use crate::owned::{Key, Pair};
use crate::spi::{Argument, Spi};
use crate::watch::role::{read_as, with_portable_output};

/// The result of a look at the next rows.
pub(super) struct Page {
    /// The last key of the page; nothing where there was no row.
    pub(super) last: Option<Key>,
    /// The keys under which something is to be mended.
    pub(super) wrong: Vec<Key>,
    /// How many photos are as they should be.
    pub(super) right: i64,
}

/// A photo's row says whether it is NULL. Its bytes are read to verify them only, and then a few at a time.
const PAGE: u32 = 1000;
const VERIFIED_PAGE: u32 = 32;

/// How many photos there are to embed; with `verify`, how many rows there are to look at.
pub(super) fn count(spi: &Spi, pair: &Pair, verify: bool) -> Result<i64, Error> {
    let Pair { source, target, key, image, .. } = pair;
    let (source, target) = (source.rows(), target.rows());
    let query = if verify {
        format!(
            "SELECT (SELECT count(*) FROM {source} AS s WHERE s.{image} IS NOT NULL AND s.{key} IS NOT NULL)
                + (SELECT count(*) FROM {target} AS t WHERE {})",
            is_orphan(pair)
        )
    } else {
        format!(
            "SELECT count(*) FROM {source} AS s LEFT JOIN {target} AS t ON {}
            WHERE s.{image} IS NOT NULL AND s.{key} IS NOT NULL AND {}",
            pair.has_vector(),
            is_missing(pair, "$1")
        )
    };
    let arguments = if verify { Vec::new() } else { vec![model(pair)] };
    read_as(pair.source.owner, || {
        let rows = spi.run(&query, &arguments)?;
        Ok(rows.printed(1).and_then(|count| count.parse().ok()).unwrap_or_default())
    })
}

/// The next photos of the source after a key.
pub(super) fn photos(spi: &Spi, pair: &Pair, after: Option<&Key>, verify: bool) -> Result<Page, Error> {
    let Pair { source, target, key, image, checksum, key_type, .. } = pair;
    let other = if verify && pair.is_by_reference {
        // Only the feeder sees bytes: it fetches each photo anew.
        "OR true".to_owned()
    } else if verify {
        format!("OR t.{checksum} IS DISTINCT FROM sha256(s.{image}) OR {}", pair.other_project())
    } else {
        String::new()
    };
    let query = format!(
        "SELECT s.{key}, s.{image} IS NOT NULL, s.{image} IS NOT NULL AND ({} {other})
        FROM (SELECT s.* FROM {} AS s WHERE $1 IS NULL OR s.{key} {} $1 ORDER BY s.{key} LIMIT {}) AS s
        LEFT JOIN {} AS t ON {} ORDER BY s.{key}",
        is_missing(pair, "$2"),
        source.rows(),
        key_type.above,
        if verify && !pair.is_by_reference { VERIFIED_PAGE } else { PAGE },
        target.rows(),
        pair.has_vector(),
    );
    page(spi, pair, &query, after, &[model(pair)])
}

/// The next rows of the target after a key that are those of no photo.
pub(super) fn orphans(spi: &Spi, pair: &Pair, after: Option<&Key>) -> Result<Page, Error> {
    let Pair { target, target_key, key_type, .. } = pair;
    let query = format!(
        "SELECT t.{target_key}, false, true FROM {} AS t
        WHERE ($1 IS NULL OR t.{target_key} {} $1) AND {} ORDER BY t.{target_key} LIMIT {PAGE}",
        target.rows(),
        key_type.above,
        is_orphan(pair)
    );
    page(spi, pair, &query, after, &[])
}

/// Reads rows of a key, whether there is a photo, and whether something is wrong.
fn page(
    spi: &Spi,
    pair: &Pair,
    query: &str,
    after: Option<&Key>,
    others: &[Argument],
) -> Result<Page, Error> {
    let (keys, photos, wrong) = read_as(pair.source.owner, || {
        with_portable_output(|| {
            let arguments = [&[pair.key_type.argument(after)], others].concat();
            let rows = spi.run(query, &arguments)?;
            Ok::<_, Error>((rows.all_printed_raw(1), rows.all_printed(2), rows.all_printed(3)))
        })
    })?;
    let is = |flag: &Option<String>| flag.as_deref() == Some("t");
    let right = photos.iter().zip(&wrong).filter(|(photo, wrong)| is(photo) && !is(wrong)).count();
    Ok(Page {
        last: keys.last().cloned().flatten(),
        wrong: keys
            .into_iter()
            .zip(&wrong)
            .filter(|(_, wrong)| is(wrong))
            .filter_map(|(key, _)| key)
            .collect(),
        right: i64::try_from(right).expect("a page"),
    })
}

/// Whether row `t` of the target is none, or one of another model than the watch's, or of none.
fn is_missing(pair: &Pair, model: &str) -> String {
    format!("(t.{} IS NULL OR t.{} IS DISTINCT FROM {model})", pair.target_key, pair.model_column)
}

/// Whether row `t` of the target is that of no photo.
fn is_orphan(pair: &Pair) -> String {
    let Pair { source, target_key, image, .. } = pair;
    format!(
        "t.{target_key} IS NOT NULL AND NOT EXISTS (
            SELECT FROM {} AS s WHERE {} AND s.{image} IS NOT NULL)",
        source.rows(),
        pair.same_key()
    )
}

fn model(pair: &Pair) -> Argument {
    Argument::text_or_null(pair.model.as_deref())
}
