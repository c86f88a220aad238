//! In async mode photos are stored at once, and embedded after the commit.

use std::time::Duration;

use pg_clip_tests::{TestCluster, TestDatabase, demo_photos, run, value, wait_until};
use postgres::Client;

const PATIENCE: Duration = Duration::from_secs(60);

/// Photos whose embedding is missing, of other bytes, or of nobody: none, when all is well.
const WRONG: &str = "SELECT count(*) FROM photos FULL JOIN image_embeddings ON image_id = photos.id
    WHERE checksum IS DISTINCT FROM sha256(image) OR embedding IS DISTINCT FROM clip_embed_image(image)";

fn watched(cluster: &TestCluster) -> (TestDatabase, Client) {
    let database = cluster.database();
    let mut client = database.connect();
    run(
        &mut client,
        "CREATE TABLE photos (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, project text, image bytea);
        SELECT clip_watch('photos', mode => 'async')",
    );
    (database, client)
}

fn jobs(client: &mut Client) -> i64 {
    value(client, "SELECT count(*) FROM clip_queue")
}

fn wait_for_the_queue(client: &mut Client) {
    wait_until("the queue is empty", PATIENCE, || jobs(client) == 0);
}

#[test]
fn photos_of_eight_sessions_are_embedded_once() {
    let cluster = TestCluster::preloaded();
    let (database, mut client) = watched(&cluster);
    let photos = &demo_photos()[..200];
    std::thread::scope(|scope| {
        for some in photos.chunks(25) {
            let mut client = database.connect();
            scope.spawn(move || {
                for photo in some {
                    let insert = "INSERT INTO photos (project, image) VALUES ('kitchen', $1)";
                    client.execute(insert, &[photo]).expect("a photo is stored");
                }
            });
        }
    });
    wait_for_the_queue(&mut client);
    assert_eq!(
        value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings WHERE project = 'kitchen'"),
        200
    );
    assert_eq!(value::<i64>(&mut client, "SELECT image_inferences FROM clip_status"), 200);
    assert_eq!(value::<i64>(&mut client, WRONG), 0);
}
