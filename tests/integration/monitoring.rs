//! Roles for monitoring: they see how much and how fast of all tables, and no row of any.

use std::process::Output;

use pg_clip_tests::{
    PATIENCE, Signal, TestCluster, TestDatabase, cluster_of_two_models, demo_jpegs, embedder, failure,
    repository_file, run, send, store, value, wait_for_the_queue, wait_until, watched_async,
};
use postgres::Client;
use serde_json::Value;
use xtask::psql;

/// Three roles that own no table.
const ROLES: &str = "
    CREATE ROLE monitor LOGIN IN ROLE pg_monitor;
    CREATE ROLE reader LOGIN IN ROLE pg_read_all_stats;
    CREATE ROLE stranger LOGIN";

const COVERAGE: &str =
    "SELECT concat_ws(' ', photos, embedded, missing, stale, queued, failed) FROM clip_coverage";
const FAILURES: &str =
    "SELECT string_agg(concat_ws(' ', sqlstate, dead, photos), ', ') FROM clip_failure_counts";

#[test]
fn a_monitor_sees_counts_of_all_tables_and_no_row_of_any() {
    let cluster = TestCluster::preloaded();
    let (database, mut owner) = sellers_photos(&cluster);
    run(&mut owner, "SET clip.enabled = off");
    store(&mut owner, &demo_jpegs()[..2]);
    run(&mut owner, "RESET clip.enabled");
    store(&mut owner, &[demo_jpegs()[..3].to_vec(), vec![b"no image".to_vec(); 2]].concat());
    wait_for_the_queue(&mut database.connect());

    for role in ["seller", "monitor"] {
        let mut client = database.connect_as(role);
        assert_eq!(value::<String>(&mut client, COVERAGE), "7 3 4 0 0 2", "{role}");
        assert_eq!(value::<String>(&mut client, FAILURES), "22P03 t 2", "{role}");
        assert_eq!(
            value::<i64>(&mut client, "SELECT count(*) FROM clip_backlog WHERE queued = 0"),
            1,
            "{role}"
        );
    }
    // Counting photos locks and reads tables, which is for members of pg_stat_scan_tables.
    let mut reader = database.connect_as("reader");
    assert_eq!(value::<String>(&mut reader, COVERAGE), "0 2");
    assert_eq!(value::<String>(&mut reader, FAILURES), "22P03 t 2");
    let mut stranger = database.connect_as("stranger");
    for view in [
        "clip_coverage",
        "clip_failures",
        "clip_failure_counts",
        "clip_backlog",
        "clip_migrations",
        "clip_backfills",
    ] {
        assert_eq!(value::<i64>(&mut stranger, &format!("SELECT count(*) FROM {view}")), 0, "{view}");
    }

    let mut monitor = database.connect_as("monitor");
    assert_eq!(value::<i64>(&mut owner, "SELECT count(*) FROM clip_failures"), 2);
    assert_eq!(value::<i64>(&mut monitor, "SELECT count(*) FROM clip_failures"), 0);
    for statement in [
        "SELECT * FROM photos",
        "SELECT * FROM image_embeddings",
        "SELECT * FROM clip_queue",
        "SELECT * FROM clip_queue_rates",
        "SELECT * FROM clip_verify('photos')",
        "SELECT clip_retry('photos')",
        "SELECT clip_unwatch('photos')",
        "CALL clip_backfill('photos')",
        "CALL clip_migrate('image_embeddings', 'demo')",
        "SELECT clip_abandon_migration('image_embeddings')",
        "SELECT clip_grant_feeder('photos', 'monitor')",
    ] {
        assert_eq!(failure(&mut monitor, statement, &[]), "42501", "{statement}");
    }
}

#[test]
fn messages_of_a_users_code_are_hidden_from_a_monitor() {
    let cluster = TestCluster::preloaded();
    let (database, mut owner) = sellers_photos(&cluster);
    run(
        &mut owner,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE undefined_table USING MESSAGE = 'a secret of ' || NEW.image_id; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON image_embeddings FOR EACH ROW EXECUTE FUNCTION refuse()",
    );
    store(&mut owner, &demo_jpegs()[..1]);
    let waits_for = "SELECT count(*) FROM clip_coverage WHERE waits_for LIKE ";
    wait_until("the owner sees why the table waits", PATIENCE, || {
        value::<i64>(&mut owner, &format!("{waits_for} 'a secret of 1%'")) == 1
    });
    let mut monitor = database.connect_as("monitor");
    wait_until("a monitor sees that the table waits", PATIENCE, || {
        value::<i64>(&mut monitor, &format!("{waits_for} 'its owner sees the reason'")) == 1
    });
    let all = "SELECT concat_ws(' ', to_jsonb(coverage), to_jsonb(backlog)) FROM clip_coverage AS coverage, clip_backlog AS backlog";
    assert!(!value::<String>(&mut monitor, all).contains("secret"));
}

#[test]
fn a_locked_table_breaks_no_view_of_a_monitor() {
    let cluster = TestCluster::preloaded();
    let (database, mut owner) = sellers_photos(&cluster);
    run(
        &mut owner,
        "CREATE TABLE others (id int PRIMARY KEY, image bytea); SELECT clip_watch('others', 'other_embeddings')",
    );
    let mut lock = owner.transaction().expect("a transaction");
    lock.batch_execute("LOCK TABLE photos").expect("the table is locked");
    let mut monitor = database.connect_as("monitor");
    let counts =
        "SELECT string_agg(coalesce(photos::text, 'NULL'), ' ' ORDER BY source::text) FROM clip_coverage";
    assert_eq!(value::<String>(&mut monitor, counts), "0 NULL");
}

/// PostgreSQL runs what the condition of an index calls while it plans a query.
#[test]
fn a_users_code_holds_up_no_view() {
    let cluster = TestCluster::preloaded();
    let (database, mut owner) = sellers_photos(&cluster);
    let mut superuser = database.connect();
    run(
        &mut superuser,
        "CREATE TABLE others (id int PRIMARY KEY, image bytea); SELECT clip_watch('others', 'other_embeddings')",
    );
    let nap = |body: &str| {
        format!(
            "CREATE OR REPLACE FUNCTION nap(text) RETURNS bool LANGUAGE plpgsql IMMUTABLE
            AS $$ BEGIN {body} RETURN true; END $$"
        )
    };
    run(&mut owner, &nap(""));
    run(&mut owner, "CREATE INDEX ON image_embeddings (image_id) WHERE nap('x')");
    let counts =
        "SELECT string_agg(coalesce(photos::text, 'NULL'), ' ' ORDER BY source::text) FROM clip_coverage";
    let caught = |first: &str, second: &str| {
        format!("LOOP BEGIN {first} EXCEPTION WHEN query_canceled THEN {second} END; END LOOP;")
    };
    let sleep = "PERFORM pg_sleep(3600);";
    let stubborn = caught(sleep, "NULL;");
    let view = format!("PERFORM count(*) FROM public.clip_coverage; {stubborn}");
    for body in [sleep.to_owned(), stubborn.clone(), caught(&caught(&stubborn, &stubborn), sleep), view] {
        run(&mut owner, &nap(&body));
        let mut reader = database.connect();
        run(&mut reader, "SET statement_timeout = '60s'");
        assert_eq!(value::<String>(&mut reader, counts), "0 NULL", "{body}");
        assert_eq!(value::<String>(&mut reader, counts), "0 NULL", "{body}");
        // Nothing of it is left behind.
        run(&mut reader, "SELECT pg_sleep(0.2); RESET statement_timeout");
    }
    run(&mut owner, &nap(sleep));
    let mut reader = database.connect();
    run(&mut reader, "SET statement_timeout = '200ms'");
    assert_eq!(failure(&mut reader, counts, &[]), "57014", "the reader's own timeout");
    run(&mut reader, "RESET statement_timeout");
    let pid: i32 = value(&mut reader, "SELECT pg_backend_pid()");
    let cancelled = std::thread::spawn(move || failure(&mut reader, counts, &[]));
    wait_until("the reader is cancelled", PATIENCE, || {
        let cancel = format!(
            "SELECT coalesce(bool_or(pg_cancel_backend(pid)), false) FROM pg_stat_activity
            WHERE pid = {pid} AND wait_event = 'PgSleep'"
        );
        value::<bool>(&mut superuser, &cancel)
    });
    assert_eq!(cancelled.join().expect("the reader"), "57014", "the reader's own cancel");
}

#[test]
fn many_locked_tables_hold_up_no_view() {
    let cluster = TestCluster::preloaded();
    let (database, mut owner) = sellers_photos(&cluster);
    let mut superuser = database.connect();
    run(
        &mut superuser,
        "CREATE TABLE z (id int PRIMARY KEY, image bytea); SELECT clip_watch('z', 'z_embeddings')",
    );
    let tables: Vec<String> = (0..40).map(|number| format!("locked_{number}")).collect();
    for table in &tables {
        run(
            &mut owner,
            &format!(
                "CREATE TABLE {table} (id int PRIMARY KEY, image bytea); SELECT clip_watch('{table}', '{table}_embeddings')"
            ),
        );
    }
    run(&mut owner, &format!("BEGIN; LOCK TABLE {}", tables.join(", ")));
    let mut reader = database.connect_as("monitor");
    run(&mut reader, "SET statement_timeout = '25s'");
    let counted =
        "SELECT string_agg(source::text, ' ' ORDER BY source::text) FROM clip_coverage WHERE photos = 0";
    assert_eq!(value::<String>(&mut reader, counted), "photos z");
}

#[test]
fn the_backlog_has_a_rate_and_an_end() {
    let cluster = TestCluster::preloaded();
    let (database, mut owner) = sellers_photos(&cluster);
    let backlog = "SELECT queued::text FROM clip_backlog WHERE rate > 0 AND eta > now() AND queued > 0 AND oldest_waiting <= now()";
    assert_eq!(
        value::<String>(&mut owner, "SELECT concat_ws(' ', queued, rate, eta) FROM clip_backlog"),
        "0 0"
    );
    // Enough that a reader sees some of it.
    for part in demo_jpegs().chunks(50) {
        store(&mut owner, part);
    }
    let mut monitor = database.connect_as("monitor");
    wait_until("a monitor sees when all will be done", PATIENCE, || {
        monitor.query_opt(backlog, &[]).expect("a query").is_some()
    });
    wait_for_the_queue(&mut database.connect());
    wait_until("a worker without work has no rate", PATIENCE, || {
        value::<String>(&mut monitor, "SELECT concat_ws(' ', queued, rate, eta) FROM clip_backlog") == "0 0"
    });
}

#[test]
fn views_without_a_row_say_that_the_embedder_hangs() {
    let cluster = TestCluster::preloaded();
    let database = cluster.database();
    let mut client = database.connect();
    let embedder = embedder(&mut client);
    send(embedder, Signal::SIGSTOP);
    for (view, says_why) in [("clip_stats", true), ("clip_models", true), ("clip_status", false)] {
        let Output { status, stderr, .. } = psql::psql(&cluster.server, database.name())
            .args(["--no-psqlrc", "--quiet", "--command", &format!("SELECT * FROM {view}")])
            .output()
            .expect("psql runs");
        let stderr = String::from_utf8_lossy(&stderr);
        assert!(status.success(), "{view}: {stderr}");
        assert_eq!(
            stderr.contains("NOTICE:  the embedder gives no report: the embedder was not ready within"),
            says_why,
            "{view}: {stderr}"
        );
        assert_eq!(
            stderr.contains("HINT:  It is being started, cannot be started, or hangs"),
            says_why,
            "{view}: {stderr}"
        );
    }
    assert_eq!(
        value::<String>(&mut client, "SELECT state FROM clip_status WHERE error IS NOT NULL"),
        "unresponsive"
    );
    send(embedder, Signal::SIGCONT);
    assert!(!cluster.log().contains("gives no report"), "the log is spared");
    wait_until("the embedder answers again", PATIENCE, || {
        value::<i64>(&mut client, "SELECT count(*) FROM clip_models") > 0
    });
}

#[test]
fn the_queries_of_the_dashboard_run_as_a_monitor() {
    let cluster = TestCluster::preloaded();
    let (database, mut owner) = sellers_photos(&cluster);
    run(&mut owner, "SELECT clip_embed_text('a dog')");
    store(&mut owner, &[demo_jpegs()[..3].to_vec(), vec![b"no image".to_vec()]].concat());
    wait_for_the_queue(&mut database.connect());

    let dashboard: Value =
        serde_json::from_slice(&repository_file("examples/grafana/dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut monitor = database.connect_as("monitor");
    let mut shown = Vec::new();
    for panel in panels {
        let title = panel["title"].as_str().expect("a title");
        for target in panel["targets"].as_array().expect("queries") {
            let query = target["rawSql"].as_str().expect("a query");
            match monitor.query(query, &[]) {
                Ok(rows) => shown.push((title, rows.len())),
                Err(error) => panic!("{title}: {error:?}"),
            }
        }
        for column in panel["fieldConfig"]["overrides"].as_array().expect("overrides") {
            let names = column["matcher"]["options"].as_str().expect("a column");
            let query = panel["targets"][0]["rawSql"].as_str().expect("a query");
            assert!(names.split('|').all(|name| query.contains(name)), "{title}: {names}");
        }
    }
    let empty: Vec<&str> = shown.iter().filter(|(_, rows)| *rows == 0).map(|(title, _)| *title).collect();
    // Where all is well, and nothing is on its way.
    let may_be_empty = ["Embedder: what is wrong", "Backlog", "Backfills", "Migrations"];
    assert!(empty.iter().all(|title| may_be_empty.contains(title)), "{empty:?}");
    assert_eq!(shown.len(), panels.len());
    assert!(shown.len() > 12);
}

#[test]
fn a_monitor_sees_how_far_a_migration_of_another_role_is() {
    let cluster = cluster_of_two_models();
    let (database, mut owner) = sellers_photos(&cluster);
    store(&mut owner, &demo_jpegs()[..8]);
    wait_for_the_queue(&mut database.connect());
    let shown = "SELECT concat_ws(' ', target, split_part(from_model, '@', 1), split_part(to_model, '@', 1), done, total)
        FROM clip_migrations";
    // A row of no photo keeps a migration from its end.
    run(
        &mut owner,
        "INSERT INTO image_embeddings (image_id, embedding, checksum, model)
        SELECT 1000, embedding, '\\x00', model FROM image_embeddings LIMIT 1",
    );
    let migrate = "CALL clip_migrate('image_embeddings', 'other', set_default => false)";
    owner.batch_execute(migrate).expect_err("a row has no photo");
    for role in ["monitor", "seller"] {
        let shown: String = value(&mut database.connect_as(role), shown);
        assert_eq!(shown, "image_embeddings demo other 8 9", "{role}");
    }
    let all = "SELECT concat_ws(' ', count(*), count(done), count(total)) FROM clip_migrations";
    assert_eq!(value::<String>(&mut database.connect_as("reader"), all), "1 0 0", "without counts");
    assert_eq!(value::<String>(&mut database.connect_as("stranger"), all), "0 0 0");
    run(&mut owner, "DELETE FROM image_embeddings WHERE image_id = 1000");
    run(&mut owner, migrate);
    assert_eq!(value::<String>(&mut database.connect_as("monitor"), all), "0 0 0");
}

/// A database in which a role watches a table `photos` in async mode, and its client.
fn sellers_photos(cluster: &TestCluster) -> (TestDatabase, Client) {
    let (database, mut superuser) = watched_async(cluster);
    run(
        &mut superuser,
        &format!(
            "{ROLES}; CREATE ROLE seller LOGIN; GRANT CREATE ON SCHEMA public TO seller;
            ALTER TABLE photos OWNER TO seller; ALTER TABLE image_embeddings OWNER TO seller"
        ),
    );
    let owner = database.connect_as("seller");
    (database, owner)
}
