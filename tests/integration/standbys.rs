//! Several standbys search at once, have the views' rows, and one of them goes on where a dead primary stopped.

use pg_clip_tests::{
    PATIENCE, Signal, TestCluster, WRONG, catch_up, demo_photos, embedder, failure, is_alive,
    repository_file, run, send, store, value, wait_for_the_queue, wait_until, watched_async, working_worker,
};
use postgres::Client;

const BY_WORDS: &str = "SELECT image_id FROM image_embeddings
    ORDER BY embedding <=> (SELECT clip_embed_text($1::text)) LIMIT 5";
const BY_PHOTO: &str = "SELECT image_id FROM image_embeddings
    ORDER BY embedding <=> (SELECT clip_embed_image($1)) LIMIT 5";

fn ids(client: &mut Client, query: &str, parameter: &(dyn postgres::types::ToSql + Sync)) -> Vec<i64> {
    client.query(query, &[parameter]).expect("a search").iter().map(|row| row.get(0)).collect()
}

#[test]
fn three_standbys_search_and_show_their_own_embedder() {
    let primary = TestCluster::preloaded();
    let (database, mut writer) = watched_async(&primary);
    store(&mut writer, &demo_photos()[..40]);
    wait_for_the_queue(&mut writer);
    run(&mut writer, "INSERT INTO photos (image) VALUES ('no photo')");
    wait_for_the_queue(&mut writer);
    let standbys = [primary.standby(), primary.standby(), primary.standby()];
    let mut readers: Vec<Client> =
        standbys.iter().map(|standby| standby.existing_database(database.name()).connect()).collect();
    let photo = repository_file("models/demo/photos/queries/pizza-1.jpg");
    let mut pids = vec![embedder(&mut writer)];
    for (number, reader) in readers.iter_mut().enumerate() {
        catch_up(&mut writer, reader);
        let words = format!("a slice of pizza for {number}");
        assert_eq!(ids(reader, BY_WORDS, &words), ids(&mut writer, BY_WORDS, &words));
        assert_eq!(ids(reader, BY_PHOTO, &photo), ids(&mut writer, BY_PHOTO, &photo));
        let status =
            "SELECT concat_ws(' ', state, restarts, text_inferences, image_inferences) FROM clip_status";
        assert_eq!(value::<String>(reader, status), "ready 0 1 1");
        pids.push(u32::try_from(value::<i32>(reader, "SELECT pid FROM clip_status")).expect("a process id"));
        let coverage = "SELECT concat_ws(' ', photos, embedded, missing, queued, failed) FROM clip_coverage";
        assert_eq!(value::<String>(reader, coverage), "41 40 1 0 1");
        for (view, rows) in [
            ("clip_models WHERE name = 'demo'", 1),
            ("clip_stats WHERE kind = 'text'", 1),
            ("clip_backlog", 1),
            ("clip_failures", 1),
            ("clip_failure_counts", 1),
            ("clip_backfills", 0),
            ("clip_migrations", 0),
            ("clip_workers", 0),
        ] {
            assert_eq!(value::<i64>(reader, &format!("SELECT count(*) FROM {view}")), rows, "{view}");
        }
        assert_eq!(value::<i64>(reader, "SELECT missing FROM clip_count('photos')"), 1);
        assert_eq!(value::<i64>(reader, "SELECT missing FROM clip_verify('photos')"), 1);
        assert_eq!(
            value::<String>(
                reader,
                "SELECT label FROM clip_classify((SELECT image FROM photos WHERE id = 1), ARRAY['dog', 'guitar'])
                ORDER BY label LIMIT 1"
            ),
            "dog"
        );
        for refused in [
            "SELECT clip_retry()",
            "CALL clip_backfill('photos')",
            "CALL clip_migrate('image_embeddings', 'demo')",
            "SELECT clip_watch('photos')",
            "SELECT clip_unwatch('photos')",
        ] {
            assert_eq!(failure(reader, refused, &[]), "25006", "{refused}");
        }
    }
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), 4, "each server has an embedder of its own");
}

/// The primary dies with photos that wait, photos that the embedder has, and photos that are embedded.
#[test]
fn a_standby_goes_on_where_a_killed_primary_stopped() {
    let primary = TestCluster::preloaded();
    let (database, mut writer) = watched_async(&primary);
    let standbys = [primary.standby(), primary.standby()];
    store(&mut writer, &demo_photos()[..20]);
    wait_for_the_queue(&mut writer);
    let stopped = embedder(&mut writer);
    send(stopped, Signal::SIGSTOP);
    store(&mut writer, &demo_photos()[20..200]);
    run(
        &mut writer,
        "DELETE FROM photos WHERE id = 1; UPDATE photos SET image = image || '\\x00' WHERE id = 2",
    );
    working_worker(&mut writer);
    let mut reader = standbys[0].existing_database(database.name()).connect();
    catch_up(&mut writer, &mut reader);
    let waiting = value::<i64>(&mut reader, "SELECT count(*) FROM clip_queue WHERE claimed");
    assert!(waiting > 0, "the primary's worker has claimed photos");

    let family = primary.processes();
    send(primary.postmaster_pid(), Signal::SIGKILL);
    for process in &family {
        if is_alive(process.pid) {
            send(process.pid, Signal::SIGKILL);
        }
        wait_until(&format!("the end of {process:?}"), PATIENCE, || !is_alive(process.pid));
    }
    assert!(value::<bool>(&mut reader, "SELECT pg_promote()"));
    wait_for_the_queue(&mut reader);
    assert_eq!(value::<i64>(&mut reader, "SELECT count(*) FROM image_embeddings"), 199);
    assert_eq!(value::<i64>(&mut reader, WRONG), 0);
    assert_eq!(value::<i64>(&mut reader, "SELECT count(*) FROM clip_failures"), 0);
    store(&mut reader, &demo_photos()[200..210]);
    wait_for_the_queue(&mut reader);
    assert_eq!(value::<i64>(&mut reader, WRONG), 0);
}
