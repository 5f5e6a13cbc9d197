//! What the background work would do, over HTTP.

use headwater_auth::HttpRoute;
use headwater_proto::controller as proto;
use serde_json::json;

use super::documented::Documented;
use super::server::Running;

#[tokio::test]
async fn a_retention_plan_says_what_would_go() {
    let running = Running::start(|_| {}).await;
    let mut controller = running.controller().await;
    let info = |stream: &str| proto::StreamInfo { scope: "s".into(), stream: stream.into(), access_operation: 0 };
    controller.create_scope(proto::ScopeInfo { scope: "s".into() }).await.unwrap();
    for (name, kind, keep) in [("kept", 0, 100), ("sized", 2, 100), ("emptied", 2, 0)] {
        let config = proto::StreamConfig {
            stream_info: Some(info(name)),
            scaling_policy: Some(proto::ScalingPolicy { min_num_segments: 1, ..Default::default() }),
            retention_policy: Some(proto::RetentionPolicy {
                retention_type: kind,
                retention_param: keep,
                retention_max: i64::MAX,
            }),
            ..Default::default()
        };
        controller.create_stream(config).await.unwrap();
    }
    let plan = running.http("GET", "/v1/scopes/s/streams/sized/retention", "").await;
    assert!(plan.starts_with("HTTP/1.1 200"), "{plan}");
    let body = plan.split_once("\r\n\r\n").unwrap().1;
    let expected = "{\"policy\":\"size\",\"keep\":100,\"keepMax\":null,\"clockJumped\":false,\"storedBytes\":0,\
                    \"heldBytes\":null,\"truncatedBytes\":0,\"truncatedAt\":null,\"truncatedSegments\":[],\"moreSegments\":0}";
    assert_eq!(body, expected);
    let mut store = running.store().await;
    store.set_up(1, "s/emptied/0.#epoch.0").await;
    store.append(1, 1, &[0; 100]).await;
    let http = Documented::new(&running).await;
    let plan = http.ask(HttpRoute::RetentionPlan, "/v1/scopes/s/streams/emptied/retention").await.json();
    let end = plan["storedBytes"].as_i64().unwrap();
    assert!(end >= 100, "{plan}");
    assert_eq!((&plan["truncatedBytes"], &plan["truncatedAt"]), (&json!(end), &json!({"0": end})));
    assert_eq!(plan["truncatedSegments"], json!([{"segmentId": "0", "from": 0, "to": end, "deleted": false}]));
    for (path, status) in [
        ("/v1/scopes/s/streams/kept/retention", "204"),
        ("/v1/scopes/s/streams/none/retention", "404"),
        ("/v1/scopes/s/streams/a_b/retention", "404"),
    ] {
        let answer = running.http("GET", path, "").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
    }
    let page = running.http("GET", "/metrics", "").await;
    assert!(page.contains("\nretention_clock_jumped 0\n"), "{page}");
}
