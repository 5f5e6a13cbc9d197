use std::time::Duration;

use bytes::Bytes;
use headwater_client::{ErrorKind, KeyRange, TransactionOptions, TransactionState};

use super::Store;

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_transaction_appear_together_or_never() {
    let store = Store::start().await;
    let stream = store.stream("s/t", 2).await;
    let writer = store.client.transaction_writer(&stream, TransactionOptions::default());
    let (kept, dropped) = (writer.begin().await.unwrap(), writer.begin().await.unwrap());
    for number in 0..100 {
        let _ = kept.write(&number.to_string(), format!("kept {number}")).await.unwrap();
        let _ = dropped.write(&number.to_string(), format!("dropped {number}")).await.unwrap();
    }
    kept.flush().await.unwrap();
    assert_eq!(store.read_all(&stream).await, Vec::<Bytes>::new());
    let (kept_id, dropped_id) = (kept.id(), dropped.id());
    dropped.abort().await.unwrap();
    kept.commit(None).await.unwrap().committed().await.unwrap();
    let found = store.read_all(&stream).await;
    assert_eq!(found.len(), 100);
    assert!(found.iter().all(|event| event.starts_with(b"kept")));
    assert_eq!(store.client.transaction_state(&stream, kept_id).await.unwrap(), TransactionState::Committed);
    while store.client.transaction_state(&stream, dropped_id).await.unwrap() != TransactionState::Aborted {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut completed = store.client.completed_transactions(&stream).await.unwrap();
    completed.sort();
    assert_eq!(completed, [(kept_id, true), (dropped_id, false)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_taken_up_by_its_id_also_after_a_scale() {
    let store = Store::start().await;
    let stream = store.stream("s/t", 1).await;
    let scale = async |parts| {
        let current = store.client.current_segments(&stream).await.unwrap();
        let sealed: Vec<_> = current.iter().map(|segment| segment.id).collect();
        store.client.scale_stream(&stream, &sealed, &KeyRange::split(parts)).await.unwrap();
    };
    scale(2).await;
    let writer = store.client.transaction_writer(&stream, TransactionOptions::default());
    let first = writer.begin().await.unwrap();
    first.write("a", "one").await.unwrap().await.unwrap();
    let id = first.id();
    drop(first);
    scale(3).await;
    let second = writer.resume(id).await.unwrap();
    second.write("a", "two").await.unwrap().await.unwrap();
    second.commit(Some(17)).await.unwrap().committed().await.unwrap();
    assert_eq!(store.read_all(&stream).await, ["one", "two"]);
    assert_eq!(writer.resume(id).await.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_over_takes_nothing() {
    let store = Store::start().await;
    let stream = store.stream("s/t", 1).await;
    let writer = store.client.transaction_writer(&stream, TransactionOptions::default());
    let here = writer.begin().await.unwrap();
    here.write("a", "one").await.unwrap().await.unwrap();
    let there = writer.resume(here.id()).await.unwrap();
    there.abort().await.unwrap();
    let error = loop {
        match here.write("a", "two").await.unwrap().await {
            // The abort may still be on its way to the segment.
            Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Conflict);
    for _ in 0..2 {
        assert_eq!(here.flush().await.unwrap_err().kind(), ErrorKind::Conflict, "told again and again");
    }
    assert_eq!(here.commit(None).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(store.read_all(&stream).await, Vec::<Bytes>::new());
    let short = store.client.transaction_writer(&stream, TransactionOptions::default().lease(Duration::from_millis(1)));
    assert_eq!(short.begin().await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_transactions_than_a_connection_takes_writers_are_written() {
    let store = Store::start().await;
    let stream = store.stream("s/t", 1).await;
    let writer = store.client.transaction_writer(&stream, TransactionOptions::default());
    for number in 0..2100 {
        let transaction = writer.begin().await.unwrap();
        transaction.write("a", number.to_string()).await.unwrap().await.unwrap();
        transaction.commit(None).await.unwrap();
    }
    while store.read_all(&stream).await.len() < 2100 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
