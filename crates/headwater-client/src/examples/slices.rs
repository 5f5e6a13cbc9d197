let writer = client.event_writer(stream, Default::default()).await?;
for number in 0..1000 {
    let _later = writer.write(&number.to_string(), format!("apple {number}")).await?;
}
writer.flush().await?;
let (mut start, mut count) = (client.head_cut(stream).await?, 0);
loop {
    let end = client.next_cut(&start, 64 << 20).await?;
    if end == start {
        break;
    }
    // Each slice may be read by another task, or process.
    for slice in client.slices_between(stream, Some(&start), Some(&end)).await? {
        let mut reader = client.read_slice(&slice);
        while let Some((_offset, _event)) = reader.next().await? {
            count += 1;
        }
    }
    start = end;
}
assert_eq!(count, 1000);
