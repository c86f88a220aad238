//! An embedder to talk to, started as the supervisor starts it, and gone when the test is over.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{env, io, thread};

use pg_clip_wire::{Answer, Failure, FrameHeader, PROTOCOL, Party, Priority, Request};
use serde_json::Value;

/// The model that all tests use.
pub(crate) const MODEL: &str = "demo";

/// The longest wait of a test, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running `guard` or `serve`.
pub(crate) struct Embedder {
    pub process: Child,
    /// The supervisor's end of the log; closing it is the supervisor's death.
    pub log: Option<UnixStream>,
    socket: PathBuf,
    _folder: temp_dir::TempDir,
}

impl Embedder {
    /// Starts `serve` or `guard` with the demo model.
    pub(crate) fn start(subcommand: &str) -> Embedder {
        Embedder::start_with(subcommand, &models_directory(), MODEL, &[])
    }

    pub(crate) fn start_with(subcommand: &str, models: &Path, model: &str, more: &[&str]) -> Embedder {
        let folder = temp_dir::TempDir::new().unwrap();
        let socket = folder.path().join("socket");
        let listener = OwnedFd::from(UnixListener::bind(&socket).unwrap());
        let (log, theirs) = UnixStream::pair().unwrap();
        let mut command = Command::new(program());
        command
            .arg(subcommand)
            .args(["--listen-fd", "3", "--model", model, "--models-directory"])
            .arg(models)
            .args(more)
            .env("ORT_DISABLE_TELEMETRY", "1")
            .stdin(Stdio::null())
            .stdout(OwnedFd::from(theirs.try_clone().unwrap()))
            .stderr(OwnedFd::from(theirs));
        if !more.contains(&"--onnxruntime") {
            command.arg("--onnxruntime").arg(onnxruntime());
        }
        let descriptor = listener.as_raw_fd();
        // SAFETY: dup2 is async-signal-safe, and descriptor 3 of the child is only the standard library's to reuse.
        unsafe { command.pre_exec(move || pass_as_3(descriptor)) };
        let process = command.spawn().unwrap();
        Embedder { process, log: Some(log), socket, _folder: folder }
    }

    /// A connection that has said hello.
    pub(crate) fn connect(&self) -> Connection {
        self.connect_as(10)
    }

    /// A connection of a role that has said hello.
    pub(crate) fn connect_as(&self, role: u32) -> Connection {
        let mut connection = self.connect_silently();
        let party = Party { database: 5, role };
        connection.send(&Request::Hello { protocol: PROTOCOL, party });
        let Some(Answer::Welcome { protocol, .. }) = connection.receive() else { panic!("no welcome") };
        assert_eq!(protocol, PROTOCOL);
        connection
    }

    /// A connection that has said nothing yet.
    pub(crate) fn connect_silently(&self) -> Connection {
        let stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Connection(stream)
    }

    /// The status report.
    pub(crate) fn status(&self) -> Value {
        let mut connection = self.connect();
        connection.send(&Request::Status { id: 1 });
        match connection.receive() {
            Some(Answer::StatusReport { id: 1, json }) => serde_json::from_str(&json).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Waits for the end of the process.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "the embedder does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The whole log, after the end of the process.
    pub(crate) fn logged(&mut self) -> String {
        let mut text = String::new();
        self.log.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Embedder {
    fn drop(&mut self) {
        // The guardian takes the server with it when the log is closed.
        self.log = None;
        if self.process.try_wait().unwrap().is_none() {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(self.process.id() as i32),
                nix::sys::signal::Signal::SIGTERM,
            );
        }
        let _ = self.process.wait();
    }
}

/// A backend's connection.
pub(crate) struct Connection(UnixStream);

impl Connection {
    pub(crate) fn send(&mut self, request: &Request) {
        let mut frame = Vec::new();
        request.encode_head(&mut frame).unwrap();
        frame.extend_from_slice(request.payload());
        self.send_bytes(&frame);
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// The next answer, or None where the embedder has closed the connection.
    pub(crate) fn receive(&mut self) -> Option<Answer> {
        let mut header = [0; FrameHeader::SIZE];
        match self.0.read_exact(&mut header) {
            Err(error)
                if [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset].contains(&error.kind()) =>
            {
                return None;
            }
            read => read.unwrap(),
        }
        let header = FrameHeader::parse(header).unwrap();
        let mut body = vec![0; header.length];
        self.0.read_exact(&mut body).unwrap();
        Some(Answer::decode(header.kind, &body).unwrap())
    }

    pub(crate) fn embed_text(&mut self, text: &str) -> Result<Vec<f32>, Failure> {
        self.embed_text_with(MODEL, text)
    }

    pub(crate) fn embed_text_with(&mut self, model: &str, text: &str) -> Result<Vec<f32>, Failure> {
        self.send(&Request::EmbedText { id: 7, model, text });
        self.receive_vector(7)
    }

    pub(crate) fn embed_image(&mut self, image: &[u8]) -> Result<Vec<f32>, Failure> {
        self.embed_image_with(MODEL, image)
    }

    pub(crate) fn embed_image_with(&mut self, model: &str, image: &[u8]) -> Result<Vec<f32>, Failure> {
        let priority = Priority::Interactive;
        self.send(&Request::EmbedImage { id: 8, model, priority, max_pixels: 50_000_000, image });
        self.receive_vector(8)
    }

    /// The next answer, which must be to `id`.
    pub(crate) fn receive_vector(&mut self, id: u32) -> Result<Vec<f32>, Failure> {
        match self.receive().expect("an answer") {
            Answer::Embedding { id: answered, vector, .. } if answered == id => Ok(vector),
            Answer::Failed { id: answered, failure } if answered == id => Err(failure),
            other => panic!("{other:?} where an answer to {id} was expected"),
        }
    }
}

/// The program that was built with this test, whichever folder the checkout has been moved to since.
pub(crate) fn program() -> PathBuf {
    let test = env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().join("pg_clip_embedder")
}

/// The folder of the models that come with the project.
pub(crate) fn models_directory() -> PathBuf {
    let models =
        Path::new(&env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../models").canonicalize().unwrap();
    assert!(
        models.join(MODEL).join("tokenizer.json").is_file(),
        "the demo model is not in {}",
        models.display()
    );
    models
}

/// The library that the tests were given.
pub(crate) fn onnxruntime() -> PathBuf {
    let library = env::var_os("PG_CLIP_ONNXRUNTIME");
    library.expect("PG_CLIP_ONNXRUNTIME names no library of ONNX Runtime: run `cargo xtask test`").into()
}

fn pass_as_3(descriptor: i32) -> io::Result<()> {
    if descriptor == 3 {
        // SAFETY: fcntl with F_SETFD touches no memory.
        return match unsafe { libc::fcntl(3, libc::F_SETFD, 0) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        };
    }
    // SAFETY: dup2 touches no memory.
    match unsafe { libc::dup2(descriptor, 3) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
