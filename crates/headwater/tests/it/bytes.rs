//! Streams of bytes.

use std::io::SeekFrom;
use std::time::Duration;

use bytes::Bytes;
use headwater_client::{ByteReader, ByteWriterOptions, Error, ErrorKind, ScopedStream};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use super::Store;

/// Bytes that tell where they stand.
fn pattern(from: u64, length: usize) -> Bytes {
    (from..from + length as u64).map(|at| (at % 251) as u8).collect::<Vec<_>>().into()
}

/// Reads as many bytes, which have to be the pattern's.
async fn check(reader: &mut ByteReader, length: usize) {
    let from = reader.offset();
    let mut found = vec![0; length];
    reader.read_exact(&mut found).await.unwrap();
    assert!(found == pattern(from, length), "bytes from {from}");
    assert_eq!(reader.offset(), from + length as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_stored_once_in_order_and_read_from_anywhere() {
    let store = Store::start().await;
    let stream = store.stream("s/t", 1).await;
    let writer = store.client.byte_writer(&stream, Default::default()).await.unwrap();
    let mut at = 0;
    for length in [1, 1000, 20_000_000, 7, 8 << 20, (8 << 20) + 1, 3] {
        let ack = writer.write(pattern(at, length)).await.unwrap();
        at += length as u64;
        assert_eq!(ack.await.unwrap(), Some(at));
    }
    assert_eq!(writer.tail().await.unwrap(), at);
    let mut reader = store.client.byte_reader(&stream, 0).await.unwrap();
    check(&mut reader, usize::try_from(at).unwrap()).await;
    for offset in [0, 1, 1001, 20_000_000, at - 3] {
        reader.seek_to(offset);
        check(&mut reader, 3).await;
    }
    assert_eq!((reader.head().await.unwrap(), reader.tail().await.unwrap()), (0, at));
    assert_eq!(reader.seek(SeekFrom::End(-10)).await.unwrap(), at - 10);
    check(&mut reader, 10).await;
    assert_eq!(reader.seek(SeekFrom::Current(-5)).await.unwrap(), at - 5);
    check(&mut reader, 5).await;
    assert!(reader.seek(SeekFrom::Current(i64::MIN)).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_at_the_tail_waits_for_bytes_and_ends_when_they_are_sealed() {
    let store = Store::start().await;
    let stream = store.stream("s/t", 1).await;
    let writer = store.client.byte_writer(&stream, Default::default()).await.unwrap();
    let mut reader = store.client.byte_reader(&stream, 0).await.unwrap();
    // Giving up waiting loses nothing.
    assert!(tokio::time::timeout(Duration::from_millis(20), reader.next()).await.is_err());
    writer.write("one").await.unwrap().await.unwrap();
    assert_eq!(reader.next().await.unwrap(), Some("one".into()));
    let waiting = tokio::spawn(async move {
        let mut found = Vec::new();
        reader.read_to_end(&mut found).await.unwrap();
        (found, reader)
    });
    let _ = writer.write("two").await.unwrap();
    writer.seal().await.unwrap();
    writer.seal().await.unwrap();
    let (found, mut reader) = waiting.await.unwrap();
    assert_eq!(found, b"two");
    assert_eq!(reader.next().await.unwrap(), None);
    let error = writer.write("three").await.unwrap().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Sealed);
    assert_eq!(writer.write("four").await.unwrap_err().kind(), ErrorKind::Sealed);
    reader.seek_to(4);
    assert_eq!(reader.next().await.unwrap(), Some("wo".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_truncated_is_told_with_where_the_stream_begins() {
    let store = Store::start().await;
    let stream = store.stream("s/t", 1).await;
    let writer = store.client.byte_writer(&stream, Default::default()).await.unwrap();
    writer.write(pattern(0, 100)).await.unwrap().await.unwrap();
    writer.truncate(40).await.unwrap();
    writer.truncate(30).await.unwrap();
    assert_eq!(writer.truncate(101).await.unwrap_err().kind(), ErrorKind::Invalid);
    let mut reader = store.client.byte_reader(&stream, 39).await.unwrap();
    assert_eq!(reader.next().await.unwrap_err().kind(), ErrorKind::Truncated);
    assert_eq!((reader.truncated_to(), reader.head().await.unwrap()), (Some(40), 40));
    let error = reader.read_u8().await.unwrap_err();
    assert_eq!(error.get_ref().unwrap().downcast_ref::<Error>().unwrap().kind(), ErrorKind::Truncated);
    reader.seek_to(40);
    check(&mut reader, 60).await;
    assert_eq!(reader.truncated_to(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_of_bytes_goes_on_through_restarts() {
    let mut store = Store::start().await;
    let stream = store.stream("s/t", 1).await;
    let options = ByteWriterOptions::default().batch_bytes(4 << 10).window_bytes(64 << 10);
    let writer = store.client.byte_writer(&stream, options).await.unwrap();
    const COUNT: u64 = 20_000;
    let writing = tokio::spawn(async move {
        let mut at = 0;
        for number in 0..COUNT {
            let length = 1 + (number % 97) as usize;
            let _ = writer.write(pattern(at, length)).await.unwrap();
            assert!(writer.bytes_under_way() <= 64 << 10);
            at += length as u64;
        }
        writer.flush().await.unwrap();
        assert_eq!(writer.tail().await.unwrap(), at);
        at
    });
    let mut reader = store.client.byte_reader(&stream, 0).await.unwrap();
    let reading = tokio::spawn(async move {
        let length = (0..COUNT).map(|number| 1 + (number % 97) as usize).sum();
        check(&mut reader, length).await;
        length as u64
    });
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(30)).await;
        store.restart().await;
    }
    assert_eq!(writing.await.unwrap(), reading.await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_stream_of_bytes_is_refused() {
    let store = Store::start().await;
    let client = &store.client;
    let wide = store.stream("s/wide", 2).await;
    let missing = ScopedStream::parse("s/missing").unwrap();
    for (stream, kind) in [(&wide, ErrorKind::Invalid), (&missing, ErrorKind::NotFound)] {
        assert_eq!(client.byte_writer(stream, Default::default()).await.unwrap_err().kind(), kind);
        assert_eq!(client.byte_reader(stream, 0).await.unwrap_err().kind(), kind);
    }
    let stream = store.stream("s/t", 1).await;
    let writer = client.byte_writer(&stream, Default::default()).await.unwrap();
    assert_eq!(writer.write("").await.unwrap_err().kind(), ErrorKind::Invalid);
    client.seal_stream(&stream).await.unwrap();
    assert_eq!(client.byte_writer(&stream, Default::default()).await.unwrap_err().kind(), ErrorKind::Sealed);
    assert_eq!(client.byte_reader(&stream, 0).await.unwrap().next().await.unwrap(), None);
}
