//! Tables of references: the roles that may feed them, a feeder's claims and calls, and changes of the table
//! meanwhile.

use super::objects::{Owned, Role};
use super::random::Random;
use super::values::{self, TYPES};
use super::{planted, rows};

/// A table of one of the roles, and both roles' statements about it.
pub(super) fn feeding(
    random: &mut Random,
    own: &Owned,
    catalog: &super::calls::Catalog,
) -> Vec<(Role, String)> {
    let (role, table) = (own.role, own.named("refs"));
    let target = format!("{table}_e");
    let anyone = |random: &mut Random| if random.chance(50) { Role::Superuser } else { Role::Stranger };
    let mut sent: Vec<(Role, String)> =
        create(random, own, &table, &target).into_iter().map(|statement| (role, statement)).collect();
    let watcher = if random.chance(25) { Role::Superuser } else { role };
    sent.push((watcher, watch(random, &table, &target)));
    for _ in 0..3 {
        for _ in 0..2 {
            sent.push((role, write(random, &table)));
        }
        sent.push((anyone(random), grant(random, &table)));
        for _ in 0..2 {
            sent.push((anyone(random), claim(random, &table)));
            sent.push((anyone(random), feed(random, &table)));
        }
        sent.push((role, change(random, own, &table, &target)));
        sent.push((anyone(random), row(random, &target)));
        sent.push((anyone(random), maintain(random, &table, &target)));
        sent.push((Role::Superuser, rows::monitor(random, catalog)));
    }
    sent
}

fn create(random: &mut Random, own: &Owned, table: &str, target: &str) -> Vec<String> {
    let odd = |random: &mut Random, usual: &str, percent: u32| {
        if random.chance(percent) {
            usual.to_owned()
        } else if own.role == Role::Stranger && random.chance(40) {
            random.pick(&planted::TYPES).to_owned()
        } else {
            random.pick(&TYPES).to_owned()
        }
    };
    let usual_key = random.pick(&["int", "bigint", "text", "uuid"]);
    let key = odd(random, usual_key, 85);
    let path = odd(random, "text", 75);
    let mut statements = vec![format!("DROP TABLE IF EXISTS {table}, {target} CASCADE")];
    statements.push(match random.below(8) {
        0 => format!(
            "CREATE TABLE {table} (id {key} PRIMARY KEY, path {path}, project text, other text) PARTITION BY HASH (id);
            CREATE TABLE {table}_1 PARTITION OF {table} FOR VALUES WITH (MODULUS 2, REMAINDER 0);
            CREATE TABLE {table}_2 PARTITION OF {table} FOR VALUES WITH (MODULUS 2, REMAINDER 1)"
        ),
        1 => format!(
            "CREATE OR REPLACE VIEW {table} AS SELECT 1 AS id, 'a.jpg'::text AS path, NULL::text AS project, 'b'::text AS other"
        ),
        _ => format!("CREATE TABLE {table} (id {key} UNIQUE, path {path}, project text, other text)"),
    });
    if random.chance(30) {
        statements.push(format!(
            "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; CREATE POLICY none ON {table} USING ({})",
            if own.role == Role::Stranger { "stranger.planted()" } else { "false" }
        ));
    }
    statements
}

fn watch(random: &mut Random, table: &str, target: &str) -> String {
    let column = random.pick(&["path", "path", "path", "other", "id", "absent", "project"]);
    let rest = random.pick(&[
        "",
        ", mode => 'async'",
        ", mode => 'sync'",
        ", image_column => 'path'",
        ", key_column => 'id'",
        ", key_column => 'id', project_column => 'project'",
    ]);
    format!(
        "SELECT public.clip_watch('{table}', target => '{target}', reference_column => '{column}', key_column => 'id'{})",
        rest.replace(", key_column => 'id'", "")
    )
}

/// A reference; long ones are made by the server.
fn reference(random: &mut Random) -> &'static str {
    random.pick(&[
        "'a.jpg'",
        "'2026/b.jpg'",
        "''",
        "'../../etc/passwd'",
        "'https://example.com/a.jpg'",
        "'file:///etc/passwd'",
        "repeat('x', 100000)",
        "'猫/ü.jpg'",
        "E'a\\nb'",
        "NULL",
    ])
}

fn write(random: &mut Random, table: &str) -> String {
    let path = reference(random);
    match random.below(8) {
        0..=3 => format!(
            "INSERT INTO {table} (id, path, other) SELECT '{}', {path}, 'other.jpg' ON CONFLICT DO NOTHING",
            random.below(6)
        ),
        4 => format!("UPDATE {table} SET path = {path} WHERE id::text = '{}'", random.below(6)),
        5 => format!("UPDATE {table} SET path = {path}, project = 'p'"),
        6 => format!("UPDATE {table} SET id = '{}' WHERE id::text = '{}'", random.below(6), random.below(6)),
        _ => format!("DELETE FROM {table} WHERE id::text = '{}'", random.below(6)),
    }
}

fn role(random: &mut Random) -> &'static str {
    random.pick(&[
        "'stranger'",
        "'stranger'",
        "'neighbour'",
        "'postgres'",
        "'pg_read_all_data'",
        "'absent'",
        "'0'",
        "'-'",
        "'4294967295'",
        "NULL",
    ])
}

fn grant(random: &mut Random, table: &str) -> String {
    let what = random.pick(&["grant", "grant", "grant", "revoke"]);
    let table = match random.below(8) {
        0 => "neighbour.photos",
        1 => "private.secrets",
        2 => "public.clip_queue",
        _ => table,
    };
    format!("SELECT public.clip_{what}_feeder('{table}', {})", role(random))
}

fn claim(random: &mut Random, table: &str) -> String {
    let most = random.pick(&["1", "10", "1000", "0", "-1", "2147483647", "NULL"]);
    let lease = random.pick(&["60", "0.001", "0", "-1", "'NaN'", "'Infinity'", "3600", "NULL"]);
    match random.below(5) {
        0 => format!("SELECT * FROM public.clip_count_references('{table}')"),
        1 => {
            format!(
                "SELECT count(*) FROM public.clip_claim_references('{table}', {most}, {lease}), generate_series(1, 3)"
            )
        }
        2 => format!(
            "DECLARE held CURSOR WITH HOLD FOR SELECT * FROM public.clip_claim_references('{table}', {most}, {lease})"
        ),
        _ => format!("SELECT * FROM public.clip_claim_references('{table}', {most}, {lease})"),
    }
}

/// Sends the claimed photos, as they were or not quite.
fn feed(random: &mut Random, table: &str) -> String {
    if random.chance(30) {
        let texts = |random: &mut Random| {
            *random.pick(&[
                &"'{}'::text[]",
                &"NULL",
                &"'{1}'::text[]",
                &"'{1,2}'::text[]",
                &"'{{1},{2}}'::text[]",
                &"ARRAY[NULL]::text[]",
                &"ARRAY[repeat('x', 1000000)]",
                &"'[7:8]={a,b}'::text[]",
                &"'{missing}'::text[]",
                &"'{lost}'::text[]",
            ])
        };
        let images = random.pick(&["'{}'::bytea[]", "NULL", "ARRAY['\\x00'::bytea]", "ARRAY[NULL]::bytea[]"]);
        let [keys, generations, references, reasons, messages] = [(); 5].map(|()| texts(random));
        return format!(
            "CALL public.clip_feed('{table}', {keys}, {generations}, {references}, {images}, {reasons}, {messages})"
        );
    }
    let number = random.below(6);
    let picture = format!("(SELECT image FROM public.pictures WHERE number = {number})");
    let image = random.pick(&[
        picture.as_str(),
        &picture,
        &picture,
        "'\\xdeadbeef'::bytea",
        "NULL::bytea",
        "''::bytea",
    ]);
    let reason = if image.starts_with("NULL") {
        random.pick(&[
            "NULL",
            "'missing'",
            "'forbidden'",
            "'refused'",
            "'too large'",
            "'failed'",
            "'unavailable'",
        ])
    } else {
        random.pick(&["NULL", "NULL", "NULL", "NULL", "'missing'"])
    };
    let key = random.pick(&["key", "key", "key", "'1'", "key || 'x'"]);
    let generation =
        random.pick(&["generation", "generation", "generation", "'1'", "'x'", "'18446744073709551615'"]);
    let reference = random.pick(&["reference", "reference", "reference", "'other'", "NULL::text"]);
    let meanwhile =
        random.pick(&["", "", "COMMIT;", "COMMIT; PERFORM pg_catalog.pg_sleep(0.01);", "ROLLBACK;"]);
    format!(
        "DO $feed$ DECLARE k text[]; g text[]; r text[]; i bytea[]; w text[]; o text[]; BEGIN
            SELECT array_agg({key}), array_agg({generation}), array_agg({reference}), array_agg({image}),
                array_agg({reason}::text) INTO k, g, r, i, w
            FROM public.clip_claim_references('{table}', 10, 60); {meanwhile}
            CALL public.clip_feed('{table}', k, g, r, i, w, w, o);
        END $feed$"
    )
}

/// Something that changes the table while photos are claimed.
fn change(random: &mut Random, own: &Owned, table: &str, target: &str) -> String {
    let type_name = if own.role == Role::Stranger && random.chance(30) {
        random.pick(&planted::TYPES)
    } else {
        random.pick(&TYPES)
    };
    match random.below(12) {
        0 | 1 => format!("ALTER TABLE {table} ALTER path TYPE {type_name} USING NULL"),
        2 => format!(
            "ALTER TABLE {table} ALTER id TYPE {type_name} USING {}",
            values::literal(random, type_name)
        ),
        3 => format!("ALTER TABLE {table} RENAME path TO gone"),
        4 => format!("ALTER TABLE {table} DROP path"),
        5 => format!("DROP TABLE {table} CASCADE"),
        6 => format!("DROP TABLE {target} CASCADE"),
        7 => format!("SELECT public.clip_unwatch('{table}')"),
        8 => format!("ALTER TABLE {target} ALTER embedding TYPE public.halfvec(512)"),
        9 => watch(random, table, target),
        10 if own.role == Role::Stranger => format!(
            "CREATE TRIGGER aa_planted BEFORE INSERT OR UPDATE ON {target} FOR EACH ROW EXECUTE FUNCTION stranger.planted_row()"
        ),
        _ => format!(
            "ALTER TABLE {table} ADD image bytea; SELECT public.clip_watch('{table}', target => '{target}', mode => 'async')"
        ),
    }
}

/// The row that a watch would write.
fn row(random: &mut Random, target: &str) -> String {
    let image = values::photo(random);
    let columns = random.pick(&[
        "",
        ", 'embedding', 'checksum', 'model'",
        ", 'checksum', 'embedding', 'model'",
        ", 'embedding', 'checksum', 'absent'",
        ", NULL, NULL, NULL",
        ", 'image_id'",
    ]);
    let target = match random.below(6) {
        0 => "NULL",
        1 => "'neighbour.embeddings'",
        2 => "'public.clip_queue'",
        _ => &format!("'{target}'"),
    };
    format!("SELECT * FROM public.clip_embedding_row({image}, {target}{columns})")
}

fn maintain(random: &mut Random, table: &str, target: &str) -> String {
    match random.below(6) {
        0 => format!("CALL public.clip_backfill('{table}', {})", random.pick(&["true", "false"])),
        1 => format!("SELECT public.clip_retry('{table}')"),
        2 => format!("SELECT * FROM public.clip_verify('{table}')"),
        3 => format!("CALL public.clip_migrate('{target}', 'demo', false)"),
        4 => "DELETE FROM public.clip_feeders".to_owned(),
        _ => format!("INSERT INTO public.clip_feeders VALUES ('{table}', 'stranger')"),
    }
}
