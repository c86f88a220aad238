//! Searches in an index of one bit for each dimension, whose nearest rows are put in order by their whole vectors.
//!
//! A bit is the sign of a value, and vectors of a model lie within a cone: in many dimensions all have the same sign. So the index
//! is measured for the vectors as they are, and for what is left of them without their mean.

use postgres::Client;

use pg_clip_tests::run;

use super::vectors::{self, DIMENSIONS, Vectors};
use super::{WANTED, build, report};

/// How many of the index's nearest rows are looked at; `hnsw.ef_search` is the same.
const CANDIDATES: [u32; 3] = [100, 200, 400];

/// `nearest` are the photos nearest to each text.
pub(super) fn measure(client: &mut Client, name: &str, rows: usize, vectors: &Vectors, nearest: &[Vec<i64>]) {
    let nearest_to_pictures: Vec<Vec<i64>> =
        vectors.pictures.iter().map(|picture| vectors.nearest(picture, WANTED, |_| true)).collect();
    let searches =
        [("texts", &vectors.texts, nearest), ("pictures", &vectors.pictures, &nearest_to_pictures[..])];
    for is_centred in [false, true] {
        let minus = |of: &[Vec<f32>]| {
            if is_centred { format!(" - '{}'::vector", vectors::literal(&mean(of))) } else { String::new() }
        };
        println!("with an index of bits{}", if is_centred { ", less the mean" } else { "" });
        let bits = format!("binary_quantize(embedding{})::bit({DIMENSIONS})", minus(&vectors.photos));
        build(client, name, rows, &format!("(({bits}) bit_hamming_ops)"));
        for (kind, inputs, truth) in searches {
            // Texts have a cone of their own.
            let less = minus(inputs);
            for candidates in CANDIDATES {
                run(client, &format!("SET hnsw.iterative_scan = off; SET hnsw.ef_search = {candidates}"));
                let search = |input: &Vec<f32>| {
                    let input = vectors::literal(input);
                    format!(
                        "SELECT image_id FROM (
                            SELECT image_id, embedding FROM {name}
                            ORDER BY {bits} <~> binary_quantize('{input}'::vector{less})::bit({DIMENSIONS})
                            LIMIT {candidates}) AS candidate
                        ORDER BY embedding <=> '{input}' LIMIT {WANTED}"
                    )
                };
                let statements: Vec<String> = inputs.iter().map(search).collect();
                report(
                    client,
                    format!("| {name}, bits | by {kind} | off | {candidates}"),
                    &statements,
                    truth,
                );
            }
        }
        run(client, &format!("DROP INDEX {name}_hnsw"));
    }
}

fn mean(vectors: &[Vec<f32>]) -> Vec<f32> {
    let mut sum = vec![0.0; DIMENSIONS];
    for vector in vectors {
        sum.iter_mut().zip(vector).for_each(|(sum, value)| *sum += value);
    }
    sum.into_iter().map(|sum| sum / vectors.len() as f32).collect()
}
