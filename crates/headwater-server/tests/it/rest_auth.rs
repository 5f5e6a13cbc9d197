//! Who may do what over HTTP, and who sees what.

use headwater_auth::HttpRoute;
use headwater_proto::controller as proto;
use headwater_wire::{Reply, Request as Wire, TableEntry, TableKey, Text, Token};
use serde_json::json;

use crate::auth::{authorized, basic, entry, put, start, token, users};
use crate::documented::Documented;

const SCOPE: &str = "/v1/scopes/scope";

fn names<'a>(list: &'a serde_json::Value, field: &str, name: &str) -> Vec<&'a str> {
    list[field].as_array().unwrap().iter().map(|entry| entry[name].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_read_sees_what_they_may_read_and_changes_nothing() {
    let (running, _files) = start(|_| {}).await;
    let mut http = Documented::new(&running).await;
    let user = |name: &str, password: &str| format!("Authorization: {}\r\n", basic(name, password));
    let fixed = json!({"type": "FIXED_NUM_SEGMENTS", "minSegments": 1});
    let update = json!({"scalingPolicy": fixed});
    let sealed = json!({"streamState": "SEALED"});

    http.headers = user("admin", "a");
    for scope in ["scope", "other"] {
        let created = http.put(HttpRoute::CreateScope, "/v1/scopes", &json!({"scopeName": scope})).await;
        assert_eq!(created.status, 201);
    }
    for stream in ["t30", "t40"] {
        let body = json!({"streamName": stream, "scalingPolicy": fixed});
        assert_eq!(http.put(HttpRoute::CreateStream, &format!("{SCOPE}/streams"), &body).await.status, 201);
    }
    let all = http.ask(HttpRoute::ListScopes, "/v1/scopes").await.json();
    assert_eq!(names(&all, "scopes", "scopeName"), ["_system", "other", "scope"]);

    // Before anything is looked at, neither the path nor the body.
    http.headers = String::new();
    let nobody = http.ask(HttpRoute::ListScopes, "/v1/scopes").await;
    assert_eq!(nobody.status, 401);
    assert!(nobody.head.contains("www-authenticate: basic"), "{nobody:?}");
    assert_eq!(http.ask(HttpRoute::GetScope, "/v1/scopes/%ff").await.status, 401);
    assert_eq!(http.text(HttpRoute::CreateScope, "/v1/scopes", "{").await.status, 401);
    http.headers = user("admin", "b");
    assert_eq!(http.ask(HttpRoute::ListScopes, "/v1/scopes").await.status, 401);

    http.headers = user("reader", "r");
    let seen = http.ask(HttpRoute::ListScopes, "/v1/scopes").await.json();
    assert_eq!(names(&seen, "scopes", "scopeName"), ["scope"]);
    let seen = http.ask(HttpRoute::ListStreams, &format!("{SCOPE}/streams")).await.json();
    assert_eq!(names(&seen, "streams", "streamName"), ["t30", "t40"]);
    assert_eq!(http.ask(HttpRoute::SegmentHeat, &format!("{SCOPE}/streams/t30/heat")).await.status, 200);
    let mut controller = running.controller().await;
    for stream in ["t30", "t40"] {
        let stream_info = Some(proto::StreamInfo { scope: "scope".into(), stream: stream.into(), access_operation: 0 });
        let request = proto::CreateTxnRequest { stream_info, lease: 30_000, scale_grace_period: 0 };
        controller.create_transaction(authorized(request, &basic("admin", "a"))).await.unwrap();
    }
    for (who, password, expected) in
        [("reader", "r", &["t30", "t40"][..]), ("one", "1", &["t30"]), ("admin", "a", &["t30", "t40"])]
    {
        http.headers = user(who, password);
        let open = http.ask(HttpRoute::OpenTransactions, "/v1/transactions").await.json();
        assert_eq!(names(&open, "transactions", "streamName"), expected, "{who}");
    }
    // One by one, past that of a stream that they may not read, whose name is not in the place to go on at.
    http.headers = user("one", "1");
    let (mut seen, mut path) = (Vec::new(), "/v1/transactions?limit=1".to_owned());
    loop {
        let page = http.ask(HttpRoute::OpenTransactions, &path).await.json();
        seen.extend(names(&page, "transactions", "streamName").into_iter().map(str::to_owned));
        let Some(next) = page["next"].as_str() else { break };
        assert!(next.len() > 500 && !next.contains("scope/"), "{next}");
        path = format!("/v1/transactions?limit=1&next={next}");
    }
    assert_eq!(seen, ["t30"]);
    for forged in ["scope/t30/00000000000000000000000000000000", "x"] {
        let answer = http.ask(HttpRoute::OpenTransactions, &format!("/v1/transactions?next={forged}")).await;
        assert_eq!(answer.status, 400, "{answer:?}");
    }
    http.headers = user("other", "o");
    assert_eq!(http.ask(HttpRoute::OpenTransactions, "/v1/transactions").await.status, 403);
    http.headers = user("reader", "r");
    let t30 = format!("{SCOPE}/streams/t30");
    let denied = http.put(HttpRoute::UpdateStream, &t30, &update).await;
    assert_eq!(denied.status, 403);
    let detail = denied.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.ends_with("needs READ_UPDATE on prn::/scope:scope/stream:t30"), "{detail}");
    assert_eq!(http.put(HttpRoute::SealStream, &format!("{t30}/state"), &sealed).await.status, 403);
    assert_eq!(http.ask(HttpRoute::DeleteStream, &t30).await.status, 403);
    assert_eq!(http.ask(HttpRoute::DeleteScope, SCOPE).await.status, 403);
    assert_eq!(http.ask(HttpRoute::DeleteGroup, &format!("{SCOPE}/readergroups/g")).await.status, 403);
    assert_eq!(http.ask(HttpRoute::GetGroup, &format!("{SCOPE}/readergroups/g")).await.status, 404);
    assert_eq!(http.put(HttpRoute::CreateScope, "/v1/scopes", &json!({"scopeName": "x"})).await.status, 403);
    assert_eq!(http.ask(HttpRoute::GetScope, "/v1/scopes/other").await.status, 403);

    http.headers = user("one", "1");
    let seen = http.ask(HttpRoute::ListStreams, &format!("{SCOPE}/streams")).await.json();
    assert_eq!(names(&seen, "streams", "streamName"), ["t30"]);
    let seen =
        http.ask(HttpRoute::ListStreams, &format!("{SCOPE}/streams?filter_type=showInternalStreams")).await.json();
    assert_eq!(names(&seen, "streams", "streamName"), ["_MARKt30"]);
    assert_eq!(http.put(HttpRoute::UpdateStream, &t30, &update).await.status, 200);
    assert_eq!(http.put(HttpRoute::UpdateStream, &format!("{SCOPE}/streams/t40"), &update).await.status, 403);
    let body = json!({"streamName": "t31", "scalingPolicy": fixed});
    let created = http.put(HttpRoute::CreateStream, &format!("{SCOPE}/streams"), &body).await;
    assert_eq!(created.status, 403, "the scope is not theirs");

    http.headers = user("other", "o");
    assert_eq!(http.ask(HttpRoute::ListScopes, "/v1/scopes").await.status, 403);
    assert_eq!(http.ask(HttpRoute::Health, "/v1/health").await.status, 403);
    assert_eq!(http.put(HttpRoute::CreateStream, "/v1/scopes/other/streams", &body).await.status, 201);
    assert_eq!(http.ask(HttpRoute::GetStream, "/v1/scopes/other/streams/t31").await.status, 200);
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lag_of_a_group_in_a_table_is_for_those_who_may_read_the_table() {
    let grants = ["prn::/scope:scope,READ", "prn::/scope:scope/reader-group:g,READ"];
    let with_table = [grants.as_slice(), &["prn::/scope:scope/key-value-table:g,READ"]].concat();
    let file = users() + &entry("of-group", "g", &grants) + &entry("of-table", "t", &with_table);
    let (running, _files) = start(|auth| put(auth.passwords.as_ref().unwrap(), &file)).await;
    let mut http = Documented::new(&running).await;
    http.headers = format!("Authorization: {}\r\n", basic("admin", "a"));
    assert_eq!(http.put(HttpRoute::CreateScope, "/v1/scopes", &json!({"scopeName": "scope"})).await.status, 201);

    let mut store = running.store().await;
    let token = Token::new(token("prn::/scope:scope/stream:g_kvtable", "READ_UPDATE"));
    let segment: Text = "scope/g_kvtable/0.#epoch.0".into();
    let (created, table) = (token.clone(), segment.clone());
    let create = Wire::CreateTableSegment {
        request_id: 1,
        segment: table,
        token: created,
        sorted: false,
        key_length: 0,
        rollover_bytes: 0,
    };
    assert!(matches!(store.ask(create).await, Reply::SegmentCreated { .. }));
    let key = TableKey { key: b"\x7006config/default".as_slice().into(), version: i64::MIN };
    let entries = vec![TableEntry { key, value: "".into() }];
    let update = Wire::UpdateTableEntries { request_id: 2, segment, token, entries, table_offset: -1 };
    assert!(matches!(store.ask(update).await, Reply::TableEntriesUpdated { .. }));

    for (user, password, status) in [("of-group", "g", 404), ("of-table", "t", 200), ("other", "o", 403)] {
        http.headers = format!("Authorization: {}\r\n", basic(user, password));
        let answer = http.ask(HttpRoute::GroupLag, &format!("{SCOPE}/readergroups/g/lag")).await;
        assert_eq!(answer.status, status, "{user}: {answer:?}");
    }
    running.server.stop().await;
}
