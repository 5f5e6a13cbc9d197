//! Tables of both kinds.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use headwater_client::{
    Condition, ErrorKind, KeyValueRange, KeyValueTable, KeyValueTableConfig, Name, Put, ScopedTable, Table, TableKey,
};

use super::Store;

async fn key_value_table(store: &Store, config: KeyValueTableConfig) -> KeyValueTable {
    let name = ScopedTable::parse("s/t").unwrap();
    store.client.create_scope(&name.scope).await.unwrap();
    assert!(store.client.create_key_value_table(&name, &config).await.unwrap());
    store.client.key_value_table(&name).await.unwrap()
}

async fn table(store: &Store) -> Table {
    let name = ScopedTable::parse("s/t").unwrap();
    store.client.create_scope(&name.scope).await.unwrap();
    store.client.table(&name).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn key_value_tables_are_made_listed_and_deleted() {
    let store = Store::start().await;
    let client = &store.client;
    let name = ScopedTable::parse("s/t").unwrap();
    let config = KeyValueTableConfig { secondary_key_bytes: 2, ..KeyValueTableConfig::new(3, 4) };
    let error = client.create_key_value_table(&name, &config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    client.create_scope(&name.scope).await.unwrap();
    assert_eq!(client.key_value_tables(&name.scope).await.unwrap(), []);
    assert!(client.create_key_value_table(&name, &config).await.unwrap());
    assert!(!client.create_key_value_table(&name, &config).await.unwrap());
    assert_eq!(client.key_value_tables(&name.scope).await.unwrap(), vec![name.table.clone()]);
    assert_eq!(client.key_value_table_config(&name).await.unwrap(), config);
    let table = client.key_value_table(&name).await.unwrap();
    assert!(client.delete_key_value_table(&name).await.unwrap());
    assert!(!client.delete_key_value_table(&name).await.unwrap());
    let key = TableKey::new("keys", "ab");
    for error in [
        client.key_value_table(&name).await.unwrap_err(),
        client.key_value_tables(&Name::parse("none").unwrap()).await.unwrap_err(),
        table.get(&key).await.unwrap_err(),
        table.put(key, "value").await.unwrap_err(),
        table.count().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    }
    for bad in [KeyValueTableConfig::new(0, 4), KeyValueTableConfig::new(1, 0), KeyValueTableConfig::new(1, 257)] {
        let error = client.create_key_value_table(&name, &bad).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_change_only_under_the_conditions_they_are_given() {
    let store = Store::start().await;
    let table = key_value_table(&store, KeyValueTableConfig::new(4, 4)).await;
    let key = TableKey::from("key1");
    assert_eq!(table.get(&key).await.unwrap(), None);
    let first = table.put_if_absent(key.clone(), "a").await.unwrap();
    assert_eq!(table.put_if_absent(key.clone(), "b").await.unwrap_err().kind(), ErrorKind::Conflict);
    let second = table.replace(key.clone(), "c", first).await.unwrap();
    assert!(second > first);
    assert_eq!(table.replace(key.clone(), "d", first).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(table.get(&key).await.unwrap(), Some(("c".into(), second)));
    let third = table.put(key.clone(), "").await.unwrap();
    assert_eq!(table.get(&key).await.unwrap(), Some(("".into(), third)));
    assert_eq!(table.count().await.unwrap(), 1);
    let error = table.remove_all(vec![(key.clone(), Condition::At(second))]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    table.remove_all(vec![(key.clone(), Condition::At(third))]).await.unwrap();
    assert_eq!(table.get(&key).await.unwrap(), None);
    assert_eq!(table.replace(key.clone(), "e", third).await.unwrap_err().kind(), ErrorKind::Conflict);
    table.remove(key.clone()).await.unwrap();
    table.remove_all(vec![(key, Condition::Absent)]).await.unwrap();
    assert_eq!(table.count().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_one_primary_key_change_all_or_none() {
    let store = Store::start().await;
    let config = KeyValueTableConfig { secondary_key_bytes: 2, ..KeyValueTableConfig::new(4, 4) };
    let table = key_value_table(&store, config).await;
    let put = |secondary: &'static str, value: &'static str| Put::new(TableKey::new("aaaa", secondary), value);
    let absent = |put: Put<TableKey>| put.only_if(Condition::Absent);
    let versions = table.update(vec![absent(put("01", "one")), absent(put("02", "two"))]).await.unwrap();
    assert!(versions[0] < versions[1]);
    let error = table.update(vec![put("01", "changed"), absent(put("02", "clash"))]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let keys = [TableKey::new("aaaa", "02"), TableKey::new("zzzz", "02"), TableKey::new("aaaa", "01")];
    let found = table.get_all(&keys).await.unwrap();
    assert_eq!(found, [Some(("two".into(), versions[1])), None, Some(("one".into(), versions[0]))]);
    for bad in [
        vec![],
        vec![put("01", "x"), Put::new(TableKey::new("bbbb", "01"), "x")],
        vec![put("1", "x")],
        vec![Put::new(TableKey::new("aaaa", "01"), vec![0; 1_040_385])],
        vec![put("01", "x"); 257],
    ] {
        assert_eq!(table.update(bad).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    table.update(vec![Put::new(TableKey::new("aaaa", "01"), vec![7; 1_040_384])]).await.unwrap();
    assert_eq!(table.get(&keys[2]).await.unwrap().unwrap().0, vec![7; 1_040_384]);
}

/// Everything in a range, by keys and by entries, which have to agree.
async fn read(table: &KeyValueTable, range: &KeyValueRange) -> Vec<(TableKey, Bytes)> {
    let (mut entries, mut found) = (table.entries(range).unwrap(), Vec::new());
    let mut keys = table.keys(range).unwrap();
    while let Some(entry) = entries.next().await.unwrap() {
        assert_eq!(keys.next().await.unwrap(), Some((entry.key.clone(), entry.version)));
        found.push((entry.key, entry.value));
    }
    assert_eq!(keys.next().await.unwrap(), None);
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_read_by_ascending_key_over_all_partitions() {
    let store = Store::start().await;
    let config = KeyValueTableConfig { secondary_key_bytes: 1, ..KeyValueTableConfig::new(3, 2) };
    let table = key_value_table(&store, config).await;
    let mut expected = BTreeMap::new();
    // More than one page.
    let secondaries: Vec<u8> = [0, 7, 0xff].into_iter().chain(20..37).collect();
    for primary in (0..1000u16).step_by(5).map(u16::to_be_bytes).chain([[0xff, 0xff]]) {
        let of_primary = secondaries.iter().map(|secondary| {
            let key = TableKey::new(primary.to_vec(), vec![*secondary]);
            expected.insert(key.clone(), Bytes::from(vec![primary[1], *secondary]));
            Put::new(key, vec![primary[1], *secondary])
        });
        table.update(of_primary.collect()).await.unwrap();
    }
    assert_eq!(table.count().await.unwrap(), 4020);
    let check = async |range: KeyValueRange, is_wanted: &dyn Fn(&TableKey) -> bool| {
        let wanted: Vec<_> = expected.clone().into_iter().filter(|(key, _)| is_wanted(key)).collect();
        assert!(read(&table, &range).await == wanted, "{range:?}");
    };
    check(KeyValueRange::all(), &|_| true).await;
    check(KeyValueRange::primary_between(vec![1, 0], vec![2, 5]), &|key| {
        key.primary[..] >= [1, 0][..] && key.primary[..] <= [2, 5][..]
    })
    .await;
    check(KeyValueRange::primary_between(vec![3], vec![3]), &|key| key.primary[0] == 3).await;
    check(KeyValueRange::primary_between(vec![3], vec![2]), &|_| false).await;
    check(KeyValueRange::primary_between(vec![0xff], Bytes::new()), &|key| key.primary[0] == 0xff).await;
    check(KeyValueRange::of_primary(vec![2, 8]), &|key| *key.primary == [2, 8]).await;
    let some = KeyValueRange::secondary_between(vec![2, 8], vec![1], vec![0xfe]);
    check(some, &|key| *key.primary == [2, 8] && (1..0xff).contains(&key.secondary[0])).await;
    for bad in [
        KeyValueRange::of_primary(vec![1]),
        KeyValueRange::primary_between(vec![1, 2, 3], Bytes::new()),
        KeyValueRange::secondary_between(vec![1, 2], vec![1, 2], Bytes::new()),
    ] {
        assert_eq!(table.entries(&bad).unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(table.keys(&bad).unwrap_err().kind(), ErrorKind::Invalid);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_takes_keys_of_any_length_under_conditions() {
    let store = Store::start().await;
    let table = table(&store).await;
    let key = Bytes::from("a key");
    let first = table.put_if_absent(key.clone(), "1").await.unwrap();
    assert_eq!(table.put_if_absent(key.clone(), "2").await.unwrap_err().kind(), ErrorKind::Conflict);
    let second = table.replace(key.clone(), "3", first).await.unwrap();
    assert_eq!(table.replace("none", "4", first).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(table.replace(key.clone(), "4", first).await.unwrap_err().kind(), ErrorKind::Conflict);
    let long = Bytes::from(vec![9; 8192]);
    let third = table.put(long.clone(), "long").await.unwrap();
    let found = table.get_all(&[long.clone(), "none".into(), key.clone()]).await.unwrap();
    assert_eq!(found, [Some(("long".into(), third)), None, Some(("3".into(), second))]);
    let end = table.info().await.unwrap().end;
    let puts = |value: &'static str| vec![Put::new(key.clone(), value), Put::new("other", value)];
    table.update_at(puts("5"), end).await.unwrap();
    assert_eq!(table.update_at(puts("6"), end).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(table.get(&"other".into()).await.unwrap().unwrap().0, "5");
    assert_eq!(table.info().await.unwrap().entries, 3);
    table.remove_all(vec![(key.clone(), Condition::None), (long, Condition::At(third))]).await.unwrap();
    assert_eq!(table.info().await.unwrap().entries, 1);
    for bad in [Bytes::new(), vec![0; 8193].into()] {
        assert_eq!(table.get(&bad).await.unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(table.put(bad.clone(), "").await.unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(table.remove(bad).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    assert!(store.client.delete_table(table.name()).await.unwrap());
    assert!(!store.client.delete_table(table.name()).await.unwrap());
    assert_eq!(table.get(&key).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_tells_its_entries_and_what_was_put_since_a_position() {
    let store = Store::start().await;
    let table = table(&store).await;
    let key = |number: u32| Bytes::from(format!("key {number}"));
    assert_eq!(table.entries().next().await.unwrap(), None);
    let empty = table.changes(0, 10).await.unwrap();
    assert_eq!((empty.entries.len(), empty.next, empty.is_end), (0, 0, true));
    for first in (0..2500).step_by(250) {
        let puts = (first..first + 250).map(|number| Put::new(key(number), key(number)));
        table.update(puts.collect()).await.unwrap();
    }
    let (mut entries, mut found) = (table.entries(), BTreeSet::new());
    while let Some(entry) = entries.next().await.unwrap() {
        assert_eq!(entry.key, entry.value);
        assert!(found.insert(entry.key));
    }
    assert_eq!(found.len(), 2500);
    let (mut position, mut found) = (0, BTreeSet::new());
    loop {
        let changes = table.changes(position, 300).await.unwrap();
        assert!(!changes.start_over && changes.next >= position);
        found.extend(changes.entries.into_iter().map(|entry| entry.key));
        position = changes.next;
        if changes.is_end {
            break;
        }
    }
    assert_eq!((found.len(), position), (2500, table.info().await.unwrap().end));
    table.put(key(7), "new").await.unwrap();
    table.put(key(8), "new").await.unwrap();
    table.remove(key(8)).await.unwrap();
    let changes = table.changes(position, 300).await.unwrap();
    assert_eq!(
        changes.entries.iter().map(|entry| (&entry.key, &*entry.value)).collect::<Vec<_>>(),
        [(&key(7), &b"new"[..])]
    );
    let error = table.changes(changes.next + 1_000_000, 10).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_and_a_key_value_table_do_not_share_a_name() {
    let store = Store::start().await;
    let table = key_value_table(&store, KeyValueTableConfig::new(1, 4)).await;
    let error = store.client.table(table.name()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_keep_what_they_hold_through_restarts() {
    let mut store = Store::start().await;
    let table = table(&store).await;
    let version = table.put("key", "value").await.unwrap();
    store.restart().await;
    assert_eq!(table.get(&"key".into()).await.unwrap(), Some(("value".into(), version)));
    table.replace("key", "other", version).await.unwrap();
}
