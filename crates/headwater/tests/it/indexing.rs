//! Streams of labelled records.

use headwater_client::{ErrorKind, IndexRecord};

use super::Store;

fn record(time: u64, number: u64) -> IndexRecord {
    IndexRecord::new([("time", time), ("number", number)], format!("record {number}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_found_by_their_labels() {
    let store = Store::start().await;
    let stream = store.stream("s/t", 1).await;
    let mut writer = store.client.index_writer(&stream, 100).await.unwrap();
    let reader = store.client.index_reader(&stream).await.unwrap();
    assert_eq!(reader.search("time", 0).await.unwrap(), None);
    for number in 0..50 {
        // Two of one time.
        let both = [record(number * 10, 2 * number), record(number * 10, 2 * number + 1)];
        assert_eq!(writer.append(&both).await.unwrap(), number * 200);
    }
    assert_eq!(reader.bounds().await.unwrap(), (0, 10_000));
    for (label, value, expected) in [
        ("time", 0, Some(0)),
        ("time", 1, Some(200)),
        ("time", 10, Some(200)),
        ("time", 485, Some(9800)),
        ("time", 490, Some(9800)),
        ("time", 491, None),
        ("number", 33, Some(3300)),
        ("number", 100, None),
    ] {
        assert_eq!(reader.search(label, value).await.unwrap(), expected, "{label} {value}");
    }
    assert_eq!(reader.search("other", 1).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(reader.record(3300).await.unwrap(), record(160, 33));
    writer.truncate(1000).await.unwrap();
    assert_eq!(writer.truncate(1001).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(reader.search("time", 0).await.unwrap(), Some(1000));
    assert_eq!(reader.record(900).await.unwrap_err().kind(), ErrorKind::Truncated);
    assert_eq!(reader.record(1001).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(reader.record(10_000).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(reader.records(900).await.unwrap_err().kind(), ErrorKind::Truncated);
    let mut records = reader.records(1000).await.unwrap();
    for number in 10..100 {
        assert_eq!(records.next().await.unwrap(), Some((number * 100, record(number / 2 * 10, number))));
    }
    assert_eq!(records.next().await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_writers_one_is_told_and_values_never_fall_between_them() {
    let mut store = Store::start().await;
    let stream = store.stream("s/t", 1).await;
    let mut one = store.client.index_writer(&stream, 4096).await.unwrap();
    let mut other = store.client.index_writer(&stream, 4096).await.unwrap();
    one.append(&[record(5, 0)]).await.unwrap();
    assert_eq!(other.append(&[record(4, 1)]).await.unwrap_err().kind(), ErrorKind::Invalid);
    other.append(&[record(6, 1)]).await.unwrap();
    assert_eq!(one.append(&[record(5, 2)]).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(one.append(&[record(5, 2)]).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(one.append(&[record(6, 2)]).await.unwrap(), 2 * 4096);
    store.restart().await;
    assert_eq!(one.append(&[record(7, 3)]).await.unwrap(), 3 * 4096);
    let falling = [record(8, 4), record(7, 5)];
    assert_eq!(one.append(&falling).await.unwrap_err().kind(), ErrorKind::Invalid);
    for bad in [vec![], vec![IndexRecord::new([("time", 9)], "")], vec![record(9, 9); 2049]] {
        assert_eq!(one.append(&bad).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    let large = IndexRecord { data: vec![0; 4096].into(), ..record(9, 9) };
    assert_eq!(one.append(&[large]).await.unwrap_err().kind(), ErrorKind::Invalid);
    let reader = store.client.index_reader(&stream).await.unwrap();
    assert_eq!(reader.bounds().await.unwrap(), (0, 4 * 4096));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_something_else_or_of_another_size_is_refused() {
    let store = Store::start().await;
    let client = &store.client;
    let stream = store.stream("s/t", 1).await;
    assert_eq!(client.index_reader(&stream).await.unwrap_err().kind(), ErrorKind::Invalid);
    client.index_writer(&stream, 128).await.unwrap();
    assert_eq!(client.index_reader(&stream).await.unwrap().record_bytes(), 128);
    for bytes in [129, 63, (8 << 20) + 1] {
        assert_eq!(client.index_writer(&stream, bytes).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    let other = store.stream("s/other", 1).await;
    let writer = client.byte_writer(&other, Default::default()).await.unwrap();
    writer.write("something else").await.unwrap().await.unwrap();
    assert_eq!(client.index_writer(&other, 128).await.unwrap_err().kind(), ErrorKind::Invalid);
}
