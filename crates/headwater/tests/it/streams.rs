use headwater_client::{Client, ErrorKind, KeyRange, Name, Retention, ScopedStream, StreamConfig};

use super::Store;

#[tokio::test(flavor = "multi_thread")]
async fn scopes_and_streams_are_made_listed_changed_and_deleted() {
    let store = Store::start().await;
    let client = &store.client;
    let scope = Name::parse("orders").unwrap();
    assert!(client.create_scope(&scope).await.unwrap());
    assert!(!client.create_scope(&scope).await.unwrap());
    let stream = store.stream("orders/new", 2).await;
    assert!(!client.create_stream(&stream, &StreamConfig::fixed(5)).await.unwrap());
    assert_eq!(client.scopes().await.unwrap(), [Name::parse("_system").unwrap(), scope.clone()]);
    assert_eq!(client.streams(&scope).await.unwrap(), vec![stream.stream.clone()]);
    assert!(client.stream_exists(&stream).await.unwrap());

    let retention = Some(Retention::Size { min_bytes: 1 << 20, max_bytes: None });
    let config = StreamConfig { retention, tags: vec!["blue".to_owned()], ..StreamConfig::fixed(2) };
    client.update_stream(&stream, &config).await.unwrap();
    let found = client.stream_config(&stream).await.unwrap();
    assert_eq!((found.retention, &found.tags), (config.retention, &config.tags));
    assert_eq!(client.streams_with_tag(&scope, "blue").await.unwrap(), vec![stream.stream.clone()]);
    assert_eq!(client.streams_with_tag(&scope, "red").await.unwrap(), []);

    let error = client.delete_stream(&stream).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let error = client.delete_scope(&scope).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    client.seal_stream(&stream).await.unwrap();
    client.seal_stream(&stream).await.unwrap();
    assert!(client.delete_stream(&stream).await.unwrap());
    assert!(!client.delete_stream(&stream).await.unwrap());
    assert!(client.delete_scope(&scope).await.unwrap());
    assert!(!client.delete_scope(&scope).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_exist_is_said_to() {
    let store = Store::start().await;
    let missing = ScopedStream::parse("no/where").unwrap();
    let client = &store.client;
    for error in [
        client.create_stream(&missing, &StreamConfig::fixed(1)).await.unwrap_err(),
        client.seal_stream(&missing).await.unwrap_err(),
        client.current_segments(&missing).await.unwrap_err(),
        client.streams(&missing.scope).await.unwrap_err(),
        client.event_writer(&missing, Default::default()).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_scaled_and_knows_what_follows_on_what() {
    let store = Store::start().await;
    let client = &store.client;
    let stream = store.stream("s/t", 1).await;
    let before = client.current_segments(&stream).await.unwrap();
    client.scale_stream(&stream, &[before[0].id], &KeyRange::split(2)).await.unwrap();
    let after = client.current_segments(&stream).await.unwrap();
    assert_eq!(after.len(), 2);
    let successors = client.successors(&stream, before[0].id).await.unwrap();
    assert_eq!(successors.iter().map(|it| it.segment).collect::<Vec<_>>(), after);
    assert!(successors.iter().all(|it| it.predecessors == [before[0].id]));
    // The same once more: an answer may have been lost.
    client.scale_stream(&stream, &[before[0].id], &KeyRange::split(2)).await.unwrap();
    assert_eq!(client.current_segments(&stream).await.unwrap(), after);
    let error = client.scale_stream(&stream, &[before[0].id], &KeyRange::split(3)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_controller_is_asked_when_one_does_not_answer() {
    let store = Store::start().await;
    let alive = store.address().trim_start_matches("tcp://").to_owned();
    let dead = "127.0.0.1:1";
    for address in [format!("{dead},{alive}"), format!("{dead},{dead},{alive}"), format!("{alive},{dead}")] {
        let client = Client::connect(&address).unwrap();
        for _ in 0..5 {
            assert!(client.scope_exists(&Name::parse("_system").unwrap()).await.unwrap(), "{address}");
        }
    }
}
