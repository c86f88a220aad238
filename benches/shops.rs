//! Many projects in one table: what an HNSW index for each of them, or a partition for each, costs a search and an INSERT.
//!
//! The vectors are random. Processor time is that of the backend, so that other load on the machine does not count.

use std::time::Duration;

use pg_clip_tests::{TestCluster, run, value};
use postgres::{Client, SimpleQueryMessage};

use crate::tally::{median, milliseconds};

const ROWS: i32 = 20_000;
const LATE: i32 = 200;
const SEARCHES: usize = 21;

/// How the rows of projects are found.
#[derive(Clone, Copy, PartialEq)]
enum Layout {
    /// By the index on `project` that `clip_watch` makes, beside an HNSW index of all rows.
    Btree,
    /// By an HNSW index for each project as well.
    Indexes,
    /// By a partition for each project with an HNSW index.
    Partitions,
}

pub(crate) fn measure() {
    let cluster = TestCluster::preloaded_with(&[
        ("maintenance_work_mem", "1GB"),
        ("max_locks_per_transaction", "4096"),
        ("autovacuum", "off"),
        ("fsync", "off"),
    ]);
    let database = cluster.database();
    let mut client = database.connect();
    println!("{ROWS} rows of 512 dimensions");
    println!("| layout | projects | planning ms | search ms | insert ms a row |");
    for (name, layout, counts) in [
        ("btree on project", Layout::Btree, &[10, 1_000, 20_000][..]),
        ("an HNSW index for each", Layout::Indexes, &[10, 100, 1_000]),
        ("a partition for each", Layout::Partitions, &[10, 100, 1_000]),
    ] {
        for &projects in counts {
            make(&mut client, layout, projects);
            let searches: Vec<[Duration; 2]> = (0..SEARCHES).map(|_| search(&mut client)).collect();
            let of = |part: usize| {
                milliseconds(median(&mut searches.iter().map(|search| search[part]).collect::<Vec<_>>()))
            };
            let insert = insert(&mut client, projects);
            println!(
                "| {name} | {projects} | {:.2} | {:.2} | {:.2} |",
                of(0),
                of(1),
                insert / f64::from(LATE)
            );
            run(&mut client, "DROP TABLE images");
        }
    }
}

const VECTOR: &str =
    "(SELECT array_agg(random() - 0.5) FROM generate_series(1, 512) WHERE number > 0)::vector";

fn make(client: &mut Client, layout: Layout, projects: i32) {
    let key = if layout == Layout::Partitions {
        "PRIMARY KEY (image_id, project)"
    } else {
        "PRIMARY KEY (image_id)"
    };
    let by = if layout == Layout::Partitions { "PARTITION BY LIST (project)" } else { "" };
    run(
        client,
        &format!(
            "CREATE TABLE images (image_id bigint, project text NOT NULL, embedding vector(512) NOT NULL, {key}) {by}"
        ),
    );
    if layout == Layout::Partitions {
        let parts = format!(
            "SELECT format('CREATE TABLE images_%s PARTITION OF images FOR VALUES IN (%L)', number, 'p' || number)
            FROM generate_series(0, {projects} - 1) AS number"
        );
        execute_all(client, &parts);
    }
    run(
        client,
        &format!(
            "INSERT INTO images SELECT number, 'p' || number % {projects}, {VECTOR}
            FROM generate_series(1, {ROWS}) AS number"
        ),
    );
    run(client, "CREATE INDEX ON images USING hnsw (embedding vector_cosine_ops)");
    if layout != Layout::Partitions {
        run(client, "CREATE INDEX ON images (project)");
    }
    if layout == Layout::Indexes {
        let indexes = format!(
            "SELECT format('CREATE INDEX ON images USING hnsw (embedding vector_cosine_ops) WHERE project = %L', 'p' || number)
            FROM generate_series(0, {projects} - 1) AS number"
        );
        execute_all(client, &indexes);
    }
    run(client, "VACUUM ANALYZE images");
    // A session keeps what it has looked up of a table.
    search(client);
}

fn execute_all(client: &mut Client, statements: &str) {
    let statements = client.query(statements, &[]).expect("statements");
    for statement in statements {
        run(client, statement.get(0));
    }
}

/// The time to plan and to run a search within a project.
fn search(client: &mut Client) -> [Duration; 2] {
    let vector: String = value(client, &format!("SELECT {}::text", VECTOR.replace(" WHERE number > 0", "")));
    let statement = format!(
        "EXPLAIN (ANALYZE, TIMING off) SELECT image_id FROM images WHERE project = 'p3'
        ORDER BY embedding <=> '{vector}' LIMIT 10"
    );
    let messages = client.simple_query(&statement).expect("a plan");
    let line = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    };
    let lines: Vec<String> = messages.iter().filter_map(line).collect();
    ["Planning Time: ", "Execution Time: "].map(|label| {
        let time = lines.iter().find_map(|line| line.strip_prefix(label)?.strip_suffix(" ms"));
        Duration::from_secs_f64(time.expect("a time").parse::<f64>().expect("a number") / 1e3)
    })
}

/// The milliseconds of processor time of inserting the late rows, each by a statement of its own.
fn insert(client: &mut Client, projects: i32) -> f64 {
    run(
        client,
        &format!(
            "CREATE TEMPORARY TABLE late AS SELECT {ROWS} + number AS image_id, 'p' || number % {projects} AS project,
                {VECTOR} AS embedding FROM generate_series(1, {LATE}) AS number"
        ),
    );
    let insert =
        "INSERT INTO images SELECT image_id, project, embedding FROM late WHERE image_id = $1::bigint";
    let insert = client.prepare(insert).expect("a statement");
    let before = crate::search::processor_time(client);
    for number in 1..=LATE {
        client.execute(&insert, &[&i64::from(ROWS + number)]).expect("a row is inserted");
    }
    let milliseconds = crate::search::processor_time(client) - before;
    run(client, "DROP TABLE late");
    milliseconds
}
