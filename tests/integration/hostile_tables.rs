//! Tables that carry code of their owner: it runs as the owner, whichever role reads a view, maintains or embeds.
//!
//! The owner's function, the canary, would make its role a superuser. It counts in sequences, which no rollback takes
//! back: where it ran at all, and where it ran as another role than the owner.

use pg_clip_tests::{
    PATIENCE, Signal, TestCluster, TestDatabase, cluster_of_two_models, demo_jpegs, embedder, failure, run,
    send, value, wait_for_the_queue, wait_until,
};
use postgres::Client;

/// A database with a role `mallory` that owns a schema, a canary, and may create in the extension's schema.
pub(crate) struct Stage {
    pub(crate) database: TestDatabase,
    pub(crate) superuser: Client,
    pub(crate) mallory: Client,
    /// A member of pg_monitor.
    monitor: Client,
}

const CANARY: &str = "
    CREATE SEQUENCE ran; CREATE SEQUENCE escaped; GRANT USAGE ON ran, escaped TO PUBLIC;
    CREATE TABLE seen (place text, role text); GRANT INSERT ON seen TO PUBLIC;
    CREATE FUNCTION canary(place text) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$
    BEGIN
        PERFORM pg_catalog.nextval('mallory.ran');
        IF current_user <> 'mallory' THEN
            PERFORM pg_catalog.nextval('mallory.escaped');
        END IF;
        BEGIN
            EXECUTE 'ALTER ROLE mallory SUPERUSER';
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
        BEGIN
            EXECUTE 'INSERT INTO mallory.seen VALUES ($1, current_user)' USING place;
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
        RETURN true;
    END $$;
    CREATE FUNCTION canary_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM mallory.canary(TG_NAME);
        RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
    END $$";

impl Stage {
    pub(crate) fn set(cluster: &TestCluster) -> Stage {
        let database = cluster.database();
        let mut superuser = database.connect();
        run(
            &mut superuser,
            "CREATE ROLE mallory LOGIN; CREATE SCHEMA mallory AUTHORIZATION mallory;
            GRANT CREATE ON SCHEMA public TO mallory; CREATE ROLE monitor LOGIN IN ROLE pg_monitor",
        );
        let mut mallory = database.connect_as("mallory");
        run(&mut mallory, "SET search_path = mallory, public");
        run(&mut mallory, CANARY);
        let monitor = database.connect_as("monitor");
        Stage { database, superuser, mallory, monitor }
    }

    /// A superuser's table `shop.photos` in a schema of mallory's.
    pub(crate) fn open_shop(&mut self) {
        let name = self.database.name().to_owned();
        run(
            &mut self.superuser,
            &format!(
                "GRANT CREATE ON DATABASE {name} TO mallory; CREATE SCHEMA shop AUTHORIZATION mallory;
                CREATE TABLE shop.photos (id int PRIMARY KEY, image bytea)"
            ),
        );
    }

    #[track_caller]
    fn store(&mut self, first: i32, count: usize) {
        let insert = "INSERT INTO photos (id, project, image)
            SELECT $1 - 1 + place::int, 'calm', image FROM unnest($2::bytea[]) WITH ORDINALITY AS t (image, place)";
        let insert = insert.replace("$1", &first.to_string()).replace("$2", "$1");
        self.mallory.execute(&insert, &[&&demo_jpegs()[..count]]).expect("photos are stored");
    }

    /// All calls of a superuser and a monitor on other roles' tables: none of them may run the canary as another
    /// role than the owner.
    #[track_caller]
    fn maintain(&mut self) {
        for view in
            ["clip_coverage", "clip_backlog", "clip_failure_counts", "clip_migrations", "clip_backfills"]
        {
            self.monitor.query(&format!("SELECT * FROM {view}"), &[]).expect("a view is read");
        }
        for statement in [
            "SELECT * FROM clip_coverage",
            "SELECT * FROM clip_migrations",
            "SELECT * FROM clip_backfills",
            "SELECT * FROM clip_failures",
            "SELECT * FROM clip_verify('mallory.photos')",
            "CALL clip_backfill('mallory.photos')",
            "CALL clip_backfill('mallory.photos', verify => true)",
            "SELECT clip_retry('mallory.photos')",
            "CALL clip_migrate('mallory.image_embeddings', 'other', set_default => false)",
            "CALL clip_migrate('mallory.image_embeddings', 'demo', set_default => false)",
            "SELECT clip_unwatch('mallory.photos')",
            "SELECT clip_watch('mallory.photos')",
        ] {
            if let Err(error) = self.superuser.batch_execute(statement) {
                assert!(error.code().is_some(), "{statement}: {error:?}");
            }
        }
        self.assert_contained();
    }

    #[track_caller]
    pub(crate) fn assert_contained(&mut self) {
        let escaped = "SELECT format('%s %s', is_called, (
            SELECT string_agg(DISTINCT place || ' as ' || role, ', ') FROM mallory.seen WHERE role <> 'mallory'))
            FROM mallory.escaped";
        assert_eq!(
            value::<String>(&mut self.superuser, escaped),
            "f ",
            "where the canary ran, by which role"
        );
        let gained = "SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'";
        assert!(!value::<bool>(&mut self.superuser, gained));
    }

    /// The counts of `clip_coverage`.
    #[track_caller]
    fn counts(&mut self) -> Vec<i64> {
        value(&mut self.superuser, "SELECT ARRAY[photos, embedded, missing, stale] FROM clip_coverage")
    }

    /// Roles are those of the cluster: the next stage has a role of the same name.
    #[track_caller]
    pub(crate) fn leave(self) {
        let Stage { mut superuser, mallory, monitor, .. } = self;
        drop((mallory, monitor));
        run(&mut superuser, "DROP OWNED BY mallory CASCADE; DROP ROLE mallory, monitor");
    }

    pub(crate) fn ran(&mut self) -> i64 {
        value(&mut self.superuser, "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM mallory.ran")
    }
}

/// Code on the tables `photos` and `image_embeddings`, and where it is kept.
const TRAPS: [(&str, &str); 9] = [
    (
        "triggers on the target",
        "CREATE TRIGGER before BEFORE INSERT OR UPDATE OR DELETE ON image_embeddings
            FOR EACH ROW EXECUTE FUNCTION canary_trigger();
        CREATE TRIGGER after AFTER INSERT OR UPDATE OR DELETE ON image_embeddings
            FOR EACH ROW EXECUTE FUNCTION canary_trigger();
        CREATE CONSTRAINT TRIGGER later AFTER INSERT OR UPDATE OR DELETE ON image_embeddings
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION canary_trigger()",
    ),
    (
        "an index on an expression of the target",
        "CREATE FUNCTION of_key(int) RETURNS bool LANGUAGE sql IMMUTABLE AS $$ SELECT mallory.canary('index') $$;
        CREATE INDEX ON image_embeddings (of_key(image_id)); CREATE INDEX ON photos (of_key(id))",
    ),
    (
        "an index on the embedding",
        "CREATE FUNCTION of_vector(public.vector) RETURNS bool LANGUAGE sql IMMUTABLE AS $$ SELECT mallory.canary('vector') $$;
        ALTER TABLE image_embeddings ALTER embedding TYPE public.vector;
        CREATE INDEX ON image_embeddings (of_vector(embedding)) WHERE of_vector(embedding)",
    ),
    ("a CHECK of the target", "ALTER TABLE image_embeddings ADD CHECK (canary('check'))"),
    ("a default of the target", "ALTER TABLE image_embeddings ADD extra bool DEFAULT canary('default')"),
    (
        "a generated column",
        "CREATE FUNCTION generated(int) RETURNS bool LANGUAGE sql IMMUTABLE AS $$ SELECT mallory.canary('generated') $$;
        ALTER TABLE image_embeddings ADD made bool GENERATED ALWAYS AS (generated(image_id)) STORED",
    ),
    (
        "a rule",
        "CREATE RULE sly AS ON DELETE TO image_embeddings DO ALSO SELECT mallory.canary('rule');
        CREATE RULE sly AS ON DELETE TO photos DO ALSO SELECT mallory.canary('rule of the source')",
    ),
    (
        "operators and functions before those of pg_catalog",
        "CREATE FUNCTION never(int, int) RETURNS bool LANGUAGE sql AS $$ SELECT mallory.canary('operator') $$;
        CREATE OPERATOR public.= (LEFTARG = int, RIGHTARG = int, FUNCTION = never);
        CREATE OPERATOR mallory.= (LEFTARG = int, RIGHTARG = int, FUNCTION = never);
        CREATE FUNCTION public.sha256(bytea) RETURNS bytea LANGUAGE sql AS $$ SELECT mallory.canary('sha256')::text::bytea $$;
        CREATE FUNCTION public.count(bigint) RETURNS bigint LANGUAGE sql AS $$ SELECT mallory.canary('count')::int::bigint $$;
        ALTER ROLE mallory SET search_path = mallory, public, pg_catalog",
    ),
    (
        "policies that bind the owner",
        "ALTER TABLE photos ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
        ALTER TABLE image_embeddings ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
        CREATE POLICY sly ON photos USING (canary('policy')) WITH CHECK (canary('policy'));
        CREATE POLICY sly ON image_embeddings USING (canary('policy')) WITH CHECK (canary('policy'))",
    ),
];

#[test]
fn code_of_a_table_runs_as_its_owner() {
    let cluster = cluster_of_two_models();
    for (name, trap) in TRAPS {
        let mut stage = Stage::set(&cluster);
        run(
            &mut stage.mallory,
            "CREATE TABLE photos (id int PRIMARY KEY, project text, image bytea); SELECT public.clip_watch('photos')",
        );
        stage.store(1, 4);
        run(&mut stage.mallory, trap);
        run(&mut stage.mallory, "SET clip.enabled = off");
        stage.store(11, 4);
        run(
            &mut stage.mallory,
            "RESET clip.enabled; ALTER TABLE photos DISABLE TRIGGER USER; DELETE FROM photos WHERE id = 1;
            ALTER TABLE photos ENABLE TRIGGER USER",
        );
        stage.maintain();
        let bound = name.starts_with("policies");
        if !bound {
            assert_eq!(stage.counts(), [7, 7, 0, 0], "{name}");
        }
        assert!(bound || name.starts_with("operators") || stage.ran() > 0, "{name} ran");
        stage.leave();
    }
}

#[test]
fn the_types_of_keys_and_projects_run_as_the_owner() {
    let cluster = cluster_of_two_models();
    let mut stage = Stage::set(&cluster);
    run(
        &mut stage.mallory,
        "CREATE TYPE mood AS ENUM ('calm', 'angry'); CREATE DOMAIN number AS int CHECK (mallory.canary('domain'));
        CREATE FUNCTION spell(mood) RETURNS text LANGUAGE sql AS $$ SELECT mallory.canary('cast')::text $$;
        CREATE CAST (mood AS text) WITH FUNCTION spell(mood) AS IMPLICIT;
        CREATE FUNCTION read(text) RETURNS mood LANGUAGE sql AS $$ SELECT (enum_range(NULL::mallory.mood))[1]
            FROM mallory.canary('cast back') $$;
        CREATE CAST (text AS mood) WITH FUNCTION read(text) AS IMPLICIT;
        CREATE FUNCTION spell(number) RETURNS text LANGUAGE sql AS $$ SELECT mallory.canary('domain cast')::text $$;
        CREATE TABLE photos (id number PRIMARY KEY, project mood, image bytea); SELECT public.clip_watch('photos')",
    );
    stage.store(1, 3);
    run(&mut stage.mallory, "SET clip.enabled = off");
    stage.store(11, 3);
    run(&mut stage.mallory, "RESET clip.enabled");
    stage.maintain();
    assert_eq!(stage.counts(), [6, 6, 0, 0]);
    assert!(stage.ran() > 0, "the domain was checked");
    stage.leave();
}

#[test]
fn only_tables_are_watched() {
    let cluster = TestCluster::preloaded();
    let mut stage = Stage::set(&cluster);
    run(
        &mut stage.mallory,
        "CREATE VIEW shown AS SELECT 1 AS id, 'x'::bytea AS image WHERE canary('view');
        CREATE MATERIALIZED VIEW kept AS SELECT 1 AS id, 'x'::bytea AS image;
        CREATE TABLE photos (id int PRIMARY KEY, image bytea);
        CREATE TABLE base (image_id int UNIQUE, embedding public.vector(512), checksum bytea, model text);
        CREATE VIEW vectors AS SELECT * FROM base WHERE canary('target view')",
    );
    for client in [&mut stage.mallory, &mut stage.superuser] {
        for refused in [
            "SELECT clip_watch('mallory.shown')",
            "SELECT clip_watch('mallory.kept', key_column => 'id')",
            "SELECT clip_watch('mallory.photos', target => 'vectors')",
            "SELECT clip_watch('mallory.photos', target => 'mallory.shown')",
        ] {
            let call = refused.replace("clip_watch", "public.clip_watch");
            assert_eq!(failure(client, &call, &[]), "42809", "{refused}");
        }
    }
    assert_eq!(
        failure(&mut stage.mallory, "CREATE EVENT TRIGGER t ON ddl_command_end EXECUTE FUNCTION x()", &[]),
        "42501"
    );
    stage.maintain();
    stage.leave();
}

#[test]
fn a_target_belongs_to_the_owner_of_the_source() {
    let cluster = TestCluster::preloaded();
    let mut stage = Stage::set(&cluster);
    for mode in ["sync", "async"] {
        run(
            &mut stage.mallory,
            "CREATE TYPE odd AS (word text);
            CREATE FUNCTION spell(odd) RETURNS text LANGUAGE sql AS $$ SELECT mallory.canary('composite')::text $$;
            CREATE CAST (odd AS text) WITH FUNCTION spell(odd) AS ASSIGNMENT;
            CREATE TABLE photos (id int PRIMARY KEY, project text, image bytea)",
        );
        run(&mut stage.superuser, &format!("SELECT clip_watch('mallory.photos', mode => '{mode}')"));
        let owner =
            "SELECT relowner::regrole::text FROM pg_class WHERE oid = 'mallory.image_embeddings'::regclass";
        assert_eq!(value::<String>(&mut stage.superuser, owner), "mallory");
        run(&mut stage.mallory, "ALTER TABLE photos ALTER project TYPE odd USING ROW(project)::odd");
        let insert = "INSERT INTO photos VALUES (1, ROW('x'), $1)";
        if mode == "sync" {
            // Either refused or done as the owner.
            let _ = stage.mallory.execute(insert, &[&demo_jpegs()[0]]);
        } else {
            stage.mallory.execute(insert, &[&demo_jpegs()[0]]).expect("a photo is stored");
            wait_until("the photo was tried", PATIENCE, || {
                let tried = "SELECT count(*) FROM clip_queue WHERE failed_at IS NULL OR claimed";
                value::<i64>(&mut stage.superuser, tried) == 0
            });
        }
        stage.maintain();
        run(&mut stage.mallory, "DROP TABLE photos, image_embeddings; DROP TYPE odd CASCADE");
    }
    // A target of another owner is refused, with a hint, also when it becomes one.
    run(
        &mut stage.superuser,
        "CREATE TABLE photos (id int PRIMARY KEY, image bytea);
        CREATE TABLE mallory.taken (image_id int UNIQUE, embedding vector(512), checksum bytea, model text);
        ALTER TABLE mallory.taken OWNER TO mallory",
    );
    let error =
        stage.superuser.execute("SELECT clip_watch('photos', 'mallory.taken')", &[]).expect_err("two owners");
    let error = error.as_db_error().expect("an error of the server");
    assert_eq!(
        (error.code().code(), error.hint()),
        ("55000", Some("ALTER TABLE mallory.taken OWNER TO postgres"))
    );
    run(&mut stage.superuser, "SELECT clip_watch('photos'); ALTER TABLE image_embeddings OWNER TO mallory");
    for refused in [
        "CALL clip_backfill('photos')",
        "SELECT clip_verify('photos')",
        "CALL clip_migrate('image_embeddings', 'demo')",
        "SELECT clip_watch('photos')",
    ] {
        assert_eq!(failure(&mut stage.superuser, refused, &[]), "55000", "{refused}");
    }
    let uncounted =
        "SELECT photos IS NULL AND missing IS NULL FROM clip_coverage WHERE source = 'photos'::regclass";
    assert!(value::<bool>(&mut stage.superuser, uncounted));
    run(&mut stage.superuser, "SELECT clip_unwatch('photos')");
    stage.assert_contained();
    stage.leave();
}

#[test]
fn a_target_that_is_made_anew_gets_no_rights_of_another_role() {
    let cluster = TestCluster::preloaded();
    let mut stage = Stage::set(&cluster);
    run(
        &mut stage.superuser,
        "CREATE TABLE mallory.photos (id int PRIMARY KEY, image bytea);
        SELECT clip_watch('mallory.photos', mode => 'async')",
    );
    let insert = "INSERT INTO mallory.photos VALUES ($1, $2)";
    stage.superuser.execute(insert, &[&1, &demo_jpegs()[0]]).expect("a photo is stored");
    wait_for_the_queue(&mut stage.superuser);
    let stopped = embedder(&mut stage.superuser);
    send(stopped, Signal::SIGSTOP);
    stage.superuser.execute(insert, &[&2, &demo_jpegs()[1]]).expect("a photo is stored");
    let claimed = "SELECT count(*) FROM clip_queue WHERE claimed";
    wait_until("the worker works", PATIENCE, || value::<i64>(&mut stage.superuser, claimed) == 1);
    run(
        &mut stage.mallory,
        "DROP TABLE image_embeddings;
        CREATE TABLE image_embeddings (image_id int UNIQUE, embedding public.vector(512), checksum bytea, model text);
        CREATE TRIGGER sly BEFORE INSERT ON image_embeddings FOR EACH ROW EXECUTE FUNCTION canary_trigger()",
    );
    send(stopped, Signal::SIGCONT);
    wait_until("the job has ended", PATIENCE, || value::<i64>(&mut stage.superuser, claimed) == 0);
    stage.assert_contained();
    run(&mut stage.superuser, "DROP TABLE mallory.photos");
    stage.leave();
}

#[test]
fn a_namesake_of_our_function_changes_nothing() {
    let cluster = TestCluster::preloaded();
    let mut stage = Stage::set(&cluster);
    run(
        &mut stage.mallory,
        "CREATE FUNCTION public.clip_embed_image(x bool) RETURNS public.halfvec LANGUAGE sql AS $$ SELECT '[1]'::public.halfvec
            FROM mallory.canary('namesake') $$;
        CREATE FUNCTION public.clip_forget_next_embedding(int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
    );
    for mode in ["sync", "async"] {
        run(
            &mut stage.superuser,
            &format!(
                "CREATE TABLE photos (id int PRIMARY KEY, image bytea); SELECT clip_watch('photos', mode => '{mode}')"
            ),
        );
        let insert = "INSERT INTO photos VALUES (1, $1)";
        stage.superuser.execute(insert, &[&demo_jpegs()[0]]).expect("a photo is stored");
        wait_for_the_queue(&mut stage.superuser);
        let right = "SELECT count(*) FROM photos JOIN image_embeddings ON image_id = photos.id
            WHERE embedding = clip_embed_image(image) AND pg_typeof(embedding) = 'vector'::regtype";
        assert_eq!(value::<i64>(&mut stage.superuser, right), 1, "{mode}");
        run(&mut stage.superuser, "DROP TABLE photos, image_embeddings");
    }
    stage.assert_contained();
    stage.leave();
}

#[test]
fn strangers_are_told_nothing() {
    let cluster = cluster_of_two_models();
    let mut stage = Stage::set(&cluster);
    run(
        &mut stage.superuser,
        "CREATE TABLE photos (id int PRIMARY KEY, image bytea); SELECT clip_watch('photos')",
    );
    for function in ["clip_count_photos('public.photos')", "clip_count_migrated('public.image_embeddings')"] {
        let told =
            format!("SELECT jsonb_strip_nulls(to_jsonb(counts))::text FROM public.{function} AS counts");
        let counts: String = value(&mut stage.mallory, &told);
        assert_eq!(counts, "{}", "{function}");
    }
    for view in ["clip_coverage", "clip_migrations", "clip_backfills", "clip_failures"] {
        assert_eq!(
            value::<i64>(&mut stage.mallory, &format!("SELECT count(*) FROM public.{view}")),
            0,
            "{view}"
        );
    }
    for refused in [
        "CALL public.clip_backfill('public.photos')",
        "SELECT public.clip_verify('public.photos')",
        "CALL public.clip_migrate('public.image_embeddings', 'other')",
        "SELECT public.clip_abandon_migration('public.image_embeddings')",
        "SELECT public.clip_watch('public.photos')",
        "SELECT public.clip_unwatch('public.photos')",
        "SELECT public.clip_retry('public.photos')",
    ] {
        assert_eq!(failure(&mut stage.mallory, refused, &[]), "42501", "{refused}");
    }
    run(&mut stage.superuser, "DROP TABLE photos, image_embeddings");
    stage.leave();
}

#[test]
fn a_superuser_migrates_tables_and_database_of_other_roles() {
    let cluster = cluster_of_two_models();
    let mut stage = Stage::set(&cluster);
    run(
        &mut stage.mallory,
        "CREATE TABLE photos (id int PRIMARY KEY, project text, image bytea); SELECT public.clip_watch('photos')",
    );
    run(&mut stage.mallory, TRAPS[0].1);
    stage.store(1, 3);
    let migrate = "CALL public.clip_migrate('mallory.image_embeddings', 'other')";
    assert_eq!(failure(&mut stage.mallory, migrate, &[]), "42501", "the database is not theirs");
    run(&mut stage.superuser, migrate);
    assert_eq!(value::<String>(&mut stage.mallory, "SHOW clip.model"), "other");
    assert_eq!(stage.counts(), [3, 3, 0, 0]);
    stage.assert_contained();
    stage.leave();
}

#[test]
fn a_view_of_broken_and_locked_tables_shows_the_other_tables() {
    let cluster = TestCluster::preloaded();
    let mut stage = Stage::set(&cluster);
    for name in ["broken", "locked", "sound"] {
        run(
            &mut stage.mallory,
            &format!(
                "CREATE TABLE {name} (id int PRIMARY KEY, image bytea); SELECT public.clip_watch('{name}', '{name}_vectors')"
            ),
        );
    }
    run(&mut stage.mallory, "ALTER TABLE broken ALTER id TYPE text; BEGIN; LOCK TABLE locked");
    for client in [&mut stage.superuser, &mut stage.database.connect_as("mallory")] {
        // Or a view that waits for the lock would wait for ever.
        run(client, "SET statement_timeout = '60s'");
        let sources = "SELECT array_agg(relname::text) FROM public.clip_coverage JOIN pg_class ON oid = source WHERE photos = 0";
        let counted = value::<Vec<String>>(client, sources);
        assert_eq!(counted, ["sound"]);
        assert_eq!(value::<i64>(client, "SELECT count(*) FROM public.clip_coverage"), 3);
        // A reader that is told to stop does stop, and its session goes on.
        run(client, "SET statement_timeout = '100ms'");
        assert_eq!(failure(client, "SELECT * FROM public.clip_coverage", &[]), "57014");
        run(client, "SELECT 1");
    }
    run(&mut stage.mallory, "ROLLBACK");
    stage.leave();
}
