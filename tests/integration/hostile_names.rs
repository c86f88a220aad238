//! Names that change what they stand for while pg_clip works with them: nothing then runs with the rights of another role.
//!
//! The canary is that of [`crate::hostile_tables`].

use std::thread;

use pg_clip_tests::{
    PATIENCE, TestCluster, cluster_of_two_models, demo_jpegs, failure, run, value, variant,
    wait_for_the_queue, wait_until,
};

use crate::hostile_tables::Stage;

/// Moves the extension's tables away and puts views of their names, with the canary in them, into their place.
const SWAP: &str = "
    CREATE SEQUENCE swapped;
    CREATE FUNCTION swap() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        taken record;
    BEGIN
        ALTER SCHEMA public RENAME TO moved;
        CREATE SCHEMA public;
        FOR taken IN
            SELECT relname, string_agg(format('NULL::%s AS %I', format_type(atttypid, atttypmod), attname), ', ') AS columns
            FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
            WHERE relnamespace = 'moved'::regnamespace AND relkind = 'r' AND attnum > 0 GROUP BY relname
        LOOP
            EXECUTE format('CREATE VIEW public.%I AS SELECT %s WHERE mallory.canary(%L)', taken.relname, taken.columns,
                taken.relname);
        END LOOP;
        PERFORM nextval('mallory.swapped');
        RETURN NEW;
    END $$";

const IS_SWAPPED: &str = "SELECT is_called FROM mallory.swapped";

/// The owner of a database owns its schema public.
#[test]
fn the_owner_of_a_database_gains_nothing_by_renaming_the_extensions_schema() {
    let cluster = TestCluster::preloaded();
    for mode in ["sync", "async"] {
        let mut stage = Stage::set(&cluster);
        let name = stage.database.name().to_owned();
        run(&mut stage.superuser, &format!("ALTER DATABASE {name} OWNER TO mallory"));
        run(&mut stage.mallory, "CREATE TABLE photos (id int PRIMARY KEY, project text, image bytea)");
        run(&mut stage.mallory, &format!("SELECT public.clip_watch('photos', mode => '{mode}')"));
        let photos = demo_jpegs();
        let (first, second) = (&photos[0], &photos[1]);
        let insert = "INSERT INTO photos (id, image) VALUES (1, $1)";
        stage.mallory.execute(insert, &[first]).expect("a photo is stored");
        wait_for_the_queue(&mut stage.superuser);
        run(&mut stage.mallory, SWAP);
        run(
            &mut stage.mallory,
            "CREATE TRIGGER swap BEFORE UPDATE ON image_embeddings FOR EACH ROW EXECUTE FUNCTION swap()",
        );
        let update = "UPDATE photos SET image = $1";
        if mode == "sync" {
            assert_eq!(failure(&mut stage.mallory, update, &[second]), "55000");
        } else {
            stage.mallory.execute(update, &[second]).expect("a photo is stored");
            wait_until("the worker has gone on without the table", PATIENCE, || {
                value(&mut stage.superuser, IS_SWAPPED)
                    && value::<bool>(
                        &mut stage.superuser,
                        "SELECT EXISTS (SELECT FROM clip_coverage WHERE waits_for LIKE '%not the object%')
                            OR EXISTS (SELECT FROM clip_failures WHERE message LIKE '%not the object%')",
                    )
            });
        }
        assert!(value::<bool>(&mut stage.superuser, IS_SWAPPED), "{mode}");
        stage.assert_contained();
        // What was renamed is rolled back, and without the trigger all goes on.
        run(&mut stage.mallory, "DROP TRIGGER swap ON image_embeddings");
        if mode == "async" {
            run(&mut stage.mallory, "SELECT public.clip_retry('photos')");
        }
        stage.mallory.execute(update, &[second]).expect("a photo is stored");
        wait_for_the_queue(&mut stage.superuser);
        let right =
            "SELECT count(*) FROM mallory.photos JOIN mallory.image_embeddings ON image_id = photos.id
            WHERE checksum = sha256(image)";
        assert_eq!(value::<i64>(&mut stage.superuser, right), 1, "{mode}");
        run(&mut stage.superuser, &format!("ALTER DATABASE {name} OWNER TO postgres"));
        stage.leave();
    }
}

/// The schema of a superuser's tables is another role's.
#[test]
fn the_owner_of_a_schema_gains_nothing_by_renaming_it() {
    let cluster = TestCluster::preloaded();
    let mut stage = Stage::set(&cluster);
    stage.open_shop();
    run(&mut stage.superuser, "SELECT clip_watch('shop.photos')");
    // A gate of the owner's before the first of two vectors.
    run(
        &mut stage.superuser,
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NEW; END $$;
        CREATE TRIGGER wait BEFORE INSERT ON shop.image_embeddings FOR EACH ROW EXECUTE FUNCTION wait();
        SELECT pg_advisory_lock(1)",
    );
    let mut inserting = stage.database.connect();
    let inserting = thread::spawn(move || {
        let insert = "INSERT INTO shop.photos VALUES (1, $1), (2, $2)";
        inserting.execute(insert, &[&demo_jpegs()[0], &demo_jpegs()[1]])
    });
    wait_until("the statement waits at the gate", PATIENCE, || {
        value(
            &mut stage.superuser,
            "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)",
        )
    });
    run(
        &mut stage.mallory,
        "ALTER SCHEMA shop RENAME TO sold; CREATE SCHEMA shop; GRANT ALL ON SCHEMA shop TO PUBLIC;
        CREATE TABLE shop.image_embeddings (
            image_id int UNIQUE, embedding public.vector(512), checksum bytea, project text, model text);
        CREATE TRIGGER sly BEFORE INSERT ON shop.image_embeddings FOR EACH ROW EXECUTE FUNCTION canary_trigger();
        GRANT ALL ON shop.image_embeddings TO PUBLIC",
    );
    run(&mut stage.superuser, "SELECT pg_advisory_unlock(1)");
    let error = inserting.join().expect("the thread ends").expect_err("another table");
    assert_eq!(error.code().map(|code| code.code()), Some("55000"), "{error:?}");
    stage.assert_contained();
    assert_eq!(stage.ran(), 0);
    assert_eq!(value::<i64>(&mut stage.superuser, "SELECT count(*) FROM shop.image_embeddings"), 0);
    // Under its new name, the table takes vectors as before.
    let insert = "INSERT INTO sold.photos VALUES (1, $1)";
    stage.superuser.execute(insert, &[&demo_jpegs()[0]]).expect("a photo is stored");
    assert_eq!(value::<i64>(&mut stage.superuser, "SELECT count(*) FROM sold.image_embeddings"), 1);
    run(&mut stage.superuser, "DROP SCHEMA sold, shop CASCADE");
    stage.leave();
}

/// A partition or a child of a table is another role's.
#[test]
fn parts_of_another_owner_run_nothing_as_the_owner_of_the_whole() {
    let cluster = cluster_of_two_models();
    for mode in ["sync", "async"] {
        let mut stage = Stage::set(&cluster);
        run(
            &mut stage.superuser,
            &format!(
                "CREATE TABLE photos (id int PRIMARY KEY, image bytea);
                CREATE TABLE image_embeddings (image_id int PRIMARY KEY, embedding vector(512), checksum bytea, model text)
                    PARTITION BY RANGE (image_id);
                CREATE TABLE part PARTITION OF image_embeddings FOR VALUES FROM (0) TO (1000);
                SELECT clip_watch('photos', mode => '{mode}'); ALTER TABLE part OWNER TO mallory"
            ),
        );
        run(
            &mut stage.mallory,
            "CREATE TRIGGER sly BEFORE INSERT OR UPDATE OR DELETE ON public.part
                FOR EACH ROW EXECUTE FUNCTION canary_trigger()",
        );
        let insert = "INSERT INTO photos VALUES (1, $1)";
        if mode == "sync" {
            let error = stage.superuser.execute(insert, &[&demo_jpegs()[0]]).expect_err("two owners");
            let error = error.as_db_error().expect("an error of the server");
            assert_eq!(
                (error.code().code(), error.hint()),
                (
                    "55000",
                    Some(
                        "Give both the same owner: ALTER TABLE public.part OWNER TO the owner of public.image_embeddings."
                    )
                )
            );
        } else {
            stage.superuser.execute(insert, &[&demo_jpegs()[0]]).expect("a photo is stored");
            wait_until("the view says why the photo waits", PATIENCE, || {
                value::<Option<String>>(&mut stage.superuser, "SELECT waits_for FROM clip_coverage")
                    .is_some_and(|reason| reason.contains("part have different owners"))
            });
        }
        stage.assert_contained();
        assert_eq!(stage.ran(), 0, "{mode}");
        run(&mut stage.superuser, "DROP TRIGGER sly ON part; ALTER TABLE part OWNER TO postgres");
        if mode == "sync" {
            stage.superuser.execute(insert, &[&demo_jpegs()[0]]).expect("a photo is stored");
        }
        wait_for_the_queue(&mut stage.superuser);
        assert_eq!(value::<i64>(&mut stage.superuser, "SELECT count(*) FROM part"), 1, "{mode}");
        run(&mut stage.superuser, "DROP TABLE photos, image_embeddings");

        // A child's rows are none of the target's.
        run(
            &mut stage.superuser,
            &format!(
                "CREATE TABLE photos (id int PRIMARY KEY, image bytea);
                SELECT clip_watch('photos', mode => '{mode}');
                CREATE TABLE child () INHERITS (image_embeddings); ALTER TABLE child OWNER TO mallory;
                INSERT INTO child (image_id, embedding, checksum, model)
                    VALUES (1, array_fill(0, ARRAY[512])::vector, '', 'none')"
            ),
        );
        run(
            &mut stage.mallory,
            "CREATE TRIGGER sly BEFORE INSERT OR UPDATE OR DELETE ON public.child
                FOR EACH ROW EXECUTE FUNCTION canary_trigger()",
        );
        stage.superuser.execute(insert, &[&demo_jpegs()[0]]).expect("a photo is stored");
        wait_for_the_queue(&mut stage.superuser);
        for change in ["UPDATE photos SET id = 2", "DELETE FROM photos", "TRUNCATE photos"] {
            run(&mut stage.superuser, change);
            wait_for_the_queue(&mut stage.superuser);
        }
        stage.assert_contained();
        assert_eq!(stage.ran(), 0, "{mode}");
        assert_eq!(
            value::<i64>(&mut stage.superuser, "SELECT count(*) FROM image_embeddings"),
            1,
            "the child's"
        );
        run(&mut stage.superuser, "DROP TABLE photos, image_embeddings CASCADE");
        stage.leave();
    }
}

/// SET CONSTRAINTS takes all constraints of a name.
#[test]
fn a_constraint_of_the_same_name_fires_as_its_caller() {
    let cluster = TestCluster::preloaded();
    let mut stage = Stage::set(&cluster);
    run(
        &mut stage.superuser,
        "CREATE TABLE photos (id int PRIMARY KEY, image bytea); SELECT clip_watch('photos');
        ALTER TABLE image_embeddings ADD CONSTRAINT of_photo FOREIGN KEY (image_id) REFERENCES photos
            DEFERRABLE INITIALLY DEFERRED;
        GRANT INSERT ON photos TO mallory; GRANT SELECT ON photos TO mallory",
    );
    run(
        &mut stage.mallory,
        "CREATE TABLE public.mine (x int);
        CREATE CONSTRAINT TRIGGER of_photo AFTER INSERT ON public.mine DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION canary_trigger()",
    );
    let mut transaction = stage.mallory.transaction().expect("a transaction");
    transaction.batch_execute("INSERT INTO public.mine VALUES (1)").expect("a row is stored");
    let insert = "INSERT INTO public.photos VALUES (1, $1)";
    transaction.execute(insert, &[&demo_jpegs()[0]]).expect("a photo is stored");
    transaction.commit().expect("a commit");
    stage.assert_contained();
    assert_eq!(stage.ran(), 1);
    assert_eq!(value::<i64>(&mut stage.superuser, "SELECT count(*) FROM image_embeddings"), 1);
    run(&mut stage.superuser, "DROP TABLE photos, image_embeddings");
    stage.leave();
}

/// A superuser asks for the row of a photo, and names a table of another role.
#[test]
fn a_row_is_looked_for_as_the_owner_of_the_table() {
    let cluster = TestCluster::preloaded();
    let mut stage = Stage::set(&cluster);
    let ask = |columns: &str| {
        format!("SELECT (embedding IS NULL)::text FROM clip_embedding_row($1, 'mallory.held'{columns})")
    };
    run(
        &mut stage.mallory,
        "CREATE FUNCTION of_key(int) RETURNS bool LANGUAGE sql IMMUTABLE AS $$ SELECT mallory.canary('index') $$;
        CREATE TABLE held (image_id int, embedding public.vector(512), checksum bytea, model text);
        CREATE INDEX ON held (checksum) WHERE of_key(1);
        ALTER TABLE held ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
        CREATE POLICY sly ON held USING (canary('policy'))",
    );
    let photo = &demo_jpegs()[0];
    let asked = stage.superuser.query_one(&ask(""), &[photo]).expect("a row");
    assert_eq!(asked.get::<_, String>(0), "false");
    stage.assert_contained();
    // Columns of other types, and names that stand for no column.
    run(
        &mut stage.mallory,
        "CREATE TYPE odd AS (b bytea);
        CREATE FUNCTION spell(odd) RETURNS bytea LANGUAGE sql AS $$ SELECT mallory.canary('cast')::text::bytea $$;
        CREATE CAST (odd AS bytea) WITH FUNCTION spell(odd) AS IMPLICIT;
        ALTER TABLE held ADD cast_checksum odd;
        CREATE FUNCTION called(held) RETURNS text LANGUAGE sql AS $$ SELECT mallory.canary('function')::text $$;
        INSERT INTO held (image_id) VALUES (1)",
    );
    run(&mut stage.superuser, "SET search_path = public, mallory");
    for (columns, expected) in [
        (", checksum_column => 'cast_checksum'", "42804"),
        (", model_column => 'called'", "42703"),
        (", embedding_column => 'model'", "42804"),
    ] {
        assert_eq!(failure(&mut stage.superuser, &ask(columns), &[photo]), expected, "{columns}");
    }
    stage.assert_contained();
    // A role that may read one column, or from which a policy hides rows, learns nothing of the others.
    run(
        &mut stage.superuser,
        "RESET search_path; CREATE TABLE kept (embedding vector(512), checksum bytea, model text);
        GRANT SELECT (model) ON kept TO mallory",
    );
    let ask = "SELECT embedding IS NULL FROM public.clip_embedding_row($1, 'public.kept')";
    assert_eq!(failure(&mut stage.mallory, ask, &[photo]), "42501");
    run(
        &mut stage.superuser,
        "GRANT SELECT ON kept TO mallory; INSERT INTO kept (model) VALUES ('none@000000000000')",
    );
    assert_eq!(failure(&mut stage.mallory, ask, &[photo]), "55000");
    run(&mut stage.superuser, "ALTER TABLE kept ENABLE ROW LEVEL SECURITY");
    assert!(!value::<bool>(&mut stage.mallory, &ask.replace("$1", &format!("'\\x{}'", hex(photo)))));
    run(&mut stage.superuser, "DROP TABLE kept");
    stage.leave();
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The definition of an index is analyzed anew for a column of another type: another role's function of the same name takes that
/// type.
#[test]
fn an_index_that_is_made_anew_calls_no_function_of_another_role() {
    let cluster = TestCluster::preloaded();
    let mut stage = Stage::set(&cluster);
    run(
        &mut stage.superuser,
        "CREATE TABLE photos (id int PRIMARY KEY, image bytea); SELECT clip_watch('photos', storage => 'halfvec');
        CREATE SCHEMA lib; GRANT ALL ON SCHEMA lib TO mallory;
        CREATE FUNCTION lib.norm(v halfvec) RETURNS float8 LANGUAGE sql IMMUTABLE AS 'SELECT 1::float8';
        CREATE INDEX by_norm ON image_embeddings (lib.norm(embedding))",
    );
    let insert = "INSERT INTO photos VALUES (1, $1)";
    stage.superuser.execute(insert, &[&demo_jpegs()[0]]).expect("a photo is stored");
    run(
        &mut stage.mallory,
        "CREATE FUNCTION lib.norm(v public.vector) RETURNS float8 LANGUAGE plpgsql IMMUTABLE AS
            $$ BEGIN RETURN mallory.canary('index')::int; END $$",
    );
    let migrate = "CALL clip_migrate('image_embeddings', 'demo', storage => 'vector')";
    assert_eq!(failure(&mut stage.superuser, migrate, &[]), "55000");
    stage.assert_contained();
    assert_eq!(stage.ran(), 0);
    // With the function of the index's owner, it goes on.
    run(
        &mut stage.superuser,
        "DROP FUNCTION lib.norm(vector);
        CREATE FUNCTION lib.norm(v vector) RETURNS float8 LANGUAGE sql IMMUTABLE AS 'SELECT 1::float8'",
    );
    run(&mut stage.superuser, migrate);
    let valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'by_norm'::regclass";
    assert!(value::<bool>(&mut stage.superuser, valid));
    run(&mut stage.superuser, "DROP TABLE photos, image_embeddings; DROP SCHEMA lib CASCADE");
    stage.leave();
}

/// The owner of a schema makes an operator there, of a function that a superuser has made.
#[test]
fn an_operator_of_another_role_is_not_taken_for_that_of_a_keys_type() {
    let cluster = TestCluster::preloaded();
    let mut stage = Stage::set(&cluster);
    let name = stage.database.name().to_owned();
    run(
        &mut stage.superuser,
        &format!(
            "GRANT CREATE ON DATABASE {name} TO mallory; ALTER SCHEMA public OWNER TO mallory; CREATE SCHEMA shop;
            CREATE TABLE shop.photos (id vector(1) PRIMARY KEY, image bytea); SELECT clip_watch('shop.photos');
            CREATE FUNCTION shop.wait() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NEW; END $$;
            CREATE TRIGGER wait BEFORE INSERT ON shop.image_embeddings FOR EACH ROW EXECUTE FUNCTION shop.wait();
            SELECT pg_advisory_lock(1)"
        ),
    );
    // The last of them are read when the vectors of a batch have been written.
    let photos: Vec<Vec<u8>> = (0..40).map(|number| variant(&demo_jpegs()[0], number)).collect();
    let insert = "INSERT INTO shop.photos SELECT array_fill(number::int, ARRAY[1])::TYPE, image
        FROM unnest($1::bytea[]) WITH ORDINALITY AS t (image, number)";
    let mut inserting = stage.database.connect();
    let statement = insert.replace("TYPE", "vector");
    let values = photos.clone();
    let inserting = thread::spawn(move || inserting.execute(&statement, &[&values]));
    wait_until("the first vector waits at the gate", PATIENCE, || {
        let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)";
        value(&mut stage.superuser, waits)
    });
    run(
        &mut stage.mallory,
        "ALTER SCHEMA public RENAME TO moved; CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO PUBLIC;
        CREATE OPERATOR public.= (LEFTARG = moved.vector, RIGHTARG = moved.vector, FUNCTION = moved.vector_ne)",
    );
    run(&mut stage.superuser, "SELECT pg_advisory_unlock(1)");
    let error = inserting.join().expect("the thread ends").expect_err("another operator");
    assert_eq!(error.code().map(|code| code.code()), Some("55000"), "{error:?}");
    stage.superuser.execute(&insert.replace("TYPE", "moved.vector"), &[&photos]).expect("photos are stored");
    let right =
        "SELECT count(*) FROM shop.photos JOIN shop.image_embeddings ON image_id::text = photos.id::text
        WHERE checksum = sha256(image)";
    assert_eq!(value::<i64>(&mut stage.superuser, right), 40);
    stage.assert_contained();
    run(
        &mut stage.superuser,
        "DROP SCHEMA shop CASCADE; DROP SCHEMA public CASCADE; ALTER SCHEMA moved RENAME TO public",
    );
    stage.leave();
}
