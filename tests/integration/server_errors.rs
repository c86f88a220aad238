//! Errors of a user's own code and tables reach the application as PostgreSQL raises them.

use pg_clip_tests::{TestCluster, demo_photo, run, watched};
use postgres::error::DbError;

fn error(client: &mut postgres::Client, statement: &str) -> DbError {
    let error = client.execute(statement, &[&demo_photo()]).expect_err("it is refused");
    error.as_db_error().expect("an error of the server").clone()
}

#[test]
fn an_error_keeps_its_sqlstate_its_constraint_and_its_context() {
    let cluster = TestCluster::shared();
    let (_database, mut client) = watched(&cluster, "sync");
    let insert = "INSERT INTO photos (image) VALUES ($1)";
    run(
        &mut client,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                RAISE EXCEPTION 'not today' USING ERRCODE = 'ZZ001', DETAIL = 'a détail', HINT = 'tomorrow',
                    CONSTRAINT = 'opening_hours';
            END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON image_embeddings FOR EACH ROW EXECUTE FUNCTION refuse()",
    );
    let refused = error(&mut client, insert);
    assert_eq!((refused.code().code(), refused.message()), ("ZZ001", "not today"));
    assert_eq!((refused.detail(), refused.hint()), (Some("a détail"), Some("tomorrow")));
    assert_eq!(refused.constraint(), Some("opening_hours"));
    let context = refused.where_().unwrap_or_default();
    assert!(context.contains("PL/pgSQL function public.refuse() line 3 at RAISE"), "{context}");

    run(
        &mut client,
        "DROP TRIGGER refuse ON image_embeddings;
        ALTER TABLE image_embeddings ADD CONSTRAINT few CHECK (image_id < 0)",
    );
    let refused = error(&mut client, insert);
    assert_eq!((refused.code().code(), refused.constraint()), ("23514", Some("few")));
    assert_eq!((refused.schema(), refused.table()), (Some("public"), Some("image_embeddings")));

    // The block catches the error as it was raised.
    run(
        &mut client,
        "ALTER TABLE image_embeddings DROP CONSTRAINT few;
        CREATE TRIGGER refuse BEFORE INSERT ON image_embeddings FOR EACH ROW EXECUTE FUNCTION refuse()",
    );
    let caught = "DO $$ DECLARE state text; name text; BEGIN
            INSERT INTO photos (image) VALUES (decode('%', 'hex'));
        EXCEPTION WHEN SQLSTATE 'ZZ001' THEN
            GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, name = CONSTRAINT_NAME;
            ASSERT state = 'ZZ001' AND name = 'opening_hours', state || name;
        END $$";
    let hex: String = demo_photo().iter().map(|byte| format!("{byte:02x}")).collect();
    for _ in 0..3 {
        run(&mut client, &caught.replace('%', &hex));
    }
    // An error of pg_clip's after one that was caught is its own.
    let own = "INSERT INTO photos (image) VALUES (substr($1::bytea, 1, 50))";
    run(&mut client, "DROP TRIGGER refuse ON image_embeddings");
    let refused = error(&mut client, own);
    assert_eq!((refused.code().code(), refused.constraint()), ("22P03", None));
}
