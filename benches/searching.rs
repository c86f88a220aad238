//! A client that searches by text for as long as something else goes on.

use std::time::Duration;

use pg_clip_tests::{TestDatabase, run};
use postgres::types::Type;

use crate::tally::time;

const SEARCH: &str = "SELECT image_id FROM image_embeddings
    ORDER BY embedding <=> (SELECT clip_embed_text($1)) LIMIT 10";

/// Between two searches of a client, in seconds: 40 searches a second or so. Without it, a client and the embedder's
/// lane of texts keep two processors busy, and the images, which stand back, come to a fifth of their speed.
pub(crate) const PAUSE: &str = "SELECT pg_sleep(0.02)";

/// Searches one after the other, each by a text that was not embedded before, while there is `more` to do. Returns
/// how long each took, with the phase that `more` gave for it. Each is planned anew, as the queries of
/// node-postgres and Prisma are: a plan that was made for a small table would be kept while the table grows. The
/// index is used however few vectors there are: how long PostgreSQL takes to read a table from end to end would
/// hide the measured times.
pub(crate) fn search<T>(
    database: &TestDatabase,
    word: &str,
    mut more: impl FnMut(usize) -> Option<T>,
) -> Vec<(T, Duration)> {
    let mut client = database.connect();
    run(&mut client, "SET enable_seqscan = off; SELECT clip_embed_text('start')");
    let mut times = Vec::new();
    while let Some(phase) = more(times.len()) {
        let words = format!("{word} {} dogs", times.len());
        let took =
            time(|| _ = client.query_typed(SEARCH, &[(&words, Type::TEXT)]).expect("a search is answered"));
        times.push((phase, took));
        run(&mut client, PAUSE);
    }
    times
}
