let writer = client.byte_writer(stream, Default::default()).await?;
let _later = writer.write("one apple, ").await?;
let _later = writer.write("two pears").await?;
writer.flush().await?;
let mut reader = client.byte_reader(stream, 5).await?;
let mut found = Vec::new();
while found.len() < 15 {
    let Some(bytes) = reader.next().await? else { break };
    found.extend_from_slice(&bytes);
}
assert_eq!(found, b"pple, two pears"[..].to_vec());
