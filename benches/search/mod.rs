//! Searches over many vectors that no model made: recall, processor time and buffers, by how many rows a filter lets through;
//! and what the vectors and their indexes take of the disk, of the write-ahead log and of processor time.
//!
//! `PG_CLIP_BENCH_PHOTOS` says how many vectors, 300,000 without it. Processor time is that of the backend, so that other load on the machine does not count.

mod quantized;
mod vectors;

use std::fmt;
use std::io::Write;
use std::time::Instant;

use pg_clip_tests::{TestCluster, run, value};
use postgres::{Client, SimpleQueryMessage};

use self::vectors::{DIMENSIONS, Vectors};

const TEXTS: usize = 40;
const WANTED: usize = 10;
/// The projects, and of how many photos each has one; `rest` has the others.
const PROJECTS: [(&str, usize); 3] = [("tenth", 10), ("hundredth", 100), ("thousandth", 1000)];
/// `(iterative_scan, ef_search)`
const SETTINGS: [(&str, u32); 7] = [
    ("off", 40),
    ("strict_order", 40),
    ("strict_order", 100),
    ("relaxed_order", 40),
    ("relaxed_order", 100),
    ("relaxed_order", 200),
    ("relaxed_order", 400),
];

/// How many photos there are, where the environment says nothing else.
const PHOTOS: usize = 300_000;
const PHOTOS_VARIABLE: &str = "PG_CLIP_BENCH_PHOTOS";

/// Two types of vectors, and where they lie.
pub(crate) fn measure() {
    let rows =
        std::env::var(PHOTOS_VARIABLE).map_or(PHOTOS, |photos| photos.parse().expect("a number of photos"));
    let cluster = TestCluster::preloaded_with(&[
        ("shared_buffers", "4GB"),
        ("maintenance_work_mem", "2GB"),
        ("max_wal_size", "8GB"),
        ("autovacuum", "off"),
        ("fsync", "off"),
    ]);
    let database = cluster.database();
    let mut client = database.connect();
    println!("{rows} photos of {DIMENSIONS} dimensions, {TEXTS} texts, recall@{WANTED}");
    let vectors = Vectors::make(rows, TEXTS);
    let truths: Vec<(&str, Vec<Vec<i64>>)> = [("", 1)]
        .into_iter()
        .chain(PROJECTS)
        .map(|(project, _)| {
            let is_in = |number| project.is_empty() || project_of(number) == project;
            (project, vectors.texts.iter().map(|text| vectors.nearest(text, WANTED, is_in)).collect())
        })
        .collect();
    for (name, column, storage) in
        [("plain", "vector", "PLAIN"), ("external", "vector", "EXTERNAL"), ("halves", "halfvec", "PLAIN")]
    {
        let logged = fill(&mut client, name, column, storage, &vectors);
        let size = format!("SELECT pg_table_size('{name}') / {rows}");
        println!(
            "\n{name}: table {} bytes a photo, {:.0} of the write-ahead log",
            value::<i64>(&mut client, &size),
            logged / rows as f64
        );
        let scan = format!("SELECT count(embedding <=> (SELECT embedding FROM {name} LIMIT 1)) FROM {name}");
        run(&mut client, &format!("SET max_parallel_workers_per_gather = 0; {scan}"));
        let cost = cost(&mut client, &[scan]);
        println!(
            "exact distance: {:.2} us, {:.2} buffers a row",
            cost.milliseconds * 1e3 / rows as f64,
            cost.buffers / rows as f64
        );
        if name == "external" {
            run(&mut client, &format!("DROP TABLE {name}"));
            continue;
        }
        build(&mut client, name, rows, &format!("(embedding {column}_cosine_ops)"));
        println!("| {name} | filter | iterative_scan | ef | recall | processor ms | buffers | plan |");
        for (project, truth) in &truths {
            for (scan, ef) in SETTINGS {
                search(&mut client, &Search { name, project, scan, ef }, &vectors, truth);
            }
        }
        run(&mut client, &format!("CREATE INDEX by_project_{name} ON {name} (project); ANALYZE {name}"));
        println!("with a btree on project");
        for (project, truth) in &truths[1..] {
            for ef in [100, 200] {
                search(&mut client, &Search { name, project, scan: "relaxed_order", ef }, &vectors, truth);
            }
        }
        if name == "plain" {
            println!("with an HNSW of the project's own");
            for (project, truth) in &truths[1..3] {
                run(
                    &mut client,
                    &format!(
                        "DROP INDEX IF EXISTS by_project_{name}; CREATE INDEX by_project_{name} ON {name}
                        USING hnsw (embedding {column}_cosine_ops) WHERE project = '{project}'; ANALYZE {name}"
                    ),
                );
                search(
                    &mut client,
                    &Search { name, project, scan: "relaxed_order", ef: 100 },
                    &vectors,
                    truth,
                );
            }
            run(&mut client, &format!("DROP INDEX by_project_{name}"));
        }
        insert_late(&mut client, name, &vectors);
        if name == "plain" {
            run(&mut client, &format!("DELETE FROM {name} WHERE image_id >= {rows}; DROP INDEX {name}_hnsw"));
            quantized::measure(&mut client, name, rows, &vectors, &truths[0].1);
        }
        run(&mut client, &format!("DROP TABLE {name}"));
    }
}

/// Makes the HNSW index, and says what that took.
fn build(client: &mut Client, name: &str, rows: usize, of: &str) {
    let (before, processor, logged) = (Instant::now(), processor_time(client), logged(client));
    let size = format!("SELECT pg_indexes_size('{name}')");
    let others: i64 = value(client, &size);
    run(
        client,
        &format!(
            "SET max_parallel_maintenance_workers = 0; CREATE INDEX {name}_hnsw ON {name} USING hnsw {of}"
        ),
    );
    println!(
        "HNSW: {:.2} ms of processor time a row, {:.0} s in all; {:.0} bytes a photo, {:.0} of the write-ahead log",
        (processor_time(client) - processor) / rows as f64,
        before.elapsed().as_secs_f64(),
        (value::<i64>(client, &size) - others) as f64 / rows as f64,
        (self::logged(client) - logged) / rows as f64
    );
}

/// Inserts more photos into the table with its index.
fn insert_late(client: &mut Client, name: &str, vectors: &Vectors) {
    load(client, vectors.photos.len(), &vectors.late);
    run(client, "CHECKPOINT");
    let (processor, before) = (processor_time(client), logged(client));
    run(client, &insert(name));
    let rows = vectors.late.len() as f64;
    println!(
        "inserted into the table with its indexes: {:.2} ms of processor time a row, {:.0} bytes of the write-ahead log",
        (processor_time(client) - processor) / rows,
        (logged(client) - before) / rows
    );
}

fn project_of(number: usize) -> &'static str {
    PROJECTS.iter().rev().find(|(_, of)| number.is_multiple_of(*of)).map_or("rest", |(name, _)| name)
}

/// Makes the table and its rows; returns the bytes of the write-ahead log that the rows took.
fn fill(client: &mut Client, name: &str, column: &str, storage: &str, vectors: &Vectors) -> f64 {
    run(
        client,
        &format!(
            "CREATE TABLE {name} (image_id bigint PRIMARY KEY, embedding {column}({DIMENSIONS}) NOT NULL,
                checksum bytea NOT NULL, project text, model text NOT NULL) WITH (toast_tuple_target = 8160);
            ALTER TABLE {name} ALTER embedding SET STORAGE {storage}"
        ),
    );
    if storage == "EXTERNAL" {
        run(client, &format!("ALTER TABLE {name} RESET (toast_tuple_target)"));
    }
    load(client, 0, &vectors.photos);
    run(client, "CHECKPOINT");
    let before = logged(client);
    run(client, &insert(name));
    let logged = logged(client) - before;
    run(client, &format!("VACUUM ANALYZE {name}"));
    logged
}

/// Puts vectors into the table `loaded`, with keys from a number on.
fn load(client: &mut Client, first: usize, vectors: &[Vec<f32>]) {
    run(
        client,
        &format!(
            "DROP TABLE IF EXISTS loaded;
            CREATE UNLOGGED TABLE loaded (image_id bigint, project text, embedding vector({DIMENSIONS}))"
        ),
    );
    let mut copy = client.copy_in("COPY loaded FROM STDIN (FORMAT binary)").expect("a copy begins");
    let mut send = |bytes: &[u8]| copy.write_all(bytes).expect("the copy goes on");
    send(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
    for (number, vector) in vectors.iter().enumerate() {
        send(&3_i16.to_be_bytes());
        let key = i64::try_from(first + number).expect("a key").to_be_bytes();
        for field in [&key[..], project_of(number).as_bytes(), &vectors::binary(vector)] {
            send(&i32::try_from(field.len()).expect("a short field").to_be_bytes());
            send(field);
        }
    }
    send(&(-1_i16).to_be_bytes());
    copy.finish().expect("the copy ends");
}

fn insert(name: &str) -> String {
    format!(
        "INSERT INTO {name} SELECT image_id, embedding, sha256(image_id::text::bytea), project,
            'clip-vit-base-patch32@0123456789ab' FROM loaded"
    )
}

/// The bytes that the server has written to its log.
fn logged(client: &mut Client) -> f64 {
    value(client, "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8")
}

struct Search<'a> {
    name: &'a str,
    project: &'a str,
    scan: &'a str,
    ef: u32,
}

impl Search<'_> {
    /// The README's search: an outer query sorts rows that come a little out of order.
    fn statement(&self, text: &[f32]) -> String {
        let Search { name, project, .. } = self;
        let filter = if project.is_empty() { String::new() } else { format!("WHERE project = '{project}'") };
        let text = vectors::literal(text);
        format!(
            "SELECT image_id FROM (
                SELECT image_id, embedding <=> '{text}' AS distance FROM {name} {filter}
                ORDER BY distance LIMIT {WANTED}) AS nearest
            ORDER BY distance + 0"
        )
    }
}

impl fmt::Display for Search<'_> {
    fn fmt(&self, to: &mut fmt::Formatter) -> fmt::Result {
        let Search { name, project, scan, ef } = self;
        let project = if project.is_empty() { "none" } else { project };
        write!(to, "| {name} | {project} | {scan} | {ef}")
    }
}

fn search(client: &mut Client, search: &Search, vectors: &Vectors, truth: &[Vec<i64>]) {
    run(client, &format!("SET hnsw.iterative_scan = {}; SET hnsw.ef_search = {}", search.scan, search.ef));
    let statements: Vec<String> = vectors.texts.iter().map(|text| search.statement(text)).collect();
    report(client, search, &statements, truth);
}

/// Runs searches whose best answers are known, and prints what they found and took.
fn report(client: &mut Client, name: impl fmt::Display, statements: &[String], truth: &[Vec<i64>]) {
    let mut found = 0;
    for (statement, nearest) in statements.iter().zip(truth) {
        let rows = client.query(statement, &[]).expect("a search");
        found += rows.iter().filter(|row| nearest.contains(&row.get(0))).count();
    }
    let recall = found as f64 / truth.iter().map(Vec::len).sum::<usize>() as f64;
    let cost = cost(client, statements);
    println!(
        "{name} | {recall:.2} | {:.1} | {:.0} | {} |",
        cost.milliseconds,
        cost.buffers,
        plan(client, &statements[0])
    );
}

struct Cost {
    milliseconds: f64,
    buffers: f64,
}

/// Of one statement, on average.
fn cost(client: &mut Client, statements: &[String]) -> Cost {
    let before = processor_time(client);
    for statement in statements {
        client.query(statement, &[]).expect("a search");
    }
    let milliseconds = (processor_time(client) - before) / statements.len() as f64;
    let mut buffers = 0.0;
    for statement in statements {
        for line in explanation(client, &format!("EXPLAIN (ANALYZE, BUFFERS, TIMING off) {statement}")) {
            // The first such line is that of the whole plan.
            if let Some(counts) = line.trim().strip_prefix("Buffers: shared ") {
                buffers += counts
                    .split(' ')
                    .filter_map(|count| count.split_once('='))
                    .filter(|(kind, _)| ["hit", "read"].contains(kind))
                    .filter_map(|(_, number)| number.trim_end_matches(',').parse::<f64>().ok())
                    .sum::<f64>();
                break;
            }
        }
    }
    Cost { milliseconds, buffers: buffers / statements.len() as f64 }
}

/// The index that a plan uses, or how it reads the table.
fn plan(client: &mut Client, statement: &str) -> String {
    let lines = explanation(client, &format!("EXPLAIN {statement}"));
    let scan = lines.iter().find(|line| line.contains("Index Scan") || line.contains("Seq Scan"));
    let words = scan.map_or("", |line| line.trim().trim_start_matches("-> ").trim());
    words.split("  (").next().unwrap_or_default().to_owned()
}

fn explanation(client: &mut Client, statement: &str) -> Vec<String> {
    let messages = client.simple_query(statement).expect("an explanation");
    let line = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    };
    messages.iter().filter_map(line).collect()
}

/// The milliseconds that the client's backend has run on a processor.
pub(crate) fn processor_time(client: &mut Client) -> f64 {
    let pid: i32 = value(client, "SELECT pg_backend_pid()");
    let statistics = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).expect("a process");
    let nanoseconds = statistics.split(' ').next().and_then(|number| number.parse::<f64>().ok());
    nanoseconds.expect("a number") / 1e6
}
