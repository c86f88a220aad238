//! Statements that belong together: tables that fit but for one column, a watch on them, rows, a change under the watch,
//! and the roles that look at it and maintain it. Random statements alone seldom come so far.

use super::calls::{Catalog, Place, quoted};
use super::objects::{Owned, Role, Source, Target};
use super::random::Random;
use super::values::{self, TYPES, VECTOR_TYPES};
use super::{planted, rows};

/// Where the odd column is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Odd {
    Nowhere,
    Key,
    Image,
    Project,
    TargetKey,
    Embedding,
    Checksum,
    Model,
    TargetProject,
}

/// Tables of one of the roles, a watch on them, and both roles' statements then.
pub(super) fn related(
    random: &mut Random,
    own: &mut Owned,
    other: &Owned,
    catalog: &Catalog,
) -> Vec<(Role, String)> {
    let (source, target) = pair(random, own);
    let role = own.role;
    let mut sent: Vec<(Role, String)> = Vec::new();
    let mut own_sends = |statements: Vec<String>| {
        sent.extend(statements.into_iter().map(|statement| (role, statement)));
    };
    own_sends(create(&source, &target));
    let is_partitioned = random.chance(15);
    if is_partitioned {
        own_sends(create_partitioned(&target));
    }
    let is_early = random.chance(30);
    let plant = |random: &mut Random| {
        let table = if random.chance(50) { &source.table } else { &target.table };
        planted::on_table(random, table, &source)
    };
    if role == Role::Stranger && random.chance(60) {
        own_sends(vec![plant(random), planted::for_everybody(random)]);
    }
    if is_early {
        own_sends(some_rows(random, own, &source));
    }
    let theirs = role == Role::Stranger && random.chance(25);
    let attached = attach(random, &source, &target);
    if theirs {
        sent.extend(attached.into_iter().map(|statement| (Role::Superuser, statement)));
    } else {
        sent.extend(attached.into_iter().map(|statement| (role, statement)));
    }
    for _ in 0..2 {
        let place = Place { own, other };
        sent.extend(some_rows(random, own, &source).into_iter().map(|statement| (role, statement)));
        sent.push((role, change(random, own, &source, &target)));
        if is_partitioned && role == Role::Superuser && random.chance(50) {
            // A superuser alone gives a table away.
            let owner = random.pick(&["stranger", "postgres"]);
            sent.push((role, format!("ALTER TABLE {}_0 OWNER TO {owner}", target.table)));
        }
        if role == Role::Stranger && random.chance(50) {
            sent.push((role, plant(random)));
        }
        sent.extend(some_rows(random, own, &source).into_iter().map(|statement| (role, statement)));
        for _ in 0..2 {
            let caller = if random.chance(60) { Role::Superuser } else { role };
            sent.push((caller, maintain(random, &source, &target)));
        }
        let reader = if random.chance(70) { Role::Superuser } else { role };
        sent.push((reader, rows::monitor(random, catalog)));
        if random.chance(30) {
            sent.push((role, place.any(random, catalog)));
        }
    }
    sent
}

/// A source and a target that fit one another, but for one column.
fn pair(random: &mut Random, owned: &mut Owned) -> (Source, Target) {
    let odd = random.weighted(&[
        (30, Odd::Nowhere),
        (10, Odd::Key),
        (20, Odd::Image),
        (10, Odd::Project),
        (6, Odd::TargetKey),
        (12, Odd::Embedding),
        (5, Odd::Checksum),
        (5, Odd::Model),
        (5, Odd::TargetProject),
    ]);
    let odd_type = |random: &mut Random, at: Odd, usual: &str, others: &[&str]| {
        if at != odd {
            usual.to_owned()
        } else if owned.role == Role::Stranger && random.chance(30) {
            random.pick(&planted::TYPES).to_owned()
        } else {
            random.pick(others).to_owned()
        }
    };
    let usual_key = random.pick(&["int", "bigint", "text", "uuid", "date"]);
    let key = odd_type(random, Odd::Key, usual_key, &TYPES);
    let project = odd_type(random, Odd::Project, "text", &TYPES);
    let source = Source {
        table: owned.named(&format!("related{}", random.below(2))),
        key: "id".to_owned(),
        key_type: key.clone(),
        image: "image".to_owned(),
        image_type: odd_type(random, Odd::Image, "bytea", &TYPES),
        project: "project".to_owned(),
        project_type: project.clone(),
    };
    let types = [
        odd_type(random, Odd::TargetKey, &key, &TYPES),
        odd_type(random, Odd::Embedding, "public.vector(512)", &VECTOR_TYPES),
        odd_type(random, Odd::Checksum, "bytea", &TYPES),
        odd_type(random, Odd::Model, "text", &TYPES),
        odd_type(random, Odd::TargetProject, &project, &TYPES),
    ];
    let columns = ["image_id", "embedding", "checksum", "model", "project"].map(str::to_owned);
    let target = Target { table: format!("{}_e", source.table), columns, types };
    owned.remember(source.clone(), target.clone());
    (source, target)
}

fn create(source: &Source, target: &Target) -> Vec<String> {
    vec![
        format!("DROP TABLE IF EXISTS {}, {} CASCADE", source.table, target.table),
        format!(
            "CREATE TABLE {} (id {} UNIQUE, project {}, image {})",
            source.table, source.key_type, source.project_type, source.image_type
        ),
        format!("CREATE TABLE {} ({}, UNIQUE (image_id))", target.table, columns_of(target)),
    ]
}

/// Has the photos of the source embedded: by `clip_watch`, or by triggers written by hand.
fn attach(random: &mut Random, source: &Source, target: &Target) -> Vec<String> {
    let (table, to) = (&source.table, &target.table);
    let mode = random.pick(&["sync", "async"]);
    let project = random.chance(70);
    match random.below(10) {
        0..=5 => {
            let options = [
                "",
                ", replicated => true",
                ", storage => 'halfvec'",
                ", reference_column => 'project'",
                ", image_column => 'project'",
                ", target_key_column => 'project'",
                ", embedding_column => 'checksum'",
                ", checksum_column => 'model'",
            ];
            let option = if random.chance(60) { "" } else { random.pick(&options) };
            let from = if random.chance(90) { table.clone() } else { format!("{table}_v") };
            let mut statements = Vec::new();
            if from != *table {
                statements.push(format!(
                    "CREATE OR REPLACE VIEW {from} AS SELECT id, image, project FROM {table}{}",
                    if table.starts_with("stranger") { " WHERE stranger.planted()" } else { "" }
                ));
            }
            statements.push(format!(
                "SELECT public.clip_watch('{from}', target => '{to}', mode => '{mode}', key_column => 'id'{}{option})",
                if project { ", project_column => 'project'" } else { "" }
            ));
            statements
        }
        _ => {
            let arguments = format!(
                "'target={}', 'key_column=id'{}",
                quoted(to),
                if project { ", 'project_column=project'" } else { "" }
            );
            [
                ("INSERT", "REFERENCING NEW TABLE AS new_rows"),
                ("UPDATE", "REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows"),
                ("DELETE", "REFERENCING OLD TABLE AS old_rows"),
                ("TRUNCATE", ""),
            ]
            .map(|(event, tables)| {
                format!(
                    "CREATE TRIGGER hand_{event} AFTER {event} ON {table} {tables} FOR EACH STATEMENT \
                     EXECUTE FUNCTION public.clip_fill_image_embeddings({arguments})"
                )
            })
            .to_vec()
        }
    }
}

fn some_rows(random: &mut Random, owned: &Owned, source: &Source) -> Vec<String> {
    let insert = |random: &mut Random| {
        let image = match source.image_type.as_str() {
            "bytea" => values::photo(random),
            other => values::literal(random, other),
        };
        format!(
            "INSERT INTO {} (id, image, project) VALUES ({}, {image}, {})",
            source.table,
            values::literal(random, &source.key_type),
            values::literal(random, &source.project_type)
        )
    };
    let mut statements = vec![insert(random), insert(random)];
    for _ in 0..2 {
        statements.push(rows::write_to(random, owned, source));
    }
    statements
}

/// Changes a table under its watch.
fn change(random: &mut Random, owned: &Owned, source: &Source, target: &Target) -> String {
    let new_type = |random: &mut Random, types: &[&str]| {
        let of_role = owned.role == Role::Stranger && random.chance(25);
        random.pick(if of_role { &planted::TYPES } else { types }).to_owned()
    };
    match random.below(14) {
        12..=13 => rename_schema(random, owned, source, target),
        0..=4 => {
            let column = random.pick(&["id", "image", "project"]);
            let type_name = new_type(random, &TYPES);
            let using = values::literal(random, &type_name);
            format!("ALTER TABLE {} ALTER {column} TYPE {type_name} USING {using}", source.table)
        }
        5..=8 => {
            let column = random.pick(&["image_id", "embedding", "embedding", "checksum", "model", "project"]);
            let types: &[&str] = if column == "embedding" { &VECTOR_TYPES } else { &TYPES };
            let type_name = new_type(random, types);
            let using = if column == "embedding" && random.chance(70) {
                format!("embedding::{type_name}")
            } else {
                values::literal(random, &type_name)
            };
            format!("ALTER TABLE {} ALTER {column} TYPE {type_name} USING {using}", target.table)
        }
        9 => format!(
            "ALTER TABLE {} RENAME {} TO other",
            source.table,
            random.pick(&["id", "image", "project"])
        ),
        10 => format!(
            "BEGIN; DROP TABLE {0} CASCADE; CREATE TABLE {0} (image_id {1} UNIQUE, embedding public.vector(512), \
             checksum bytea, model text, project {2}); COMMIT",
            target.table, source.key_type, source.project_type
        ),
        _ => format!(
            "BEGIN; DROP TABLE {0} CASCADE; CREATE VIEW {0} AS SELECT NULL::{1} AS image_id, \
             NULL::public.vector AS embedding, NULL::bytea AS checksum, NULL::text AS model, NULL::text AS project; COMMIT",
            target.table, source.key_type
        ),
    }
}

/// Makes the target partitioned: the parts may become another role's.
fn create_partitioned(target: &Target) -> Vec<String> {
    vec![
        format!("DROP TABLE IF EXISTS {} CASCADE", target.table),
        format!(
            "CREATE TABLE {} ({}, UNIQUE (image_id)) PARTITION BY HASH (image_id)",
            target.table,
            columns_of(target)
        ),
        format!("CREATE TABLE {0}_0 PARTITION OF {0} FOR VALUES WITH (MODULUS 2, REMAINDER 0)", target.table),
        format!("CREATE TABLE {0}_1 PARTITION OF {0} FOR VALUES WITH (MODULUS 2, REMAINDER 1)", target.table),
    ]
}

/// The columns of a target as CREATE TABLE names them.
fn columns_of(target: &Target) -> String {
    let columns =
        target.columns.iter().zip(&target.types).map(|(name, type_name)| format!("{name} {type_name}"));
    columns.collect::<Vec<_>>().join(", ")
}

/// Has other tables stand under the names of those that are watched, for a moment.
fn rename_schema(random: &mut Random, owned: &Owned, source: &Source, target: &Target) -> String {
    let schema = &owned.schema;
    let name = target.table.rsplit('.').next().unwrap_or_default();
    let write = rows::write_to(random, owned, source);
    let write = write.replace(&format!("{schema}."), &format!("{schema}_was."));
    format!(
        "BEGIN; ALTER SCHEMA {schema} RENAME TO {schema}_was; CREATE SCHEMA {schema};
        CREATE TABLE {schema}.{name} (image_id {} UNIQUE, embedding public.vector(512), checksum bytea, model text,
            project {}); {write}; ROLLBACK",
        source.key_type, source.project_type
    )
}

/// A call that maintains the watched table.
fn maintain(random: &mut Random, source: &Source, target: &Target) -> String {
    let (table, to) = (&source.table, &target.table);
    match random.below(14) {
        0..=2 => {
            format!("CALL public.clip_backfill('{table}'::regclass, {})", random.pick(&["true", "false"]))
        }
        3 => format!("CALL public.clip_migrate('{to}'::regclass, 'demo'::text, false)"),
        4 => format!("SELECT public.clip_retry('{table}'::regclass)"),
        5 => format!("SELECT public.clip_unwatch('{table}'::regclass)"),
        6..=7 => format!("SELECT * FROM public.clip_verify('{table}'::regclass)"),
        8 => format!("CALL public.clip_backfill('{table}'::regclass, verify => true)"),
        9 => format!(
            "CALL public.clip_migrate('{to}'::regclass, 'demo'::text, false, '{}')",
            random.pick(&["vector", "halfvec", "bit"])
        ),
        10 => format!("SELECT * FROM public.clip_count('{table}'::regclass)"),
        11..=12 => {
            let columns = ["embedding", "checksum", "model", "project", "image_id", "absent"];
            format!(
                "SELECT * FROM public.clip_embedding_row({}, '{to}'::regclass, '{}', '{}', '{}')",
                values::photo(random),
                if random.chance(70) { "embedding" } else { random.pick(&columns) },
                if random.chance(70) { "checksum" } else { random.pick(&columns) },
                if random.chance(70) { "model" } else { random.pick(&columns) },
            )
        }
        _ => format!("SELECT public.clip_abandon_migration('{to}'::regclass)"),
    }
}
