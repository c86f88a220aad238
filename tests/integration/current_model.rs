//! Which model embeds where a call names none, also in sessions that are open already.

use pg_clip_tests::{
    TestCluster, TestDatabase, cluster_of_two_models, prefer_workers, run, value, wait_for_workers,
};
use postgres::Client;

fn set_for(client: &mut Client, what: &str, model: &str) {
    run(client, &format!("ALTER {what} SET clip.model = '{model}'"));
}

/// The model that made a vector, and the one that `SHOW` names: they have to agree.
#[track_caller]
fn model(client: &mut Client) -> String {
    let query = "SELECT model FROM unnest(ARRAY['demo', 'other']) AS model
        WHERE clip_embed_text('a dog') = clip_embed_text('a dog', model)";
    let model: String = value(client, query);
    assert_eq!(value::<String>(client, "SHOW clip.model"), model);
    let array =
        format!("SELECT clip_embed_texts(ARRAY['a dog']) = clip_embed_texts(ARRAY['a dog'], '{model}')");
    assert!(value::<bool>(client, &array));
    model
}

fn database(cluster: &TestCluster) -> (TestDatabase, String) {
    let database = cluster.database();
    let name = format!("DATABASE {}", database.name());
    (database, name)
}

#[test]
fn an_open_session_follows_its_database() {
    let cluster = cluster_of_two_models();
    let (database, name) = database(&cluster);
    let (mut client, mut admin) = (database.connect(), database.connect());
    assert_eq!(model(&mut client), "demo");
    set_for(&mut admin, &name, "other");
    assert_eq!(model(&mut client), "other");
    assert_eq!(model(&mut database.connect()), "other");
    set_for(&mut admin, &name, "demo");
    assert_eq!(model(&mut client), "demo");

    run(&mut admin, "ALTER ROLE ALL SET clip.model = 'other'");
    assert_eq!(model(&mut client), "demo", "the database's entry comes before that of all roles");
    run(&mut admin, &format!("ALTER {name} RESET clip.model"));
    assert_eq!(model(&mut client), "other");
    run(&mut admin, "ALTER ROLE ALL RESET clip.model");

    // In a transaction that locked nothing, and in one that keeps its snapshot.
    for begin in ["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"] {
        set_for(&mut admin, &name, "demo");
        run(&mut client, begin);
        assert_eq!(model(&mut client), "demo");
        set_for(&mut admin, &name, "other");
        assert_eq!(model(&mut client), "other");
        run(&mut client, "COMMIT");
    }

    // Its own changes, and the changes that it takes back.
    set_for(&mut admin, &name, "demo");
    run(&mut admin, "BEGIN; SAVEPOINT before");
    set_for(&mut admin, &name, "other");
    assert_eq!(model(&mut admin), "other");
    assert_eq!(model(&mut client), "demo");
    run(&mut admin, "ROLLBACK TO before");
    assert_eq!(model(&mut admin), "demo");
    run(&mut admin, "ROLLBACK");
}

#[test]
fn settings_of_session_role_client_and_function_come_first() {
    let cluster = cluster_of_two_models();
    let (database, name) = database(&cluster);
    let (mut client, mut admin) = (database.connect(), database.connect());
    set_for(&mut admin, &name, "demo");

    run(&mut client, "SET clip.model = 'other'");
    assert_eq!(model(&mut client), "other");
    set_for(&mut admin, &name, "demo");
    assert_eq!(model(&mut client), "other");
    run(&mut client, "RESET clip.model");
    assert_eq!(model(&mut client), "demo");
    set_for(&mut admin, &name, "other");
    assert_eq!(model(&mut client), "other", "a session that was reset follows again");

    run(&mut client, "BEGIN; SET LOCAL clip.model = 'demo'");
    assert_eq!(model(&mut client), "demo");
    run(&mut client, "ROLLBACK");
    assert_eq!(model(&mut client), "other");
    run(&mut client, "BEGIN; SAVEPOINT before; SET clip.model = 'demo'; ROLLBACK TO before");
    assert_eq!(model(&mut client), "other");
    run(&mut client, "COMMIT; SET clip.model = 'demo'; SET clip.model TO DEFAULT");
    assert_eq!(model(&mut client), "other");

    let embed =
        "CREATE FUNCTION embed_with_demo(query text) RETURNS vector LANGUAGE plpgsql SET clip.model = 'demo'
        AS $$ BEGIN RETURN clip_embed_text(query); END $$";
    run(&mut client, embed);
    let query = "SELECT embed_with_demo('a dog') = clip_embed_text('a dog', 'demo')";
    assert!(value::<bool>(&mut client, query));
    assert_eq!(model(&mut client), "other");

    run(&mut admin, "CREATE ROLE tester LOGIN");
    let mut before = database.connect_as("tester");
    set_for(&mut admin, "ROLE tester", "demo");
    assert_eq!(model(&mut database.connect_as("tester")), "demo");
    assert_eq!(model(&mut before), "other", "a role's own setting is read at the session's start");
    drop(before);
    run(&mut admin, &format!("ALTER ROLE tester IN {name} SET clip.model = 'other'"));
    set_for(&mut admin, &name, "demo");
    assert_eq!(model(&mut database.connect_as("tester")), "other");
    run(&mut admin, "DROP OWNED BY tester; DROP ROLE tester");
}

#[test]
fn a_loop_of_plpgsql_sees_the_model_that_it_sets() {
    let cluster = cluster_of_two_models();
    let (database, _) = database(&cluster);
    let mut client = database.connect();
    let function = "CREATE FUNCTION embed_with(models text[]) RETURNS SETOF vector LANGUAGE plpgsql AS $$
        DECLARE
            model text;
            embedding vector;
        BEGIN
            FOREACH model IN ARRAY models LOOP
                PERFORM set_config('clip.model', model, true);
                embedding := clip_embed_text('a dog');
                RETURN NEXT embedding;
            END LOOP;
        END $$";
    run(&mut client, function);
    let query =
        "SELECT array_agg(v) = ARRAY[clip_embed_text('a dog', 'demo'), clip_embed_text('a dog', 'other'),
            clip_embed_text('a dog', 'demo')]
        FROM embed_with(ARRAY['demo', 'other', 'demo']) AS v";
    assert!(value::<bool>(&mut client, query));
}

#[test]
fn a_query_keeps_its_model_and_its_workers_follow() {
    let cluster = cluster_of_two_models();
    let (database, name) = database(&cluster);
    let (mut client, mut admin) = (database.connect(), database.connect());
    set_for(&mut admin, &name, "demo");
    run(
        &mut client,
        "CREATE TABLE queries AS SELECT 'query ' || i % 50 AS query FROM generate_series(1, 5000) AS i",
    );
    prefer_workers(&mut client, "queries");
    set_for(&mut admin, &name, "other");
    let query =
        "SELECT count(*) FROM queries WHERE clip_embed_text(query) <> clip_embed_text(query, 'other')";
    assert_eq!(value::<i64>(&mut client, query), 0);
    wait_for_workers(&mut client, query);

    // A cursor's rows are those of one query.
    run(
        &mut client,
        "BEGIN; DECLARE embedded CURSOR FOR
            SELECT clip_embed_text(query) = clip_embed_text(query, 'other') FROM queries",
    );
    assert!(value::<bool>(&mut client, "FETCH embedded"));
    set_for(&mut admin, &name, "demo");
    assert!(value::<bool>(&mut client, "FETCH embedded"));
    run(&mut client, "COMMIT");
    assert_eq!(model(&mut client), "demo");
}

#[test]
fn a_target_of_another_model_changes_no_other_table() {
    let cluster = cluster_of_two_models();
    let (database, _) = database(&cluster);
    let mut client = database.connect();
    for held in ["other", "nonsense"] {
        run(
            &mut client,
            &format!(
                "CREATE TABLE {held} (id int PRIMARY KEY, image bytea);
                CREATE TABLE {held}_e (image_id int PRIMARY KEY, embedding vector(512) NOT NULL,
                    checksum bytea NOT NULL, model text NOT NULL);
                INSERT INTO {held}_e VALUES (1, clip_embed_text('x'), '\\x00', '{held}@000000000000');
                SELECT clip_watch('{held}', target => '{held}_e')"
            ),
        );
        assert_eq!(model(&mut database.connect()), "demo");
    }
}
