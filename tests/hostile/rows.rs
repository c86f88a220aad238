//! Writing rows, reading views, and changing the settings of a session.

use super::calls::{Catalog, Place};
use super::objects::{Owned, Source};
use super::random::Random;
use super::values::{literal, photo};

/// A statement that writes to a table of photos or of embeddings.
pub(super) fn write(random: &mut Random, owned: &Owned) -> String {
    let source = owned.source(random);
    write_to(random, owned, &source)
}

/// The same, mostly to this table of photos.
pub(super) fn write_to(random: &mut Random, owned: &Owned, source: &Source) -> String {
    if random.chance(12) {
        return write_target(random, owned);
    }
    let Source { table, key, key_type, image, image_type, project, project_type } = source;
    let value = |random: &mut Random, type_name: &str| {
        if type_name == "bytea" { photo(random) } else { literal(random, type_name) }
    };
    let (some_key, some_image) = (literal(random, key_type), value(random, image_type));
    let some_project = value(random, project_type);
    let filter =
        if random.chance(70) { format!(" WHERE {key}::text < '{}'", random.below(6)) } else { String::new() };
    match random.below(22) {
        0..=5 => format!(
            "INSERT INTO {table} ({key}, {image}, {project}) VALUES ({some_key}, {some_image}, {some_project})"
        ),
        6 => {
            let (other_key, other_image) = (literal(random, key_type), value(random, image_type));
            format!(
                "INSERT INTO {table} ({key}, {image}) VALUES ({some_key}, {some_image}), ({other_key}, {other_image})"
            )
        }
        7 => format!(
            "INSERT INTO {table} ({key}, {image}) SELECT g::text::{key_type}, {some_image} FROM generate_series(1, 40) AS g"
        ),
        8 | 9 => format!("UPDATE {table} SET {image} = {some_image}{filter}"),
        10 => format!("UPDATE {table} SET {key} = {some_key}{filter}"),
        11 => format!("UPDATE {table} SET {project} = {some_project}{filter}"),
        12 => format!("UPDATE {table} SET {image} = NULL{filter}"),
        13 | 14 => format!("DELETE FROM {table}{filter}"),
        15 => format!("TRUNCATE {table}{}", random.pick(&["", " CASCADE"])),
        16 => format!(
            "MERGE INTO {table} AS old USING (SELECT {some_key} AS k, {some_image} AS i) AS new ON old.{key}::text = new.k::text \
             WHEN MATCHED THEN UPDATE SET {image} = new.i WHEN NOT MATCHED THEN INSERT ({key}, {image}) VALUES (new.k, new.i)"
        ),
        17 => format!(
            "INSERT INTO {table} ({key}, {image}) VALUES ({some_key}, {some_image}) \
             ON CONFLICT ({key}) DO UPDATE SET {image} = EXCLUDED.{image}"
        ),
        18 => format!(
            "WITH gone AS (DELETE FROM {table} RETURNING {key}) INSERT INTO {table} ({key}, {image}) SELECT {key}, {some_image} FROM gone"
        ),
        19 => format!("INSERT INTO {table} DEFAULT VALUES"),
        20 => format!("INSERT INTO {table} SELECT * FROM {table}"),
        _ => format!("SELECT {image} FROM {table} FOR UPDATE NOWAIT"),
    }
}

fn write_target(random: &mut Random, owned: &Owned) -> String {
    let table = owned.target(random);
    match random.below(6) {
        0 => format!("DELETE FROM {table}"),
        1 => format!("TRUNCATE {table}"),
        2 => format!("UPDATE {table} SET checksum = sha256(image) FROM public.pictures WHERE number = 1"),
        3 => format!(
            "UPDATE {table} SET model = {}",
            random.pick(&["'demo'", "NULL", "repeat('x', 70000)", "''"])
        ),
        4 => format!("UPDATE {table} SET embedding = NULL"),
        _ => match owned.targets.iter().find(|target| target.table == table) {
            Some(target) => {
                let values: Vec<String> =
                    target.types.iter().map(|type_name| literal(random, type_name)).collect();
                format!("INSERT INTO {table} ({}) VALUES ({})", target.columns.join(", "), values.join(", "))
            }
            None => format!("INSERT INTO {table} DEFAULT VALUES"),
        },
    }
}

/// A statement that reads the extension's views.
pub(super) fn monitor(random: &mut Random, catalog: &Catalog) -> String {
    let view = &catalog.views[random.below(catalog.views.len())];
    match random.below(6) {
        0 => format!("SELECT count(*) FROM {view}"),
        1 => format!("SELECT to_jsonb(v) FROM {view} AS v"),
        2 => format!("DECLARE held CURSOR WITH HOLD FOR SELECT * FROM {view}"),
        _ => format!("SELECT * FROM {view}"),
    }
}

/// A setting. The schemas and rights of a session stay as they are: the checks look at them.
pub(super) fn set(random: &mut Random) -> String {
    let settings = [
        "SET DateStyle = 'SQL, DMY'",
        "SET TimeZone = 'Asia/Kolkata'",
        "SET IntervalStyle = 'sql_standard'",
        "SET bytea_output = 'escape'",
        "SET extra_float_digits = -15",
        "SET clip.enabled = off",
        "SET clip.enabled = on",
        "SET clip.model = 'demo'",
        "SET clip.model = 'absent'",
        "SET clip.model = '../demo'",
        "SET clip.request_timeout = 1",
        "SET clip.request_timeout = 30000",
        "SET clip.max_image_bytes = 1",
        "SET clip.max_image_pixels = 2147483647",
        "SET row_security = off",
        "SET check_function_bodies = off",
        "SET default_transaction_read_only = on",
        "SET default_transaction_isolation = 'serializable'",
        "SET plan_cache_mode = 'force_generic_plan'",
        "SET enable_seqscan = off",
        "SET enable_indexscan = off",
        "SET xmloption = 'document'",
        "RESET clip.model",
        "RESET clip.enabled",
        "RESET default_transaction_read_only",
        "RESET default_transaction_isolation",
        "RESET DateStyle",
        "DISCARD PLANS",
        "CLOSE ALL",
    ];
    random.pick(&settings).to_owned()
}

pub(super) const ROLLBACK_PREPARED: &str = "ROLLBACK PREPARED 'hostile'";

/// Several statements in one transaction, which stays, is taken back, or is taken back in part.
pub(super) fn transaction(random: &mut Random, place: &Place, catalog: &Catalog) -> Vec<String> {
    let mut statements = vec!["BEGIN".to_owned()];
    for number in 0..2 + random.below(3) {
        if random.chance(20) {
            statements.push(format!("SAVEPOINT s{number}"));
        }
        statements.push(match random.below(6) {
            0 => place.own.alter(random),
            1 => place.watch(random),
            2 => place.any(random, catalog),
            3 => "SET CONSTRAINTS ALL IMMEDIATE".to_owned(),
            _ => write(random, place.own),
        });
    }
    let end = random.weighted(&[(60, "COMMIT"), (25, "ROLLBACK"), (15, "PREPARE TRANSACTION 'hostile'")]);
    statements.push(end.to_owned());
    let mut sent = vec![statements.join("; ")];
    if end.starts_with("PREPARE") {
        // On its own: it is refused where it is one of several.
        sent.push(ROLLBACK_PREPARED.to_owned());
    }
    sent
}
