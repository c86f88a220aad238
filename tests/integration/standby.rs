//! A hot standby searches with an embedder of its own, and watches once it is promoted.

use pg_clip_tests::{
    Signal, TestCluster, WRONG, catch_up, demo_photos, embedder, failure, repository_file, run, send, store,
    value, wait_for_the_queue, watched_async,
};
use postgres::Client;

const SEARCH: &str = "SELECT image_id FROM image_embeddings
    ORDER BY embedding <=> (SELECT clip_embed_text('a slice of pizza')) LIMIT 5";

const BY_IMAGE: &str = "SELECT image_id FROM image_embeddings
    ORDER BY embedding <=> (SELECT clip_embed_image($1)) LIMIT 5";

#[test]
fn a_hot_standby_searches_and_its_promotion_watches() {
    let primary = TestCluster::preloaded();
    let database = primary.database();
    let mut writer = database.connect();
    run(
        &mut writer,
        "CREATE TABLE photos (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, image bytea);
        SELECT clip_watch('photos')",
    );
    let standby = primary.standby();
    // After the base backup: these come by streaming.
    let photos = demo_photos();
    let insert = "INSERT INTO photos (image) SELECT unnest($1::bytea[])";
    writer.execute(insert, &[&&photos[..50]]).expect("photos are inserted");

    let mut reader = standby.existing_database(database.name()).connect();
    catch_up(&mut writer, &mut reader);
    assert!(value::<bool>(&mut reader, "SELECT pg_is_in_recovery()"));
    let query = repository_file("models/demo/photos/queries/pizza-1.jpg");
    let ids = |client: &mut Client, query, parameters: &[&(dyn postgres::types::ToSql + Sync)]| {
        let rows = client.query(query, parameters).expect("a search");
        rows.iter().map(|row| row.get(0)).collect::<Vec<i64>>()
    };
    assert_eq!(ids(&mut reader, SEARCH, &[]), ids(&mut writer, SEARCH, &[]));
    assert_eq!(ids(&mut reader, BY_IMAGE, &[&query]), ids(&mut writer, BY_IMAGE, &[&query]));

    let pid = "SELECT pid FROM clip_status";
    assert_ne!(value::<i32>(&mut reader, pid), value::<i32>(&mut writer, pid), "each has its own embedder");
    let inferences = "SELECT image_inferences FROM clip_status";
    assert_eq!(
        value::<i64>(&mut reader, inferences),
        1,
        "the photo that was searched by, and none of those replayed"
    );

    let insert_one = "INSERT INTO photos (image) VALUES ($1)";
    assert_eq!(failure(&mut reader, insert_one, &[&photos[50]]), "25006");
    assert_eq!(failure(&mut reader, "SELECT clip_watch('photos')", &[]), "25006");
    assert_eq!(failure(&mut reader, "SELECT clip_unwatch('photos')", &[]), "25006");

    drop(writer);
    assert!(value::<bool>(&mut reader, "SELECT pg_promote()"));
    reader.execute(insert_one, &[&photos[50]]).expect("a photo is inserted after the promotion");
    let wrong = "SELECT count(*) FROM photos FULL JOIN image_embeddings ON image_id = photos.id
        WHERE embedding IS DISTINCT FROM clip_embed_image(image)";
    assert_eq!(value::<i64>(&mut reader, wrong), 0);
    assert_eq!(value::<i64>(&mut reader, "SELECT count(*) FROM image_embeddings"), 51);
    assert_eq!(value::<String>(&mut reader, "SELECT state FROM clip_status"), "ready");
    assert_eq!(value::<i64>(&mut reader, "SELECT restarts FROM clip_status"), 0, "the embedder stays");
}

#[test]
fn without_preloading_the_first_call_on_a_standby_starts_its_embedder() {
    let primary = TestCluster::not_preloaded();
    let database = primary.database();
    let standby = primary.standby_not_preloaded();
    let mut reader = standby.existing_database(database.name()).connect();
    let embed = "SELECT clip_embed_text('a dog')::text";
    let vector: String = value(&mut reader, embed);
    assert_eq!(vector, value::<String>(&mut database.connect(), embed));
    assert!(value::<bool>(&mut reader, "SELECT pg_is_in_recovery()"));
}

#[test]
fn a_promoted_standby_embeds_the_photos_that_the_primary_left_in_the_queue() {
    let primary = TestCluster::preloaded();
    let (database, mut writer) = watched_async(&primary);
    let standby = primary.standby();
    let stopped = embedder(&mut writer);
    send(stopped, Signal::SIGSTOP);
    store(&mut writer, &demo_photos()[..20]);

    let mut reader = standby.existing_database(database.name()).connect();
    catch_up(&mut writer, &mut reader);
    assert_eq!(value::<i64>(&mut reader, "SELECT count(*) FROM clip_queue"), 20);
    assert_eq!(
        value::<i64>(&mut reader, "SELECT count(*) FROM clip_workers"),
        0,
        "no process writes to a standby"
    );
    assert!(value::<bool>(&mut reader, "SELECT pg_promote()"));
    send(stopped, Signal::SIGCONT);
    wait_for_the_queue(&mut reader);
    assert_eq!(value::<i64>(&mut reader, "SELECT count(*) FROM image_embeddings"), 20);
    assert_eq!(value::<i64>(&mut reader, WRONG), 0);
}
