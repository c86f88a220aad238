//! An S3-compatible server on loopback: moto, from pinned Python packages in a virtual environment of its own.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use xtask::lock::Lock;
use xtask::places::Places;

use crate::photos::repository;
use crate::wait::wait_until;

/// A running server. Its buckets are gone when it is dropped.
pub struct S3Server {
    address: SocketAddr,
    log: PathBuf,
    process: Child,
}

/// Far above what Python needs to start beside other tests.
const PATIENCE: Duration = Duration::from_secs(120);

impl S3Server {
    pub fn start() -> S3Server {
        let places = Places::find().expect("the target folder is found");
        let python = installed(&places);
        // Free now; no other process is given it within the moment.
        let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
        let log = places.base.join(format!("s3-{}-{}.log", std::process::id(), address.port()));
        let output = File::create(&log).expect("a file for the log");
        let mut server = Command::new(python);
        server.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &address.port().to_string()]);
        server.stdin(Stdio::null()).stdout(output.try_clone().expect("a second handle")).stderr(output);
        let process = server.spawn().expect("moto starts");
        let server = S3Server { address, log, process };
        wait_until("moto answers", PATIENCE, || TcpStream::connect(address).is_ok());
        server
    }

    /// The settings that the feeder needs to reach it.
    pub fn environment(&self) -> [(&'static str, String); 4] {
        [
            ("AWS_ENDPOINT_URL", format!("http://{}", self.address)),
            ("AWS_ACCESS_KEY_ID", "key".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
        ]
    }

    pub fn make_bucket(&self, name: &str) {
        self.put(&format!("/{name}"), b"");
    }

    /// Stores an object under a key that needs no encoding.
    pub fn store(&self, bucket: &str, key: &str, bytes: &[u8]) {
        self.put(&format!("/{bucket}/{key}"), bytes);
    }

    /// Has the objects below a prefix be refused to any reader.
    pub fn forbid(&self, bucket: &str, prefix: &str) {
        let policy = format!(
            r#"{{"Version": "2012-10-17", "Statement": [{{"Effect": "Deny", "Principal": "*",
            "Action": "s3:GetObject", "Resource": "arn:aws:s3:::{bucket}/{prefix}*"}}]}}"#
        );
        self.put(&format!("/{bucket}?policy"), policy.as_bytes());
    }

    /// The requests that were answered so far, each as `GET /path HTTP/1.1" STATUS`.
    pub fn requests(&self) -> Vec<String> {
        let log = fs::read_to_string(&self.log).expect("the server's log");
        let requests = log.lines().filter_map(|line| line.split_once("] \"").map(|(_, request)| request));
        requests.map(|request| without_colours(request).trim_end_matches(" -").to_owned()).collect()
    }

    fn put(&self, path: &str, body: &[u8]) {
        let mut stream = TcpStream::connect(self.address).expect("moto answers");
        let (address, length) = (self.address, body.len());
        let head = format!(
            "PUT {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).expect("a request is sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 20"), "PUT {path}: {answer}");
    }
}

/// Answers other than 200 are coloured.
fn without_colours(line: &str) -> String {
    let mut parts = line.split("\u{1b}[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once('m').map_or("", |(_, rest)| rest))
}

impl Drop for S3Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_file(&self.log);
    }
}

/// The Python that has the packages.
fn installed(places: &Places) -> PathBuf {
    let _lock = Lock::take(places, "s3").expect("no other process installs at the same time");
    let folder = places.base.join("s3");
    let requirements = repository().join("tests/s3/requirements.txt");
    let (stamp, python) = (folder.join("installed"), folder.join("bin/python"));
    let wanted = fs::read(&requirements).expect("the requirements");
    if !fs::read(&stamp).is_ok_and(|present| present == wanted) || !runs(&python) {
        let _ = fs::remove_dir_all(&folder);
        check(Command::new("python3").args(["-m", "venv"]).arg(&folder));
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--no-deps", "--no-compile", "--quiet"]);
        check(pip.args(["--disable-pip-version-check", "-r"]).arg(&requirements));
        // Written last: packages without it are half installed.
        fs::write(stamp, wanted).expect("the stamp is written");
    }
    python
}

/// Whether the system's Python behind the environment is still there.
fn runs(python: &Path) -> bool {
    Command::new(python).args(["-c", ""]).status().is_ok_and(|status| status.success())
}

fn check(command: &mut Command) {
    let output = command.output().expect("a program runs");
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
}
