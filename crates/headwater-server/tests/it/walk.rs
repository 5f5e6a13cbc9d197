//! A stream is gone through from stream cut to stream cut, each about so many bytes behind the one before, over sockets.
//!
//! Source: wire protocol 17, `LocateOffset`.

use headwater_client::{Client, ClientOptions, ErrorKind, KeyRange, ScopedStream, StreamConfig, StreamCut};

use crate::server::Running;

const KEYS: usize = 12;
/// Of each step, in bytes.
const DISTANCE: u64 = 400_000;

struct Walker {
    client: Client,
    stream: ScopedStream,
}

impl Walker {
    /// Events between two cuts of a walk, one after the other.
    async fn between(&self, from: &StreamCut, to: &StreamCut) -> Vec<String> {
        let mut found = Vec::new();
        for slice in self.client.slices_between(&self.stream, Some(from), Some(to)).await.unwrap() {
            let mut reader = self.client.read_slice(&slice);
            while let Some((_, event)) = reader.next().await.unwrap() {
                found.push(String::from_utf8(event.to_vec()).unwrap());
            }
        }
        found
    }

    async fn write(&self, numbers: std::ops::Range<usize>) {
        let into = self.client.event_writer(&self.stream, Default::default()).await.unwrap();
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
        let current = self.client.current_segments(&self.stream).await.unwrap();
        let within = |range: KeyRange| low <= range.low() && range.high() <= high;
        let sealed: Vec<_> = current.iter().filter(|it| within(it.range)).map(|it| it.id).collect();
        let ranges = bounds.windows(2).map(|pair| KeyRange::new(pair[0], pair[1]).unwrap()).collect::<Vec<_>>();
        self.client.scale_stream(&self.stream, &sealed, &ranges).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_from_cut_to_cut_passes_each_event_once_over_splits_and_merges() {
    let running = Running::start(|config| config.tls = None).await;
    let client = ClientOptions::new(&running.server.controller().to_string()).unwrap().connect().unwrap();
    let stream = ScopedStream::parse("s/t").unwrap();
    client.create_scope(&stream.scope).await.unwrap();
    client.create_stream(&stream, &StreamConfig::fixed(2)).await.unwrap();
    let walker = Walker { client, stream };
    walker.write(0..60).await;
    walker.scale(0.0, 0.5, &[0.0, 0.2, 0.5]).await;
    walker.write(60..120).await;
    walker.scale(0.2, 1.0, &[0.2, 1.0]).await;
    walker.write(120..180).await;
    // Of the keys of each of the two, some go to a segment of their own, and some to one in the middle.
    walker.scale(0.0, 1.0, &[0.0, 0.1, 0.6, 1.0]).await;
    walker.write(180..240).await;

    let mut at = walker.client.head_cut(&walker.stream).await.unwrap();
    let (mut cuts, mut read) = (vec![at.clone()], Vec::new());
    for step in 0.. {
        assert!(step < 1000, "the walk comes to an end");
        let next = walker.client.next_cut(&at, DISTANCE).await.unwrap();
        if next == at {
            break;
        }
        let events = walker.between(&at, &next).await;
        let bytes: usize = events.iter().map(String::len).sum();
        // The store remembers a place in each tenth of a megabyte.
        assert!(0 < bytes && bytes < 1_000_000, "{bytes} bytes in a step of {DISTANCE}");
        read.extend(events);
        at = next;
        cuts.push(at.clone());
    }
    assert!(cuts.len() > 10, "{} cuts", cuts.len());
    assert_eq!(at, walker.client.tail_cut(&walker.stream).await.unwrap(), "the walk ends where the stream does");
    let mut next = [0; KEYS];
    for event in &read {
        let mut parts = event.split('/').map(|part| part.parse::<usize>());
        let (Some(Ok(key)), Some(Ok(number))) = (parts.next(), parts.next()) else { panic!("{event}") };
        assert_eq!(number, next[key], "the next event of key {key}");
        next[key] += 1;
    }
    assert_eq!(next, [240; KEYS]);

    // Each is a cut of the stream: one after the other it becomes its head, and none before the one that is it.
    for cut in &cuts {
        walker.client.truncate_stream(cut).await.unwrap();
    }
    let refused = walker.client.truncate_stream(&cuts[0]).await.unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::Invalid | ErrorKind::Unavailable), "{refused:?}");
    running.server.stop().await;
}
