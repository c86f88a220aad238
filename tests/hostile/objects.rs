//! The tables, views and other relations that the statements are about, and the ALTER statements on them.

use super::planted;
use super::random::Random;
use super::values::{self, TYPES, VECTOR_TYPES};

/// Which of the two roles sends a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Superuser,
    Stranger,
}

/// A table of photos as it was meant; a failed or a later statement may have changed it.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) table: String,
    pub(super) key: String,
    pub(super) key_type: String,
    pub(super) image: String,
    pub(super) image_type: String,
    pub(super) project: String,
    pub(super) project_type: String,
}

/// A table of embeddings, in the same way.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) table: String,
    pub(super) columns: [String; 5],
    pub(super) types: [String; 5],
}

/// The objects of one of the roles.
pub(super) struct Owned {
    pub(super) role: Role,
    pub(super) schema: &'static str,
    pub(super) sources: Vec<Source>,
    pub(super) targets: Vec<Target>,
}

const SOURCES: [&str; 7] = [
    "photos",
    "\"we\"\"ird\"",
    "\"SELECT\"",
    "\"%I %s $1\"",
    "\"ünï çødé '\"",
    "\"a_name_that_is_exactly_as_long_as_a_name_may_be_in_postgresql_63\"",
    "parted",
];
const TARGETS: [&str; 5] = ["image_embeddings", "\"e\"\"mb\"", "new_rows", "\"t.s\"", "\"clip_queue\""];
const VIEWS: [&str; 3] = ["v0", "v1", "photo"];

impl Owned {
    pub(super) fn new(role: Role) -> Owned {
        let schema = match role {
            Role::Superuser => "su",
            Role::Stranger => "stranger",
        };
        Owned { role, schema, sources: Vec::new(), targets: Vec::new() }
    }

    pub(super) fn named(&self, name: &str) -> String {
        format!("{}.{name}", self.schema)
    }

    /// Notes tables that related statements make.
    pub(super) fn remember(&mut self, source: Source, target: Target) {
        self.sources.retain(|known| known.table != source.table);
        self.targets.retain(|known| known.table != target.table);
        self.sources.push(source);
        self.targets.push(target);
    }

    /// A column's type: mostly the usual one.
    fn type_of(&self, random: &mut Random, usual: &[&str], percent: u32, others: &[&str]) -> String {
        if random.chance(percent) {
            random.pick(usual).to_owned()
        } else if self.role == Role::Stranger && random.chance(35) {
            random.pick(&planted::TYPES).to_owned()
        } else {
            random.pick(others).to_owned()
        }
    }

    pub(super) fn create_source(&mut self, random: &mut Random) -> String {
        let name = random.pick(&SOURCES);
        let is_parted = name == "parted";
        let column = |random: &mut Random, usual: &str, odd: &[&str]| {
            if random.chance(85) { usual.to_owned() } else { random.pick(odd).to_owned() }
        };
        let source = Source {
            table: self.named(name),
            key: column(random, "id", &["\"k\"\"ey\"", "\"user\"", "image_id", "t"]),
            key_type: self.type_of(random, &["int", "bigint", "text", "uuid"], 70, &TYPES),
            image: column(random, "image", &["\"im age\"", "\"Image\"", "embedding"]),
            image_type: self.type_of(random, &["bytea"], 80, &TYPES),
            project: column(random, "project", &["\"order\"", "checksum", "photo"]),
            project_type: self.type_of(random, &["text", "int"], 70, &TYPES),
        };
        let persistence = random.weighted(&[(88, ""), (8, "UNLOGGED "), (4, "TEMPORARY ")]);
        let table = if persistence == "TEMPORARY " { name } else { &source.table };
        let unique = random.weighted(&[(80, "PRIMARY KEY"), (10, "UNIQUE"), (10, "")]);
        let generated = match random.below(12) {
            0 => " GENERATED ALWAYS AS ('a') STORED".to_owned(),
            1 => " GENERATED ALWAYS AS ('a') VIRTUAL".to_owned(),
            2 => format!(" DEFAULT {}", values::literal(random, &source.project_type)),
            _ => String::new(),
        };
        let tail = if is_parted {
            format!(" PARTITION BY {} ({})", random.pick(&["RANGE", "LIST", "HASH"]), source.key)
        } else if random.chance(5) && self.sources.first().is_some_and(|first| first.table != source.table) {
            format!(" INHERITS ({})", self.sources[0].table)
        } else {
            String::new()
        };
        let columns = [
            format!("{} {} {unique}", source.key, source.key_type),
            format!("{} {}{generated}", source.project, source.project_type),
            format!("{} {}", source.image, source.image_type),
        ];
        let statement = format!("CREATE {persistence}TABLE {table} ({}){tail}", columns.join(", "));
        self.sources.retain(|known| known.table != source.table);
        self.sources.push(source);
        statement
    }

    pub(super) fn create_target(&mut self, random: &mut Random) -> String {
        let name = random.pick(&TARGETS);
        let key_type = match self.sources.len() {
            0 => "int".to_owned(),
            count => self.sources[random.below(count)].key_type.clone(),
        };
        let types = [
            if random.chance(75) { key_type } else { random.pick(&TYPES).to_owned() },
            self.type_of(random, &["public.vector(512)", "public.vector"], 75, &VECTOR_TYPES),
            self.type_of(random, &["bytea"], 90, &TYPES),
            self.type_of(random, &["text"], 90, &TYPES),
            self.type_of(random, &["text", "int"], 75, &TYPES),
        ];
        let columns = ["image_id", "embedding", "checksum", "model", "project"]
            .map(|usual| if random.chance(96) { usual.to_owned() } else { "\"o\"\"dd\"".to_owned() });
        let target = Target { table: self.named(name), columns, types };
        let unique = random.weighted(&[(90, " PRIMARY KEY"), (10, "")]);
        let definitions: Vec<String> = (0..5)
            .map(|at| {
                format!("{} {}{}", target.columns[at], target.types[at], if at == 0 { unique } else { "" })
            })
            .collect();
        let statement = format!("CREATE TABLE {} ({})", target.table, definitions.join(", "));
        self.targets.retain(|known| known.table != target.table);
        self.targets.push(target);
        statement
    }

    pub(super) fn source(&self, random: &mut Random) -> Source {
        match self.sources.len() {
            0 => Source {
                table: self.named("photos"),
                key: "id".to_owned(),
                key_type: "int".to_owned(),
                image: "image".to_owned(),
                image_type: "bytea".to_owned(),
                project: "project".to_owned(),
                project_type: "text".to_owned(),
            },
            count => self.sources[random.below(count)].clone(),
        }
    }

    /// The name of a target, whether it is there or not.
    pub(super) fn target(&self, random: &mut Random) -> String {
        match self.targets.len() {
            count if count > 0 && random.chance(70) => self.targets[random.below(count)].table.clone(),
            _ => self.named(random.pick(&TARGETS)),
        }
    }

    /// The name of anything of the role that might be there.
    pub(super) fn relation(&self, random: &mut Random) -> String {
        match random.below(10) {
            0..=4 => self.source(random).table,
            5..=7 => self.target(random),
            8 => self.named(random.pick(&VIEWS)),
            _ => self.named(random.pick(&["s0", "i0", "parted_1", "parted_2", "m0", "f0", "absent"])),
        }
    }

    /// A view, a sequence, an index, a partition, a materialized view.
    pub(super) fn create_other(&self, random: &mut Random) -> String {
        let source = self.source(random);
        let (key, image, table) = (&source.key, &source.image, &source.table);
        let view = self.named(random.pick(&VIEWS));
        let partition = self.named(random.pick(&["parted_1", "parted_2"]));
        let parent = self.named("parted");
        match random.below(12) {
            0 | 1 => {
                let filter = if self.role == Role::Stranger { " WHERE stranger.planted()" } else { "" };
                format!(
                    "CREATE OR REPLACE VIEW {view} AS SELECT {key} AS id, {image} AS image FROM {table}{filter}"
                )
            }
            2 => format!(
                "CREATE OR REPLACE VIEW {view} AS SELECT 1 AS id, '\\x00'::bytea AS image, 1 AS image_id, \
                 array_fill(1::real, ARRAY[512])::public.vector AS embedding, '\\x00'::bytea AS checksum, \
                 'demo'::text AS model"
            ),
            3 => format!("CREATE SEQUENCE {}", self.named("s0")),
            4 => format!("CREATE INDEX i0 ON {table} ({key})"),
            5 => format!("CREATE MATERIALIZED VIEW {} AS SELECT * FROM {table}", self.named("m0")),
            6 | 7 => {
                let bounds = random.pick(&[
                    "FROM (MINVALUE) TO ('3')",
                    "FROM ('3') TO (MAXVALUE)",
                    "IN ('1', '2')",
                    "WITH (MODULUS 2, REMAINDER 0)",
                ]);
                format!("CREATE TABLE {partition} PARTITION OF {parent} FOR VALUES {bounds}")
            }
            8 => format!("CREATE TABLE {partition} PARTITION OF {parent} DEFAULT"),
            9 => format!("ALTER TABLE {parent} DETACH PARTITION {partition}"),
            10 => format!("ALTER TABLE {parent} ATTACH PARTITION {partition} DEFAULT"),
            _ => format!("ALTER TABLE {table} INHERIT {}", self.source(random).table),
        }
    }

    /// Something that changes a table under a watch.
    pub(super) fn alter(&self, random: &mut Random) -> String {
        if random.chance(55) { self.alter_source(random) } else { self.alter_target(random) }
    }

    fn alter_source(&self, random: &mut Random) -> String {
        let source = self.source(random);
        let table = &source.table;
        let column = random.pick(&[&source.key, &source.image, &source.project]).clone();
        match random.below(16) {
            0..=5 => {
                let type_name = self.type_of(random, &["bigint", "text", "bytea"], 50, &TYPES);
                format!("ALTER TABLE {table} ALTER {column} TYPE {type_name} USING {}", {
                    let literal = values::literal(random, &type_name);
                    if random.chance(60) { literal } else { format!("{column}::text::{type_name}") }
                })
            }
            6 => format!("ALTER TABLE {table} RENAME {column} TO {column}_"),
            7 => format!("ALTER TABLE {table} DROP {column} CASCADE"),
            8 => format!("ALTER TABLE {table} RENAME TO moved"),
            9 => format!("ALTER TABLE {table} SET SCHEMA public"),
            10 => format!("DROP TABLE {table} CASCADE"),
            11 => format!(
                "ALTER TABLE {table} DISABLE TRIGGER {}",
                random.pick(&["ALL", "USER", "clip_watch_update"])
            ),
            12 => format!(
                "DROP TRIGGER {} ON {table}",
                random.pick(&["clip_watch_insert", "clip_watch_delete"])
            ),
            13 => format!("ALTER TABLE {table} DROP CONSTRAINT IF EXISTS photos_pkey CASCADE"),
            14 => format!("ALTER TABLE {table} ADD {column} {}", random.pick(&TYPES)),
            _ => format!("ALTER TRIGGER clip_watch_insert ON {table} RENAME TO zz"),
        }
    }

    fn alter_target(&self, random: &mut Random) -> String {
        let table = self.target(random);
        let at = random.below(5);
        let column = ["image_id", "embedding", "checksum", "model", "project"][at];
        match random.below(14) {
            0..=6 => {
                let type_name = match at {
                    1 => self.type_of(random, &VECTOR_TYPES, 90, &TYPES),
                    _ => self.type_of(random, &["bigint", "text", "bytea"], 40, &TYPES),
                };
                let using = match random.below(3) {
                    0 => values::literal(random, &type_name),
                    1 => format!("{column}::{type_name}"),
                    _ => format!("{column}::text::{type_name}"),
                };
                format!(
                    "ALTER TABLE {table} ALTER {column} DROP DEFAULT, ALTER {column} TYPE {type_name} USING {using}"
                )
            }
            7 => format!("ALTER TABLE {table} RENAME {column} TO {column}_"),
            8 => format!("ALTER TABLE {table} DROP {column} CASCADE"),
            9 => format!("DROP TABLE {table} CASCADE"),
            10 => format!("ALTER TABLE {table} RENAME TO moved"),
            11 => format!("ALTER TABLE {table} ADD clip_next_embedding {}", random.pick(&VECTOR_TYPES)),
            12 => format!("ALTER TABLE {table} ADD clip_next_model {}", random.pick(&TYPES)),
            _ => format!("CREATE INDEX ON {table} USING hnsw (embedding public.vector_cosine_ops)"),
        }
    }
}
