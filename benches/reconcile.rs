//! Compares the stored photos with the acknowledged ones: nothing is lost, doubled, outdated or unasked for.

use pg_clip_tests::{run, variant};
use postgres::Client;

use crate::tally::report;

/// `lost`: a photo that was acknowledged, or its vector, is not there. `stale`: photo, checksum or vector are not
/// those of the photo that was acknowledged last. `unasked`: vectors of no photo, and jobs that are left.
const RECONCILE: &str = "SELECT count(DISTINCT a.id) AS acknowledged,
    count(*) FILTER (WHERE photos.id IS NULL OR e.image_id IS NULL) AS lost,
    count(*) - count(DISTINCT a.id) AS double,
    count(*) FILTER (WHERE photos.image <> a.image OR e.checksum <> sha256(a.image) OR e.embedding <> a.embedding) AS stale,
    (SELECT count(*) FROM image_embeddings WHERE image_id NOT IN (SELECT id FROM acknowledged))
        + (SELECT count(*) FROM clip_queue) AS unasked
FROM acknowledged AS a LEFT JOIN photos USING (id) LEFT JOIN image_embeddings AS e ON e.image_id = a.id";

/// The photo of this number: no two have the same bytes, and many show the same.
pub(crate) fn photo(pictures: &[Vec<u8>], number: u32) -> Vec<u8> {
    variant(&pictures[number as usize % pictures.len()], number)
}

/// Panics unless the photos 1 to `count` are stored and embedded, and nothing else is. Equal pictures have equal vectors,
/// so that each is embedded once more, and not each photo.
#[track_caller]
pub(crate) fn reconcile(client: &mut Client, pictures: &[Vec<u8>], count: u32) {
    run(
        client,
        "CREATE TABLE pictures (number bigint, image bytea, embedding vector);
        CREATE TABLE acknowledged (id bigint PRIMARY KEY, image bytea, embedding vector)",
    );
    let embed = "INSERT INTO pictures SELECT number - 1, image, embedding
        FROM unnest($1::bytea[], (SELECT clip_embed_images($1::bytea[]))) WITH ORDINALITY AS t (image, embedding, number)";
    client.execute(embed, &[&pictures]).expect("the pictures are embedded");
    run(
        client,
        &format!(
            "INSERT INTO acknowledged SELECT photo.id, image || int4send(photo.id), embedding
            FROM generate_series(1, {count}) AS photo (id) JOIN pictures ON number = photo.id % {}",
            pictures.len()
        ),
    );
    println!("{RECONCILE};");
    let row = client.query_one(RECONCILE, &[]).expect("the reconciling query");
    let counts: Vec<i64> = (0..row.len()).map(|column| row.get(column)).collect();
    for (column, count) in row.columns().iter().zip(&counts) {
        report(&format!("  {}", column.name()), &format!("{count:9}"));
    }
    assert_eq!(counts, [i64::from(count), 0, 0, 0, 0]);
}
