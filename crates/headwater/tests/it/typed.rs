//! Values instead of bytes.

use std::collections::BTreeMap;

use headwater::client::{
    Delivery, ErrorKind, Json, Name, ReadFrom, ReaderGroupConfig, ReaderOptions, Serializer, TypedWriter, Utf8,
};
use headwater::testing::TestStore;
use serde::{Deserialize, Serialize};

use super::store::stream_of;

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Order {
    customer: u32,
    fruit: String,
}

fn order(customer: u32) -> Order {
    Order { customer, fruit: "apple".to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_no_value_is_named_and_reading_goes_on_behind_it() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let stream = stream_of(client, 1).await;
    let orders = client.event_writer(&stream, Default::default()).await.unwrap().typed(Json);
    orders.write("k", &order(1)).await.unwrap().await.unwrap();
    let bad = orders.writer().write("k", "{\"customer\": 7").await.unwrap().await.unwrap();
    orders.write("k", &order(2)).await.unwrap().await.unwrap();

    let mut reader = client.stream_reader(&stream, ReadFrom::Head).await.unwrap();
    let (mut found, mut told) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let event = reader.next().await.unwrap().unwrap();
        match event.decode::<Order, _>(&stream, &Json) {
            Ok(order) => found.push(order),
            Err(error) => told.push(error),
        }
    }
    assert_eq!(found, [order(1), order(2)]);
    let [told] = &told[..] else { panic!("{told:?}") };
    assert_eq!((&told.segment.stream, told.segment.id), (&stream, bad.segment));
    assert_eq!((Some(told.offset), &told.event[..]), (bad.offset, &b"{\"customer\": 7"[..]));
    let expected = format!("event of 14 bytes at {} of segment s/t/0.#epoch.0 is no value of its type", told.offset);
    assert_eq!(told.to_string(), expected);
    assert!(std::error::Error::source(told).unwrap().to_string().contains("EOF"), "{told:?}");

    // The same in a group, whose position has passed it.
    let (scope, name) = (Name::parse("s").unwrap(), Name::parse("g").unwrap());
    client.create_reader_group(&scope, &name, &ReaderGroupConfig::of(&stream)).await.unwrap();
    let group = client.reader_group(&scope, &name).await.unwrap();
    let mut reader = group.reader_with("a", ReaderOptions::at_once()).await.unwrap();
    for expected in [Some(order(1)), None, Some(order(2))] {
        let Some(Delivery::Event(event)) = reader.next().await.unwrap() else { panic!("an event") };
        assert_eq!(event.decode(&Json).ok(), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_without_a_form_is_not_written() {
    let store = TestStore::start().await.unwrap();
    let client = store.client();
    let stream = stream_of(client, 1).await;
    let writer = client.event_writer(&stream, Default::default()).await.unwrap();
    // Keys of JSON objects are texts.
    let maps: TypedWriter<BTreeMap<(u8, u8), u8>, _> = writer.clone().typed(Json);
    let refused = maps.write("k", &[((1, 2), 3)].into()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused:?}");
    let texts: TypedWriter<String, _> = writer.typed(Utf8);
    texts.write("k", &"größer".to_owned()).await.unwrap().await.unwrap();
    let mut reader = client.stream_reader(&stream, ReadFrom::Head).await.unwrap();
    let event = reader.next().await.unwrap().unwrap();
    assert_eq!(event.decode::<String, _>(&stream, &Utf8).unwrap(), "größer");
    assert!(Utf8.deserialize(b"gr\xf6\xdfer"[..].into()).is_err());
}
