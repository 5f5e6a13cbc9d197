//! Changes whose answers are lost.

use std::time::Duration;

use bytes::Bytes;
use headwater::client::{ErrorKind, Revision, ScopedStream, ScopedTable, StreamConfig};
use headwater::testing::TestStore;

const A_WHILE: Duration = Duration::from_millis(50);

#[tokio::test(flavor = "multi_thread")]
async fn a_conditional_change_that_nobody_knows_of_is_told_as_such_and_others_are_made() {
    let mut store = TestStore::start().await.unwrap();
    let name = ScopedTable::parse("s/t").unwrap();
    store.client().create_scope(&name.scope).await.unwrap();
    let table = store.client().table(&name).await.unwrap();
    let version = table.put("key", "old").await.unwrap();
    // On a broken disk the change waits at the server, where the cut leaves it.
    store.break_disk(true);
    let replacing = tokio::spawn({
        let table = table.clone();
        async move { table.replace("key", "new", version).await }
    });
    let putting = tokio::spawn({
        let table = table.clone();
        async move { table.put("other", "new").await }
    });
    tokio::time::sleep(A_WHILE).await;
    store.cut();
    assert_eq!(replacing.await.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
    store.break_disk(false);
    store.restart().await.unwrap();
    let put = putting.await.unwrap().unwrap();
    assert_eq!(table.get(&"other".into()).await.unwrap(), Some(("new".into(), put)));
    let (value, found) = table.get(&"key".into()).await.unwrap().unwrap();
    assert!((&value[..] == b"old" && found == version) || (&value[..] == b"new" && found > version));
}

#[tokio::test(flavor = "multi_thread")]
async fn whether_a_change_at_a_revision_was_made_is_found_out_however_often_connections_are_cut() {
    let mut store = TestStore::start().await.unwrap();
    let stream = ScopedStream::parse("s/t").unwrap();
    store.client().create_scope(&stream.scope).await.unwrap();
    store.client().create_stream(&stream, &StreamConfig::fixed(1)).await.unwrap();
    let revisioned = store.client().revisioned_stream(&stream).await.unwrap();
    store.break_disk(true);
    let waiting = tokio::spawn({
        let revisioned = revisioned.clone();
        async move { revisioned.write_at(Revision::ZERO, &"first".into()).await }
    });
    tokio::time::sleep(A_WHILE).await;
    store.cut();
    tokio::time::sleep(A_WHILE).await;
    store.break_disk(false);
    store.restart().await.unwrap();
    let first = waiting.await.unwrap().unwrap();
    assert_eq!(first, Some(Revision::at(13)));

    let authors = (0..3).map(|author| {
        let (client, stream) = (store.client().clone(), stream.clone());
        tokio::spawn(async move {
            let revisioned = client.revisioned_stream(&stream).await.unwrap();
            let mut written = Vec::new();
            for number in 0..40 {
                let entry = Bytes::from(format!("{author} {number}"));
                if number % 10 == 0 {
                    revisioned.write(&entry).await.unwrap();
                    written.push(entry);
                    continue;
                }
                while revisioned.write_at(revisioned.latest().await.unwrap(), &entry).await.unwrap().is_none() {}
                written.push(entry);
            }
            written
        })
    });
    let authors: Vec<_> = authors.collect();
    while !authors.iter().all(|author| author.is_finished()) {
        tokio::time::sleep(Duration::from_millis(7)).await;
        store.cut();
    }
    let mut written = vec![Bytes::from("first")];
    for author in authors {
        written.extend(author.await.unwrap());
    }
    let (mut entries, mut found) = (revisioned.read(Revision::ZERO).await.unwrap(), Vec::new());
    while let Some((_, entry)) = entries.next().await.unwrap() {
        found.push(entry);
    }
    written.sort();
    found.sort();
    assert_eq!(found, written);
}
