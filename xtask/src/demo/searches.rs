//! The searches, as one would type them.

use anyhow::{Context, Result};

use crate::demo::photos::{Photo, quote};

pub(super) struct Search<'a> {
    pub(super) title: &'static str,
    pub(super) sql: String,
    /// The picture that is searched with, a row of query_photos.
    pub(super) picture: Option<&'a Photo>,
}

pub(super) fn searches(queries: &[Photo]) -> Result<[Search<'_>; 4]> {
    let picture = |concept: &str| {
        let picture = queries.iter().find(|photo| photo.concept == concept);
        picture.with_context(|| format!("there is no picture of a {concept} to search with"))
    };
    let (bicycle, guitar) = (picture("bicycle")?, picture("guitar")?);
    Ok([
        Search { title: "By words: a slice of pizza", sql: by_words("a slice of pizza", ""), picture: None },
        Search {
            title: "By words, in one project: a red fruit, in the kitchen",
            sql: by_words("a red fruit", "WHERE image_embeddings.project = 'kitchen'\n"),
            picture: None,
        },
        Search {
            title: "By a picture that was never inserted",
            sql: by_picture("clip_embed_image(image)", bicycle),
            picture: Some(bicycle),
        },
        Search {
            title: "By a picture and words, added up: this guitar, and a drum",
            sql: by_picture("clip_embed_image(image) + clip_embed_text('a drum')", guitar),
            picture: Some(guitar),
        },
    ])
}

/// All photos with the same bytes as this one.
pub(super) fn duplicates(file_name: &str) -> String {
    format!(
        "\
SELECT photo.file_name, photo.project, same.checksum, 1 - (same.embedding <=> this.embedding) AS similarity
FROM customer_photos AS upload
JOIN image_embeddings AS this ON this.image_id = upload.id
JOIN image_embeddings AS same ON same.checksum = this.checksum
JOIN customer_photos AS photo ON photo.id = same.image_id
WHERE upload.file_name = {}
ORDER BY photo.id;",
        quote(file_name)
    )
}

fn by_words(words: &str, condition: &str) -> String {
    let words = quote(words);
    format!(
        "\
SELECT file_name, photo.project, 1 - (embedding <=> clip_embed_text({words})) AS similarity
FROM image_embeddings JOIN customer_photos AS photo ON photo.id = image_id
{condition}ORDER BY embedding <=> clip_embed_text({words})
LIMIT 6;"
    )
}

fn by_picture(embedding: &str, picture: &Photo) -> String {
    format!(
        "\
WITH query AS (
    SELECT {embedding} AS embedding
    FROM query_photos WHERE file_name = {}
)
SELECT file_name, photo.project, 1 - (embedding <=> (SELECT embedding FROM query)) AS similarity
FROM image_embeddings JOIN customer_photos AS photo ON photo.id = image_id
ORDER BY embedding <=> (SELECT embedding FROM query)
LIMIT 6;",
        quote(&picture.file)
    )
}
