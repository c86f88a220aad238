//! One connection: a reader that takes requests on, and a writer that answers them in their order.
//!
//! Between the two is a window of requests in flight. When it is full nothing more is read, so that a backend that does
//! not read its answers holds up itself alone. When the backend closes the connection everything that it asked for is
//! dropped.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pg_clip_wire::{Answer, FrameHeader, Kind, PROTOCOL, Party, Request, WireError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::{task, time};

use super::admission::{Member, Memory, Waiting};
use super::shared::Server;
use super::status;
use crate::batch::{Answered, Embedding, ImageJob, Reply, Source, TextJob};
use crate::error::Error;
use crate::model::Model;
use crate::stats::Lane;

/// Serves a connection until its backend closes it or breaks the protocol.
pub(super) async fn serve(stream: UnixStream, server: Arc<Server>) {
    let (reader, writer) = stream.into_split();
    let (window, pending) = mpsc::channel(IN_FLIGHT);
    let writer = task::spawn(write_answers(writer, pending, Arc::clone(&server)));
    match read(reader, &window, &server).await {
        Ok(End::Closed) => writer.abort(),
        Ok(End::OtherProtocol) => {}
        Err(error) => {
            let _ = window.send(Pending::Ready(Answer::Failed { id: 0, failure: error.into() })).await;
        }
    }
    drop(window);
    let _ = writer.await;
}

/// The most requests of one connection that are not answered yet.
const IN_FLIGHT: usize = 64;

/// A backend that stops in the middle of a frame keeps room that other backends need; it is disconnected after this
/// time.
const STALL: Duration = Duration::from_secs(30);

/// A request that is to be answered.
enum Pending {
    Ready(Answer),
    Embedding { id: u32, answer: oneshot::Receiver<Answered>, _waiting: Option<Waiting> },
    Description { id: u32, answer: oneshot::Receiver<Answer> },
}

/// Why no more requests come, other than by a breach of the protocol.
enum End {
    Closed,
    OtherProtocol,
}

async fn read(
    mut reader: OwnedReadHalf,
    window: &mpsc::Sender<Pending>,
    server: &Arc<Server>,
) -> Result<End, Error> {
    let Some((protocol, party)) = read_hello(&mut reader).await? else { return Ok(End::Closed) };
    let _ = window.send(Pending::Ready(welcome())).await;
    if protocol != PROTOCOL {
        return Ok(End::OtherProtocol);
    }
    let connection = server.connections.fetch_add(1, Ordering::Relaxed);
    let member = server.admission.join(Source { party, connection });
    read_requests(reader, window, server, &member).await
}

/// The protocol and the party of the backend, which its first frame must name, or None where it has gone.
async fn read_hello(reader: &mut OwnedReadHalf) -> Result<Option<(u16, Party)>, WireError> {
    let Some(header) = read_header(reader).await? else { return Ok(None) };
    if header.kind != Kind::Hello {
        return Err(WireError::NoMagic);
    }
    let Some(frame) = read_body(reader, header.length).await else { return Ok(None) };
    match Request::decode(header.kind, &frame)? {
        Request::Hello { protocol, party } => Ok(Some((protocol, party))),
        _ => Err(WireError::NoMagic),
    }
}

async fn read_requests(
    mut reader: OwnedReadHalf,
    window: &mpsc::Sender<Pending>,
    server: &Arc<Server>,
    member: &Member,
) -> Result<End, Error> {
    let source = member.source();
    loop {
        let Some(header) = read_header(&mut reader).await? else { return Ok(End::Closed) };
        let lane = match header.kind {
            Kind::EmbedText => Some(Lane::Text),
            Kind::EmbedImage => Some(Lane::InteractiveImage),
            Kind::EmbedBulkImage => Some(Lane::BulkImage),
            _ => None,
        };
        let memory = match lane {
            Some(lane) => Some(member.room(lane, header.length).await),
            None => None,
        };
        let Some(frame) = read_body(&mut reader, header.length).await else { return Ok(End::Closed) };
        let pending = match Request::decode(header.kind, &frame)? {
            Request::Hello { .. } => Pending::Ready(welcome()),
            Request::Status { id } => {
                Pending::Ready(Answer::StatusReport { id, json: status::report(server) })
            }
            Request::Describe { id, model } => describe(server, id, model.to_owned()),
            Request::EmbedText { id, model, text } => {
                let text = text.to_owned();
                take_on(server, member, id, Lane::Text, model, memory, move |server, model, reply, memory| {
                    server.texts.submit(source, TextJob { model, text, reply, memory });
                })
            }
            Request::EmbedImage { id, model, priority, max_pixels, image } => {
                let (model, start) = (model.to_owned(), frame.len() - image.len());
                let lane = Lane::of_images(priority);
                take_on(server, member, id, lane, &model, memory, move |server, model, reply, memory| {
                    let job = ImageJob { model, frame, start, max_pixels, reply, memory };
                    server.images.submit(priority, source, job);
                })
            }
        };
        if window.send(pending).await.is_err() {
            return Ok(End::Closed);
        }
    }
}

/// Hands a request to its lane once its model is loaded.
fn take_on(
    server: &Arc<Server>,
    member: &Member,
    id: u32,
    lane: Lane,
    name: &str,
    memory: Option<Memory>,
    submit: impl FnOnce(&Server, Arc<Model>, Reply, Memory) + Send + 'static,
) -> Pending {
    let memory = memory.expect("room was made for every embedding");
    let (asked, (sender, answer)) = (Instant::now(), oneshot::channel());
    let waiting = match member.admit(lane) {
        Ok(waiting) => Some(waiting),
        Err(error) => {
            Reply::new(sender, asked, server.stats.meter_of_any(lane, name)).send(Err(error.into()));
            return Pending::Embedding { id, answer, _waiting: None };
        }
    };
    let (server, name) = (Arc::clone(server), name.to_owned());
    task::spawn(async move {
        match server.registry.get(&name).await {
            Ok(model) => {
                let reply = Reply::new(sender, asked, server.stats.meter(lane, &name));
                submit(&server, model, reply, memory);
            }
            Err(failure) => {
                Reply::new(sender, asked, server.stats.meter_of_any(lane, &name)).send(Err(failure));
            }
        }
    });
    Pending::Embedding { id, answer, _waiting: waiting }
}

fn describe(server: &Arc<Server>, id: u32, name: String) -> Pending {
    let (sender, answer) = oneshot::channel();
    let registry = Arc::clone(&server.registry);
    task::spawn(async move {
        let _ = sender.send(match registry.get(&name).await {
            Ok(model) => {
                let (fingerprint, dimensions) = (model.fingerprint, model.dimensions);
                Answer::Description { id, fingerprint, dimensions }
            }
            Err(failure) => Answer::Failed { id, failure },
        });
    });
    Pending::Description { id, answer }
}

async fn write_answers(
    mut writer: OwnedWriteHalf,
    mut pending: mpsc::Receiver<Pending>,
    server: Arc<Server>,
) -> io::Result<()> {
    let mut frame = Vec::new();
    while let Some(pending) = pending.recv().await {
        let mut ready = None;
        let answer = match pending {
            Pending::Ready(answer) => answer,
            Pending::Description { id, answer } => answer.await.unwrap_or_else(|_| lost(id)),
            Pending::Embedding { id, answer, _waiting } => match answer.await {
                Ok(Answered { outcome, ready: at, meter }) => {
                    ready = Some((at, meter));
                    match outcome {
                        Ok(Embedding { fingerprint, work, vector }) => {
                            Answer::Embedding { id, fingerprint, work, vector }
                        }
                        Err(failure) => Answer::Failed { id, failure },
                    }
                }
                Err(_) => lost(id),
            },
        };
        if matches!(answer, Answer::Failed { .. }) {
            server.stats.count_failure();
        }
        frame.clear();
        answer.encode(&mut frame).map_err(io::Error::other)?;
        writer.write_all(&frame).await?;
        if let Some((at, meter)) = ready {
            meter.delivered(at.elapsed());
        }
    }
    Ok(())
}

fn welcome() -> Answer {
    Answer::Welcome { protocol: PROTOCOL, version: env!("CARGO_PKG_VERSION").to_owned() }
}

/// The answer to a request whose task ended without one.
fn lost(id: u32) -> Answer {
    Answer::Failed { id, failure: Error::Internal("the request was lost in a panic".to_owned()).into() }
}

/// The next header, or None where the backend has gone.
async fn read_header(reader: &mut OwnedReadHalf) -> Result<Option<FrameHeader>, WireError> {
    let mut bytes = [0; FrameHeader::SIZE];
    match reader.read_exact(&mut bytes).await {
        Ok(_) => FrameHeader::parse(bytes).map(Some),
        Err(_) => Ok(None),
    }
}

/// The body of a frame, or None where the backend has gone or stalls. It grows as it is read: a length is only a claim.
async fn read_body(reader: &mut OwnedReadHalf, length: usize) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    let mut reader = reader.take(length as u64);
    while body.len() < length {
        let room = (length - body.len()).min(body.len().max(64 << 10));
        body.try_reserve_exact(room).ok()?;
        let read = time::timeout(STALL, reader.read_buf(&mut body)).await.ok()?.ok()?;
        if read == 0 {
            return None;
        }
    }
    Some(body)
}
