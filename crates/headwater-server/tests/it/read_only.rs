//! What whoever may only read sees of what there is, and what they cannot do to it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use headwater_auth::HttpRoute;
use headwater_proto::controller as proto;
use headwater_wire::{Reply, Request as Wire, Token};
use tonic::{Code, Status};

use crate::auth::{authorized, basic, entry, put, start, users};
use crate::client::acknowledged;
use crate::documented::Documented;
use crate::server::Running;

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_not_change_a_stream_cannot_hold_back_its_retention() {
    use proto::reader_group_configuration::RetentionType;

    let (running, _files) = start(|_| {}).await;
    let mut client = running.controller().await;
    // Of the users' grants on `scope`: READ on everything; none; READ_UPDATE on `t3…`, but no reader group.
    for (user, password, scope, about, free, holding) in [
        ("reader", "r", "scope", "scope/t1", true, false),
        ("other", "o", "other", "scope/t1", true, false),
        ("other", "o", "other", "other/t1", true, true),
        ("other", "o", "scope", "other/t1", false, false),
        ("one", "1", "scope", "scope/t30", false, false),
        ("admin", "a", "scope", "scope/t1", true, true),
    ] {
        let (of, stream) = about.split_once('/').unwrap();
        let info = proto::StreamInfo { scope: of.into(), stream: stream.into(), access_operation: 0 };
        for (kind, is_allowed) in
            [(RetentionType::None, free), (RetentionType::Manual, holding), (RetentionType::Automatic, holding)]
        {
            let own = proto::StreamInfo { scope: scope.into(), stream: "t1".into(), access_operation: 0 };
            let cut = |info| proto::StreamCut { stream_info: Some(info), ..Default::default() };
            let mut config = proto::ReaderGroupConfiguration {
                scope: scope.into(),
                reader_group_name: "g".into(),
                retention_type: kind.into(),
                reader_group_id: "00000000-0000-0000-0000-000000000001".into(),
                starting_stream_cuts: vec![cut(info.clone())],
                ..Default::default()
            };
            // The last of several counts as much as the first.
            if user == "other" {
                config.starting_stream_cuts.insert(0, cut(own));
            }
            let header = basic(user, password);
            let created = client.create_reader_group(authorized(config.clone(), &header)).await.err();
            let updated = client.update_reader_group(authorized(config, &header)).await.err();
            for (call, failed) in [("create", created), ("update", updated)] {
                let is_denied = failed.is_some_and(|status| status.code() == Code::PermissionDenied);
                assert_eq!(is_denied, !is_allowed, "{call} by {user} of {scope} about {about} with {kind:?}");
            }
        }
    }
    running.server.stop().await;
}

/// A stream `t1`, and a group `g` that holds back its retention. Returns how the group is configured.
async fn with_holding_group(running: &Running) -> proto::ReaderGroupConfiguration {
    use proto::reader_group_configuration::RetentionType;

    let mut client = running.controller().await;
    let admin = basic("admin", "a");
    client.create_scope(authorized(proto::ScopeInfo { scope: "scope".into() }, &admin)).await.unwrap();
    let info = proto::StreamInfo { scope: "scope".into(), stream: "t1".into(), access_operation: 0 };
    let scaling_policy = Some(proto::ScalingPolicy { min_num_segments: 1, ..Default::default() });
    let stream = proto::StreamConfig { stream_info: Some(info.clone()), scaling_policy, ..Default::default() };
    client.create_stream(authorized(stream, &admin)).await.unwrap();
    let config = proto::ReaderGroupConfiguration {
        scope: "scope".into(),
        reader_group_name: "g".into(),
        retention_type: RetentionType::Manual.into(),
        reader_group_id: "00000000-0000-0000-0000-000000000001".into(),
        starting_stream_cuts: vec![proto::StreamCut { stream_info: Some(info), cut: [(0, 0)].into() }],
        ..Default::default()
    };
    let created = client.create_reader_group(authorized(config.clone(), &admin)).await.unwrap().into_inner();
    assert_eq!(created.status(), proto::create_reader_group_response::Status::Success);
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_only_read_cannot_let_go_of_what_a_group_holds_back() {
    use proto::reader_group_configuration::RetentionType;

    let (running, _files) = start(|_| {}).await;
    let mut config = with_holding_group(&running).await;
    let mut client = running.controller().await;
    let (admin, reader) = (basic("admin", "a"), basic("reader", "r"));
    config.retention_type = RetentionType::None.into();
    let group = proto::ReaderGroupInfo {
        scope: "scope".into(),
        reader_group: "g".into(),
        reader_group_id: config.reader_group_id.clone(),
        generation: 0,
    };
    let denied = |status: Status| assert_eq!(status.code(), Code::PermissionDenied);
    denied(client.update_reader_group(authorized(config.clone(), &reader)).await.unwrap_err());
    denied(client.delete_reader_group(authorized(group.clone(), &reader)).await.unwrap_err());
    let updated = client.update_reader_group(authorized(config.clone(), &admin)).await.unwrap().into_inner();
    assert_eq!(updated.status(), proto::update_reader_group_response::Status::Success);
    // One that holds back nothing is anybody's who may read.
    config.generation = updated.generation;
    let updated = client.update_reader_group(authorized(config, &reader)).await.unwrap().into_inner();
    assert_eq!(updated.status(), proto::update_reader_group_response::Status::Success);
    let group = proto::ReaderGroupInfo { generation: updated.generation, ..group };
    let deleted = client.delete_reader_group(authorized(group, &reader)).await.unwrap().into_inner();
    assert_eq!(deleted.status(), proto::delete_reader_group_status::Status::Success);
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_only_read_a_stream_cannot_delete_over_http_a_group_that_holds_it_back() {
    use proto::reader_group_configuration::RetentionType;

    // Over HTTP the group itself has to be theirs.
    let on_group = "prn::/scope:scope/reader-group:g,READ_UPDATE";
    let rights = ["prn::/scope:scope,READ", "prn::/scope:scope/stream:t1,READ", on_group];
    let file = users() + &entry("of-group", "g", &rights);
    let (running, _files) = start(|auth| put(auth.passwords.as_ref().unwrap(), &file)).await;
    let config = with_holding_group(&running).await;
    let mut http = Documented::new(&running).await;
    http.headers = format!("Authorization: {}\r\n", basic("of-group", "g"));
    let path = "/v1/scopes/scope/readergroups/g";
    let denied = http.ask(HttpRoute::DeleteGroup, path).await;
    assert_eq!(denied.status, 403, "{denied:?}");
    assert!(denied.json()["detail"].as_str().unwrap().contains("retention of scope/t1"), "{denied:?}");

    let free = proto::ReaderGroupConfiguration { retention_type: RetentionType::None.into(), ..config };
    let mut client = running.controller().await;
    let updated = client.update_reader_group(authorized(free, &basic("admin", "a"))).await.unwrap().into_inner();
    assert_eq!(updated.status(), proto::update_reader_group_response::Status::Success);
    assert_eq!(http.ask(HttpRoute::DeleteGroup, path).await.status, 204);
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_show_what_the_caller_may_read_and_answers_carry_tokens() {
    let (running, _files) = start(|_| {}).await;
    let mut client = running.controller().await;
    let admin = basic("admin", "a");
    for scope in ["scope", "other"] {
        client.create_scope(authorized(proto::ScopeInfo { scope: scope.into() }, &admin)).await.unwrap();
    }
    for number in 0..40 {
        let info = proto::StreamInfo { scope: "scope".into(), stream: format!("t{number:02}"), access_operation: 0 };
        let scaling = proto::ScalingPolicy { min_num_segments: 1, ..Default::default() };
        let config =
            proto::StreamConfig { stream_info: Some(info), scaling_policy: Some(scaling), ..Default::default() };
        client.create_stream(authorized(config, &admin)).await.unwrap();
    }
    let one = basic("one", "1");
    let scopes = client.list_scopes(authorized(proto::ScopesRequest::default(), &one)).await.unwrap().into_inner();
    assert_eq!(scopes.scopes, ["scope"]);

    let scope = Some(proto::ScopeInfo { scope: "scope".into() });
    let mut request = proto::StreamsInScopeRequest { scope, continuation_token: None };
    let mut seen = Vec::new();
    loop {
        let page = client.list_streams_in_scope(authorized(request.clone(), &one)).await.unwrap().into_inner();
        if page.streams.is_empty() {
            break;
        }
        seen.extend(page.streams.into_iter().map(|info| info.stream));
        request.continuation_token = page.continuation_token;
    }
    let expected: Vec<_> = (30..40).map(|number| format!("t{number}")).collect();
    assert_eq!(seen.into_iter().filter(|name| !name.starts_with('_')).collect::<Vec<_>>(), expected);

    let mut info = proto::StreamInfo { scope: "scope".into(), stream: "t30".into(), access_operation: 0 };
    let current = client.get_current_segments(authorized(info.clone(), &one)).await.unwrap().into_inner();
    let mut store = running.store().await;
    store.token = Token::new(current.delegation_token.as_str());
    assert_eq!(store.set_up(1, "scope/t30/0.#epoch.0").await, i64::MIN);
    info.access_operation = proto::stream_info::AccessOperation::None.into();
    let silent = client.get_current_segments(authorized(info.clone(), &one)).await.unwrap().into_inner();
    assert_eq!(silent.delegation_token, "");
    info.access_operation = proto::stream_info::AccessOperation::Any.into();
    let any = client.get_delegation_token(authorized(info.clone(), &one)).await.unwrap_err();
    assert_eq!(any.code(), Code::InvalidArgument);
    info.stream = "t30/../t31".into();
    info.access_operation = 0;
    let odd = client.get_delegation_token(authorized(info, &admin)).await.unwrap_err();
    assert_eq!(odd.code(), Code::InvalidArgument);
    running.server.stop().await;
}

/// Somebody may ask for what a group or a stream will be kept in before it is there.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_only_read_spoils_nothing_that_comes_later() {
    use proto::{create_reader_group_response, create_stream_status};

    let (running, _files) = start(|_| {}).await;
    let mut client = running.controller().await;
    let (admin, reader) = (basic("admin", "a"), basic("reader", "r"));
    client.create_scope(authorized(proto::ScopeInfo { scope: "scope".into() }, &admin)).await.unwrap();
    let info = |stream: &str| proto::StreamInfo { scope: "scope".into(), stream: stream.into(), access_operation: 0 };
    let config = |stream: &str, segments| proto::StreamConfig {
        stream_info: Some(info(stream)),
        scaling_policy: Some(proto::ScalingPolicy { min_num_segments: segments, ..Default::default() }),
        ..Default::default()
    };
    for segments in [1, 7] {
        let mark =
            client.create_stream(authorized(config("_MARKorders", segments), &reader)).await.unwrap().into_inner();
        assert_eq!(mark.status(), create_stream_status::Status::InvalidStreamName);
    }
    let big = client.create_stream(authorized(config("_RGbig", 10_000), &reader)).await.unwrap_err();
    assert_eq!(big.code(), Code::InvalidArgument);
    let small = client.create_stream(authorized(config("_RGsmall", 1), &reader)).await.unwrap().into_inner();
    assert_eq!(small.status(), create_stream_status::Status::Success, "as clients before the groups of today do");

    let orders = client.create_stream(authorized(config("orders", 2), &admin)).await.unwrap().into_inner();
    assert_eq!(orders.status(), create_stream_status::Status::Success);
    for group in ["big", "small"] {
        let request = proto::ReaderGroupConfiguration {
            scope: "scope".into(),
            reader_group_name: group.into(),
            reader_group_id: "00000000-0000-0000-0000-000000000001".into(),
            ..Default::default()
        };
        let created = client.create_reader_group(authorized(request, &reader)).await.unwrap().into_inner();
        assert_eq!(created.status(), create_reader_group_response::Status::Success);
    }
    for kept in ["_MARKorders", "_RGbig", "_RGsmall"] {
        let segments = client.get_current_segments(authorized(info(kept), &admin)).await.unwrap().into_inner();
        assert_eq!(segments.segment_ranges.len(), 1, "{kept}");
    }

    // There they do what readers do, and no more.
    let token = client.get_delegation_token(authorized(info("_RGbig"), &reader)).await.unwrap().into_inner();
    let mut store = running.store().await;
    store.token = Token::new(token.delegation_token.as_str());
    const STATE: &str = "scope/_RGbig/0.#epoch.0";
    assert_eq!(store.set_up(1, STATE).await, i64::MIN);
    assert_eq!(store.append(1, 1, b"where we are").await, acknowledged(1, 1, i64::MIN, 12));
    let (segment, token, request_id) = (headwater_wire::Text::from(STATE), store.token.clone(), 9);
    macro_rules! about_state {
        ($name:ident $(, $field:ident: $value:expr)*) => {
            Wire::$name { request_id, segment: segment.clone(), token: token.clone() $(, $field: $value)* }
        };
    }
    for command in [
        about_state!(SealSegment),
        about_state!(DeleteSegment),
        about_state!(CreateSegment, target_rate: 0, scale_type: 0, rollover_bytes: 0),
    ] {
        let reply = store.ask(command.clone()).await;
        assert!(matches!(reply, Reply::AuthTokenCheckFailed { .. }), "{command:?}: {reply:?}");
    }
    let truncated = store.ask(about_state!(TruncateSegment, truncation_offset: 5)).await;
    assert!(matches!(truncated, Reply::SegmentTruncated { .. }), "{truncated:?}");
    assert_eq!(store.length(STATE).await, 12);
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_list_goes_on_tells_nothing_that_the_caller_may_not_read() {
    let (running, _files) = start(|_| {}).await;
    let mut client = running.controller().await;
    let (admin, one) = (basic("admin", "a"), basic("one", "1"));
    for scope in ["scope", "zhidden-scope"] {
        client.create_scope(authorized(proto::ScopeInfo { scope: scope.into() }, &admin)).await.unwrap();
    }
    for stream in ["t30", "zsecret-merger"] {
        let info = proto::StreamInfo { scope: "scope".into(), stream: stream.into(), access_operation: 0 };
        let config = proto::StreamConfig {
            stream_info: Some(info),
            scaling_policy: Some(proto::ScalingPolicy { min_num_segments: 1, ..Default::default() }),
            tags: Some(proto::Tags { tag: vec!["tag".into()] }),
            ..Default::default()
        };
        client.create_stream(authorized(config, &admin)).await.unwrap();
    }
    let hidden = |place: Option<proto::ContinuationToken>| {
        let place = place.unwrap().token;
        let bytes = URL_SAFE_NO_PAD.decode(&place).unwrap();
        for secret in ["zsecret", "zhidden"] {
            let is_in = |bytes: &[u8]| bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!is_in(place.as_bytes()) && !is_in(&bytes), "{place}");
        }
        Some(proto::ContinuationToken { token: place })
    };
    let refused = |answer: Result<_, Status>| assert_eq!(answer.err().map(|it| it.code()), Some(Code::InvalidArgument));
    let plain = |text: &str| Some(proto::ContinuationToken { token: text.into() });

    let scopes = client.list_scopes(authorized(proto::ScopesRequest::default(), &one)).await.unwrap().into_inner();
    assert_eq!(scopes.scopes, ["scope"]);
    let of_scopes = hidden(scopes.continuation_token);
    let on = proto::ScopesRequest { continuation_token: of_scopes.clone() };
    assert!(client.list_scopes(authorized(on, &one)).await.unwrap().into_inner().scopes.is_empty());
    let forged = proto::ScopesRequest { continuation_token: plain("scope") };
    refused(client.list_scopes(authorized(forged, &one)).await.map(|_| ()));

    let scope = || Some(proto::ScopeInfo { scope: "scope".into() });
    let all = |continuation_token| proto::StreamsInScopeRequest { scope: scope(), continuation_token };
    let page = client.list_streams_in_scope(authorized(all(None), &one)).await.unwrap().into_inner();
    assert_eq!(page.streams.last().unwrap().stream, "t30");
    let on = hidden(page.continuation_token);
    let end = client.list_streams_in_scope(authorized(all(on.clone()), &one)).await.unwrap().into_inner();
    assert!(end.streams.is_empty());
    let mut cut = on.clone();
    cut.as_mut().unwrap().token.truncate(100);
    for forged in [of_scopes, plain("t30"), cut] {
        refused(client.list_streams_in_scope(authorized(all(forged), &one)).await.map(|_| ()));
    }
    let tagged = |continuation_token| proto::StreamsInScopeWithTagRequest {
        scope: scope(),
        tag: "tag".into(),
        continuation_token,
    };
    let page = client.list_streams_in_scope_for_tag(authorized(tagged(None), &one)).await.unwrap().into_inner();
    assert_eq!(page.streams.len(), 1);
    let by_tag = hidden(page.continuation_token);
    let end = client.list_streams_in_scope_for_tag(authorized(tagged(by_tag), &one)).await.unwrap().into_inner();
    assert!(end.streams.is_empty());
    refused(client.list_streams_in_scope_for_tag(authorized(tagged(on), &one)).await.map(|_| ()));
    running.server.stop().await;
}
