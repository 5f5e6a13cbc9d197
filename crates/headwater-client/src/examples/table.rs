use bytes::Bytes;
use headwater_client::{ErrorKind, ScopedTable};

let stock = client.table(&ScopedTable::parse("shop/stock")?).await?;
let version = stock.put_if_absent("apple", "10").await?;
stock.replace("apple", "9", version).await?;
// It has been overtaken.
let refused = stock.replace("apple", "8", version).await.unwrap_err();
assert_eq!(refused.kind(), ErrorKind::Conflict);
let found = stock.get(&Bytes::from("apple")).await?;
assert_eq!(found.map(|(value, _)| value), Some(Bytes::from("9")));
