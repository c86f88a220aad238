//! TLS between a feeder and its database, with the meaning that libpq gives to `sslmode`.

use std::path::Path;
use std::process::Command;

use pg_clip_tests::{
    Certificate, FEEDER, PhotoFolder, TestCluster, TestDatabase, TlsFront, demo_photos, drain, feeder_of,
    refer, value, watched_by_reference,
};
use postgres::Client;

const NAME: &str = "photos.example";

/// A table with a photo that waits, a folder that has it, and a server with this certificate in front of the database.
struct Ground {
    cluster: TestCluster,
    database: TestDatabase,
    client: Client,
    folder: PhotoFolder,
    front: TlsFront,
}

impl Ground {
    fn of(certificate: Option<&Certificate>) -> Ground {
        let cluster = TestCluster::preloaded();
        let (database, mut client) = watched_by_reference(&cluster);
        let folder = PhotoFolder::new();
        folder.store("a.jpg", &demo_photos()[0]);
        refer(&mut client, &["a.jpg"]);
        let front = TlsFront::start(&cluster, certificate);
        Ground { cluster, database, client, folder, front }
    }

    /// A feeder that takes the server to have this name.
    fn feeder(&self, name: &str, mode: &str, trusted: Option<&Path>) -> Command {
        let address = self.front.address;
        let url = format!(
            "postgres://{FEEDER}@{name}:{}/{}?hostaddr={}&sslmode={mode}",
            address.port(),
            self.database.name(),
            address.ip()
        );
        let mut feeder = feeder_of(&self.cluster, &url, &self.folder.address());
        feeder.env_remove("SSL_CERT_DIR");
        match trusted {
            Some(file) => feeder.env("SSL_CERT_FILE", file),
            None => feeder.env_remove("SSL_CERT_FILE"),
        };
        feeder
    }

    fn embedded(&mut self) -> i64 {
        value(&mut self.client, "SELECT count(*) FROM image_embeddings")
    }

    /// Why a feeder ends that is not let in, or does not trust the server.
    #[track_caller]
    fn refusal(&self, name: &str, mode: &str, trusted: Option<&Path>) -> String {
        let output = self.feeder(name, mode, trusted).arg("--drain").output().expect("the feeder runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{name} {mode}: {said}");
        said
    }
}

#[test]
fn a_server_is_taken_as_it_is_unless_it_is_to_be_checked() {
    let certificate = Certificate::by_itself("another.example", false);
    let mut ground = Ground::of(Some(&certificate));
    drain(&mut ground.feeder(NAME, "require", None));
    assert_eq!(ground.embedded(), 1);
    assert!(ground.front.encrypted() >= 3, "each session");
    let before = ground.front.encrypted();
    drain(&mut ground.feeder(NAME, "prefer", None));
    assert!(ground.front.encrypted() > before);

    ground.refusal(NAME, "disable", None);
    let said = ground.refusal(NAME, "verify-ca", None);
    assert!(said.contains("invalid value for option `sslmode`"), "{said}");
}

#[test]
fn a_server_that_is_to_be_checked_has_a_trusted_certificate_of_its_name() {
    let certificate = Certificate::by_an_authority(NAME);
    let mut ground = Ground::of(Some(&certificate));
    let trusted = certificate.write_trusted(&ground.cluster);
    let said = ground.refusal("other.example", "verify-full", Some(&trusted));
    assert!(said.contains("not valid for name"), "{said}");
    let said = ground.refusal(NAME, "verify-full", None);
    assert!(said.contains("UnknownIssuer"), "{said}");
    let other = Certificate::by_an_authority(NAME).write_trusted(&ground.cluster);
    let said = ground.refusal(NAME, "verify-full", Some(&other));
    assert!(said.contains("certificate"), "{said}");
    assert_eq!((ground.front.encrypted(), ground.embedded()), (0, 0), "nothing is sent to any of them");

    drain(&mut ground.feeder(NAME, "verify-full", Some(&trusted)));
    assert_eq!(ground.embedded(), 1);
}

#[test]
fn a_certificate_that_a_server_made_for_itself_can_be_trusted() {
    for authority in [false, true] {
        let certificate = Certificate::by_itself(NAME, authority);
        let mut ground = Ground::of(Some(&certificate));
        let trusted = certificate.write_trusted(&ground.cluster);
        let said = ground.refusal("other.example", "verify-full", Some(&trusted));
        assert!(said.contains("not valid for name"), "{said}");
        drain(&mut ground.feeder(NAME, "verify-full", Some(&trusted)));
        assert_eq!(ground.embedded(), 1);
    }
    let other = Certificate::by_itself(NAME, true);
    for certificate in [Certificate::expired(NAME, false), Certificate::expired(NAME, true)] {
        let ground = Ground::of(Some(&certificate));
        let trusted = certificate.write_trusted(&ground.cluster);
        let said = ground.refusal(NAME, "verify-full", Some(&trusted));
        assert!(said.contains("expired"), "{said}");
        let said = ground.refusal(NAME, "verify-full", Some(&other.write_trusted(&ground.cluster)));
        assert!(said.contains("invalid peer certificate"), "{said}");
    }
}

#[test]
fn a_server_without_tls_is_refused_where_it_is_required() {
    let mut ground = Ground::of(None);
    for mode in ["require", "verify-full"] {
        let said = ground.refusal(NAME, mode, None);
        assert!(said.contains("TLS"), "{mode}: {said}");
    }
    assert_eq!(ground.embedded(), 0);
    drain(&mut ground.feeder(NAME, "prefer", None));
    assert_eq!(ground.embedded(), 1);
}
