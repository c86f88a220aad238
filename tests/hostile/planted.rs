//! The code that the ordinary role plants, wherever PostgreSQL lets a role attach code to its objects.
//!
//! The code is harmless to its own role. Run by another one, or in a session of another one that it can take over, it
//! writes a line to the server's log, which no rollback takes away.

use super::objects::Source;
use super::random::Random;

/// How the lines begin that planted code writes to the log.
pub(super) const SIGN: &str = "planted code";

/// The functions, types and casts that a batch's database begins with; run as the ordinary role.
pub(super) const BASE: &str = "
CREATE FUNCTION stranger.planted() RETURNS bool LANGUAGE plpgsql AS $$
DECLARE
    secret text;
BEGIN
    IF current_user <> 'stranger' THEN
        RAISE LOG 'planted code runs as %', current_user;
    END IF;
    BEGIN
        EXECUTE 'SELECT secret FROM private.secrets' INTO secret;
        RAISE LOG 'planted code has read the secret as %', current_user;
    EXCEPTION WHEN insufficient_privilege OR undefined_table THEN NULL;
    END;
    BEGIN
        EXECUTE 'RESET ROLE';
        IF current_user <> 'stranger' THEN
            RAISE LOG 'planted code has become %', current_user;
        END IF;
        EXECUTE 'SET SESSION AUTHORIZATION postgres';
        RAISE LOG 'planted code has become %', current_user;
    EXCEPTION WHEN insufficient_privilege THEN NULL;
    END;
    BEGIN
        EXECUTE 'ALTER ROLE stranger SUPERUSER CREATEROLE';
        RAISE LOG 'planted code has altered its role as %', current_user;
    EXCEPTION WHEN insufficient_privilege THEN NULL;
    END;
    PERFORM pg_catalog.set_config('search_path', 'stranger', false);
    RETURN true;
END $$;
CREATE FUNCTION stranger.planted_row() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM stranger.planted(); RETURN COALESCE(NEW, OLD); END $$;
CREATE FUNCTION stranger.planted_int(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
    $$ BEGIN PERFORM stranger.planted(); RETURN $1; END $$;
CREATE FUNCTION stranger.planted_text(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
    $$ BEGIN PERFORM stranger.planted(); RETURN $1; END $$;
CREATE FUNCTION stranger.planted_bytea(bytea) RETURNS bytea LANGUAGE plpgsql IMMUTABLE AS
    $$ BEGIN PERFORM stranger.planted(); RETURN $1; END $$;
CREATE TYPE stranger.pair AS (a text);
CREATE TYPE stranger.mood AS ENUM ('1', '2', 'demo');
CREATE DOMAIN stranger.d_int AS int CHECK (stranger.planted());
CREATE DOMAIN stranger.d_text AS text CHECK (stranger.planted());
CREATE DOMAIN stranger.d_bytea AS bytea CHECK (stranger.planted());
CREATE DOMAIN stranger.d_vector AS public.vector CHECK (stranger.planted());
CREATE FUNCTION stranger.pair_text(stranger.pair) RETURNS text LANGUAGE plpgsql AS
    $$ BEGIN PERFORM stranger.planted(); RETURN ($1).a; END $$;
CREATE FUNCTION stranger.pair_int(stranger.pair) RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN PERFORM stranger.planted(); RETURN 1; END $$;
CREATE FUNCTION stranger.pair_equal(stranger.pair, stranger.pair) RETURNS bool LANGUAGE plpgsql AS
    $$ BEGIN PERFORM stranger.planted(); RETURN ($1).a = ($2).a; END $$;
CREATE FUNCTION stranger.pair_bytea(stranger.pair) RETURNS bytea LANGUAGE plpgsql AS
    $$ BEGIN PERFORM stranger.planted(); RETURN '\\x00'; END $$;
CREATE FUNCTION stranger.pair_bigint(stranger.pair, bigint) RETURNS bool LANGUAGE plpgsql AS
    $$ BEGIN PERFORM stranger.planted(); RETURN true; END $$;
CREATE FUNCTION stranger.mood_text(stranger.mood) RETURNS text LANGUAGE plpgsql AS
    $$ BEGIN PERFORM stranger.planted(); RETURN 'demo'; END $$;
CREATE FUNCTION stranger.mood_int(stranger.mood) RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN PERFORM stranger.planted(); RETURN 1; END $$;
CREATE FUNCTION stranger.mood_vector(stranger.mood) RETURNS public.vector LANGUAGE plpgsql AS
    $$ BEGIN PERFORM stranger.planted(); RETURN array_fill(1::real, ARRAY[512])::public.vector; END $$;
";

/// Types of the ordinary role.
pub(super) const TYPES: [&str; 6] = [
    "stranger.pair",
    "stranger.mood",
    "stranger.d_int",
    "stranger.d_text",
    "stranger.d_bytea",
    "stranger.d_vector",
];

/// A cast, an operator or a function with a name of the extension's.
pub(super) fn for_everybody(random: &mut Random) -> String {
    let how = random.pick(&["AS IMPLICIT", "AS ASSIGNMENT", ""]);
    match random.below(14) {
        0 => format!("CREATE CAST (stranger.pair AS text) WITH FUNCTION stranger.pair_text(stranger.pair) {how}"),
        1 => format!("CREATE CAST (stranger.pair AS int) WITH FUNCTION stranger.pair_int(stranger.pair) {how}"),
        2 => format!("CREATE CAST (stranger.pair AS bytea) WITH FUNCTION stranger.pair_bytea(stranger.pair) {how}"),
        3 => format!("CREATE CAST (stranger.mood AS text) WITH FUNCTION stranger.mood_text(stranger.mood) {how}"),
        4 => format!("CREATE CAST (stranger.mood AS int) WITH FUNCTION stranger.mood_int(stranger.mood) {how}"),
        5 => format!("CREATE CAST (stranger.mood AS public.vector) WITH FUNCTION stranger.mood_vector(stranger.mood) {how}"),
        6 => "CREATE OPERATOR public.= (FUNCTION = stranger.pair_equal, LEFTARG = stranger.pair, RIGHTARG = stranger.pair, \
              COMMUTATOR = OPERATOR(public.=), HASHES, MERGES)"
            .to_owned(),
        7 => "CREATE OPERATOR public.= (FUNCTION = stranger.pair_bigint, LEFTARG = stranger.pair, RIGHTARG = bigint)"
            .to_owned(),
        8 => "CREATE FUNCTION public.clip_embed_image(x bool) RETURNS public.halfvec LANGUAGE plpgsql AS $$ BEGIN \
              PERFORM stranger.planted(); RETURN array_fill(1::real, ARRAY[512])::public.halfvec; END $$"
            .to_owned(),
        9 => "CREATE FUNCTION public.clip_embed_text(x bool) RETURNS stranger.mood LANGUAGE plpgsql AS $$ BEGIN \
              PERFORM stranger.planted(); RETURN 'demo'; END $$"
            .to_owned(),
        10 => "CREATE FUNCTION public.clip_fill_image_embeddings(x int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN \
               PERFORM stranger.planted(); RETURN x; END $$"
            .to_owned(),
        11 => "CREATE FUNCTION public.clip_model_identity(model name) RETURNS text LANGUAGE plpgsql AS $$ BEGIN \
               PERFORM stranger.planted(); RETURN 'demo'; END $$"
            .to_owned(),
        12 => "CREATE TABLE public.pg_class (oid oid, relowner oid, relname name)".to_owned(),
        _ => "CREATE DOMAIN public.regclass AS text CHECK (stranger.planted())".to_owned(),
    }
}

/// Code on one table: a trigger, a policy, a rule, a default, a check, an index, a generated column.
pub(super) fn on_table(random: &mut Random, table: &str, columns: &Source) -> String {
    let (key, image) = (&columns.key, &columns.image);
    match random.below(14) {
        0 | 1 => {
            let time = random.pick(&["BEFORE", "AFTER"]);
            let event = random.pick(&["INSERT", "UPDATE", "DELETE", "INSERT OR UPDATE OR DELETE"]);
            let level = random.pick(&["ROW", "STATEMENT"]);
            format!(
                "CREATE TRIGGER aa_planted{} {time} {event} ON {table} FOR EACH {level} \
                 EXECUTE FUNCTION stranger.planted_row()",
                random.below(3)
            )
        }
        2 => format!(
            "CREATE CONSTRAINT TRIGGER planted_later AFTER INSERT OR UPDATE ON {table} \
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION stranger.planted_row()"
        ),
        3 => format!(
            "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; \
             CREATE POLICY planted{} ON {table} USING (stranger.planted()) WITH CHECK (stranger.planted())",
            random.below(3)
        ),
        4 => {
            let event = random.pick(&["INSERT", "UPDATE", "DELETE"]);
            let what = random.pick(&["ALSO SELECT stranger.planted()", "INSTEAD NOTHING"]);
            format!("CREATE RULE planted{} AS ON {event} TO {table} DO {what}", random.below(3))
        }
        5 => format!("ALTER TABLE {table} ALTER {key} SET DEFAULT stranger.planted_int(1)"),
        6 => format!("ALTER TABLE {table} ADD CHECK (stranger.planted()) NOT VALID"),
        7 => format!("CREATE INDEX ON {table} (stranger.planted_text({key}::text))"),
        8 => format!("CREATE UNIQUE INDEX ON {table} (({key})) WHERE stranger.planted_int(1) = 1"),
        9 => format!(
            "ALTER TABLE {table} ADD made{} text GENERATED ALWAYS AS (stranger.planted_text('1')) {}",
            random.below(3),
            random.pick(&["STORED", "VIRTUAL"])
        ),
        10 => format!("CREATE STATISTICS ON (stranger.planted_text({key}::text)), {key} FROM {table}"),
        11 => format!(
            "CREATE TRIGGER planted_instead INSTEAD OF INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW \
             EXECUTE FUNCTION stranger.planted_row()"
        ),
        12 => format!(
            "ALTER TABLE {table} ADD project{} stranger.d_text DEFAULT 'x', ADD UNIQUE ({key})",
            random.below(2)
        ),
        _ => format!("ALTER TABLE {table} ADD CHECK (stranger.planted_bytea({image}) IS NOT NULL) NOT VALID"),
    }
}
