//! Calls of the extension's public and private functions, and triggers written by hand.

use postgres::Client;

use super::objects::{Owned, Role};
use super::random::Random;
use super::values;

/// A function or procedure of the extension.
pub(super) struct Function {
    name: String,
    is_procedure: bool,
    returns_set: bool,
    types: Vec<String>,
    defaults: usize,
}

/// The extension's objects: read from the catalogs, so that a new object cannot be forgotten.
pub(super) struct Catalog {
    pub(super) functions: Vec<Function>,
    pub(super) views: Vec<String>,
    pub(super) tables: Vec<String>,
}

impl Catalog {
    pub(super) fn read(client: &mut Client) -> Catalog {
        let query = "SELECT format('%I.%I', nspname, proname), prokind = 'p', proretset,
                ARRAY(SELECT format_type(type, NULL) FROM unnest(proargtypes) AS type), pronargdefaults::int
            FROM pg_depend JOIN pg_extension ON pg_extension.oid = refobjid AND extname = 'pg_clip'
            JOIN pg_proc ON pg_proc.oid = objid JOIN pg_namespace ON pg_namespace.oid = pronamespace
            WHERE classid = 'pg_proc'::regclass AND deptype = 'e' ORDER BY proname, proargtypes::text";
        let rows = client.query(query, &[]).expect("the extension's functions are read");
        let functions = rows.iter().map(|row| Function {
            name: row.get(0),
            is_procedure: row.get(1),
            returns_set: row.get(2),
            types: row.get(3),
            defaults: usize::try_from(row.get::<_, i32>(4)).expect("a count"),
        });
        let mut relations = |kind: &str| {
            let query = "SELECT oid::regclass::text FROM pg_class JOIN pg_depend ON objid = pg_class.oid
                WHERE classid = 'pg_class'::regclass AND deptype = 'e' AND relkind::text = $1
                    AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_clip') ORDER BY relname";
            let rows = client.query(query, &[&kind]).expect("the extension's relations are read");
            rows.iter().map(|row| format!("public.{}", row.get::<_, String>(0))).collect()
        };
        let (views, tables) = (relations("v"), relations("r"));
        Catalog { functions: functions.collect(), views, tables }
    }
}

/// The two sides, seen by the role that acts.
pub(super) struct Place<'a> {
    pub(super) own: &'a Owned,
    pub(super) other: &'a Owned,
}

impl Place<'_> {
    /// A table for a call: one's own, one of the other role, or something that is no table at all. The superuser
    /// names no table that the checks rely on: it may do with them as it likes, and would.
    pub(super) fn regclass(&self, random: &mut Random) -> String {
        let foreign = match self.own.role {
            Role::Superuser => "pg_catalog.pg_proc",
            Role::Stranger => random.pick(&["private.secrets", "neighbour.photos", "neighbour.async_photos"]),
        };
        let name = match random.below(20) {
            0..=11 => self.own.relation(random),
            12..=14 => self.other.relation(random),
            15 => foreign.to_owned(),
            16 => {
                random.pick(&["public.clip_queue", "public.clip_watches", "public.clip_coverage"]).to_owned()
            }
            17 => random
                .pick(&["pg_catalog.pg_class", "pg_catalog.pg_authid", "pg_toast.pg_toast_1255"])
                .to_owned(),
            18 => return random.pick(&["NULL::regclass", "0::regclass", "4294967295::regclass"]).to_owned(),
            _ => return format!("pg_catalog.to_regclass('{}')", quoted(&self.own.relation(random))),
        };
        format!("'{}'::pg_catalog.regclass", quoted(&name))
    }

    fn argument(&self, random: &mut Random, type_name: &str) -> String {
        match type_name {
            "regclass" => self.regclass(random),
            "name" => {
                let columns = [
                    "id",
                    "image",
                    "project",
                    "image_id",
                    "embedding",
                    "checksum",
                    "model",
                    "ctid",
                    "k\"ey",
                    "absent",
                ];
                let name = random.pick(&columns);
                if random.chance(10) { "NULL::name".to_owned() } else { format!("'{}'::name", quoted(name)) }
            }
            "text" if random.chance(20) => format!("'{}'", quoted(&self.own.relation(random))),
            "text" => values::text(random, "text"),
            _ => values::literal(random, type_name),
        }
    }

    /// A call of any function of the extension.
    pub(super) fn any(&self, random: &mut Random, catalog: &Catalog) -> String {
        let function = &catalog.functions[random.below(catalog.functions.len())];
        let given = function.types.len() - random.below(function.defaults + 1);
        let arguments: Vec<String> =
            function.types[..given].iter().map(|type_name| self.argument(random, type_name)).collect();
        let call = format!("{}({})", function.name, arguments.join(", "));
        if function.is_procedure {
            format!("CALL {call}")
        } else if function.returns_set || random.chance(30) {
            format!("SELECT * FROM {call}")
        } else if random.chance(10) {
            format!("SELECT {call} FROM generate_series(1, 3)")
        } else {
            format!("SELECT {call}")
        }
    }

    /// A call of `clip_watch` that might succeed.
    pub(super) fn watch(&self, random: &mut Random) -> String {
        let theirs = self.own.role == Role::Superuser && random.chance(40);
        let owned = if theirs { self.other } else { self.own };
        let source = owned.source(random);
        let table = if random.chance(85) { source.table } else { owned.relation(random) };
        let target = if random.chance(85) { owned.target(random) } else { self.other.target(random) };
        let mut arguments = vec![
            format!("'{}'", quoted(&table)),
            format!("target => '{}'", quoted(&target)),
            format!("mode => '{}'", random.pick(&["sync", "async"])),
        ];
        for (name, column, percent) in [
            ("image_column", &source.image, 60),
            ("key_column", &source.key, 60),
            ("project_column", &source.project, 60),
            ("target_key_column", &"image_id".to_owned(), 10),
            ("embedding_column", &"embedding".to_owned(), 10),
        ] {
            if random.chance(percent) {
                let unquoted = column.trim_matches('"').replace("\"\"", "\"");
                arguments.push(format!("{name} => '{}'", quoted(&unquoted)));
            }
        }
        format!("SELECT public.clip_watch({})", arguments.join(", "))
    }

    /// A call of `clip_watch` that names columns and tables that do not fit.
    pub(super) fn watch_what_does_not_fit(&self, random: &mut Random) -> String {
        let source = self.own.source(random);
        let unquoted = |column: &str| quoted(&column.trim_matches('"').replace("\"\"", "\""));
        let (table, target) = match random.below(3) {
            0 => (format!("'{}'::regclass", quoted(&source.table)), self.own.target(random)),
            1 => (self.regclass(random), self.own.target(random)),
            _ => (self.regclass(random), self.own.relation(random)),
        };
        let project = if random.chance(60) {
            format!(", project_column => '{}'", unquoted(&source.project))
        } else {
            String::new()
        };
        format!(
            "SELECT public.clip_watch({table}, target => '{}', mode => '{}', image_column => '{}', key_column => '{}', \
             target_key_column => '{}', embedding_column => '{}'{project})",
            quoted(&target),
            random.pick(&["sync", "async", "", "SYNC"]),
            unquoted(&source.image),
            unquoted(&source.key),
            random.pick(&["image_id", "id", "absent"]),
            random.pick(&["embedding", "image", "id"]),
        )
    }

    /// A trigger of the extension's, written by hand.
    pub(super) fn trigger(&self, random: &mut Random) -> String {
        let source = self.own.source(random);
        let on = if random.chance(90) { source.table } else { self.own.relation(random) };
        let number = random.below(3);
        if random.chance(15) {
            let arguments =
                random.pick(&["", "'demo'", "'demo', 'demo@00'", "'a', 'b', 'c'", "'%I', E'\\n'"]);
            let target = self.own.target(random);
            let event = random.pick(&["BEFORE UPDATE", "BEFORE INSERT OR UPDATE", "AFTER DELETE"]);
            return format!(
                "CREATE TRIGGER next{number} {event} ON {target} FOR EACH ROW \
                 EXECUTE FUNCTION public.clip_forget_next_embedding({arguments})"
            );
        }
        let (event, tables) = random.weighted(&[
            (30, ("AFTER INSERT", "REFERENCING NEW TABLE AS new_rows")),
            (10, ("AFTER INSERT", "REFERENCING NEW TABLE AS \"n\"\"r\"")),
            (25, ("AFTER UPDATE", "REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows")),
            (15, ("AFTER DELETE", "REFERENCING OLD TABLE AS old_rows")),
            (8, ("AFTER TRUNCATE", "")),
            (4, ("AFTER INSERT OR UPDATE OR DELETE", "")),
            (4, ("BEFORE INSERT", "")),
            (4, ("INSTEAD OF INSERT", "")),
        ]);
        let level = if random.chance(93) { "STATEMENT" } else { "ROW" };
        let mut arguments = vec![format!("'target={}'", quoted(&self.own.target(random)))];
        for (name, column) in [
            ("image_column", &source.image),
            ("key_column", &source.key),
            ("project_column", &source.project),
        ] {
            if random.chance(60) {
                let unquoted = column.trim_matches('"').replace("\"\"", "\"");
                arguments.push(format!("'{name}={}'", quoted(&unquoted)));
            }
        }
        if random.chance(12) {
            let odd = [
                "'target'",
                "'='",
                "''",
                "'target=a.b.c'",
                "'key_column=ctid'",
                "'embedding_column=image_id'",
                "'checksum_column=embedding'",
                "'target_key_column=embedding'",
                "'image_column=id'",
                "E'a\\nb=c'",
            ];
            arguments.push(random.pick(&odd).to_owned());
        }
        format!(
            "CREATE TRIGGER hand{number} {event} ON {on} {tables} FOR EACH {level} \
             EXECUTE FUNCTION public.clip_fill_image_embeddings({})",
            arguments.join(", ")
        )
    }

    /// An attempt on the extension itself. The superuser's is taken back: it may do that.
    pub(super) fn on_extension(&self, random: &mut Random, catalog: &Catalog) -> String {
        let function = &catalog.functions[random.below(catalog.functions.len())];
        let signature = format!("{}({})", function.name, function.types.join(", "));
        let routine = if function.is_procedure { "PROCEDURE" } else { "FUNCTION" };
        let relation = &catalog.tables[random.below(catalog.tables.len())];
        let source = self.regclass(random);
        let statement = match random.below(14) {
            0 => "DROP EXTENSION pg_clip CASCADE".to_owned(),
            1 => format!("ALTER EXTENSION pg_clip SET SCHEMA {}", self.own.schema),
            2 => format!("DROP {routine} {signature} CASCADE"),
            3 => format!("ALTER {routine} {signature} RENAME TO stolen"),
            4 => format!("ALTER {routine} {signature} SECURITY DEFINER"),
            5 => format!("ALTER {routine} {signature} OWNER TO stranger"),
            6 => format!("INSERT INTO {relation} DEFAULT VALUES"),
            7 => format!("DELETE FROM {relation}"),
            8 => format!("TRUNCATE {relation}"),
            9 => format!("ALTER TABLE {relation} ADD planted int DEFAULT 1"),
            10 => format!(
                "CREATE TRIGGER planted AFTER INSERT ON {relation} EXECUTE FUNCTION public.clip_fill_image_embeddings()"
            ),
            11 => format!(
                "INSERT INTO public.clip_queue (source, key) VALUES ({source}, {})",
                values::text(random, "text")
            ),
            12 => format!(
                "UPDATE public.clip_watches SET {} WHERE source = {source}",
                random.pick(&[
                    "image_column = 'id'",
                    "key_column = 'image'",
                    "embedding_column = 'checksum'",
                    "mode = 'async'",
                    "project_column = 'id', target_project_column = 'project'",
                    "model = repeat('x', 70000)",
                    "target = 0::regclass",
                    "target_key_column = 'embedding'",
                ])
            ),
            _ => "DROP EXTENSION vector CASCADE".to_owned(),
        };
        // Rows that the superuser writes into the extension's tables stay: their readers must bear them.
        let stays = statement.starts_with("INSERT INTO public.clip_queue") || statement.starts_with("UPDATE");
        if self.own.role == Role::Superuser && !stays {
            format!("BEGIN; {statement}; ROLLBACK")
        } else {
            statement
        }
    }
}

/// The inside of a string literal.
pub(super) fn quoted(text: &str) -> String {
    text.replace('\'', "''")
}
