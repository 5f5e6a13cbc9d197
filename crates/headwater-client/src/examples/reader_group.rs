use headwater_client::{Delivery, Name, ReaderGroupConfig, ReaderOptions};

let writer = client.event_writer(stream, Default::default()).await?;
writer.write("customer 7", "one apple").await?.await?;
let (scope, name) = (&stream.scope, Name::parse("billing")?);
client.create_reader_group(scope, &name, &ReaderGroupConfig::of(stream)).await?;
let group = client.reader_group(scope, &name).await?;
// In each process one, or several; each event comes to one of them.
let mut reader = group.reader_with("worker 1", ReaderOptions::at_once()).await?;
while let Some(delivery) = reader.next().await? {
    if let Delivery::Event(event) = delivery {
        assert_eq!(event.event, "one apple");
        break;
    }
}
// Others go on behind what was handed out.
reader.close().await?;
