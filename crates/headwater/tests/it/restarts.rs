use bytes::Bytes;
use headwater_client::EventWriterOptions;

use super::Store;

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_goes_on_through_restarts_without_losing_or_doubling() {
    let mut store = Store::start().await;
    let stream = store.stream("s/t", 2).await;
    let options = EventWriterOptions::default().batch_bytes(4 << 10).window_bytes(64 << 10);
    let writer = store.client.event_writer(&stream, options).await.unwrap();
    let writing = tokio::spawn({
        let writer = writer.clone();
        async move {
            for number in 0..20_000u32 {
                let event = Bytes::from(number.to_string());
                let _ = writer.write(&(number % 5).to_string(), event).await.unwrap();
            }
            writer.flush().await.unwrap();
        }
    });
    for _ in 0..3 {
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        store.restart().await;
    }
    writing.await.unwrap();
    let mut numbers: Vec<u32> = Vec::new();
    let mut last = [None; 5];
    for event in store.read_all(&stream).await {
        let number: u32 = std::str::from_utf8(&event).unwrap().parse().unwrap();
        let before = last[number as usize % 5].replace(number);
        assert!(before < Some(number), "{number} came after {before:?}");
        numbers.push(number);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..20_000).collect::<Vec<_>>());
}
