//! The outcome of a photo whose store misbehaves.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use pg_clip_feeder::store::{NoObject, Store, Why};

use crate::server::{Server, status};

const LIMIT: u64 = 10_000;

#[test]
fn each_fault_has_its_reason() {
    let cases = [
        ("missing", Why::Missing, "has no object"),
        ("gone", Why::Missing, "has no object"),
        ("forbidden", Why::Forbidden, "403 Forbidden"),
        ("unauthorized", Why::Forbidden, "401"),
        ("throttled", Why::Passing, "429 Too Many Requests"),
        ("broken", Why::Passing, "500 Internal Server Error"),
        ("redirect", Why::Refused, "not followed"),
        ("teapot", Why::Refused, "418"),
        ("cut", Why::Passing, "did not give"),
        ("dropped", Why::Passing, "did not give"),
        ("too-large", Why::TooLarge, "20000 bytes, more than clip.max_image_bytes (10000)"),
        ("endless", Why::Refused, "does not say how large"),
    ];
    let server = Server::start(answer);
    for (path, why, words) in cases {
        let NoObject { why: found, message } = fetch(&server, path).expect_err(path);
        assert_eq!(found, why, "{path}: {message}");
        assert!(message.contains(words), "{path}: {message}");
        assert!(!message.contains("127.0.0.1"), "the address is not for the owner of the table: {message}");
    }
    assert!(!server.asked().iter().any(|path| path.contains("elsewhere")), "{:?}", server.asked());
    assert_eq!(server.asked().iter().filter(|path| path.contains("/too-large")).count(), 1);
}

#[test]
fn a_photo_comes_whole_or_not_at_all() {
    let server = Server::start(answer);
    assert_eq!(
        fetch(&server, "photo.jpg").map(|bytes| bytes.len()).map_err(|error| error.message),
        Ok(9_000)
    );
    // A server that sends more than its length says: the length counts.
    assert_eq!(fetch(&server, "larger").map(|bytes| bytes.len()).map_err(|error| error.message), Ok(100));
}

#[test]
fn a_server_that_recovers_is_asked_again() {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let server = Server::start(|_, stream| {
        if COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 2 {
            return status(stream, "503 Slow Down", "", b"");
        }
        status(stream, "200 OK", "", b"photo")
    });
    assert_eq!(fetch(&server, "photo.jpg").map_err(|error| error.message), Ok(b"photo".to_vec()));
    assert_eq!(server.asked().len(), 3);
}

#[test]
fn a_slow_server_is_given_up() {
    let server = Server::start(|_, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")?;
        // Ends with the test, or when the client goes.
        let mut rest = [0];
        std::io::Read::read(stream, &mut rest).map(|_| ())
    });
    let NoObject { why, message } =
        fetch_within(&server, "photo.jpg", Duration::from_millis(300)).expect_err("slow");
    assert_eq!(why, Why::Passing, "{message}");
    assert!(message.contains("within 0.3 s"), "{message}");
}

#[test]
fn a_server_that_is_not_there_does_not_answer() {
    let server = Server::start(answer);
    assert!(block_on(async { store(server.address, Duration::from_secs(5)).answers().await }));
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let (answers, fetched) = block_on(async {
        let store = store(free, Duration::from_secs(5));
        (store.answers().await, store.fetch("a.jpg", LIMIT).await)
    });
    assert!(!answers);
    let NoObject { why, message } = fetched.expect_err("nothing is there");
    assert_eq!(
        (why, message.as_str()),
        (Why::Passing, "the store did not give \"a.jpg\": it cannot be reached")
    );
}

#[test]
fn nothing_outside_of_the_prefix_is_asked_for() {
    let server = Server::start(answer);
    let long = "k".repeat(2000);
    let hostile = [
        "../../etc/passwd",
        "..",
        ".",
        "a/../../b",
        "http://127.0.0.1/",
        "http://169.254.169.254/latest/meta-data/",
        "s3://other/x",
        "file:///etc/passwd",
        "//elsewhere/x",
        "/elsewhere",
        "%2e%2e/elsewhere",
        "..%2felsewhere/..",
        "a\\..\\b",
        "a\nHost: elsewhere",
        "a\r\n\r\nGET /elsewhere",
        "a\0b",
        "\u{202e}gpj.exe",
        long.as_str(),
        "",
    ];
    for key in hostile {
        let NoObject { why, .. } = fetch(&server, key).expect_err(key);
        assert_eq!(why, Why::Refused, "{key:?}");
    }
    assert_eq!(server.asked(), Vec::<String>::new(), "refused before anything is asked for");

    let odd = [
        "küche/写真 1.jpg",
        "a?b=c#d",
        "100%.jpg",
        "a%2fb",
        "..%2f..%2fetc",
        "user:pw@host/x",
        "http:x",
        "....",
    ];
    for key in odd {
        let _ = fetch(&server, key);
    }
    let asked = server.asked();
    assert_eq!(asked.len(), odd.len(), "{asked:?}");
    for path in asked {
        assert!(path.starts_with("/photos/2026/") && path.ends_with("?token=t"), "{path}");
        let decoded_once = path.replace("%25", "%");
        assert!(!decoded_once.contains("/../") && !path.contains('#'), "{path}");
    }
}

fn answer(path: &str, stream: &mut TcpStream) -> std::io::Result<()> {
    let name = path.rsplit('/').next().unwrap_or_default().split('?').next().unwrap_or_default();
    match name {
        "photo.jpg" => status(stream, "200 OK", "", &[7; 9_000]),
        "gone" => status(stream, "410 Gone", "", b""),
        "forbidden" => status(stream, "403 Forbidden", "", b"<html>no</html>"),
        "unauthorized" => status(stream, "401 Unauthorized", "", b""),
        "throttled" => status(stream, "429 Too Many Requests", "Retry-After: 1\r\n", b""),
        "broken" => status(stream, "500 Internal Server Error", "", b""),
        "redirect" => status(stream, "302 Found", "Location: /elsewhere\r\n", b""),
        "teapot" => status(stream, "418 I'm a teapot", "", b""),
        "too-large" => status(stream, "200 OK", "", &[7; 20_000]),
        "cut" => {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n")?;
            stream.write_all(&[7; 4_000])
        }
        "dropped" => Ok(()),
        // It never says how much it will be.
        "endless" => {
            write!(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            loop {
                write!(stream, "400\r\n{}\r\n", "x".repeat(0x400))?;
            }
        }
        "larger" => {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")?;
            stream.write_all(&[7; 9_000])
        }
        _ => status(stream, "404 Not Found", "", b""),
    }
}

fn fetch(server: &Server, key: &str) -> Result<Vec<u8>, NoObject> {
    fetch_within(server, key, Duration::from_secs(60))
}

fn fetch_within(server: &Server, key: &str, timeout: Duration) -> Result<Vec<u8>, NoObject> {
    block_on(async { store(server.address, timeout).fetch(key, LIMIT).await })
}

fn store(server: std::net::SocketAddr, timeout: Duration) -> Store {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let address = format!("http://{server}/photos/2026/?token=t").parse().expect("an address");
    Store::open(&address, timeout).expect("a store")
}

fn block_on<R>(work: impl Future<Output = R>) -> R {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}
