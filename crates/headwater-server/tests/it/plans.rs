//! What the background work would do, over HTTP.

use headwater_proto::controller as proto;

use super::server::Running;

#[tokio::test]
async fn a_retention_plan_says_what_would_go() {
    let running = Running::start(|_| {}).await;
    let mut controller = running.controller().await;
    let info = |stream: &str| proto::StreamInfo { scope: "s".into(), stream: stream.into(), access_operation: 0 };
    controller.create_scope(proto::ScopeInfo { scope: "s".into() }).await.unwrap();
    for (name, kind) in [("kept", 0), ("sized", 2)] {
        let config = proto::StreamConfig {
            stream_info: Some(info(name)),
            scaling_policy: Some(proto::ScalingPolicy { min_num_segments: 1, ..Default::default() }),
            retention_policy: Some(proto::RetentionPolicy {
                retention_type: kind,
                retention_param: 100,
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
                    \"heldBytes\":null,\"truncatedBytes\":0,\"truncatedAt\":null}";
    assert_eq!(body, expected);
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
