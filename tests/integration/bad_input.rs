//! Bad input has its SQLSTATE, and the embedder outlives it.

use pg_clip_tests::{TestCluster, demo_photo, demo_photos, failure, pixel_flood, run, value};

const EMBED: &str = "SELECT clip_embed_image($1)";

#[test]
fn bad_images_have_their_sqlstates_and_the_embedder_lives() {
    let cluster = TestCluster::preloaded();
    let mut client = cluster.database().connect();
    run(&mut client, "SELECT clip_embed_text('start')");
    let embedder: i32 = value(&mut client, "SELECT pid FROM clip_status");
    let photo = demo_photo();

    assert_eq!(failure(&mut client, EMBED, &[&b"".as_slice()]), "22023", "empty");
    for (picture, name) in [
        (b"GIF89a\0\0\x01\0\0\0\0;".as_slice(), "a GIF without pixels"),
        (&bmp_of_width_zero(), "a BMP without pixels"),
    ] {
        assert_eq!(failure(&mut client, EMBED, &[&picture]), "22023", "{name}");
    }
    assert_eq!(failure(&mut client, EMBED, &[&b"no image at all".as_slice()]), "22P03", "random");
    assert_eq!(failure(&mut client, EMBED, &[&pixel_flood()]), "54000", "a pixel flood");
    let svg = b"<?xml version=\"1.0\"?><svg xmlns=\"http://www.w3.org/2000/svg\"/>".as_slice();
    assert_eq!(failure(&mut client, EMBED, &[&svg]), "0A000", "SVG");
    assert_eq!(failure(&mut client, EMBED, &[&b"\xff\x0a\0".as_slice()]), "0A000", "JPEG XL");
    let heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic".as_slice();
    assert_eq!(failure(&mut client, EMBED, &[&heic]), "22P03", "a HEIC without a picture");
    assert_eq!(failure(&mut client, EMBED, &[&b"%PDF-1.7\n".as_slice()]), "0A000", "PDF");
    assert_eq!(
        failure(&mut client, EMBED, &[&b"II*\0\x08\0\0\0".as_slice()]),
        "22P03",
        "a TIFF without a picture"
    );
    assert_eq!(failure(&mut client, EMBED, &[&b"/srv/photos/cat.jpg".as_slice()]), "22P03", "a path");
    for tenths in 1..10 {
        let cut = &photo[..photo.len() * tenths / 10];
        assert_eq!(failure(&mut client, EMBED, &[&cut]), "22P03", "{tenths} tenths of a JPEG");
    }

    assert_eq!(value::<i32>(&mut client, "SELECT pid FROM clip_status"), embedder);
    client.query(EMBED, &[&photo]).expect("a good photo after the bad ones");
}

#[test]
fn flipped_bits_are_never_a_defect() {
    let cluster = TestCluster::preloaded();
    let mut client = cluster.database().connect();
    run(&mut client, "SELECT clip_embed_text('start')");
    let embedder: i32 = value(&mut client, "SELECT pid FROM clip_status");
    let mut refused = 0;
    for (number, photo) in demo_photos().into_iter().enumerate().take(300) {
        let mut broken = photo;
        // A different place in each photo, by a fixed rule: the test fails on the same bytes each time.
        for step in 0..8 {
            let place = (number * 7_919 + step * 104_729) % broken.len();
            broken[place] ^= 1 << (number % 8);
        }
        if let Err(error) = client.query(EMBED, &[&broken]) {
            let state = pg_clip_tests::sqlstate(&error);
            assert!(["22P03", "54000", "22023", "0A000"].contains(&state), "photo {number}: {error:?}");
            refused += 1;
        }
    }
    assert!(refused > 0, "some are broken beyond repair");
    assert_eq!(value::<i32>(&mut client, "SELECT pid FROM clip_status"), embedder);
}

#[test]
fn an_image_above_the_limits_is_refused() {
    let cluster = TestCluster::shared();
    let mut client = cluster.database().connect();
    let photo = demo_photo();
    run(&mut client, "SET clip.max_image_bytes = 1000");
    assert_eq!(failure(&mut client, EMBED, &[&photo]), "54000");
    run(&mut client, "RESET clip.max_image_bytes; SET clip.max_image_pixels = 1000");
    assert_eq!(failure(&mut client, EMBED, &[&photo]), "54000");
    // A gigabyte of zeros is measured in its toasted form.
    run(
        &mut client,
        "RESET clip.max_image_pixels;
        CREATE TABLE large (image bytea);
        INSERT INTO large SELECT decode(repeat('00', 200000000), 'hex')",
    );
    assert_eq!(failure(&mut client, "SELECT clip_embed_image(image) FROM large", &[]), "54000");
}

#[test]
fn bad_texts_and_names_are_refused() {
    let cluster = TestCluster::shared();
    let mut client = cluster.database().connect();
    assert_eq!(failure(&mut client, "SELECT clip_embed_text(repeat('x', 2000000))", &[]), "54000");
    for name in ["../demo", "/etc", ".hidden", "", "a b", "demo/../demo"] {
        assert_eq!(failure(&mut client, "SELECT clip_embed_text('x', $1)", &[&name]), "22023", "{name}");
    }
    for text in ["", "   ", "<|endoftext|>", "\u{1f355}\u{1f355}", &"word ".repeat(5000)] {
        client.query("SELECT clip_embed_text($1)", &[&text]).expect("any text has an embedding");
    }
    let special = "SELECT clip_embed_text('a dog <|endoftext|> of gold') = clip_embed_text('a dog')";
    assert!(!value::<bool>(&mut client, special), "a special token in a text has no power");
}

fn bmp_of_width_zero() -> Vec<u8> {
    let mut bmp = b"BM".to_vec();
    bmp.extend([54_u32, 0, 54, 40, 0, 16].iter().flat_map(|field| field.to_le_bytes()));
    bmp.extend([1_u16, 24].iter().flat_map(|field| field.to_le_bytes()));
    bmp.extend([0; 24]);
    bmp
}
