//! Photos that cannot be embedded, among many that can.

use pg_clip_tests::{
    TestCluster, WRONG, demo_photos, pixel_flood, run, store, value, variant, wait_for_the_queue,
    watched_async,
};

use crate::tally::report;

const PHOTOS: u32 = 1000;
const POISON: usize = 10;

pub(crate) fn measure() {
    let cluster = TestCluster::preloaded();
    let (_database, mut client) = watched_async(&cluster);
    let pictures = demo_photos();
    let mut photos: Vec<Vec<u8>> =
        (0..PHOTOS).map(|number| variant(&pictures[number as usize % pictures.len()], number)).collect();
    let poison = [
        b"no picture at all".to_vec(),
        pictures[0][..pictures[0].len() / 3].to_vec(),
        pixel_flood(),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>".to_vec(),
        Vec::new(),
    ];
    for number in 0..POISON {
        let place = number * photos.len() / POISON;
        photos[place].clone_from(&poison[number % poison.len()]);
    }
    for share in photos.chunks(50) {
        store(&mut client, share);
    }
    wait_for_the_queue(&mut client);
    let embedded: i64 = value(&mut client, "SELECT count(*) FROM image_embeddings");
    let failed: i64 = value(&mut client, "SELECT count(*) FROM clip_failures WHERE dead");
    report(
        &format!("{POISON} poison photos among {PHOTOS}: embedded, failed"),
        &format!("{embedded:9}, {failed}"),
    );
    let reasons = "SELECT sqlstate, message, count(*) FROM clip_failures GROUP BY 1, 2 ORDER BY 1, 2";
    for row in client.query(reasons, &[]).expect("the reasons") {
        let (state, message, count): (&str, &str, i64) = (row.get(0), row.get(1), row.get(2));
        report(&format!("  {state} {message}"), &format!("{count:9}"));
    }
    assert_eq!((embedded, failed), (i64::from(PHOTOS) - 10, 10));

    // Repaired without firing the trigger, so that clip_retry has to find them.
    run(&mut client, "SET session_replication_role = replica");
    let repair = "UPDATE photos SET image = $1 WHERE id::text IN (SELECT key FROM clip_failures)";
    client.execute(repair, &[&variant(&pictures[1], PHOTOS)]).expect("a repair");
    run(&mut client, "RESET session_replication_role");
    let retried: i64 = value(&mut client, "SELECT clip_retry('photos')");
    wait_for_the_queue(&mut client);
    let embedded: i64 = value(&mut client, "SELECT count(*) FROM image_embeddings");
    let failed: i64 = value(&mut client, "SELECT count(*) FROM clip_failures");
    let wrong: i64 = value(&mut client, WRONG);
    report(
        "  repaired, then clip_retry: retried, embedded, failed, wrong",
        &format!("{retried:9}, {embedded}, {failed}, {wrong}"),
    );
    assert_eq!((retried, embedded, failed, wrong), (10, i64::from(PHOTOS), 0, 0));
}
