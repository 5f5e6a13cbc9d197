//! Changes by agreement: revisioned streams.

use std::time::Duration;

use bytes::Bytes;
use headwater_client::{ErrorKind, Revision, RevisionReader};

use super::Store;

async fn entries(mut reader: RevisionReader) -> Vec<(u64, Bytes)> {
    let mut found = Vec::new();
    while let Some((revision, entry)) = reader.next().await.unwrap() {
        found.push((revision.offset(), entry));
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_changes_at_one_revision_one_is_stored_and_both_authors_know() {
    let store = Store::start().await;
    let stream = store.stream("s/t", 1).await;
    let one = store.client.revisioned_stream(&stream).await.unwrap();
    let other = store.client.revisioned_stream(&stream).await.unwrap();
    assert_eq!(one.latest().await.unwrap(), Revision::ZERO);
    assert_eq!(entries(one.read(Revision::ZERO).await.unwrap()).await, []);
    let first = one.write_at(Revision::ZERO, &"first".into()).await.unwrap().unwrap();
    assert_eq!(other.write_at(Revision::ZERO, &"too late".into()).await.unwrap(), None);
    let second = other.write_at(first, &"second".into()).await.unwrap().unwrap();
    assert_eq!(one.write_at(first, &"too late".into()).await.unwrap(), None);
    assert_eq!(other.latest().await.unwrap(), second);
    one.write(&"wherever".into()).await.unwrap();
    assert_eq!(other.write_at(second, &"too late".into()).await.unwrap(), None);
    let third = one.latest().await.unwrap();
    let expected = [(13, "first".into()), (27, "second".into()), (43, "wherever".into())];
    assert_eq!(entries(one.read(Revision::ZERO).await.unwrap()).await, expected);
    assert_eq!(entries(other.read(first).await.unwrap()).await, expected[1..]);
    assert_eq!((first.offset(), second.offset(), third.offset()), (13, 27, 43));
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_many_authors_are_each_stored_once_through_restarts() {
    let mut store = Store::start().await;
    let stream = store.stream("s/t", 1).await;
    let authors = (0..4).map(|author| {
        let (client, stream) = (store.client.clone(), stream.clone());
        tokio::spawn(async move {
            let revisioned = client.revisioned_stream(&stream).await.unwrap();
            let mut written = Vec::new();
            for number in 0..50 {
                let entry = Bytes::from(format!("{author} {number}"));
                let mut revision = revisioned.latest().await.unwrap();
                loop {
                    match revisioned.write_at(revision, &entry).await.unwrap() {
                        Some(behind) => break written.push((behind.offset(), entry)),
                        None => revision = revisioned.latest().await.unwrap(),
                    }
                }
            }
            written
        })
    });
    let authors: Vec<_> = authors.collect();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(40)).await;
        store.restart().await;
    }
    let mut written = Vec::new();
    for author in authors {
        written.extend(author.await.unwrap());
    }
    written.sort();
    let revisioned = store.client.revisioned_stream(&stream).await.unwrap();
    assert_eq!(entries(revisioned.read(Revision::ZERO).await.unwrap()).await, written);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_moves_only_from_where_it_is_expected_and_what_is_truncated_is_told() {
    let store = Store::start().await;
    let stream = store.stream("s/t", 1).await;
    let revisioned = store.client.revisioned_stream(&stream).await.unwrap();
    let first = revisioned.write_at(Revision::ZERO, &"a".into()).await.unwrap().unwrap();
    let second = revisioned.write_at(first, &"b".into()).await.unwrap().unwrap();
    assert_eq!(revisioned.mark().await.unwrap(), None);
    assert!(!revisioned.replace_mark(Some(first), Some(second)).await.unwrap());
    assert!(revisioned.replace_mark(None, Some(first)).await.unwrap());
    assert!(!revisioned.replace_mark(None, Some(second)).await.unwrap());
    assert_eq!(revisioned.mark().await.unwrap(), Some(first));
    assert!(revisioned.replace_mark(Some(first), None).await.unwrap());
    assert_eq!(revisioned.mark().await.unwrap(), None);

    revisioned.truncate(first).await.unwrap();
    revisioned.truncate(first).await.unwrap();
    assert_eq!(revisioned.oldest().await.unwrap(), first);
    assert_eq!(revisioned.read(Revision::ZERO).await.unwrap_err().kind(), ErrorKind::Truncated);
    assert_eq!(entries(revisioned.read(first).await.unwrap()).await, [(second.offset(), "b".into())]);
    let beyond = Revision::at(second.offset() + 1);
    assert_eq!(revisioned.read(beyond).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(revisioned.truncate(beyond).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(revisioned.write_at(beyond, &"c".into()).await.unwrap(), None);
    assert_eq!(revisioned.parse(&revisioned.format(second)).unwrap(), second);
    assert_eq!(revisioned.format(second), "s/t/0.#epoch.0:18:0");
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_any_size_come_back_and_larger_ones_are_refused() {
    let store = Store::start().await;
    let stream = store.stream("s/t", 1).await;
    let revisioned = store.client.revisioned_stream(&stream).await.unwrap();
    let large: Bytes = (0..8u32 << 20).map(|at| (at % 253) as u8).collect::<Vec<_>>().into();
    let revision = revisioned.write_at(Revision::ZERO, &large).await.unwrap().unwrap();
    let revision = revisioned.write_at(revision, &Bytes::new()).await.unwrap().unwrap();
    revisioned.write(&large).await.unwrap();
    let too_large = Bytes::from(vec![0; (8 << 20) + 1]);
    assert_eq!(revisioned.write(&too_large).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(revisioned.write_at(revision, &too_large).await.unwrap_err().kind(), ErrorKind::Invalid);
    let found = entries(revisioned.read(Revision::ZERO).await.unwrap()).await;
    assert!(found.iter().map(|(_, entry)| entry).eq([&large, &Bytes::new(), &large]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_cannot_be_agreed_on_is_refused() {
    let store = Store::start().await;
    let wide = store.stream("s/wide", 2).await;
    assert_eq!(store.client.revisioned_stream(&wide).await.unwrap_err().kind(), ErrorKind::Invalid);
    let stream = store.stream("s/t", 1).await;
    let revisioned = store.client.revisioned_stream(&stream).await.unwrap();
    revisioned.write(&"a".into()).await.unwrap();
    store.client.seal_stream(&stream).await.unwrap();
    assert_eq!(revisioned.write(&"b".into()).await.unwrap_err().kind(), ErrorKind::Sealed);
    let at = revisioned.latest().await.unwrap();
    assert_eq!(revisioned.write_at(at, &"b".into()).await.unwrap_err().kind(), ErrorKind::Sealed);
    assert_eq!(entries(revisioned.read(Revision::ZERO).await.unwrap()).await, [(9, "a".into())]);
    assert_eq!(store.client.revisioned_stream(&stream).await.unwrap_err().kind(), ErrorKind::Sealed);
    assert!(store.client.delete_stream(&stream).await.unwrap());
    assert_eq!(revisioned.latest().await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(revisioned.write(&"c".into()).await.unwrap_err().kind(), ErrorKind::NotFound);
}
