//! States that several processes share.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use headwater_client::{
    Error, ErrorKind, Result, Revision, RevisionedStream, ScopedTable, SharedPut, SharedState, StateSynchronizer,
};

use super::Store;

/// Counts under names.
#[derive(Debug, Default, Eq, PartialEq)]
struct Counts(BTreeMap<String, u32>);

fn text(bytes: &Bytes) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|error| Error::caused(ErrorKind::Protocol, "no text", error))
}

fn count(line: &str) -> Result<(String, u32)> {
    let odd = || Error::new(ErrorKind::Protocol, "no count");
    let (name, number) = line.split_once('=').ok_or_else(odd)?;
    Ok((name.to_owned(), number.parse().map_err(|_| odd())?))
}

impl SharedState for Counts {
    /// Adds.
    type Update = (String, u32);

    fn encode(&self) -> Bytes {
        self.0.iter().map(|(name, number)| format!("{name}={number}\n")).collect::<String>().into()
    }

    fn decode(bytes: &Bytes) -> Result<Self> {
        Ok(Self(text(bytes)?.lines().map(count).collect::<Result<_>>()?))
    }

    fn encode_update((name, number): &Self::Update) -> Bytes {
        format!("{name}={number}").into()
    }

    fn decode_update(bytes: &Bytes) -> Result<Self::Update> {
        count(text(bytes)?)
    }

    fn apply(&mut self, (name, number): Self::Update) {
        *self.0.entry(name).or_default() += number;
    }
}

type Counting = StateSynchronizer<Counts>;

fn add(name: &str, number: u32) -> (String, u32) {
    (name.to_owned(), number)
}

async fn raw(stream: &RevisionedStream) -> Vec<Bytes> {
    let (mut entries, mut found) = (stream.read(stream.oldest().await.unwrap()).await.unwrap(), Vec::new());
    while let Some((_, entry)) = entries.next().await.unwrap() {
        found.push(entry);
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_is_set_once_and_written_as_java_clients_write_it() {
    let store = Store::start().await;
    let stream = store.stream("s/t", 1).await;
    let mut one: Counting = store.client.state_synchronizer(&stream).await.unwrap();
    let mut other: Counting = store.client.state_synchronizer(&stream).await.unwrap();
    assert_eq!(one.fetch().await.unwrap(), None);
    assert_eq!(one.update(|_| vec![add("a", 1)]).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(one.compact().await.unwrap_err().kind(), ErrorKind::Conflict);
    assert!(one.initialize(Counts([add("a", 1)].into())).await.unwrap());
    assert!(!other.initialize(Counts::default()).await.unwrap());
    assert_eq!(other.state(), one.state());
    one.update(|_| vec![add("b", 2), add("a", 1)]).await.unwrap();
    other.update_anyway(&[add("c", 3)]).await.unwrap();
    let expected = Counts([add("a", 2), add("b", 2), add("c", 3)].into());
    assert_eq!(one.fetch().await.unwrap(), Some(&expected));
    assert_eq!(other.fetch().await.unwrap(), Some(&expected));
    assert_eq!(one.revision(), Some(one.stream().latest().await.unwrap()));
    let found = raw(one.stream()).await;
    assert_eq!(found[0], &b"\0\0\0\x01a=1\n"[..]);
    assert_eq!(found[1], &b"\0\0\0\x02\0\0\0\x03b=2\0\0\0\x03a=1"[..]);
    assert_eq!(found[2], &b"\0\0\0\x02\0\0\0\x03c=3"[..]);
    assert_eq!(other.update_anyway(&[]).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_many_are_decided_on_the_state_they_change_through_compactions_and_restarts() {
    const ROUNDS: u32 = 60;
    let mut store = Store::start().await;
    let stream = store.stream("s/t", 1).await;
    let processes = (0..4).map(|process| {
        let (client, stream) = (store.client.clone(), stream.clone());
        tokio::spawn(async move {
            let mut counts: Counting = client.state_synchronizer(&stream).await.unwrap();
            counts.initialize(Counts::default()).await.unwrap();
            for round in 0..ROUNDS {
                // What one decides on is nobody else's basis: each total is seen once.
                let mut seen = 0;
                counts
                    .update(|counts| {
                        seen = counts.0.get("total").copied().unwrap_or(0);
                        vec![add("total", 1), add(&format!("seen {seen}"), 1)]
                    })
                    .await
                    .unwrap();
                if round % 13 == process {
                    counts.compact().await.unwrap();
                }
            }
        })
    });
    let processes: Vec<_> = processes.collect();
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(40)).await;
        store.restart().await;
    }
    for process in processes {
        process.await.unwrap();
    }
    let mut late: Counting = store.client.state_synchronizer(&stream).await.unwrap();
    let state = late.fetch().await.unwrap().unwrap();
    assert_eq!(state.0["total"], 4 * ROUNDS);
    assert_eq!(state.0.len() as u32, 1 + 4 * ROUNDS);
    assert!(state.0.iter().all(|(name, count)| name == "total" || *count == 1));
    assert!(late.stream().oldest().await.unwrap() > Revision::ZERO);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_left_behind_by_compactions_begins_with_a_whole_state() {
    let store = Store::start().await;
    let stream = store.stream("s/t", 1).await;
    let mut one: Counting = store.client.state_synchronizer(&stream).await.unwrap();
    one.initialize(Counts::default()).await.unwrap();
    let mut behind: Counting = store.client.state_synchronizer(&stream).await.unwrap();
    behind.fetch().await.unwrap().unwrap();
    for round in 0..3 {
        one.update(|_| vec![add("a", 1)]).await.unwrap();
        let begin = one.revision().unwrap();
        let mark = one.stream().mark().await.unwrap();
        one.compact().await.unwrap();
        assert_eq!(one.stream().mark().await.unwrap(), Some(begin), "round {round}");
        assert_eq!(one.stream().oldest().await.unwrap(), mark.unwrap_or(Revision::ZERO));
    }
    assert!(one.stream().oldest().await.unwrap() > behind.revision().unwrap());
    assert_eq!(behind.fetch().await.unwrap(), Some(&Counts([add("a", 3)].into())));
    behind.update(|counts| vec![add("b", counts.0["a"])]).await.unwrap();
    assert_eq!(one.fetch().await.unwrap(), Some(&Counts([add("a", 3), add("b", 3)].into())));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_state_is_told() {
    let store = Store::start().await;
    let stream = store.stream("s/t", 1).await;
    let mut counts: Counting = store.client.state_synchronizer(&stream).await.unwrap();
    counts.initialize(Counts([add("a", 1)].into())).await.unwrap();
    let revision = counts.revision().unwrap();
    // One of two changes cannot be read: neither is made.
    let entry = Bytes::from(&b"\0\0\0\x02\0\0\0\x03a=1\0\0\0\x01x"[..]);
    counts.stream().write(&entry).await.unwrap();
    assert_eq!(counts.fetch().await.unwrap_err().kind(), ErrorKind::Protocol);
    assert_eq!((counts.state(), counts.revision()), (Some(&Counts([add("a", 1)].into())), Some(revision)));
    let other = store.stream("s/other", 1).await;
    let mut counts: Counting = store.client.state_synchronizer(&other).await.unwrap();
    counts.stream().write(&"an event".into()).await.unwrap();
    assert_eq!(counts.fetch().await.unwrap_err().kind(), ErrorKind::Protocol);
    let too_large = Counts([("x".repeat(8 << 20), 1)].into());
    assert_eq!(counts.initialize(too_large).await.unwrap_err().kind(), ErrorKind::Invalid);
}

fn shared() -> ScopedTable {
    ScopedTable::parse("s/shared").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_shared_and_removals_seen_by_all() {
    let store = Store::start().await;
    store.client.create_scope(&shared().scope).await.unwrap();
    let mut one = store.client.table_synchronizer(&shared()).await.unwrap();
    let mut other = store.client.table_synchronizer(&shared()).await.unwrap();
    assert!(one.fetch().await.unwrap().is_empty());
    one.put(|_| vec![SharedPut::new("a", "1", "one"), SharedPut::new("a", "2", "two"), SharedPut::new("b", "1", "")])
        .await
        .unwrap();
    assert_eq!(one.maps(), other.fetch().await.unwrap());
    assert_eq!(
        other.maps().map(b"a").collect::<Vec<_>>(),
        [(&"1".into(), &"one".into()), (&"2".into(), &"two".into())]
    );
    assert_eq!(other.maps().outer_keys().collect::<Vec<_>>(), ["a", "b"]);
    // Decided on an old copy: it is shown the new one.
    other.put(|_| vec![SharedPut::new("a", "1", "changed")]).await.unwrap();
    let mut asked = 0;
    one.put(|maps| {
        asked += 1;
        let value = maps.get(b"a", b"1").unwrap();
        vec![SharedPut::new("a", "1", [value, &b"!"[..]].concat())]
    })
    .await
    .unwrap();
    assert_eq!((asked, &**one.maps().get(b"a", b"1").unwrap()), (2, &b"changed!"[..]));
    // One goes and another comes: the count alone tells nothing.
    one.remove(|_| vec![("a".into(), "2".into())]).await.unwrap();
    one.put(|_| vec![SharedPut::new("c", "1", "new")]).await.unwrap();
    assert_eq!(other.fetch().await.unwrap(), one.maps());
    assert_eq!((other.maps().get(b"a", b"2"), other.maps().len()), (None, 3));
    other.remove(|maps| maps.outer_keys().map(|outer| (outer.clone(), "1".into())).collect()).await.unwrap();
    assert!(one.fetch().await.unwrap().is_empty());
    assert_eq!(one.maps(), other.maps());
    // A value that was removed meanwhile is put where there is none.
    one.put(|_| vec![SharedPut::new("a", "1", "x")]).await.unwrap();
    other.fetch().await.unwrap();
    one.remove(|_| vec![("a".into(), "1".into())]).await.unwrap();
    other.put(|_| vec![SharedPut::new("a", "1", "y")]).await.unwrap();
    assert_eq!(one.fetch().await.unwrap().get(b"a", b"1"), Some(&"y".into()));
    let large = SharedPut::new(vec![0; 8190], "1", "");
    assert_eq!(one.put(|_| vec![large.clone()]).await.unwrap_err().kind(), ErrorKind::Invalid);
    let table = one.table().clone();
    table.put("x", "none of ours").await.unwrap();
    assert_eq!(one.fetch().await.unwrap_err().kind(), ErrorKind::Protocol);
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_of_many_lose_nothing() {
    let store = Store::start().await;
    store.client.create_scope(&shared().scope).await.unwrap();
    let processes = (0..4).map(|_| {
        let client = store.client.clone();
        tokio::spawn(async move {
            let mut values = client.table_synchronizer(&shared()).await.unwrap();
            for _ in 0..50 {
                values
                    .put(|maps| {
                        let count = maps.get(b"count", b"").map_or(0, |value| value[0]);
                        vec![SharedPut::new("count", "", vec![count + 1])]
                    })
                    .await
                    .unwrap();
            }
        })
    });
    for process in processes.collect::<Vec<_>>() {
        process.await.unwrap();
    }
    let mut values = store.client.table_synchronizer(&shared()).await.unwrap();
    assert_eq!(values.fetch().await.unwrap().get(b"count", b"").unwrap()[0], 200);
}
