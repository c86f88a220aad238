//! The embedded photos are exactly the committed ones.

use pg_clip_tests::{TestCluster, demo_photo, demo_photos, run, value};

#[test]
fn rollbacks_and_savepoints_leave_no_embedding() {
    let cluster = TestCluster::shared();
    let mut client = cluster.database().connect();
    run(&mut client, "CREATE TABLE photos (id int PRIMARY KEY, image bytea); SELECT clip_watch('photos')");
    let photos = demo_photos();
    let insert = "INSERT INTO photos VALUES ($1, $2)";

    let mut transaction = client.transaction().expect("a transaction");
    transaction.execute(insert, &[&1, &photos[0]]).expect("a photo is embedded");
    transaction.rollback().expect("a rollback");
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM image_embeddings"), 0);

    let mut transaction = client.transaction().expect("a transaction");
    transaction.execute(insert, &[&1, &photos[0]]).expect("a photo is embedded");
    let mut savepoint = transaction.savepoint("s").expect("a savepoint");
    savepoint.execute(insert, &[&2, &photos[1]]).expect("a photo is embedded");
    savepoint.rollback().expect("a rollback to the savepoint");
    let mut savepoint = transaction.savepoint("s").expect("a savepoint");
    savepoint.execute(insert, &[&3, &b"broken".as_slice()]).expect_err("a broken photo");
    savepoint.rollback().expect("a rollback to the savepoint");
    transaction.execute(insert, &[&4, &photos[1]]).expect("a photo is embedded after an error");
    transaction.commit().expect("a commit");

    let keys: Vec<i32> =
        value(&mut client, "SELECT array_agg(image_id ORDER BY image_id) FROM image_embeddings");
    assert_eq!(keys, [1, 4]);
}

#[test]
fn two_sessions_insert_the_same_bytes_at_once() {
    let cluster = TestCluster::shared();
    let database = cluster.database();
    let (mut first, mut second) = (database.connect(), database.connect());
    run(&mut first, "CREATE TABLE photos (id int PRIMARY KEY, image bytea); SELECT clip_watch('photos')");
    let photo = demo_photo();
    let insert = "INSERT INTO photos VALUES ($1, $2)";
    // The very first photo decides whose vectors the table holds, and other photos wait for it.
    first.execute(insert, &[&0, &demo_photos()[1]]).expect("the first photo of all");
    let mut one = first.transaction().expect("a transaction");
    let mut two = second.transaction().expect("a transaction");
    one.execute(insert, &[&1, &photo]).expect("the first session's photo");
    two.execute(insert, &[&2, &photo]).expect("the second session does not wait for the first");
    two.commit().expect("the second commits");
    one.rollback().expect("the first does not");
    let query = "SELECT count(*) FROM photos FULL JOIN image_embeddings ON image_id = photos.id
        WHERE checksum = sha256(image) AND photos.id = 2";
    assert_eq!(value::<i64>(&mut first, query), 1);
    assert_eq!(value::<i64>(&mut first, "SELECT count(*) FROM image_embeddings"), 2);
}

#[test]
fn sessions_at_once_embed_all_that_they_commit() {
    let cluster = TestCluster::shared();
    let database = cluster.database();
    let mut client = database.connect();
    run(
        &mut client,
        "CREATE TABLE photos (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, image bytea);
        SELECT clip_watch('photos')",
    );
    let photos = demo_photos();
    std::thread::scope(|scope| {
        for session in 0..8 {
            let mut client = database.connect();
            let photos = &photos;
            scope.spawn(move || {
                for number in 0..10 {
                    let photo = &photos[(session * 3 + number) % 20];
                    client.execute("INSERT INTO photos (image) VALUES ($1)", &[photo]).expect("an insert");
                }
            });
        }
    });
    let query = "SELECT count(*) FROM photos JOIN image_embeddings ON image_id = photos.id
        WHERE checksum = sha256(image) AND embedding = clip_embed_image(image)";
    assert_eq!(value::<i64>(&mut client, query), 80);
}
