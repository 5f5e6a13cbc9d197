use headwater_client::{ErrorKind, ReadFrom};

let writer = client.event_writer(stream, Default::default()).await?;
writer.write("customer 7", "one apple").await?.await?;
let tail = client.tail_cut(stream).await?;
let mut reader = client.stream_reader(stream, ReadFrom::Head).await?;
let mut count = 0;
loop {
    match reader.next_before(&tail).await {
        Ok(Some(event)) => count += event.event.len(),
        Ok(None) => break,
        // Retention was faster; the next call goes on behind the gap.
        Err(error) if error.kind() == ErrorKind::Truncated => {}
        Err(error) => return Err(error.into()),
    }
}
assert_eq!(count, 9);
// Another process goes on there.
let text = reader.cut()?.to_text();
