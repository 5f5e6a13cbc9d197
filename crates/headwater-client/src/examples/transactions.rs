let writer = client.transaction_writer(stream, Default::default());
let transaction = writer.begin().await?;
for key in ["customer 7", "customer 9"] {
    let _stored_by_the_commit = transaction.write(key, "one apple").await?;
}
// Both can be read, or neither; after `Unavailable`, `transaction_state` tells which.
transaction.commit(None).await?.committed().await?;
