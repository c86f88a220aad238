//! `EXPLAIN (ANALYZE)` says what a statement had embedded.

use pg_clip_tests::{TestCluster, demo_photo, run, value};
use postgres::{Client, SimpleQueryMessage};
use serde_json::Value;

const WITHOUT_TIMES: &str = "ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF";

#[test]
fn a_statement_that_embeds_says_so() {
    let cluster = TestCluster::preloaded();
    let mut client = cluster.database().connect();
    let text = "SELECT clip_embed_text('what explain says')";
    assert_eq!(
        embedded(&mut client, WITHOUT_TIMES, text),
        ["CLIP:", "Embedded: Texts 1, Images 0, Cached 0"]
    );
    assert_eq!(
        embedded(&mut client, WITHOUT_TIMES, text),
        ["CLIP:", "Embedded: Texts 1, Images 0, Cached 1"]
    );

    // With a model by its name the planner evaluates the call.
    let planned = "SELECT clip_embed_text('what the planner does', 'demo')";
    assert_eq!(
        embedded(&mut client, WITHOUT_TIMES, planned),
        ["CLIP:", "Embedded: Texts 1, Images 0, Cached 0"]
    );

    let [heading, counts, times] = &embedded(&mut client, "ANALYZE", "SELECT clip_embed_text('of time')")[..]
    else {
        panic!("a heading, counts and times")
    };
    assert_eq!([heading, counts], ["CLIP:", "Embedded: Texts 1, Images 0, Cached 0"]);
    let times: Vec<(&str, f64)> = times
        .strip_prefix("Timing: ")
        .expect("times")
        .split(", ")
        .map(|time| {
            let (name, time) = time.split_once(' ').expect("a name and a time");
            (name, time.strip_suffix(" ms").expect("milliseconds").parse().expect("a number"))
        })
        .collect();
    let [("Preparation", preparation), ("Inference", inference), ("Total", total)] = times[..] else {
        panic!("{times:?}")
    };
    assert!(preparation >= 0.0 && inference > 0.0 && total >= preparation + inference, "{times:?}");
}

#[test]
fn photos_that_a_trigger_embeds_count_too() {
    let cluster = TestCluster::preloaded();
    let mut client = cluster.database().connect();
    run(
        &mut client,
        "CREATE TABLE photos (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, image bytea);
        SELECT clip_watch('photos')",
    );
    let photo = demo_photo().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let insert = format!("INSERT INTO photos (image) VALUES ('\\x{photo}')");
    assert_eq!(
        embedded(&mut client, WITHOUT_TIMES, &insert),
        ["CLIP:", "Embedded: Texts 0, Images 1, Cached 0"]
    );
    assert!(embedded(&mut client, WITHOUT_TIMES, &insert).is_empty(), "the same photo is copied");
}

#[test]
fn explain_says_nothing_where_nothing_is_embedded() {
    let cluster = TestCluster::preloaded();
    let mut client = cluster.database().connect();
    for (options, statement) in [
        ("ANALYZE", "SELECT 1"),
        ("COSTS OFF", "SELECT clip_embed_text('it is not run')"),
        ("COSTS OFF", "SELECT clip_embed_text('it is planned', 'demo')"),
    ] {
        assert!(embedded(&mut client, options, statement).is_empty(), "{statement}");
    }
    let fails = "EXPLAIN ANALYZE SELECT clip_embed_text('before an error'), 1 / (random() * 0)::int";
    client.batch_execute(fails).expect_err("a division by zero");
    assert!(embedded(&mut client, "ANALYZE", "SELECT 1").is_empty());
}

#[test]
fn an_explanation_within_another_counts_for_both() {
    let cluster = TestCluster::preloaded();
    let mut client = cluster.database().connect();
    run(
        &mut client,
        "CREATE FUNCTION explained(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM clip_embed_text('outside ' || query);
            RETURN QUERY EXECUTE format(
                'EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT clip_embed_text(%L)', query);
            PERFORM clip_embed_text('after ' || query);
        END $$",
    );
    let within = "SELECT string_agg(line, ';') FROM explained('first') AS line WHERE line ~ 'Embedded'";
    assert_eq!(value::<String>(&mut client, within).trim(), "Embedded: Texts 1, Images 0, Cached 0");
    assert_eq!(
        embedded(&mut client, WITHOUT_TIMES, "SELECT count(*) FROM explained('second')"),
        ["CLIP:", "Embedded: Texts 3, Images 0, Cached 0"]
    );
}

/// PostgreSQL calls a hook while the output is open since release 18.
#[test]
fn structured_formats_stay_whole() {
    let cluster = TestCluster::preloaded();
    let mut client = cluster.database().connect();
    let explain = "EXPLAIN (ANALYZE, FORMAT JSON) SELECT clip_embed_text('a structured search')";
    let plans: Value = serde_json::from_str(&structured(&mut client, explain)).expect("JSON");
    let plans = plans.as_array().expect("a list of plans");
    assert_eq!(plans.len(), 1);
    assert!(plans[0]["Planning Time"].is_number() && plans[0]["Execution Time"].is_number());
    let clip = &plans[0]["CLIP"];
    if value::<i32>(&mut client, "SELECT current_setting('server_version_num')::int") < 180_000 {
        assert!(clip.is_null());
        return;
    }
    let counts = ["Texts", "Images", "Cached"].map(|name| clip[name].as_i64());
    assert_eq!(counts, [1, 0, 0].map(Some));
    let [inference, total] = ["Inference", "Total"].map(|name| clip["Timing"][name].as_f64().expect(name));
    assert!(inference > 0.0 && total >= inference, "{clip}");
    for format in ["XML", "YAML"] {
        let explain =
            format!("EXPLAIN (ANALYZE, FORMAT {format}) SELECT clip_embed_text('a structured search')");
        assert!(structured(&mut client, &explain).contains("CLIP"), "{format}");
    }
}

/// Before release 17 PostgreSQL has no function for the work that a hook replaces.
#[test]
fn plans_are_explained_as_without_the_extension() {
    let cluster = TestCluster::preloaded();
    let mut client = cluster.database().connect();
    run(&mut client, "CREATE TABLE t (i int); INSERT INTO t SELECT generate_series(1, 1000); ANALYZE t");
    let lines = explained(&mut client, "ANALYZE, BUFFERS", "SELECT count(*) FROM t WHERE i > $$10$$::int");
    for part in ["Aggregate", "Seq Scan on t", "Buffers: shared", "Planning Time: ", "Execution Time: "] {
        assert!(lines.iter().any(|line| line.contains(part)), "{part} in {lines:#?}");
    }
    let planning = lines.iter().find_map(|line| line.strip_prefix("Planning Time: ")).expect("a time");
    let planning: f64 = planning.trim_end_matches(" ms").parse().expect("milliseconds");
    assert!(planning > 0.0, "{planning}");
}

/// The lines from "CLIP:" on, as far as they are of it.
fn embedded(client: &mut Client, options: &str, statement: &str) -> Vec<String> {
    let lines = explained(client, options, statement).into_iter();
    let from_heading = lines.skip_while(|line| !line.starts_with("CLIP"));
    from_heading
        .filter(|line| ["CLIP", "Embedded", "Timing"].iter().any(|name| line.starts_with(name)))
        .collect()
}

/// The text of an explanation that is one row.
fn structured(client: &mut Client, explain: &str) -> String {
    let messages = client.simple_query(explain).expect("an explanation");
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    row.expect("a row").to_owned()
}

fn explained(client: &mut Client, options: &str, statement: &str) -> Vec<String> {
    let rows = client.query(&format!("EXPLAIN ({options}) {statement}"), &[]).expect(statement);
    rows.iter().map(|row| row.get::<_, String>(0).trim().to_owned()).collect()
}
