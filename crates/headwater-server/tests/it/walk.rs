//! A stream is gone through from stream cut to stream cut, each about so many bytes behind the one before, as the batch client
//! of Java's main line does (`getNextStreamCut`): no published client has it, so its calls are made by hand.
//!
//! Source: wire protocol 17, `LocateOffset`.

use std::collections::BTreeMap;

use headwater_client::{
    Client as OurClient, ClientOptions, ErrorKind, KeyRange, ScopedStream, SegmentId, SegmentSlice, StreamConfig,
    StreamCut,
};
use headwater_wire::{Reply, Request, Token};
use tokio::net::TcpStream;

use crate::client::Client;
use crate::server::Running;

const KEYS: usize = 12;
/// Of each step, in bytes.
const DISTANCE: i64 = 400_000;

/// Where a walk is: an offset in each segment.
type At = BTreeMap<SegmentId, i64>;

struct Walker {
    store: Client,
    controller: OurClient,
    stream: ScopedStream,
}

impl Walker {
    /// Where the first event at or behind an offset ends, or the segment.
    async fn locate(&mut self, segment: SegmentId, target_offset: i64) -> i64 {
        let (request_id, name) = (self.store.id(), self.stream.segment(segment));
        let locate =
            Request::LocateOffset { request_id, segment: name.as_str().into(), target_offset, token: Token::default() };
        match self.store.ask(locate).await {
            Reply::OffsetLocated { offset, .. } => offset,
            other => panic!("{other:?}"),
        }
    }

    /// The next cut, about so many bytes further; the same one at the end of the stream.
    async fn next(&mut self, at: &At, distance: i64) -> At {
        let each = distance / i64::try_from(at.len()).unwrap();
        let (mut next, mut ended) = (At::new(), At::new());
        for (segment, offset) in at {
            let located = self.locate(*segment, offset + each).await;
            let at = if located > *offset { &mut next } else { &mut ended };
            at.insert(*segment, located);
        }
        for segment in ended.keys() {
            for successor in self.controller.successors(&self.stream, *segment).await.unwrap() {
                // What follows on several segments is come to when all of them are at their ends.
                if successor.predecessors.iter().all(|predecessor| ended.contains_key(predecessor)) {
                    next.insert(successor.segment.id, 0);
                }
            }
        }
        for (segment, offset) in ended {
            let successors = self.controller.successors(&self.stream, segment).await.unwrap();
            if successors.is_empty() || !successors.iter().all(|it| next.contains_key(&it.segment.id)) {
                next.insert(segment, offset);
            }
        }
        next
    }

    /// Events between two cuts of a walk, one after the other.
    async fn between(&self, from: &At, to: &At) -> Vec<String> {
        let mut found = Vec::new();
        for (segment, start) in from {
            // One that was left had nothing more.
            let (start, end) = (start.unsigned_abs(), to.get(segment).unwrap_or(start).unsigned_abs());
            let slice = SegmentSlice { stream: self.stream.clone(), segment: *segment, start, end };
            let mut reader = self.controller.read_slice(&slice);
            while let Some((_, event)) = reader.next().await.unwrap() {
                found.push(String::from_utf8(event.to_vec()).unwrap());
            }
        }
        found
    }

    async fn write(&self, numbers: std::ops::Range<usize>) {
        let into = self.controller.event_writer(&self.stream, Default::default()).await.unwrap();
        for number in numbers {
            for key in 0..KEYS {
                let text = format!("{key}/{number}/{}", "x".repeat(2_000 + number % 50 * 40));
                let _later = into.write(&key.to_string(), text).await.unwrap();
            }
            // Places are where appends end, and one may have many events.
            into.flush().await.unwrap();
        }
    }

    /// Replaces the segments of some keys.
    async fn scale(&self, low: f64, high: f64, bounds: &[f64]) {
        let current = self.controller.current_segments(&self.stream).await.unwrap();
        let within = |range: KeyRange| low <= range.low() && range.high() <= high;
        let sealed: Vec<_> = current.iter().filter(|it| within(it.range)).map(|it| it.id).collect();
        let ranges = bounds.windows(2).map(|pair| KeyRange::new(pair[0], pair[1]).unwrap()).collect::<Vec<_>>();
        self.controller.scale_stream(&self.stream, &sealed, &ranges).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_from_cut_to_cut_passes_each_event_once_over_a_split_and_a_merge() {
    let running = Running::start(|config| config.tls = None).await;
    let controller = ClientOptions::new(&running.server.controller().to_string()).unwrap().connect().unwrap();
    let stream = ScopedStream::parse("s/t").unwrap();
    controller.create_scope(&stream.scope).await.unwrap();
    controller.create_stream(&stream, &StreamConfig::fixed(2)).await.unwrap();
    let store = Client::greet(TcpStream::connect(running.server.segment_store()).await.unwrap()).await;
    let mut walker = Walker { store, controller, stream };
    walker.write(0..60).await;
    walker.scale(0.0, 0.5, &[0.0, 0.2, 0.5]).await;
    walker.write(60..120).await;
    walker.scale(0.2, 1.0, &[0.2, 1.0]).await;
    walker.write(120..180).await;

    let head = walker.controller.head_segments(&walker.stream).await.unwrap();
    let mut at: At = head.into_iter().map(|(id, offset)| (id, i64::try_from(offset).unwrap())).collect();
    let (mut cuts, mut read) = (vec![at.clone()], Vec::new());
    for step in 0.. {
        assert!(step < 1000, "the walk comes to an end");
        let next = walker.next(&at, DISTANCE).await;
        if next == at {
            break;
        }
        let events = walker.between(&at, &next).await;
        let bytes: usize = events.iter().map(String::len).sum();
        // The store remembers a place in each tenth of a megabyte.
        assert!(bytes < 1_000_000, "{bytes} bytes in a step of {DISTANCE}");
        read.extend(events);
        at = next;
        cuts.push(at.clone());
    }
    assert!(cuts.len() > 8, "{} cuts", cuts.len());
    let tail = walker.controller.tail_cut(&walker.stream).await.unwrap();
    assert_eq!(at, tail.offsets, "the walk ends where the stream does");
    let mut next = [0; KEYS];
    for event in &read {
        let mut parts = event.split('/').map(|part| part.parse::<usize>());
        let (Some(Ok(key)), Some(Ok(number))) = (parts.next(), parts.next()) else { panic!("{event}") };
        assert_eq!(number, next[key], "the next event of key {key}");
        next[key] += 1;
    }
    assert_eq!(next, [180; KEYS]);

    // Each is a cut of the stream: one after the other it becomes its head, and none before the one that is it.
    for offsets in &cuts {
        let cut = StreamCut { stream: walker.stream.clone(), offsets: offsets.clone() };
        walker.controller.truncate_stream(&cut).await.unwrap();
    }
    let first = StreamCut { stream: walker.stream.clone(), offsets: cuts[0].clone() };
    let refused = walker.controller.truncate_stream(&first).await.unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::Invalid | ErrorKind::Unavailable), "{refused:?}");
    running.server.stop().await;
}
