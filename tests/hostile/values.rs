//! Values of SQL types as literals: usual ones, and the strangest that the types can hold.

use super::random::Random;

/// Types for the columns of tables. None of them is a role's own.
pub(super) const TYPES: [&str; 52] = [
    "int",
    "bigint",
    "smallint",
    "text",
    "varchar(3)",
    "bpchar",
    "char(5)",
    "name",
    "\"char\"",
    "bytea",
    "uuid",
    "numeric",
    "numeric(3,1)",
    "real",
    "float8",
    "money",
    "bool",
    "date",
    "time",
    "timetz",
    "timestamp",
    "timestamptz",
    "interval",
    "json",
    "jsonb",
    "jsonpath",
    "point",
    "box",
    "path",
    "bit(3)",
    "varbit",
    "inet",
    "macaddr",
    "tsvector",
    "tsquery",
    "oid",
    "regclass",
    "xid",
    "xid8",
    "tid",
    "pg_lsn",
    "int4range",
    "int4multirange",
    "int[]",
    "bytea[]",
    "text[]",
    "public.vector",
    "public.vector(512)",
    "public.vector(3)",
    "public.halfvec(512)",
    "public.sparsevec(512)",
    "void",
];

/// Types for the column of the embedding.
pub(super) const VECTOR_TYPES: [&str; 12] = [
    "public.vector(512)",
    "public.vector",
    "public.vector(3)",
    "public.halfvec(512)",
    "public.halfvec",
    "public.sparsevec(512)",
    "real[]",
    "float8[]",
    "text",
    "bytea",
    "bigint",
    "\"char\"",
];

/// A literal of a type, with its cast.
pub(super) fn literal(random: &mut Random, type_name: &str) -> String {
    if random.chance(4) {
        return format!("NULL::{type_name}");
    }
    let base = type_name.split('(').next().unwrap_or(type_name);
    let text = match base {
        "int" | "bigint" | "smallint" | "integer" | "numeric" | "oid" | "real" | "float8"
        | "double precision" | "money" | "xid" | "xid8" => number(random, base),
        "bool" | "boolean" => random.pick(&["true", "false"]).to_owned(),
        "uuid" => format!("00000000-0000-0000-0000-00000000000{}", random.below(6)),
        "bytea" => return photo(random),
        "bytea[]" => return photos(random),
        "text[]" => return texts(random),
        "date" | "timestamp" | "timestamptz" | "timestamp with time zone" => {
            let dates = ["2026-01-01", "2026-02-01", "infinity", "-infinity", "4713-01-01 BC", "epoch"];
            random.pick(&dates).to_owned()
        }
        "time" | "timetz" => "12:00".to_owned(),
        "interval" => random.pick(&["1 day", "24 hours", "-178000000 years"]).to_owned(),
        "json" | "jsonb" => random.pick(&["null", "{}", "[1]", "\"a\""]).to_owned(),
        "jsonpath" => "$.a".to_owned(),
        "point" => "(1,2)".to_owned(),
        "box" | "path" => "((0,0),(1,1))".to_owned(),
        "bit" => "101".to_owned(),
        "varbit" => "1".to_owned(),
        "inet" => "::1".to_owned(),
        "macaddr" => "08:00:2b:01:02:03".to_owned(),
        "tid" => "(0,1)".to_owned(),
        "pg_lsn" => "0/1".to_owned(),
        "int4range" => "[1,2)".to_owned(),
        "int4multirange" => "{[1,2)}".to_owned(),
        "int[]" => random.pick(&["{}", "{1,2}", "{{1},{2}}", "[5:5]={1}", "{NULL}"]).to_owned(),
        "real[]" | "float8[]" => random.pick(&["{}", "{1,NaN}", "{1,2,3}"]).to_owned(),
        "public.vector" | "public.halfvec" => return vector(random, type_name),
        "public.sparsevec" => "{1:1,2:2}/512".to_owned(),
        "regrole" => random.pick(&["stranger", "postgres", "-", "4294967295", "absent"]).to_owned(),
        "regclass" => random.pick(&["pg_class", "0", "4294967295"]).to_owned(),
        _ => return text(random, type_name),
    };
    format!("'{text}'::{type_name}")
}

/// A number; small ones more often, for they meet one another as keys.
fn number(random: &mut Random, base: &str) -> String {
    let extreme: &[&str] = match base {
        "smallint" => &["-32768", "32767"],
        "int" | "integer" => &["-2147483648", "2147483647"],
        "bigint" => &["-9223372036854775808", "9223372036854775807"],
        "oid" | "xid" => &["0", "4294967295"],
        "xid8" => &["0", "18446744073709551615"],
        "numeric" => &["NaN", "1.0", "1.00", "1e130", "-0.000000000000000000001"],
        "money" => &["-92233720368547758.08"],
        _ => &["NaN", "Infinity", "-0", "1e-320"],
    };
    if random.chance(20) { random.pick(extreme).to_owned() } else { random.below(6).to_string() }
}

/// A text, with its cast. Long ones are made by the server, so that statements stay short.
pub(super) fn text(random: &mut Random, type_name: &str) -> String {
    let text = random.pick(&[
        "'1'",
        "'2'",
        "'demo'",
        "''",
        "' '",
        "'sync'",
        "'async'",
        "'writers'",
        "'migrations'",
        "'users'",
        "'snapshots'",
        "'none'",
        "'../demo'",
        "'image'",
        "'a photo of {}'",
        "'{}'",
        "'%s%n%I%L$1'",
        "'\"'",
        "'\"\"'",
        "'a.b.c.d'",
        "'photos'",
        "'public.pictures'",
        "'Å🐈‍⬛𝄞'",
        "E'\\x01\\x7f\\n\\r\\t\\\\'",
        "E'it''s; DROP TABLE photos; --'",
        "'<|endoftext|>&amp;amp;'",
        "repeat('x', 63)",
        "repeat('é', 64)",
        "repeat('\"', 1000)",
        "repeat('word ', 3000)",
        "repeat('猫', 30000)",
        "chr(1114111)",
        "'9223372036854775808'",
        "'2/31/2026'",
    ]);
    format!("({text})::{type_name}")
}

/// The bytes of an image, or other bytes in its place.
pub(super) fn photo(random: &mut Random) -> String {
    let number = random.below(6);
    let picture = format!("(SELECT image FROM public.pictures WHERE number = {number})");
    random
        .weighted(&[
            (60, picture.as_str()),
            (8, &format!("({picture} || '\\x0{number}'::bytea)")),
            (8, "'\\xdeadbeef'::bytea"),
            (4, "''::bytea"),
            (4, "decode(repeat('00', 100000), 'hex')"),
            (4, &format!("substr({picture}, 1, 700)")),
            (4, &format!("overlay({picture} PLACING '\\x00ff00ff'::bytea FROM {})", 1 + number * 97)),
            (4, "NULL::bytea"),
            (4, "'\\xffd8ffc0001108fafafafa03012200021101031101'::bytea"),
        ])
        .to_owned()
}

fn photos(random: &mut Random) -> String {
    match random.below(5) {
        0 => "'{}'::bytea[]".to_owned(),
        1 => "ARRAY[NULL]::bytea[]".to_owned(),
        2 => format!("ARRAY[[{}], [{}]]", photo(random), photo(random)),
        3 => "array_fill('\\x00'::bytea, ARRAY[7], ARRAY[-3])".to_owned(),
        _ => format!("ARRAY[{}, NULL, {}]", photo(random), photo(random)),
    }
}

fn texts(random: &mut Random) -> String {
    match random.below(6) {
        0 => "'{}'::text[]".to_owned(),
        1 => "ARRAY[NULL]::text[]".to_owned(),
        2 => "'[9:10]={a,b}'::text[]".to_owned(),
        3 => "array_fill('a'::text, ARRAY[200])".to_owned(),
        4 => "ARRAY[['a', 'b'], ['c', NULL]]::text[]".to_owned(),
        _ => format!("ARRAY[{}, {}]", text(random, "text"), text(random, "text")),
    }
}

fn vector(random: &mut Random, type_name: &str) -> String {
    let length = match type_name {
        "public.vector(3)" => 3,
        "public.vector" | "public.halfvec" => *random.pick(&[&1, &3, &512, &2000]),
        _ => 512,
    };
    let value = random.pick(&["0", "1", "-1e-30", "0.0441941738"]);
    format!("array_fill({value}::real, ARRAY[{length}])::{type_name}")
}
