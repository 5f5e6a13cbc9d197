use headwater_client::{AcknowledgingOptions, Name, ReaderGroupConfig};

let writer = client.event_writer(stream, Default::default()).await?;
for fruit in ["apple", "pear"] {
    writer.write("customer 7", fruit).await?.await?;
}
let (scope, name) = (&stream.scope, Name::parse("shipping")?);
client.create_reader_group(scope, &name, &ReaderGroupConfig::of(stream)).await?;
let group = client.reader_group(scope, &name).await?;
let mut reader = group.acknowledging_reader("worker 1", AcknowledgingOptions::default()).await?;
let acknowledger = reader.acknowledger();
let mut handled = Vec::new();
while handled.len() < 2 {
    let Some(received) = reader.next().await? else { break };
    let acknowledger = acknowledger.clone();
    // In any order; what is not acknowledged comes again.
    handled.push(tokio::spawn(async move { acknowledger.acknowledge(&received.event) }));
}
for one in handled {
    assert!(one.await?);
}
reader.close().await?;
