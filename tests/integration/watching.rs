//! The objects that `clip_watch` makes, and the calls that it refuses in words instead of failing later.

use pg_clip_tests::{Signal, TestCluster, demo_jpegs, embedder, run, send, value};

const TARGET: &str = "image_id int UNIQUE, embedding vector(512), checksum bytea, model text, project text";

/// A statement that prepares, a call, and the SQLSTATE of its refusal.
const REFUSED: [(&str, &str, &str); 19] = [
    ("", "SELECT clip_watch('photos', target => 'photos')", "22023"),
    ("", "SELECT clip_watch('photos', mode => 'later')", "22023"),
    ("", "SELECT clip_watch(NULL)", "42P01"),
    ("", "SELECT clip_watch('photos', image_column => 'picture')", "42703"),
    ("", "SELECT clip_watch('photos', image_column => 'project')", "42804"),
    ("", "SELECT clip_watch('photos', key_column => 'other')", "55000"),
    (
        "CREATE UNIQUE INDEX ON photos (other) WHERE other > 0; CREATE UNIQUE INDEX ON photos (other, id);
        CREATE UNIQUE INDEX ON photos ((other + 1))",
        "SELECT clip_watch('photos', key_column => 'other')",
        "55000",
    ),
    (
        "CREATE TABLE vectors (image_id bigint UNIQUE, embedding vector(512), checksum bytea, model text)",
        "SELECT clip_watch('photos', 'vectors')",
        "42804",
    ),
    (
        "CREATE TABLE vectors (image_id int UNIQUE, embedding vector(512), checksum bytea, model text, project varchar)",
        "SELECT clip_watch('photos', 'vectors')",
        "42804",
    ),
    (
        "CREATE TABLE vectors (
            image_id int UNIQUE, embedding vector(512), checksum bytea, model text, project text COLLATE \"C\")",
        "SELECT clip_watch('photos', 'vectors')",
        "42804",
    ),
    (
        "CREATE TABLE vectors (image_id int UNIQUE, embedding sparsevec(512), checksum bytea, model text)",
        "SELECT clip_watch('photos', 'vectors')",
        "42703",
    ),
    (
        "CREATE TABLE vectors (image_id int UNIQUE, embedding vector(512), checksum bytea,
            model text GENERATED ALWAYS AS ('m') STORED)",
        "SELECT clip_watch('photos', 'vectors')",
        "0A000",
    ),
    (
        "CREATE TABLE vectors (image_id int GENERATED ALWAYS AS IDENTITY UNIQUE, embedding vector(512),
            checksum bytea, model text)",
        "SELECT clip_watch('photos', 'vectors')",
        "0A000",
    ),
    (
        "CREATE TEMP TABLE passing (id int PRIMARY KEY, image bytea);
        CREATE TEMP TABLE vectors (image_id int UNIQUE, embedding vector(512), checksum bytea, model text)",
        "SELECT clip_watch('passing', target => 'pg_temp.vectors', mode => 'async')",
        "0A000",
    ),
    (
        "CREATE TABLE whole (id int PRIMARY KEY, image bytea) PARTITION BY RANGE (id);
        CREATE TABLE part PARTITION OF whole DEFAULT",
        "SELECT clip_watch('part')",
        "0A000",
    ),
    ("CREATE TEMP TABLE passing (id int PRIMARY KEY, image bytea)", "SELECT clip_watch('passing')", "0A000"),
    (
        "CREATE TEMP TABLE vectors (image_id int UNIQUE, embedding vector(512), checksum bytea, model text)",
        "SELECT clip_watch('photos', target => 'pg_temp.vectors')",
        "0A000",
    ),
    (
        "CREATE FOREIGN DATA WRAPPER none; CREATE SERVER far FOREIGN DATA WRAPPER none;
        CREATE FOREIGN TABLE distant (id int, image bytea) SERVER far",
        "SELECT clip_watch('distant', key_column => 'id')",
        "42809",
    ),
    (
        "CREATE TABLE documents (id int PRIMARY KEY, project json, image bytea)",
        "SELECT clip_watch('documents')",
        "42804",
    ),
];

#[test]
fn a_watch_that_cannot_work_is_refused_with_a_reason() {
    let cluster = TestCluster::shared();
    let database = cluster.database();
    let mut client = database.connect();
    run(&mut client, "CREATE TABLE photos (id int PRIMARY KEY, other int, project text, image bytea)");
    for (prepare, call, state) in REFUSED {
        let mut transaction = client.transaction().expect("a transaction");
        transaction.batch_execute(prepare).expect(prepare);
        let error = transaction.batch_execute(call).expect_err(call);
        let error = error.as_db_error().expect("an error of the server");
        assert_eq!(error.code().code(), state, "{prepare} {call}: {error}");
        transaction.rollback().expect("a rollback");
    }
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM clip_watches"), 0);
    run(&mut client, &format!("CREATE TABLE vectors ({TARGET}); SELECT clip_watch('photos', 'vectors')"));
    // PostgreSQL 18 has virtual columns: a trigger sees no values of theirs. Stored ones are like any other.
    let has_virtual =
        value::<i32>(&mut client, "SELECT current_setting('server_version_num')::int") >= 180_000;
    let kind = if has_virtual { "VIRTUAL" } else { "STORED" };
    for columns in [
        format!("id int PRIMARY KEY, image bytea GENERATED ALWAYS AS ('x') {kind}"),
        format!("id int PRIMARY KEY, image bytea, project text GENERATED ALWAYS AS ('p') {kind}"),
    ] {
        let mut transaction = client.transaction().expect("a transaction");
        transaction.batch_execute(&format!("CREATE TABLE derived ({columns})")).expect("a table");
        let watch = transaction.query("SELECT clip_watch('derived', 'derived_embeddings')", &[]);
        let state = watch.err().and_then(|error| error.code().map(|code| code.code().to_owned()));
        assert_eq!(state.as_deref(), has_virtual.then_some("0A000"), "{columns}");
    }
}

#[test]
fn the_first_photos_of_a_table_do_not_wait_for_each_other() {
    let cluster = TestCluster::shared();
    let database = cluster.database();
    let (mut one, mut other) = (database.connect(), database.connect());
    run(&mut one, "CREATE TABLE photos (id int PRIMARY KEY, image bytea); SELECT clip_watch('photos')");
    // A wait would end in an error.
    run(&mut other, "SET lock_timeout = '20s'");
    let insert = "INSERT INTO photos VALUES ($1, $2)";
    let mut open = one.transaction().expect("a transaction");
    open.execute(insert, &[&1, &demo_jpegs()[0]]).expect("the first photo");
    other.execute(insert, &[&2, &demo_jpegs()[1]]).expect("another photo, beside the first");
    open.commit().expect("a commit");
    assert_eq!(value::<i64>(&mut other, "SELECT count(*) FROM image_embeddings"), 2);
}

#[test]
fn a_watch_does_without_an_embedder_that_is_away() {
    let cluster = TestCluster::preloaded();
    let mut client = cluster.database().connect();
    run(
        &mut client,
        &format!("CREATE TABLE photos (id int PRIMARY KEY, image bytea); CREATE TABLE vectors ({TARGET})"),
    );
    let stopped = embedder(&mut client);
    send(stopped, Signal::SIGSTOP);
    run(&mut client, "SELECT clip_watch('photos', 'vectors')");
    assert_eq!(value::<Option<String>>(&mut client, "SELECT model FROM clip_watches"), None);
    send(stopped, Signal::SIGCONT);
    client.execute("INSERT INTO photos VALUES (1, $1)", &[&demo_jpegs()[0]]).expect("a photo is embedded");
    assert_eq!(value::<i64>(&mut client, "SELECT embedded FROM clip_verify('photos')"), 1);
}

#[test]
fn an_open_watch_blocks_no_other_table() {
    let cluster = TestCluster::shared();
    let database = cluster.database();
    let (mut one, mut other) = (database.connect(), database.connect());
    run(
        &mut one,
        "CREATE TABLE gone (id int PRIMARY KEY, image bytea); SELECT clip_watch('gone', 'gone_embeddings');
        CREATE TABLE others (id int PRIMARY KEY, image bytea); CREATE TABLE more (id int PRIMARY KEY, image bytea);
        DROP TABLE gone",
    );
    run(&mut other, "SET lock_timeout = '20s'");
    let mut open = one.transaction().expect("a transaction");
    open.batch_execute("SELECT clip_watch('others', 'other_embeddings')").expect("a table is watched");
    run(&mut other, "SELECT clip_watch('more', 'more_embeddings')");
    open.commit().expect("a commit");
    assert_eq!(value::<i64>(&mut other, "SELECT count(*) FROM clip_watches"), 2);
}

#[test]
fn two_calls_on_one_table_wait_for_each_other_and_end() {
    let cluster = TestCluster::shared();
    let database = cluster.database();
    run(
        &mut database.connect(),
        "CREATE TABLE photos (id int PRIMARY KEY, image bytea); SELECT clip_watch('photos')",
    );
    std::thread::scope(|scope| {
        for mode in ["sync", "async"] {
            let mut client = database.connect();
            scope.spawn(move || {
                for _ in 0..20 {
                    run(&mut client, &format!("SELECT clip_watch('photos', mode => '{mode}')"));
                }
            });
        }
    });
    let triggers = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'photos'::regclass AND NOT tgisinternal";
    assert_eq!(value::<i64>(&mut database.connect(), triggers), 4);
}

#[test]
fn partitioned_tables_are_watched() {
    let cluster = TestCluster::shared();
    let mut client = cluster.database().connect();
    run(
        &mut client,
        "CREATE TABLE photos (id int PRIMARY KEY, image bytea) PARTITION BY RANGE (id);
        CREATE TABLE first PARTITION OF photos FOR VALUES FROM (0) TO (10);
        CREATE TABLE second PARTITION OF photos FOR VALUES FROM (10) TO (20);
        CREATE TABLE image_embeddings (image_id int PRIMARY KEY, embedding vector(512), checksum bytea, model text)
            PARTITION BY RANGE (image_id);
        CREATE TABLE of_all PARTITION OF image_embeddings DEFAULT;
        CREATE INDEX ON image_embeddings (checksum); SELECT clip_watch('photos')",
    );
    for id in [1, 11] {
        client.execute("INSERT INTO photos VALUES ($1, $2)", &[&id, &demo_jpegs()[0]]).expect("a photo");
    }
    let counts =
        "SELECT ARRAY[photos, embedded, missing, stale, orphaned, other_project] FROM clip_verify('photos')";
    assert_eq!(value::<Vec<i64>>(&mut client, counts), [2, 2, 0, 0, 0, 0]);
}
