//! How far a migration is, for `clip_migrations`.

use crate::coverage::count_for_a_view;
use crate::coverage::sample::{are_large, estimate_migrated};
use crate::error::Error;
use crate::owned::{Pair, Right, Side, record};
use crate::spi::Spi;
use crate::sql_function::sql_function;
use crate::watch::next::NEXT_EMBEDDING;
use crate::watch::role::read_as;

sql_function! {
    /// `clip_count_migrated(target regclass, OUT done int8, OUT total int8)`: NULL where they cannot be counted.
    fn clip_count_migrated(fcinfo) {
        // SAFETY: SQL declares the function STRICT with this argument and this result.
        unsafe {
            let counts = count_for_a_view(fcinfo, |spi, extension, target| {
                let pair = Pair::by_right(spi, extension, Side::Target(target), Right::Count)?;
                pair.map(|pair| count(spi, &pair)).transpose()
            })?;
            record(fcinfo, &counts.flatten().map_or([None; 2], |counts| counts.map(Some)))
        }
    }
}

/// The rows that have a vector of the new model, and all that have one: estimates where the table is large.
pub(super) fn count(spi: &Spi, pair: &Pair) -> Result<[i64; 2], Error> {
    let target = &pair.target;
    if are_large(spi, &[target])? {
        return estimate_migrated(spi, target, &pair.embedding, NEXT_EMBEDDING);
    }
    let query = format!("SELECT count({NEXT_EMBEDDING}), count({}) FROM {}", pair.embedding, target.name);
    read_as(target.owner, || {
        let row = spi.run(&query, &[])?;
        Ok([1, 2].map(|column| row.printed(column).and_then(|count| count.parse().ok()).unwrap_or_default()))
    })
}
