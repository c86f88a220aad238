//! One connection to the embedder: opening it, and a conversation on it.

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, getsockopt, recv, socket, sockopt,
};
use pg_clip_wire::{Answer, FailureKind, FrameHeader, PROTOCOL, Party, Request};
use pgrx::pg_sys;

use crate::error::Error;
use crate::latch::{Interest, wait};
use crate::socket::{ArrivalSocket, ExternalDescriptor, SOCKET};
use crate::supervisor;
use crate::version::VERSION;

/// A connected socket. Dropping it tells the embedder that no backend waits for the answers any more.
pub(super) struct Connection {
    stream: UnixStream,
    /// Received bytes that are not a whole frame yet.
    inbox: Vec<u8>,
    /// Whether the embedder's `Welcome` has been read.
    welcomed: bool,
    _descriptor: ExternalDescriptor,
}

impl Connection {
    /// Connects, and starts the supervisor where none runs. Where the embedder is being started, the connection
    /// waits in the socket's backlog, and only the conversation finds out whether the embedder answers.
    pub(super) fn open(deadline: Instant, patience: Duration) -> Result<Connection, Error> {
        let descriptor = ExternalDescriptor::acquire()?;
        let mut arrival = None;
        let stream = loop {
            match try_connect() {
                Ok(stream) => break stream,
                Err(Errno::ENOENT | Errno::ECONNREFUSED) => {}
                Err(Errno::EAGAIN) => return Err(Error::Backlog),
                Err(errno) => return Err(Error::system("connect to the embedder", errno)),
            }
            let Some(arrival) = &arrival else {
                // The next turn tries once more, now that no arrival can be missed.
                arrival = Some(ArrivalSocket::bind()?);
                continue;
            };
            supervisor::ensure_running()?;
            if !wait(arrival.descriptor(), Interest::Readable, Some(deadline)) {
                return Err(Error::NotRunning(patience.as_millis()));
            }
            arrival.drain();
        };
        let peer = getsockopt(&stream, sockopt::PeerCredentials)
            .map_err(|errno| Error::system("ask which user listens on pg_clip's socket", errno))?;
        if peer.uid() != nix::unistd::geteuid().as_raw() {
            return Err(Error::ForeignPeer);
        }
        Ok(Connection { stream, inbox: Vec::new(), welcomed: false, _descriptor: descriptor })
    }

    /// Whether the connection is alive and silent, as it has to be between conversations.
    pub(super) fn is_idle(&self) -> bool {
        let mut byte = [0];
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        let descriptor = std::os::fd::AsRawFd::as_raw_fd(&self.stream);
        recv(descriptor, &mut byte, flags) == Err(Errno::EAGAIN) && self.inbox.is_empty()
    }

    /// Whether an embedder has taken the connection on.
    pub(super) fn is_welcomed(&self) -> bool {
        self.welcomed
    }

    /// Sends the requests and reads an answer to each, in their order. `patience` is the longest wait without a byte
    /// sent or received.
    pub(super) fn converse(
        &mut self,
        requests: &[Request],
        patience: Duration,
    ) -> Result<Vec<Answer>, Error> {
        let mut outgoing = Outgoing::default();
        self.greet(&mut outgoing)?;
        for request in requests {
            outgoing.add(request, request.payload())?;
        }
        let mut expected = requests.iter().map(id_of).collect();
        let mut answers = Vec::with_capacity(requests.len());
        let mut deadline = Instant::now() + patience;
        while answers.len() < requests.len() {
            if self.advance(&mut outgoing, &mut expected, &mut answers)? {
                deadline = Instant::now() + patience;
                pgrx::check_for_interrupts!();
            } else {
                self.wait(&outgoing, deadline, patience)?;
            }
        }
        if self.inbox.is_empty() { Ok(answers) } else { Err(Error::OutOfTurn) }
    }

    /// Has the first frame on this connection say for which role this process asks, unless it was sent.
    pub(super) fn greet<P: Default>(&self, outgoing: &mut Outgoing<P>) -> Result<(), Error> {
        if self.welcomed { Ok(()) } else { outgoing.add(&hello(), P::default()) }
    }

    /// Sends what the socket takes and reads what is there, without waiting. The answers to the `expected` requests, whose
    /// numbers are in the order in which they were sent, come off them. Returns whether a byte was sent or received.
    pub(super) fn advance<P: AsRef<[u8]>>(
        &mut self,
        outgoing: &mut Outgoing<P>,
        expected: &mut VecDeque<u32>,
        answers: &mut Vec<Answer>,
    ) -> Result<bool, Error> {
        let sent = outgoing.send(&mut self.stream)?;
        let received = self.receive()?;
        while let Some(answer) = self.next_answer()? {
            self.admit(answer, expected, answers)?;
        }
        Ok(sent || received)
    }

    /// Waits until [`Connection::advance`] may have something to do.
    pub(super) fn wait<P>(
        &self,
        outgoing: &Outgoing<P>,
        deadline: Instant,
        patience: Duration,
    ) -> Result<(), Error> {
        let interest = if outgoing.is_done() { Interest::Readable } else { Interest::ReadableOrWritable };
        if wait(self.stream.as_fd(), interest, Some(deadline)) {
            return Ok(());
        }
        let waited = patience.as_millis();
        Err(if self.welcomed { Error::TimedOut(waited) } else { Error::NotRunning(waited) })
    }

    /// Takes an answer for the request whose turn it is, or the `Welcome` before all answers.
    fn admit(
        &mut self,
        answer: Answer,
        expected: &mut VecDeque<u32>,
        answers: &mut Vec<Answer>,
    ) -> Result<(), Error> {
        let id = match &answer {
            Answer::Welcome { .. } if self.welcomed => return Err(Error::OutOfTurn),
            Answer::Welcome { protocol, version } => {
                if version != VERSION {
                    return Err(Error::OtherEmbedder(version.clone()));
                }
                if *protocol != PROTOCOL {
                    return Err(Error::OtherProtocol { theirs: *protocol, release: version.clone() });
                }
                self.welcomed = true;
                return Ok(());
            }
            Answer::Failed { id: 0, failure } if failure.kind == FailureKind::Protocol => {
                return Err(failure.clone().into());
            }
            Answer::Embedding { id, .. }
            | Answer::Failed { id, .. }
            | Answer::StatusReport { id, .. }
            | Answer::Description { id, .. } => *id,
        };
        if !self.welcomed || expected.pop_front() != Some(id) {
            return Err(Error::OutOfTurn);
        }
        answers.push(answer);
        Ok(())
    }

    /// Reads bytes that have come. Returns whether there were any. The caller takes the frames out before the next
    /// call, so that the inbox never holds much more than one.
    fn receive(&mut self) -> Result<bool, Error> {
        let mut chunk = [0; 16 << 10];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(Error::Died),
                Ok(length) => {
                    self.inbox.extend_from_slice(&chunk[..length]);
                    return Ok(true);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Err(Error::Died),
                Err(error) => return Err(Error::system("read from the embedder", error)),
            }
        }
    }

    /// Takes the first frame out of the inbox, once it is whole.
    fn next_answer(&mut self) -> Result<Option<Answer>, Error> {
        let Some((head, rest)) = self.inbox.split_first_chunk::<{ FrameHeader::SIZE }>() else {
            return Ok(None);
        };
        let header = FrameHeader::parse_answer(*head)?;
        let Some(body) = rest.get(..header.length) else {
            return Ok(None);
        };
        let answer = Answer::decode(header.kind, body)?;
        self.inbox.drain(..FrameHeader::SIZE + header.length);
        Ok(Some(answer))
    }
}

/// Says for which role this process asks: for the role that logged in, whichever role it acts as now.
fn hello() -> Request<'static> {
    // SAFETY: plain reads of variables of this process, which is connected to a database.
    let (database, role) = unsafe { (pg_sys::MyDatabaseId, pg_sys::GetSessionUserId()) };
    Request::Hello { protocol: PROTOCOL, party: Party { database: database.into(), role: role.into() } }
}

/// The frames that are still to be sent. Payloads are not copied to be sent.
pub(super) struct Outgoing<P> {
    waiting: VecDeque<(Vec<u8>, P)>,
    /// How much of the first frame has been sent.
    sent: usize,
}

impl<P> Default for Outgoing<P> {
    fn default() -> Outgoing<P> {
        Outgoing { waiting: VecDeque::new(), sent: 0 }
    }
}

impl<P> Outgoing<P> {
    /// Adds a frame: the head of a request, and its payload.
    pub(super) fn add(&mut self, request: &Request, payload: P) -> Result<(), Error> {
        let mut head = Vec::new();
        request.encode_head(&mut head)?;
        self.waiting.push_back((head, payload));
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl<P: AsRef<[u8]>> Outgoing<P> {
    /// Sends what the socket takes. Returns whether it took anything.
    fn send(&mut self, stream: &mut UnixStream) -> Result<bool, Error> {
        let mut progress = false;
        while let Some((head, payload)) = self.waiting.front() {
            let payload = payload.as_ref();
            let rest = [&head[self.sent.min(head.len())..], &payload[self.sent.saturating_sub(head.len())..]];
            match stream.write_vectored(&rest.map(IoSlice::new)) {
                Ok(length) => {
                    self.sent += length;
                    progress = true;
                    if self.sent == head.len() + payload.len() {
                        self.waiting.pop_front();
                        self.sent = 0;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(progress),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The embedder may have answered before it closed: the answer is still to be read.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(progress),
                Err(error) => return Err(Error::system("write to the embedder", error)),
            }
        }
        Ok(progress)
    }
}

/// Connects without waiting.
fn try_connect() -> Result<UnixStream, Errno> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let descriptor: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(std::os::fd::AsRawFd::as_raw_fd(&descriptor), &UnixAddr::new(SOCKET)?)?;
    Ok(UnixStream::from(descriptor))
}

fn id_of(request: &Request) -> u32 {
    match *request {
        Request::Hello { .. } => 0,
        Request::EmbedText { id, .. }
        | Request::EmbedImage { id, .. }
        | Request::Status { id }
        | Request::Describe { id, .. } => id,
    }
}
