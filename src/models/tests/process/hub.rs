//! A hub on loopback that serves the demo model, with the faults that a test sets.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};
use sha1::{Digest, Sha1};
use sha2::Sha256;

use crate::installer::{PATIENCE, models_directory};

/// The repository that the hub has.
pub(crate) const REPOSITORY: &str = "tests/demo-clip";

/// Its only commit.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The largest of its files.
pub(crate) const LARGEST: &str = "onnx/vision_model.onnx";

/// Files of a repository, by their paths.
type Files = BTreeMap<String, Vec<u8>>;

/// The hub's files, and its faults.
#[derive(Default)]
pub(crate) struct State {
    pub files: Files,
    /// Other repositories, by their names.
    pub other_repositories: BTreeMap<String, Files>,
    /// The only commit of each repository.
    pub commit: String,
    /// Wrong entries of the listing, by path.
    pub listed: BTreeMap<String, Value>,
    /// Sends so many bytes of a file and closes the connection, once.
    pub cut: BTreeMap<String, usize>,
    /// Answers every file with 503 after that.
    pub away_after_cut: bool,
    /// Sends so many bytes of a file and then nothing, with the connection open.
    pub stall: BTreeMap<String, usize>,
    /// Answers so many requests for files with 503.
    pub busy: u32,
    /// Answers so many requests with 429, and with headers that say when it allows more.
    pub limited: u32,
    pub limits: String,
    /// Answers a request for a part with the whole.
    pub no_ranges: bool,
    /// Answers a request without the token, or with another one, with 401.
    pub token: Option<String>,
    /// Answers a request with any token but `token` with 401, as to one that has expired.
    pub knows_no_other_token: bool,
    /// Answers every request that has the token with 403.
    pub gated: bool,
    /// Lists without a token the files that it hands out only with the token.
    pub listed_openly: bool,
    /// Redirects requests for files to another server.
    pub elsewhere: Option<String>,
    /// Splits its listing into pages.
    pub pages: bool,
    /// The requests.
    pub requests: Vec<Asked>,
    /// How many bytes of files were sent.
    pub sent: usize,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub path: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
}

/// A hub that runs until its test is over.
pub(crate) struct LoopbackHub {
    pub endpoint: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl LoopbackHub {
    /// A hub that has the demo model in transformers.js's layout, and files that no program fetches.
    pub(crate) fn start() -> LoopbackHub {
        let mut state = State { commit: COMMIT.to_owned(), ..State::default() };
        let demo = models_directory().join("demo");
        for (path, source) in [
            ("onnx/text_model.onnx", "text_model.onnx"),
            (LARGEST, "vision_model.onnx"),
            ("config.json", "config.json"),
            ("preprocessor_config.json", "preprocessor_config.json"),
            ("tokenizer.json", "tokenizer.json"),
        ] {
            state.files.insert(path.to_owned(), fs::read(demo.join(source)).unwrap());
        }
        for (path, content) in [
            (".gitattributes", "*.onnx filter=lfs"),
            ("README.md", "# A model"),
            ("onnx/model.onnx", "another graph"),
            ("onnx/vision_model_fp16.onnx", "half of another variant"),
        ] {
            state.files.insert(path.to_owned(), content.into());
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let server = shared.clone();
        // The thread ends with the process of the tests.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let server = server.clone();
                thread::spawn(move || server.serve(stream.unwrap()));
            }
        });
        LoopbackHub { endpoint, shared }
    }

    /// Changes the hub's behaviour.
    pub(crate) fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.state.lock().unwrap());
        self.shared.changed.notify_all();
    }

    /// The requests, and how many bytes of files were sent, since the last time.
    pub(crate) fn take_requests(&self) -> (Vec<Asked>, usize) {
        let mut state = self.shared.state.lock().unwrap();
        let sent = std::mem::take(&mut state.sent);
        (std::mem::take(&mut state.requests), sent)
    }

    /// Waits until so many bytes of files were sent.
    pub(crate) fn wait_sent(&self, bytes: usize) {
        let started = Instant::now();
        let mut state = self.shared.state.lock().unwrap();
        while state.sent < bytes {
            assert!(started.elapsed() < PATIENCE, "only {} bytes were fetched", state.sent);
            state = self.shared.changed.wait_timeout(state, PATIENCE).unwrap().0;
        }
    }
}

impl Shared {
    /// Answers one request and closes the connection.
    fn serve(&self, mut stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut asked = Asked { path, range: None, authorization: None };
        loop {
            line.clear();
            reader.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            match name.to_ascii_lowercase().as_str() {
                "range" => asked.range = Some(value.to_owned()),
                "authorization" => asked.authorization = Some(value.to_owned()),
                _ => {}
            }
        }
        // A client that went away in the middle is no failure of the hub.
        let _ = self.answer(&mut stream, &asked);
        let _ = stream.shutdown(Shutdown::Both);
    }

    fn answer(&self, stream: &mut TcpStream, asked: &Asked) -> std::io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.requests.push(asked.clone());
        let bearer = asked.authorization.as_deref().and_then(|value| value.strip_prefix("Bearer "));
        if state.limited > 0 {
            state.limited -= 1;
            return respond(stream, "429 Too Many Requests", &state.limits, b"");
        }
        if bearer.is_some() && bearer != state.token.as_deref() && state.knows_no_other_token {
            let message = "x-error-message: Invalid credentials in Authorization header\r\n";
            return respond(stream, "401 Unauthorized", message, b"");
        }
        let open = state.token.is_none() || state.listed_openly && asked.path.starts_with("/api/");
        if !open && bearer != state.token.as_deref() {
            return respond(stream, "401 Unauthorized", "x-error-code: GatedRepo\r\n", b"");
        }
        if state.gated {
            return respond(stream, "403 Forbidden", "x-error-message: Access is restricted\r\n", b"");
        }
        let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
        let (of_api, rest) = match path.strip_prefix("/api/models/") {
            Some(rest) => (true, rest),
            None => (false, path.trim_start_matches('/')),
        };
        let (name, rest) = match rest.match_indices('/').nth(1) {
            Some((end, _)) => (&rest[..end], &rest[end..]),
            None => (rest, ""),
        };
        if state.files_of(name).is_none() {
            return respond(stream, "404 Not Found", "x-error-code: RepoNotFound\r\n", b"");
        }
        let commit = state.commit.clone();
        if let Some(revision) = rest.strip_prefix("/revision/").filter(|_| of_api) {
            if !["main", "v1%2Fx", &commit].contains(&revision) {
                return respond(stream, "404 Not Found", "x-error-code: RevisionNotFound\r\n", b"");
            }
            let about = json!({"sha": commit, "cardData": {"license": "mit"}, "tags": ["clip"]});
            respond(stream, "200 OK", "", about.to_string().as_bytes())
        } else if of_api && rest == format!("/tree/{commit}") {
            let entries = state.listing(name);
            let half = entries.len() / 2;
            let (page, link) = match (state.pages, query.contains("cursor")) {
                (false, _) => (&entries[..], String::new()),
                (true, true) => (&entries[half..], String::new()),
                (true, false) => {
                    let host = stream.local_addr()?;
                    let next = format!("http://{host}{path}?recursive=true&cursor=2");
                    (&entries[..half], format!("link: <{next}>; rel=\"next\"\r\n"))
                }
            };
            respond(stream, "200 OK", &link, json!(page).to_string().as_bytes())
        } else if let Some(file) = rest.strip_prefix(&format!("/resolve/{commit}/")) {
            if state.busy > 0 {
                state.busy -= 1;
                return respond(stream, "503 Service Unavailable", "retry-after: 0\r\n", b"");
            }
            if let Some(elsewhere) = &state.elsewhere {
                let headers = format!("location: {elsewhere}{path}\r\n");
                return respond(stream, "302 Found", &headers, b"");
            }
            let Some(content) = state.files_of(name).and_then(|files| files.get(file)).cloned() else {
                return respond(stream, "404 Not Found", "x-error-code: EntryNotFound\r\n", b"");
            };
            let (cut, stall) = (state.cut.remove(file), state.stall.get(file).copied());
            if cut.is_some() && state.away_after_cut {
                state.busy = u32::MAX;
            }
            let range = asked.range.clone().filter(|_| !state.no_ranges);
            drop(state);
            self.send(stream, &content, range.as_deref(), cut, stall)
        } else {
            respond(stream, "404 Not Found", "x-error-code: RepoNotFound\r\n", b"")
        }
    }

    /// Sends a file as far as it is to be sent.
    fn send(
        &self,
        stream: &mut TcpStream,
        content: &[u8],
        range: Option<&str>,
        cut: Option<usize>,
        stall: Option<usize>,
    ) -> std::io::Result<()> {
        let first: usize = range
            .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok())
            .unwrap_or(0);
        let Some(rest) = content.get(first..).filter(|rest| !rest.is_empty()) else {
            return respond(stream, "416 Range Not Satisfiable", "", b"");
        };
        let (status, headers) = match range {
            Some(_) => {
                let last = content.len() - 1;
                ("206 Partial Content", format!("content-range: bytes {first}-{last}/{}\r\n", content.len()))
            }
            None => ("200 OK", String::new()),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n",
            rest.len()
        );
        stream.write_all(head.as_bytes())?;
        let end = cut.or(stall).map_or(rest.len(), |end| end.saturating_sub(first));
        for piece in rest[..end.min(rest.len())].chunks(1 << 16) {
            stream.write_all(piece)?;
            self.state.lock().unwrap().sent += piece.len();
            self.changed.notify_all();
        }
        if stall.is_some() {
            let mut state = self.state.lock().unwrap();
            while !state.stall.is_empty() {
                state = self.changed.wait(state).unwrap();
            }
        }
        Ok(())
    }
}

impl State {
    fn files_of(&self, repository: &str) -> Option<&Files> {
        if repository == REPOSITORY { Some(&self.files) } else { self.other_repositories.get(repository) }
    }

    /// The files as the hub's interface lists them: files of 1 MB and more are in Git LFS, as graphs are.
    fn listing(&self, repository: &str) -> Vec<Value> {
        let mut entries = vec![json!({"type": "directory", "path": "onnx", "oid": "", "size": 0})];
        for (path, content) in self.files_of(repository).into_iter().flatten() {
            let size = content.len();
            let blob = Sha1::new_with_prefix(format!("blob {size}\0")).chain_update(content).finalize();
            let mut entry = json!({"type": "file", "path": path, "size": size, "oid": hex::encode(blob)});
            if size >= 1_000_000 {
                let sha256 = hex::encode(Sha256::digest(content));
                entry["lfs"] = json!({"oid": sha256, "size": size, "pointerSize": 134});
            }
            let changes = self.listed.get(path).cloned().unwrap_or_default();
            for (name, value) in changes.as_object().into_iter().flatten() {
                entry[name] = value.clone();
            }
            entries.push(entry);
        }
        entries
    }
}

fn respond(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) -> std::io::Result<()> {
    let head =
        format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)
}
