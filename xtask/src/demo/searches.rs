//! The searches, as one would type them.

pub(super) struct Search {
    pub(super) title: &'static str,
    pub(super) sql: &'static str,
    /// The picture that is searched with, of the table query_photos.
    pub(super) picture: Option<&'static str>,
}

pub(super) const SEARCHES: [Search; 4] = [
    Search {
        title: "By words: a slice of pizza",
        sql: "\
SELECT file_name, photo.project, 1 - (embedding <=> clip_embed_text('a slice of pizza')) AS similarity
FROM image_embeddings JOIN customer_photos AS photo ON photo.id = image_id
ORDER BY embedding <=> clip_embed_text('a slice of pizza')
LIMIT 6;",
        picture: None,
    },
    Search {
        title: "By words, in one project: fruit, in the garden",
        sql: "\
SELECT file_name, photo.project, 1 - (embedding <=> clip_embed_text('fruit')) AS similarity
FROM image_embeddings JOIN customer_photos AS photo ON photo.id = image_id
WHERE image_embeddings.project = 'garden'
ORDER BY embedding <=> clip_embed_text('fruit')
LIMIT 6;",
        picture: None,
    },
    Search {
        title: "By a picture that was never inserted",
        sql: "\
SELECT file_name, photo.project, 1 - (embedding <=> clip_embed_image(query.image)) AS similarity
FROM query_photos AS query, image_embeddings JOIN customer_photos AS photo ON photo.id = image_id
WHERE query.file_name = 'guitar-1.webp'
ORDER BY embedding <=> clip_embed_image(query.image)
LIMIT 6;",
        picture: Some("guitar-1.webp"),
    },
    Search {
        title: "By a picture and words together: this dog, and a bicycle",
        sql: "\
WITH query AS MATERIALIZED (
    SELECT clip_embed_image(image) + clip_embed_text('a bicycle') AS embedding
    FROM query_photos WHERE file_name = 'dog-1.jpg'
)
SELECT file_name, photo.project, 1 - (image_embeddings.embedding <=> query.embedding) AS similarity
FROM query, image_embeddings JOIN customer_photos AS photo ON photo.id = image_id
ORDER BY image_embeddings.embedding <=> query.embedding
LIMIT 6;",
        picture: Some("dog-1.jpg"),
    },
];

/// All photos with the same bytes as this one.
pub(super) fn duplicates(file_name: &str) -> String {
    let name = super::quote(file_name);
    format!(
        "\
SELECT photo.file_name, photo.project, encode(same.checksum, 'hex') AS checksum, 1 - (same.embedding <=> this.embedding) AS similarity
FROM customer_photos AS upload
JOIN image_embeddings AS this ON this.image_id = upload.id
JOIN image_embeddings AS same ON same.checksum = this.checksum
JOIN customer_photos AS photo ON photo.id = same.image_id
WHERE upload.file_name = {name}
ORDER BY photo.id;"
    )
}
