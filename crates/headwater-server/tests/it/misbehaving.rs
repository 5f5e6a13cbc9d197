//! The client against a segment store that does what no server should, made of the server's end of the protocol.
//!
//! The controller is a real one. What the segment store does wrong it does so many times and then no more, or for ever.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use futures::future::BoxFuture;
use headwater_client::{
    ClientOptions, Duplex, Endpoint, ErrorKind, EventWriterOptions, ReadFrom, ScopedStream, SegmentSlice, Service,
    StreamConfig, Transport,
};
use headwater_types::{SegmentId, WriterId};
use headwater_wire::{Reply, Request, ServerEnd, ServerEvent, Text, TokenFailure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::server::Running;

/// Nothing here takes longer, unless it hangs.
const LIMIT: Duration = Duration::from_secs(60);
/// How long the client waits for one answer.
const ANSWER: Duration = Duration::from_secs(1);
/// And for any.
const RETRY: Duration = Duration::from_secs(4);

/// What goes wrong with an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mischief {
    /// It comes late, byte by byte.
    Slow,
    /// Bytes that are no frame.
    Garbage,
    /// The header of a frame that is longer than any.
    Endless,
    /// Somebody else's id.
    WrongId,
    /// Half of it, and the connection is closed.
    Half,
    /// Nothing, and the connection is closed: what was asked is done.
    Closed,
    /// An answer of another kind.
    OtherKind,
    /// An answer about another segment.
    OtherSegment,
    /// That the segment was truncated, to its first byte.
    Truncated,
    /// The token is no good.
    Refused,
    /// The token has expired.
    Expired,
    /// Nothing, for ever.
    Silent,
}

#[derive(Debug, Default)]
struct Held {
    segments: BTreeMap<String, Vec<u8>>,
    writers: BTreeMap<(String, WriterId), i64>,
    mischief: Option<Mischief>,
    /// How often still.
    times: u32,
    /// Appends that were stored.
    appends: u32,
}

#[derive(Clone, Debug)]
struct Misbehaving(Arc<Mutex<Held>>);

impl Transport for Misbehaving {
    fn connect(&self, service: Service, endpoint: &Endpoint) -> BoxFuture<'static, io::Result<Box<dyn Duplex>>> {
        let (held, endpoint) = (self.0.clone(), endpoint.clone());
        Box::pin(async move {
            if service == Service::Controller {
                return Ok(Box::new(TcpStream::connect((endpoint.host(), endpoint.port())).await?) as Box<dyn Duplex>);
            }
            let (here, there) = tokio::io::duplex(64 << 10);
            tokio::spawn(serve(there, held));
            Ok(Box::new(here) as Box<dyn Duplex>)
        })
    }
}

/// Serves one connection until one of the two has enough.
async fn serve(mut stream: DuplexStream, held: Arc<Mutex<Held>>) -> io::Result<()> {
    let (mut end, mut input) = (ServerEnd::new(), BytesMut::new());
    loop {
        let Ok(event) = end.next_event(&mut input) else { return Ok(()) };
        let Some(event) = event else {
            if stream.read_buf(&mut input).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let is_greeting = matches!(event, ServerEvent::Hello { .. } | ServerEvent::KeepAlive);
        let (mut reply, mischief) = {
            let mut held = held.lock().unwrap();
            let reply = held.answer(event);
            (reply, if is_greeting { None } else { held.next_mischief() })
        };
        let id = reply.request_id().unwrap_or_default();
        match mischief {
            Some(Mischief::WrongId) => set_id(&mut reply, id + 1_000_000),
            Some(Mischief::OtherKind) => reply = Reply::SegmentSealed { request_id: id, segment: "s/t".into() },
            Some(Mischief::OtherSegment) => set_segment(&mut reply, "s/other/0.#epoch.0".into()),
            Some(Mischief::Truncated) => {
                reply = Reply::SegmentIsTruncated {
                    request_id: id,
                    segment: "s/t/0.#epoch.0".into(),
                    start_offset: 0,
                    trace: Text::default(),
                    offset: 0,
                };
            }
            Some(Mischief::Refused) => {
                reply = Reply::AuthTokenCheckFailed {
                    request_id: id,
                    trace: Text::default(),
                    failure: TokenFailure::Refused,
                };
            }
            Some(Mischief::Expired) => {
                reply = Reply::AuthTokenCheckFailed {
                    request_id: id,
                    trace: Text::default(),
                    failure: TokenFailure::Expired,
                };
            }
            _ => {}
        }
        let mut frame = BytesMut::new();
        reply.encode(&mut frame).unwrap();
        match mischief {
            Some(Mischief::Slow) => {
                for byte in frame {
                    tokio::time::sleep(Duration::from_micros(100)).await;
                    stream.write_all(&[byte]).await?;
                }
            }
            Some(Mischief::Garbage) => stream.write_all(&[0x7f; 64]).await?,
            Some(Mischief::Endless) => stream.write_all(&[0, 0, 0, 10, 0x7f, 0xff, 0xff, 0xff]).await?,
            Some(Mischief::Half) => return stream.write_all(&frame[..frame.len() / 2]).await,
            Some(Mischief::Closed) => return Ok(()),
            Some(Mischief::Silent) => return std::future::pending().await,
            _ => stream.write_all(&frame).await?,
        }
    }
}

impl Held {
    fn next_mischief(&mut self) -> Option<Mischief> {
        self.times = self.times.checked_sub(1)?;
        self.mischief
    }

    /// What a good server says.
    fn answer(&mut self, event: ServerEvent) -> Reply {
        match event {
            ServerEvent::Hello { .. } | ServerEvent::Incompatible { .. } => Reply::hello(),
            ServerEvent::KeepAlive => Reply::KeepAlive,
            ServerEvent::SetupAppend(setup) => {
                let known = self.writers.get(&(setup.segment.to_string(), setup.writer));
                let last_event_number = known.copied().unwrap_or(i64::MIN);
                let (request_id, segment, writer) = (setup.request_id, setup.segment, setup.writer);
                Reply::AppendSetup { request_id, segment, writer, last_event_number }
            }
            ServerEvent::Append(append) => {
                let name = append.segment.to_string();
                let segment = self.segments.entry(name.clone()).or_default();
                segment.extend_from_slice(&append.data);
                let segment_length = segment.len() as i64;
                let before = self.writers.insert((name, append.writer), append.last_event_number);
                self.appends += 1;
                Reply::DataAppended {
                    writer: append.writer,
                    event_number: append.last_event_number,
                    previous_event_number: before.unwrap_or(i64::MIN),
                    request_id: append.request_id,
                    segment_length,
                }
            }
            ServerEvent::Request(Request::ReadSegment { segment, offset, request_id, .. }) => {
                let held = self.segments.get(&*segment).map_or(&[][..], |held| held);
                let data = Bytes::copy_from_slice(&held[offset as usize..]);
                Reply::SegmentRead { segment, offset, at_tail: true, end_of_segment: false, data, request_id }
            }
            ServerEvent::Request(Request::GetStreamSegmentInfo { request_id, segment, .. }) => {
                let write_offset = self.segments.get(&*segment).map_or(0, |held| held.len() as i64);
                Reply::StreamSegmentInfo {
                    request_id,
                    segment,
                    exists: true,
                    sealed: false,
                    deleted: false,
                    last_modified: 0,
                    write_offset,
                    start_offset: 0,
                }
            }
            ServerEvent::Request(request) => panic!("nothing here asks {request:?}"),
        }
    }
}

fn set_id(reply: &mut Reply, id: i64) {
    match reply {
        Reply::AppendSetup { request_id, .. }
        | Reply::DataAppended { request_id, .. }
        | Reply::SegmentRead { request_id, .. }
        | Reply::StreamSegmentInfo { request_id, .. } => *request_id = id,
        other => panic!("no good server says {other:?}"),
    }
}

fn set_segment(reply: &mut Reply, name: Text) {
    match reply {
        Reply::AppendSetup { segment, .. }
        | Reply::SegmentRead { segment, .. }
        | Reply::StreamSegmentInfo { segment, .. } => *segment = name,
        // It names no segment, but a writer, and each writer has one.
        Reply::DataAppended { writer, .. } => *writer = WriterId(writer.0 ^ 1),
        other => panic!("no good server says {other:?}"),
    }
}

struct Scene {
    running: Running,
    held: Arc<Mutex<Held>>,
    client: headwater_client::Client,
    stream: ScopedStream,
}

impl Scene {
    /// With a client that tries for longer than any mischief here that passes.
    async fn new() -> Self {
        Self::with(LIMIT).await
    }

    async fn with(retry: Duration) -> Self {
        let running = Running::start(|config| config.tls = None).await;
        let held = Arc::new(Mutex::new(Held::default()));
        let options = ClientOptions::new(&running.server.controller().to_string()).unwrap();
        let stream = ScopedStream::parse("s/t").unwrap();
        let patient = options.clone().connect().unwrap();
        patient.create_scope(&stream.scope).await.unwrap();
        patient.create_stream(&stream, &StreamConfig::fixed(1)).await.unwrap();
        let options = options.transport(Arc::new(Misbehaving(held.clone())));
        let client = options.request_timeout(ANSWER).retry_for(retry).connect().unwrap();
        Self { running, held, client, stream }
    }

    /// The real server may go before its directory does.
    async fn end(self) {
        self.running.server.stop().await;
    }

    fn misbehave(&self, mischief: Mischief, times: u32) {
        let mut held = self.held.lock().unwrap();
        (held.mischief, held.times) = (Some(mischief), times);
    }

    fn stored(&self) -> Vec<Bytes> {
        let held = self.held.lock().unwrap();
        let mut bytes = Bytes::from(held.segments.values().next().cloned().unwrap_or_default());
        let mut events = Vec::new();
        while bytes.has_remaining() {
            bytes.advance(4);
            let length = bytes.get_i32() as usize;
            events.push(bytes.split_to(length));
        }
        events
    }
}

/// What passes if it is not for ever.
const PASSING: [Mischief; 8] = [
    Mischief::Slow,
    Mischief::Garbage,
    Mischief::Endless,
    Mischief::Half,
    Mischief::Closed,
    Mischief::OtherSegment,
    Mischief::Expired,
    Mischief::Silent,
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_is_stored_once_whatever_the_server_did_for_a_while() {
    for mischief in PASSING {
        let scene = Scene::new().await;
        let options = EventWriterOptions::default().batch_bytes(1 << 10);
        let writer = scene.client.event_writer(&scene.stream, options).await.unwrap();
        let (mut acks, mut events) = (Vec::new(), Vec::new());
        for round in 0..5u32 {
            for number in round * 20..round * 20 + 20 {
                events.push(Bytes::from(format!("event {number}")));
                acks.push(writer.write("key", events.last().unwrap().clone()).await.unwrap());
            }
            // In turn, the mischief meets registrations, appends, and several of them.
            scene.misbehave(mischief, round % 3 + 1);
            let flushed = timeout(LIMIT, writer.flush()).await;
            let flushed = flushed.unwrap_or_else(|_| panic!("{mischief:?}: the writer hangs"));
            flushed.unwrap_or_else(|error| panic!("{mischief:?}, round {round}: {error:?}"));
        }
        for ack in acks {
            ack.await.unwrap();
        }
        assert_eq!(scene.stored(), events, "{mischief:?}");
        scene.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_that_is_answered_to_nobody_is_tried_anew() {
    let scene = Scene::new().await;
    scene.misbehave(Mischief::WrongId, 2);
    let writer = scene.client.event_writer(&scene.stream, Default::default()).await.unwrap();
    let ack = writer.write("key", "event").await.unwrap();
    timeout(LIMIT, ack).await.expect("the writer hangs").unwrap();
    assert_eq!(scene.stored(), ["event"]);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_on_for_ever_ends_with_an_error_that_says_so_and_the_window_bounds_memory() {
    for (mischief, expected) in [
        (Mischief::Garbage, ErrorKind::Protocol),
        (Mischief::Endless, ErrorKind::Protocol),
        (Mischief::Half, ErrorKind::Unavailable),
        (Mischief::Closed, ErrorKind::Unavailable),
        (Mischief::Silent, ErrorKind::Unavailable),
        (Mischief::OtherKind, ErrorKind::Protocol),
        (Mischief::Refused, ErrorKind::Denied),
        (Mischief::Expired, ErrorKind::Unauthenticated),
    ] {
        let scene = Scene::with(RETRY).await;
        scene.misbehave(mischief, u32::MAX);
        let window = 64 << 10;
        let options = EventWriterOptions::default().window_bytes(window);
        let writer = scene.client.event_writer(&scene.stream, options).await.unwrap();
        let first = writer.write("key", Bytes::from(vec![7; 40 << 10])).await.unwrap();
        // There is no room for it until the first is given up.
        let second = timeout(LIMIT, writer.write("key", Bytes::from(vec![7; 40 << 10]))).await;
        assert!(writer.bytes_under_way() <= window, "{mischief:?}");
        let error = timeout(LIMIT, first).await.unwrap_or_else(|_| panic!("{mischief:?}: hangs")).unwrap_err();
        assert_eq!(error.kind(), expected, "{mischief:?}: {error:?}");
        drop(second.unwrap().unwrap());
        scene.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_appended_one_by_one_is_stored_once_or_said_to_be_in_doubt() {
    for mischief in [Mischief::Garbage, Mischief::Half, Mischief::Closed, Mischief::Silent] {
        let scene = Scene::with(RETRY).await;
        let stream = scene.client.revisioned_stream(&scene.stream).await.unwrap();
        stream.write(&Bytes::from("first")).await.unwrap();
        scene.misbehave(mischief, 1);
        let second = timeout(LIMIT, async { stream.write(&Bytes::from("second")).await });
        second.await.unwrap_or_else(|_| panic!("{mischief:?}: hangs")).unwrap();
        assert_eq!(scene.stored(), ["first", "second"], "{mischief:?}");
        scene.misbehave(mischief, u32::MAX);
        let third = timeout(LIMIT, async { stream.write(&Bytes::from("third")).await });
        let error = third.await.unwrap_or_else(|_| panic!("{mischief:?}: hangs")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{mischief:?}: it is stored, and nobody said so");
        scene.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_get_the_bytes_or_an_error_that_says_why_not() {
    for (mischief, expected) in [
        (Mischief::Slow, None),
        (Mischief::Garbage, Some(ErrorKind::Protocol)),
        (Mischief::Endless, Some(ErrorKind::Protocol)),
        (Mischief::Half, Some(ErrorKind::Unavailable)),
        (Mischief::Closed, Some(ErrorKind::Unavailable)),
        (Mischief::OtherKind, Some(ErrorKind::Protocol)),
        (Mischief::OtherSegment, Some(ErrorKind::Protocol)),
        (Mischief::Refused, Some(ErrorKind::Denied)),
        (Mischief::Silent, Some(ErrorKind::Unavailable)),
        (Mischief::WrongId, Some(ErrorKind::Unavailable)),
    ] {
        let scene = Scene::with(RETRY).await;
        let writer = scene.client.event_writer(&scene.stream, Default::default()).await.unwrap();
        writer.write("key", "event").await.unwrap().await.unwrap();
        scene.misbehave(mischief, u32::MAX);
        let asked = timeout(LIMIT, scene.client.segment_info(&scene.stream, SegmentId::new(0, 0)));
        let info = asked.await.unwrap_or_else(|_| panic!("{mischief:?}: hangs"));
        // What a length says of another segment nobody can see.
        match expected.filter(|_| mischief != Mischief::OtherSegment) {
            None => assert_eq!(info.unwrap().end, 13),
            Some(kind) => assert_eq!(info.unwrap_err().kind(), kind, "{mischief:?}"),
        }
        let slice = SegmentSlice { stream: scene.stream.clone(), segment: SegmentId::new(0, 0), start: 0, end: 13 };
        let mut reader = scene.client.read_slice(&slice);
        // A read waits as long as its server lives, which may be for ever at the end of what is written.
        if mischief == Mischief::WrongId {
            scene.end().await;
            continue;
        }
        let read = timeout(LIMIT, reader.next()).await.unwrap_or_else(|_| panic!("{mischief:?}: hangs"));
        match expected {
            None => assert_eq!(read.unwrap(), Some((0, Bytes::from("event")))),
            Some(kind) => {
                assert_eq!(read.unwrap_err().kind(), kind, "{mischief:?}");
                scene.misbehave(mischief, 0);
                assert_eq!(timeout(LIMIT, reader.next()).await.unwrap().unwrap(), Some((0, Bytes::from("event"))));
            }
        }
        scene.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_was_truncated_to_where_it_is_read_is_not_read_there_for_ever() {
    let scene = Scene::new().await;
    let writer = scene.client.event_writer(&scene.stream, Default::default()).await.unwrap();
    writer.write("key", "event").await.unwrap().await.unwrap();
    let mut reader = scene.client.stream_reader(&scene.stream, ReadFrom::Head).await.unwrap();
    scene.misbehave(Mischief::Truncated, u32::MAX);
    let error = timeout(LIMIT, reader.next()).await.expect("the reader hangs").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error:?}");
    scene.misbehave(Mischief::Truncated, 0);
    assert_eq!(timeout(LIMIT, reader.next()).await.unwrap().unwrap().unwrap().event, "event");
    scene.end().await;
}
