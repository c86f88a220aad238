//! The results of a model, to tell whose vectors a search has met.

use postgres::{Client, Row};

/// A photo's key is the number of its picture plus a multiple of this.
pub const ROUND: i32 = 1000;

/// The distance of each picture to each query, as one model has them.
pub struct Truth {
    distances: Vec<Vec<f64>>,
}

impl Truth {
    pub fn of(model: &str, client: &mut Client, queries: &[&str], pictures: &[Vec<u8>]) -> Truth {
        let query = "SELECT array_agg(picture <=> clip_embed_text($1, $2) ORDER BY number)
            FROM unnest(clip_embed_images($3, $2)) WITH ORDINALITY AS t (picture, number)";
        let distances = |words: &&str| {
            client.query_one(query, &[words, &model, &pictures]).expect("distances are computed").get(0)
        };
        Truth { distances: queries.iter().map(distances).collect() }
    }

    /// Whether all rows, keys with their distances to this query, are this model's.
    pub fn tells(&self, query: usize, rows: &[(i32, f64)]) -> bool {
        rows.iter().all(|(key, distance)| {
            let picture = usize::try_from(key % ROUND).expect("a key");
            (self.distances[query][picture] - distance).abs() < 1e-5
        })
    }

    /// Whether they are the nearest ones, where there are many photos of each picture.
    pub fn is_nearest(&self, query: usize, rows: &[(i32, f64)]) -> bool {
        let nearest = self.distances[query].iter().copied().fold(f64::INFINITY, f64::min);
        rows.iter().all(|(_, distance)| (distance - nearest).abs() < 1e-5)
    }
}

/// Keys and distances.
pub fn rows(rows: &[Row]) -> Vec<(i32, f64)> {
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}
