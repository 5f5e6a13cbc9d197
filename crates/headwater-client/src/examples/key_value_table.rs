use headwater_client::{KeyValueRange, KeyValueTableConfig, ScopedTable, TableKey};

let name = ScopedTable::parse("shop/prices")?;
// Four partitions; keys of two parts, of four bytes and of one.
let config = KeyValueTableConfig { secondary_key_bytes: 1, ..KeyValueTableConfig::new(4, 4) };
client.create_key_value_table(&name, &config).await?;
let prices = client.key_value_table(&name).await?;
prices.put(TableKey::new("pear", "A"), "12").await?;
prices.put(TableKey::new("pear", "B"), "9").await?;
let mut entries = prices.entries(&KeyValueRange::of_primary("pear"))?;
let mut found = Vec::new();
while let Some(entry) = entries.next().await? {
    found.push((entry.key.secondary, entry.value));
}
assert_eq!(found, [("A".into(), "12".into()), ("B".into(), "9".into())]);
