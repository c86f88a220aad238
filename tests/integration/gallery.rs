//! The gallery of the demo's photos: its server and, in a browser, its page. The tests are written in JavaScript.

use std::process::Command;

use pg_clip_tests::{TestCluster, failure, node_tests, repository};
use xtask::places::Places;
use xtask::{gallery, node_package};

#[test]
fn the_gallery_serves_searches_and_refuses_files_that_are_no_picture() {
    let cluster = TestCluster::preloaded();
    node_tests(&mut in_the_gallery(&cluster, "test"), 12);

    let database = cluster.existing_database(gallery::database(&cluster.server).name);
    let mut role = database.connect_as(gallery::ROLE);
    for statement in ["DELETE FROM customer_photos", "UPDATE image_embeddings SET project = NULL"] {
        assert_eq!(failure(&mut role, statement, &[]), "42501", "{statement}");
    }
}

#[cfg(feature = "chromium")]
#[test]
fn a_browser_searches_the_gallery() {
    let cluster = TestCluster::preloaded();
    let mut npm = in_the_gallery(&cluster, "test-browser");
    npm.env("CHROMIUM", xtask::clients::chromium().expect("Chromium is on the PATH"));
    node_tests(&mut npm, 10);
}

/// A script of the tests' package, with the variables that it needs to start the gallery on the demo's database.
fn in_the_gallery(cluster: &TestCluster, script: &str) -> Command {
    let places = Places::find().expect("the target folder is found");
    let tests = node_package::installed(&places, "tests/gallery").expect("the tests are installed");
    let server = gallery::server(&places, &cluster.server).expect("the gallery is ready");
    let mut npm = Command::new("npm");
    npm.args(["run", "--silent", script]).current_dir(tests);
    for (name, value) in server.get_envs() {
        match value {
            Some(value) => npm.env(name, value),
            None => npm.env_remove(name),
        };
    }
    npm.env("GALLERY", server.get_current_dir().expect("a folder"));
    npm.env("PHOTOS", repository().join("models/demo/photos"));
    npm
}
