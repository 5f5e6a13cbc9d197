//! Pravega's interface for administrators over HTTP, and the views for operators.

use headwater_auth::HttpRoute;
use headwater_proto::controller as proto;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::documented::Documented;
use crate::server::Running;

const SCOPES: &str = "/v1/scopes";
const STREAMS: &str = "/v1/scopes/s/streams";

fn fixed(name: &str, segments: i32) -> Value {
    json!({"streamName": name, "scalingPolicy": {"type": "FIXED_NUM_SEGMENTS", "minSegments": segments}})
}

/// Names in a list of streams.
fn streams(answer: &Value) -> Vec<&str> {
    answer["streams"].as_array().unwrap().iter().map(|stream| stream["streamName"].as_str().unwrap()).collect()
}

/// A server with a scope `s`.
async fn with_scope(running: &Running) -> Documented<'_> {
    let http = Documented::new(running).await;
    assert_eq!(http.put(HttpRoute::CreateScope, SCOPES, &json!({"scopeName": "s"})).await.status, 201);
    http
}

#[tokio::test(flavor = "multi_thread")]
async fn scopes_and_streams_live_over_http_as_they_do_with_pravega() {
    let running = Running::start(|_| {}).await;
    let http = Documented::new(&running).await;
    let created = http.put(HttpRoute::CreateScope, SCOPES, &json!({"scopeName": "s"})).await;
    assert_eq!((created.status, created.json()), (201, json!({"scopeName": "s"})));
    assert_eq!(http.put(HttpRoute::CreateScope, SCOPES, &json!({"scopeName": "s"})).await.status, 409);
    let listed = http.ask(HttpRoute::ListScopes, SCOPES).await.json();
    assert!(listed["scopes"].as_array().unwrap().contains(&json!({"scopeName": "s"})), "{listed}");
    assert_eq!(http.ask(HttpRoute::GetScope, "/v1/scopes/s").await.json(), json!({"scopeName": "s"}));
    assert_eq!(http.ask(HttpRoute::ListStreams, STREAMS).await.json(), json!({"streams": []}));

    let asked = json!({
        "streamName": "orders",
        "scalingPolicy": {"type": "BY_RATE_IN_EVENTS_PER_SEC", "targetRate": 100, "scaleFactor": 2, "minSegments": 3},
        "retentionPolicy": {"type": "LIMITED_DAYS", "value": 0, "timeBasedRetention": {"days": 1, "hours": 2, "minutes": 3},
            "maxValue": 9},
        "streamTags": ["a", "b c"],
        "timestampAggregationTimeout": 5,
        "rolloverSizeBytes": 1 << 20,
        "unknownToUs": {"is": ["passed over"]},
    });
    http.validate(http.body_schema(HttpRoute::CreateStream).unwrap(), &asked, "request");
    let shown = json!({
        "scopeName": "s",
        "streamName": "orders",
        "scalingPolicy": {"type": "BY_RATE_IN_EVENTS_PER_SEC", "targetRate": 100, "scaleFactor": 2, "minSegments": 3},
        "retentionPolicy": {"type": "LIMITED_DAYS", "value": 0, "timeBasedRetention": {"days": 1, "hours": 2, "minutes": 3},
            "maxValue": 9, "maxTimeBasedRetention": {"days": 9, "hours": 0, "minutes": 0}},
        "tags": ["a", "b c"],
        "timestampAggregationTimeout": 5,
        "rolloverSizeBytes": 1 << 20,
    });
    let created = http.put(HttpRoute::CreateStream, STREAMS, &asked).await;
    assert_eq!((created.status, created.json()), (201, shown.clone()));
    assert_eq!(http.put(HttpRoute::CreateStream, STREAMS, &asked).await.status, 409);
    assert_eq!(http.put(HttpRoute::CreateStream, STREAMS, &fixed("plain", 2)).await.status, 201);
    let orders = format!("{STREAMS}/orders");
    assert_eq!(http.ask(HttpRoute::GetStream, &orders).await.json(), shown);

    // A client of the other protocol sees the same.
    let info = proto::StreamInfo { scope: "s".into(), stream: "orders".into(), access_operation: 0 };
    let config = running.controller().await.get_stream_configuration(info.clone()).await.unwrap().into_inner();
    assert_eq!(config.scaling_policy.unwrap().min_num_segments, 3);
    let retention = config.retention_policy.unwrap();
    assert_eq!((retention.retention_param, retention.retention_max), (93_780_000, 9 * 86_400_000));

    assert_eq!(streams(&http.ask(HttpRoute::ListStreams, STREAMS).await.json()), ["orders", "plain"]);
    for (filter, expected) in [
        ("?filter_type=showInternalStreams", vec!["_MARKorders", "_MARKplain"]),
        ("?filter_type=tag&filter_value=b%20c", vec!["orders"]),
        ("?filter_type=tag&filter_value=nobody", vec![]),
        ("?limit=1", vec!["orders"]),
        ("?limit=1&after=orders", vec!["plain"]),
        ("?after=plain", vec![]),
        ("?filter_type=showInternalStreams&limit=1", vec!["_MARKorders"]),
    ] {
        let listed = http.ask(HttpRoute::ListStreams, &format!("{STREAMS}{filter}")).await.json();
        assert_eq!(streams(&listed), expected, "{filter}");
    }

    // What is left out gets its default, and the most that is kept is not looked at.
    let changed = json!({
        "scalingPolicy": {"type": "FIXED_NUM_SEGMENTS", "minSegments": 4},
        "retentionPolicy": {"type": "LIMITED_SIZE_MB", "value": 7, "maxValue": 8},
    });
    let updated = http.put(HttpRoute::UpdateStream, &orders, &changed).await;
    let expected = json!({
        "scopeName": "s", "streamName": "orders",
        "scalingPolicy": {"type": "FIXED_NUM_SEGMENTS", "minSegments": 4},
        "retentionPolicy": {"type": "LIMITED_SIZE_MB", "value": 7},
        "tags": [], "timestampAggregationTimeout": 0, "rolloverSizeBytes": 0,
    });
    assert_eq!((updated.status, updated.json()), (200, expected.clone()));
    assert_eq!(http.ask(HttpRoute::GetStream, &orders).await.json(), expected);
    let segments = running.controller().await.get_current_segments(info).await.unwrap().into_inner();
    assert_eq!(segments.segment_ranges.len(), 4);

    assert_eq!(http.ask(HttpRoute::DeleteStream, &orders).await.status, 412, "it is not sealed");
    assert_eq!(http.ask(HttpRoute::DeleteScope, "/v1/scopes/s").await.status, 412, "it is not empty");
    for name in ["orders", "plain"] {
        let (path, sealed) = (format!("{STREAMS}/{name}"), json!({"streamState": "SEALED"}));
        for _ in 0..2 {
            let answer = http.put(HttpRoute::SealStream, &format!("{path}/state"), &sealed).await;
            assert_eq!((answer.status, answer.json()), (200, sealed.clone()));
        }
        assert_eq!(http.put(HttpRoute::UpdateStream, &path, &changed).await.status, 412, "it is sealed");
        assert_eq!(http.ask(HttpRoute::DeleteStream, &path).await.status, 204);
        assert_eq!(http.ask(HttpRoute::DeleteStream, &path).await.status, 404);
        assert_eq!(http.ask(HttpRoute::GetStream, &path).await.status, 404);
    }
    assert_eq!(http.ask(HttpRoute::DeleteScope, "/v1/scopes/s").await.status, 204);
    assert_eq!(http.ask(HttpRoute::GetScope, "/v1/scopes/s").await.status, 404);
    assert_eq!(http.ask(HttpRoute::ListStreams, STREAMS).await.status, 404);
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_longer_than_a_page_are_whole() {
    let running = Running::start(|_| {}).await;
    let http = Documented::new(&running).await;
    let controller = running.controller().await;
    let names: Vec<_> = (0..1203).map(|number| format!("scope-{number:04}")).collect();
    for some in names.chunks(30) {
        let create = |scope: &String| {
            let (mut controller, scope) = (controller.clone(), scope.clone());
            async move { controller.create_scope(proto::ScopeInfo { scope }).await.unwrap() }
        };
        futures::future::join_all(some.iter().map(create)).await;
    }
    let listed = http.ask(HttpRoute::ListScopes, "/v1/scopes?after=scope").await.json();
    let listed: Vec<_> =
        listed["scopes"].as_array().unwrap().iter().map(|scope| scope["scopeName"].as_str().unwrap()).collect();
    assert_eq!(listed, names);
    let part = http.ask(HttpRoute::ListScopes, "/v1/scopes?after=scope-0150&limit=1001").await.json();
    let part = part["scopes"].as_array().unwrap();
    assert_eq!((part.len(), &part[1000]["scopeName"]), (1001, &json!("scope-1151")));
    running.server.stop().await;
}

/// As tools do that change one thing: nothing else is to become another, and least of all what is kept to become less.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_shown_of_a_stream_can_be_sent_back() {
    let running = Running::start(|_| {}).await;
    let http = with_scope(&running).await;
    let mut controller = running.controller().await;
    // What cannot be said in megabytes or minutes: 500,000 bytes, 45 s.
    for (name, kind, keep) in [("small", 2, 500_000), ("short", 1, 45_000)] {
        let info = proto::StreamInfo { scope: "s".into(), stream: name.into(), access_operation: 0 };
        let config = proto::StreamConfig {
            stream_info: Some(info.clone()),
            scaling_policy: Some(proto::ScalingPolicy { min_num_segments: 1, ..Default::default() }),
            retention_policy: Some(proto::RetentionPolicy {
                retention_type: kind,
                retention_param: keep,
                retention_max: i64::MAX,
            }),
            tags: Some(proto::Tags { tag: vec!["a".into(), "b".into()] }),
            ..Default::default()
        };
        controller.create_stream(config).await.unwrap();
        let path = format!("{STREAMS}/{name}");
        let shown = http.ask(HttpRoute::GetStream, &path).await.json();
        let updated = http.put(HttpRoute::UpdateStream, &path, &shown).await;
        assert_eq!((updated.status, updated.json()), (200, shown.clone()));
        let kept = controller.get_stream_configuration(info).await.unwrap().into_inner();
        let retention = kept.retention_policy.unwrap();
        assert_eq!(retention.retention_type, kind);
        assert!(retention.retention_param >= keep, "{name}: {retention:?}");
        assert_eq!(kept.tags.unwrap().tag, ["a", "b"]);

        // The word of requests goes before that of answers.
        let mut both = shown;
        both["streamTags"] = json!(["c"]);
        assert_eq!(http.put(HttpRoute::UpdateStream, &path, &both).await.json()["tags"], json!(["c"]));
    }
    running.server.stop().await;
}

/// Value of a figure.
async fn figure(running: &Running, name: &str) -> u64 {
    let page = running.http("GET", "/metrics", "").await;
    let line = page.lines().find(|line| line.starts_with(name) && !line.starts_with('#'));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("no {name} in {page}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_streams_takes_little_memory_and_that_of_the_budget_however_much_they_carry() {
    const COUNT: usize = 40;
    const USED: &str = "requests_room_used_bytes ";
    let running = Running::start(|_| {}).await;
    let http = with_scope(&running).await;
    let mut controller = running.controller().await;
    // In JSON each takes six times as much: 0.75 MiB.
    let tag = vec!["\u{1}".repeat(1024); 128];
    for number in 0..COUNT {
        let info = proto::StreamInfo { scope: "s".into(), stream: format!("t{number:02}"), access_operation: 0 };
        let config = proto::StreamConfig {
            stream_info: Some(info),
            scaling_policy: Some(proto::ScalingPolicy { min_num_segments: 1, ..Default::default() }),
            tags: Some(proto::Tags { tag: tag.clone() }),
            ..Default::default()
        };
        controller.create_stream(config).await.unwrap();
    }
    // Peers that ask and take nothing: two have their turn, and what they hold is in the account.
    let mut peers = Vec::new();
    for _ in 0..4 {
        let mut socket = running.connect(running.server.http(), &["http/1.1"]).await.unwrap();
        let request = format!("GET {STREAMS} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        peers.push(socket);
    }
    let turns = 2 * (4 << 20);
    let mut most = 0;
    for _ in 0..500 {
        most = most.max(figure(&running, USED).await);
        if most >= turns {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!((turns..turns + (1 << 20)).contains(&most), "{most}");
    drop(peers);

    let listed = http.ask(HttpRoute::ListStreams, STREAMS).await;
    assert!(listed.body.len() > COUNT * 6 * (128 << 10), "{}", listed.body.len());
    let listed = listed.json();
    let expected: Vec<_> = (0..COUNT).map(|number| format!("t{number:02}")).collect();
    assert_eq!(streams(&listed), expected);
    assert!(listed["streams"].as_array().unwrap().iter().all(|stream| stream["tags"] == json!(tag)));
    let part = http.ask(HttpRoute::ListStreams, &format!("{STREAMS}?limit=7&after=t08")).await.json();
    assert_eq!(streams(&part), expected[9..16]);
    assert_eq!(figure(&running, USED).await, 0);
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_a_mistake_of_the_caller_that_says_what_is_wrong() {
    let running = Running::start(|_| {}).await;
    let http = with_scope(&running).await;
    assert_eq!(http.put(HttpRoute::CreateStream, STREAMS, &fixed("t", 1)).await.status, 201);
    let scaling = |scaling: Value| json!({"streamName": "u", "scalingPolicy": scaling}).to_string();
    let retention = |retention: Value| {
        let mut stream = fixed("u", 1);
        stream["retentionPolicy"] = retention;
        stream.to_string()
    };
    let with = |field: &str, value: Value| {
        let mut stream = fixed("u", 1);
        stream[field] = value;
        stream.to_string()
    };
    let deep = format!("{{\"x\":{}{}, \"scopeName\": \"d\"}}", "[".repeat(100), "]".repeat(100));
    for body in ["", "{", "null", "[]", "7", "\"s\"", "{}", "{\"scopeName\":null}", "{\"scopeName\":7}", "\u{0}", &deep]
    {
        assert_eq!(http.text(HttpRoute::CreateScope, SCOPES, body).await.status, 400, "{body}");
    }
    let long = "x".repeat(256);
    for name in ["", "a_b", "_s", "_system", "a/b", "a b", "..\u{0}", "\u{e9}", "\u{202e}a", &long] {
        let answer = http.put(HttpRoute::CreateScope, SCOPES, &json!({"scopeName": name})).await;
        assert_eq!(answer.status, 400, "{name}");
        let answer = http.put(HttpRoute::CreateStream, STREAMS, &fixed(name, 1)).await;
        assert_eq!(answer.status, 400, "{name}");
    }
    for body in [
        String::new(),
        "{}".to_owned(),
        json!({"streamName": "u"}).to_string(),
        json!({"scalingPolicy": {"type": "FIXED_NUM_SEGMENTS", "minSegments": 1}}).to_string(),
        fixed("u", 0).to_string(),
        fixed("u", -1).to_string(),
        fixed("u", 1_000_000).to_string(),
        fixed(&"x".repeat(251), 1).to_string(),
        scaling(json!({"type": "fixed", "minSegments": 1})),
        scaling(json!({"type": "FIXED_NUM_SEGMENTS"})),
        scaling(json!({"type": "FIXED_NUM_SEGMENTS", "minSegments": "1"})),
        scaling(json!({"type": "FIXED_NUM_SEGMENTS", "minSegments": 1.5})),
        scaling(json!({"type": "FIXED_NUM_SEGMENTS", "minSegments": 3_000_000_000_i64})),
        scaling(json!({"type": "BY_RATE_IN_EVENTS_PER_SEC", "minSegments": 1})),
        scaling(json!({"type": "BY_RATE_IN_EVENTS_PER_SEC", "minSegments": 1, "targetRate": 0, "scaleFactor": 2})),
        scaling(json!({"type": "BY_RATE_IN_KBYTES_PER_SEC", "minSegments": 1, "targetRate": 1, "scaleFactor": -2})),
        retention(json!({"type": "LIMITED_DAYS"})),
        retention(json!({"type": "LIMITED_DAYS", "value": -1})),
        retention(json!({"type": "LIMITED_SIZE_MB", "value": i64::MAX})),
        retention(json!({"type": "FOR_EVER", "value": 1})),
        retention(json!({"type": "LIMITED_SIZE_MB", "value": 5, "maxValue": 4})),
        with("streamTags", json!("a")),
        with("streamTags", json!([7])),
        with("streamTags", json!(["x".repeat(1025)])),
        with("streamTags", json!(["a\u{0}b"])),
        with("streamTags", json!(vec!["a"; 1025])),
        with("rolloverSizeBytes", json!(-1)),
        with("timestampAggregationTimeout", json!(-1)),
        with("timestampAggregationTimeout", json!("soon")),
    ] {
        let answer = http.text(HttpRoute::CreateStream, STREAMS, &body).await;
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
    }
    for body in ["{}", "{\"streamState\":\"ACTIVE\"}", "{\"streamState\":\"sealed\"}", "{\"streamState\":1}"] {
        let answer = http.text(HttpRoute::SealStream, &format!("{STREAMS}/t/state"), body).await;
        assert_eq!(answer.status, 400, "{body}");
    }
    let updated = http.text(HttpRoute::UpdateStream, &format!("{STREAMS}/t"), "{\"scalingPolicy\":{}}").await;
    assert_eq!(updated.status, 400);

    for (query, status) in [
        ("?filter_type=tag", 400),
        ("?filter_type=tag&filter_value=", 400),
        ("?filter_type=tag&filter_value=%00", 400),
        ("?filter_type=TAG&filter_value=a", 400),
        ("?filter_type=tag&filter_type=tag&filter_value=a", 400),
        ("?limit=0", 400),
        ("?limit=-1", 400),
        ("?limit=many", 400),
        ("?limit=99999999999999999999", 400),
        ("?after=a_b", 400),
        ("?%ff=%ff&unknown=1", 200),
    ] {
        let answer = http.ask(HttpRoute::ListStreams, &format!("{STREAMS}{query}")).await;
        assert_eq!(answer.status, status, "{query}: {answer:?}");
    }
    for query in ["", "?from=1", "?to=1", "?from=2&to=1", "?from=-1&to=1", "?from=x&to=1", "?from=1&to=1e3"] {
        let answer = http.ask(HttpRoute::ScalingEvents, &format!("{STREAMS}/t/scaling-events{query}")).await;
        assert_eq!(answer.status, 400, "{query}");
    }
    for query in ["?next=zz", "?next=ff", "?next=6f0", "?limit=1001"] {
        let answer = http.ask(HttpRoute::Transactions, &format!("{STREAMS}/t/transactions{query}")).await;
        assert_eq!(answer.status, 400, "{query}");
    }

    // The body itself.
    let json = "Content-Type: application/json\r\n";
    for (headers, body, status) in [
        ("Content-Length: 2\r\n", "{}", 415),
        ("Content-Type: text/plain\r\nContent-Length: 2\r\n", "{}", 415),
        (json, "", 400),
        (&format!("{json}Content-Length: 9999999\r\n"), "{", 413),
        (&format!("{json}Transfer-Encoding: chunked\r\n"), "2\r\n{}\r\n0\r\n\r\n", 400),
        ("Content-Type: Application/JSON ; charset=utf-8\r\nContent-Length: 2\r\n", "{}", 400),
    ] {
        let answer = http.checked(HttpRoute::CreateScope, SCOPES, headers, body).await;
        assert_eq!(answer.status, status, "{headers}{body}: {answer:?}");
    }
    let chunk = format!("{:x}\r\n{}\r\n0\r\n\r\n", 300_000, " ".repeat(300_000));
    let headers = format!("{json}Transfer-Encoding: chunked\r\n");
    assert_eq!(http.checked(HttpRoute::CreateScope, SCOPES, &headers, &chunk).await.status, 413);
    let origin = format!("{json}Origin: http://localhost\r\nContent-Length: 17\r\n");
    assert_eq!(http.checked(HttpRoute::CreateScope, SCOPES, &origin, "{\"scopeName\":\"t\"}").await.status, 403);
    assert_eq!(http.ask(HttpRoute::GetScope, "/v1/scopes/t").await.status, 404);
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_answers_hostile_names_as_if_they_named_nothing() {
    let running = Running::start(|_| {}).await;
    let http = with_scope(&running).await;
    let long = "x".repeat(4000);
    let body = json!({
        "scopeName": "t",
        "streamName": "t",
        "streamState": "SEALED",
        "scalingPolicy": {"type": "FIXED_NUM_SEGMENTS", "minSegments": 1},
    });
    for route in HttpRoute::ALL {
        for name in ["none", "a_b", "%00", "..", "a%2Fb", "%2e%2e%2f", "%ff", "%E2%80%AE", "a%20b", "%zz", "%", &long] {
            let mut path = String::new();
            let mut rest = route.path();
            while let Some((before, after)) = rest.split_once('{') {
                let (_, after) = after.split_once('}').unwrap();
                path = path + before + name;
                rest = after;
            }
            path += rest;
            if path == route.path() {
                continue;
            }
            if *route == HttpRoute::ScalingEvents {
                path += "?from=0&to=1";
            }
            let has_body = http.body_schema(*route).is_some();
            let answer = match has_body {
                true => http.put(*route, &path, &body).await,
                false => http.ask(*route, &path).await,
            };
            // What is not even a path is refused before there is a route.
            assert!(matches!(answer.status, 400 | 404), "{route} with {name}: {answer:?}");
        }
    }
    for (method, path, status, allow) in [
        ("GET", "/v1", 404, None),
        ("GET", "/v1/scopes/", 404, None),
        ("GET", "/v1/scopes/s/streams/t/heat/x", 404, None),
        ("PATCH", SCOPES, 405, Some(["get", "post"])),
        ("POST", "/v1/scopes/s", 405, Some(["get", "delete"])),
        ("BREW", "/v1/scopes/s", 405, Some(["get", "delete"])),
    ] {
        let answer = http.send(method, path, "", "").await;
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        assert_eq!(answer.json()["status"], status);
        let line = answer.head.lines().find_map(|line| line.strip_prefix("allow: ")).unwrap_or_default();
        for method in allow.iter().flatten() {
            assert!(line.split(',').any(|allowed| allowed.trim() == *method), "{method} {path}: {line}");
        }
    }
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_said_in_pravegas_words() {
    let running = Running::start(|_| {}).await;
    let http = Documented::new(&running).await;
    let all = http.ask(HttpRoute::Health, "/v1/health").await.json();
    assert_eq!((&all["name"], &all["status"]), (&json!("headwater"), &json!("UP")));
    assert_eq!(all["children"]["store"]["details"], json!({"doubts": 0}));
    assert_eq!(http.ask(HttpRoute::HealthOf, "/v1/health/store").await.json(), all["children"]["store"]);
    assert_eq!(http.ask(HttpRoute::Readiness, "/v1/health/readiness").await.json(), json!(true));
    assert_eq!(http.ask(HttpRoute::LivenessOf, "/v1/health/liveness/controller").await.json(), json!(true));
    assert_eq!(http.ask(HttpRoute::HealthStatus, "/v1/health/status").await.json(), json!("UP"));
    let details = http.ask(HttpRoute::HealthDetailsOf, "/v1/health/details/controller").await.json();
    assert_eq!(details, json!({"clockJumped": false}));
    assert_eq!(http.ask(HttpRoute::HealthStatusOf, "/v1/health/status/nothing").await.status, 404);
    for (route, path) in [(HttpRoute::About, "/"), (HttpRoute::Ping, "/ping"), (HttpRoute::Healthz, "/healthz")] {
        assert_eq!(http.ask(route, path).await.status, 200, "{path}");
    }
    assert_eq!(http.ask(HttpRoute::Readyz, "/readyz").await.status, 200);
    assert_eq!(http.ask(HttpRoute::Metrics, "/metrics").await.status, 200);
    assert_eq!(http.ask(HttpRoute::OpenApi, "/openapi.json").await.status, 200);
    let backup = http.ask(HttpRoute::BeginBackup, "/v1/backups").await.json();
    let backup = format!("/v1/backups/{}", backup["id"].as_str().unwrap());
    assert_eq!(http.ask(HttpRoute::ListBackup, &format!("{backup}/files")).await.status, 200);
    assert_eq!(http.ask(HttpRoute::EndBackup, &backup).await.status, 204);
    running.server.stop().await;
}
