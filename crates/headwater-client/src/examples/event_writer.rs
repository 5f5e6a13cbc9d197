let writer = client.event_writer(stream, Default::default()).await?;
// The first wait is for room, the second until it is stored.
let written = writer.write("customer 7", "one apple").await?.await?;
assert_eq!(written.length, 8 + 9);
// Many are under way at a time, and those of one key keep their order.
for number in 0..100 {
    let _later = writer.write("customer 7", format!("apple {number}")).await?;
}
writer.flush().await?;
