use headwater_client::{Name, ScopedStream, StreamConfig};

let stream = ScopedStream::parse("library/loans")?;
client.create_scope(&stream.scope).await?;
client.create_stream(&stream, &StreamConfig::fixed(2)).await?;
assert_eq!(client.streams(&stream.scope).await?, [Name::parse("loans")?]);
client.seal_stream(&stream).await?;
assert!(client.delete_stream(&stream).await?);
