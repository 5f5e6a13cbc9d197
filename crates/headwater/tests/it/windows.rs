//! What time it is where a group reads.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use headwater::client::{
    Client, ErrorKind, EventReader, EventWriter, Name, ReaderGroupConfig, ReaderOptions, ScopedStream, StreamConfig,
    TimeWindow, TransactionOptions,
};
use headwater::testing::TestStore;
use tokio::time::{Instant, timeout};

use super::store::stream_of;

/// Nothing here takes longer, unless it hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// A mark of a stream that has had one segment only, as the server writes it.
pub(super) fn mark(lower: i64, upper: i64, offset: i64) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_slice(&[0, 0, 1, 0, 0, 0, 0, 57]);
    bytes.put_i64(lower);
    bytes.put_i64(upper);
    bytes.put_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 24]);
    bytes.put_i64(0);
    bytes.put_f64(0.0);
    bytes.put_f64(1.0);
    bytes.put_i64(offset);
    bytes.freeze()
}

async fn reader_of(client: &Client, stream: &ScopedStream) -> EventReader {
    let (scope, name) = (Name::parse("s").unwrap(), Name::parse("g").unwrap());
    let config = ReaderGroupConfig::of(stream).every(Duration::from_millis(50), None);
    client.create_reader_group(&scope, &name, &config).await.unwrap();
    let group = client.reader_group(&scope, &name).await.unwrap();
    group.reader_with("a", ReaderOptions::at_once()).await.unwrap()
}

/// Events that take nine bytes each.
async fn write(writer: &EventWriter, count: u32) {
    for _ in 0..count {
        let _ = writer.write("key", "x").await.unwrap();
    }
    writer.flush().await.unwrap();
}

/// Reads what there is until the window is this one: the reader says every other second where it is.
async fn until(reader: &mut EventReader, stream: &ScopedStream, expected: TimeWindow) {
    let begun = Instant::now();
    loop {
        let window = reader.time_window(stream).await.unwrap();
        if window == expected {
            return;
        }
        assert!(begun.elapsed() < LIMIT, "{window:?} and not {expected:?}");
        if let Ok(outcome) = timeout(Duration::from_millis(50), reader.next()).await {
            outcome.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_knows_between_which_marks_it_reads() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let stream = stream_of(client, 1).await;
    let writer = client.event_writer(&stream, Default::default()).await.unwrap();
    let mut reader = reader_of(client, &stream).await;
    let window = |lower, upper| TimeWindow { lower, upper };
    assert_eq!(reader.time_window(&stream).await.unwrap(), window(None, None));
    let marks = client.revisioned_stream(&ScopedStream::parse("s/_MARKt").unwrap()).await.unwrap();
    for (lower, upper, offset) in [(100, 120, 27), (200, 220, 63), (300, 320, 90)] {
        marks.write(&mark(lower, upper, offset)).await.unwrap();
    }
    assert_eq!(reader.time_window(&stream).await.unwrap(), window(None, Some(120)));
    write(&writer, 4).await;
    until(&mut reader, &stream, window(Some(100), Some(220))).await;
    write(&writer, 3).await;
    until(&mut reader, &stream, window(Some(200), Some(320))).await;
    write(&writer, 9).await;
    until(&mut reader, &stream, window(Some(300), None)).await;
    // Old marks may go: later ones tell more.
    marks.write(&mark(400, 420, 999)).await.unwrap();
    marks.truncate(marks.latest().await.unwrap()).await.unwrap();
    marks.write(&mark(500, 520, 999)).await.unwrap();
    assert_eq!(reader.time_window(&stream).await.unwrap(), window(Some(300), Some(520)));
    let other = ScopedStream::parse("s/other").unwrap();
    assert_eq!(reader.time_window(&other).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_makes_marks_of_what_writers_note() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let stream = stream_of(client, 2).await;
    let writer = client.event_writer(&stream, Default::default()).await.unwrap();
    let mut reader = reader_of(client, &stream).await;
    write(&writer, 10).await;
    writer.note_time(1000).await.unwrap();
    // The server looks every ten seconds, and everything is read by then.
    until(&mut reader, &stream, TimeWindow { lower: Some(1000), upper: None }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_the_times_of_writers_that_have_left() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let stream = stream_of(client, 1).await;
    // Nobody is taken for gone by his silence.
    let timestamp_aggregation_timeout = Duration::from_secs(3600);
    let config = StreamConfig { timestamp_aggregation_timeout, ..StreamConfig::fixed(1) };
    client.update_stream(&stream, &config).await.unwrap();
    let mut reader = reader_of(client, &stream).await;
    let goes_on = client.event_writer(&stream, Default::default()).await.unwrap();
    let leaves = client.event_writer(&stream, Default::default()).await.unwrap();
    let transactions = client.transaction_writer(&stream, TransactionOptions::default().writer("batch"));
    let numbered = client.numbered_writer(&stream, "importer", Default::default()).await.unwrap();
    assert!(!leaves.note_end().await.unwrap(), "it has noted none");
    assert!(!client.remove_writer(&stream, "nobody").await.unwrap());
    write(&goes_on, 4).await;
    for writer in [&goes_on, &leaves] {
        writer.note_time(1000).await.unwrap();
    }
    numbered.note_time(1000).await.unwrap();
    let transaction = transactions.begin().await.unwrap();
    let _ = transaction.write("k", "x").await.unwrap();
    transaction.commit(Some(1000)).await.unwrap().committed().await.unwrap();
    assert!(leaves.note_end().await.unwrap() && numbered.note_end().await.unwrap());
    assert!(transactions.note_end().await.unwrap() && client.remove_writer(&stream, "batch").await.unwrap());
    until(&mut reader, &stream, TimeWindow { lower: Some(1000), upper: None }).await;
    // Any of the others would hold this up.
    goes_on.note_time(2000).await.unwrap();
    until(&mut reader, &stream, TimeWindow { lower: Some(2000), upper: None }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_is_noted_behind_what_a_process_before_has_written() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let stream = stream_of(client, 3).await;
    let mut reader = reader_of(client, &stream).await;
    // The second process finds everything stored, and appends nothing itself.
    for is_second in [false, true] {
        let writer = client.numbered_writer(&stream, "writer", Default::default()).await.unwrap();
        for number in 1..=50 {
            let _ = writer.write(number, &number.to_string(), "x").await.unwrap();
        }
        writer.flush().await.unwrap();
        if is_second {
            writer.note_time(200).await.unwrap();
        }
    }
    let begun = Instant::now();
    let window = loop {
        let window = reader.time_window(&stream).await.unwrap();
        if window != TimeWindow::default() {
            break window;
        }
        assert!(begun.elapsed() < LIMIT, "no mark is made");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(window, TimeWindow { lower: None, upper: Some(200) }, "nothing was read yet");
    until(&mut reader, &stream, TimeWindow { lower: Some(200), upper: None }).await;
}
