//! Scopes and streams: creation, configuration, tags, listings, sealing, deletion, scaling, truncation.

use crate::context::{fixed, order_per_key, read_all, same_elements, soon, texts, Arguments, Context};
use anyhow::{anyhow, ensure, Result};
use futures::StreamExt;
use pravega_client_shared::{
    Retention, RetentionType, ScaleType, Scaling, Scope, ScopedSegment, ScopedStream, Segment, Stream, StreamCut,
    StreamSegments,
};
use pravega_controller_client::paginator::{list_scopes, list_streams, list_streams_for_tag};
use serde_json::json;
use std::collections::HashMap;
use std::time::{Duration, Instant};

pub async fn setup(context: &Context, arguments: &mut Arguments) -> Result<()> {
    let name: String = arguments.required("--stream")?;
    let segments = arguments.optional("--segments", 1)?;
    let (stream, created) = context.create_stream(&name, segments).await?;
    context.print(json!({ "stream": stream.to_string(), "created": created }));
    Ok(())
}

pub async fn policies(context: &Context, arguments: &mut Arguments) -> Result<()> {
    let stream = context.stream(&arguments.required::<String>("--stream")?);
    let config = context.controller().get_stream_configuration(&stream).await.map_err(|e| anyhow!("{}", e.error))?;
    context.print(json!({
        "stream": stream.to_string(),
        "scale_type": config.scaling.scale_type as i32,
        "target_rate": config.scaling.target_rate,
        "scale_factor": config.scaling.scale_factor,
        "min_num_segments": config.scaling.min_num_segments,
        "retention_type": config.retention.retention_type as i32,
        "retention_param": config.retention.retention_param,
        "tags": config.tags,
    }));
    Ok(())
}

pub async fn segments(context: &Context, arguments: &mut Arguments) -> Result<()> {
    let stream = context.stream(&arguments.required::<String>("--stream")?);
    let current = current_segments(context, &stream).await?;
    let segments: Vec<_> = current
        .key_segment_map
        .values()
        .map(|s| json!({ "segment": s.scoped_segment.to_string(), "from": s.min_key.0, "to": s.max_key.0 }))
        .collect();
    context.print(json!({ "stream": stream.to_string(), "segments": segments }));
    Ok(())
}

/// Scales by hand until the stream has exactly `--to` segments of equal ranges.
pub async fn scale(context: &Context, arguments: &mut Arguments) -> Result<()> {
    let stream = context.stream(&arguments.required::<String>("--stream")?);
    let to: usize = arguments.required("--to")?;
    let started = Instant::now();
    let (before, after) = scale_to(context, &stream, to).await?;
    context.print(json!({
        "from": before, "to": after, "ms": started.elapsed().as_millis() as u64,
    }));
    Ok(())
}

/// Seals every current segment and puts `to` equal ranges in their place; checks what the controller then says.
pub async fn scale_to(context: &Context, stream: &ScopedStream, to: usize) -> Result<(usize, usize)> {
    let before = current_segments(context, stream).await?;
    let sealed: Vec<Segment> = before.get_segments().into_iter().map(|s| s.segment).collect();
    let bound = |i: usize| if i == to { 1.0 } else { i as f64 / to as f64 };
    let ranges: Vec<(f64, f64)> = (0..to).map(|i| (bound(i), bound(i + 1))).collect();
    soon("scale", context.controller().scale_stream(stream, &sealed, &ranges))
        .await?
        .map_err(|e| anyhow!("scale {stream} from {} to {to} segments: {}", sealed.len(), e.error))?;

    let after = current_segments(context, stream).await?;
    let seen: Vec<(f64, f64)> = after.key_segment_map.values().map(|s| (s.min_key.0, s.max_key.0)).collect();
    ensure!(seen == ranges, "after the scale the ranges are {seen:?}, asked for {ranges:?}");
    let epoch_before = sealed.iter().map(Segment::get_epoch).max().unwrap_or(0);
    for segment in after.get_segments() {
        ensure!(
            segment.segment.get_epoch() > epoch_before,
            "{segment} is current after a scale and belongs to no epoch after {epoch_before}"
        );
    }
    for old in &sealed {
        let scoped = ScopedSegment { scope: stream.scope.clone(), stream: stream.stream.clone(), segment: old.clone() };
        let successors = context
            .controller()
            .get_successors(&scoped)
            .await
            .map_err(|e| anyhow!("successors of {scoped}: {}", e.error))?;
        ensure!(!successors.is_stream_sealed(), "{scoped} was sealed by a scale and has no successors");
        for (successor, predecessors) in &successors.segment_with_predecessors {
            ensure!(
                predecessors.contains(old),
                "{} succeeds {scoped} but does not name it among its predecessors",
                successor.scoped_segment
            );
        }
    }
    Ok((sealed.len(), after.key_segment_map.len()))
}

pub async fn current_segments(context: &Context, stream: &ScopedStream) -> Result<StreamSegments> {
    context.controller().get_current_segments(stream).await.map_err(|e| anyhow!("segments of {stream}: {}", e.error))
}

/// The life of a stream, and listings longer than one page.
pub async fn streams(context: &Context, arguments: &mut Arguments) -> Result<()> {
    let count: usize = arguments.optional("--count", 1100)?;
    context.create_scope().await?;
    let controller = context.controller();

    ensure!(
        !controller.create_scope(&context.scope).await.map_err(|e| anyhow!("{}", e.error))?,
        "a scope that exists was created again"
    );
    ensure!(
        controller.check_scope_exists(&context.scope).await.map_err(|e| anyhow!("{}", e.error))?,
        "the scope just created does not exist"
    );
    let mut scopes = Vec::new();
    let mut listing = Box::pin(list_scopes(controller));
    while let Some(scope) = listing.next().await {
        scopes.push(scope.map_err(|e| anyhow!("list scopes: {}", e.error))?);
    }
    ensure!(scopes.contains(&context.scope), "the scope just created is not listed");
    context.held("scopes are created once, exist and are listed");

    life(context).await?;
    whole_scopes(context).await?;

    let started = Instant::now();
    let mut expected = Vec::new();
    for i in 0..count {
        let stream = context.stream(&format!("listed-{i:05}"));
        let mut config = fixed(&stream, 1);
        config.tags = Some(vec![if i % 2 == 0 { "even" } else { "odd" }.to_owned()]);
        let created = controller.create_stream(&config).await.map_err(|e| anyhow!("create {stream}: {}", e.error))?;
        ensure!(created, "{stream} existed");
        expected.push(stream.to_string());
    }
    context.print(json!({ "created": count, "ms": started.elapsed().as_millis() as u64 }));

    let mut seen = Vec::new();
    let mut listing = Box::pin(list_streams(context.scope.clone(), controller));
    while let Some(stream) = listing.next().await {
        let stream = stream.map_err(|e| anyhow!("list streams: {}", e.error))?.to_string();
        // Streams the server keeps for itself may be listed, too; Pravega reserves the leading underscore.
        if stream.contains("/listed-") {
            seen.push(stream);
        }
    }
    same_elements(seen, expected.clone(), "listing of a scope")?;
    context.held("a listing over several pages names every stream once");

    let mut seen = Vec::new();
    let mut listing = Box::pin(list_streams_for_tag(context.scope.clone(), "even".to_owned(), controller));
    while let Some(stream) = listing.next().await {
        seen.push(stream.map_err(|e| anyhow!("list streams by tag: {}", e.error))?.to_string());
    }
    same_elements(seen, expected.into_iter().step_by(2).collect(), "listing by tag")?;
    context.held("a listing by tag names exactly the streams with that tag");
    Ok(())
}

/// A scope with streams in it stays, an empty one goes.
async fn whole_scopes(context: &Context) -> Result<()> {
    let controller = context.controller();
    let full = Scope::from(format!("{}-full", context.scope.name));
    let fail = |what: &str, error: &dyn std::fmt::Display| anyhow!("{what} scope {full}: {error}");
    let stream = ScopedStream { scope: full.clone(), stream: Stream::from("inside".to_owned()) };
    ensure!(controller.create_scope(&full).await.map_err(|e| fail("create", &e.error))?, "scope {full} existed");
    controller.create_stream(&fixed(&stream, 1)).await.map_err(|e| fail("create a stream in", &e.error))?;
    let refused = controller.delete_scope(&full).await;
    let refused = refused.err().map(|e| e.error.to_string()).unwrap_or_default();
    ensure!(refused.contains("not empty"), "the deletion of scope {full} with a stream in it: {refused:?}");
    ensure!(
        controller.check_stream_exists(&stream).await.map_err(|e| fail("look into", &e.error))?,
        "a refused deletion of a scope removed {stream}"
    );
    context.held("a scope that is not empty is not deleted");

    controller.seal_stream(&stream).await.map_err(|e| fail("seal what is in", &e.error))?;
    controller.delete_stream(&stream).await.map_err(|e| fail("delete what is in", &e.error))?;
    ensure!(controller.delete_scope(&full).await.map_err(|e| fail("delete", &e.error))?, "scope {full} was not there");
    ensure!(
        !controller.check_scope_exists(&full).await.map_err(|e| fail("exists", &e.error))?,
        "scope {full} exists after it was deleted"
    );
    ensure!(
        !controller.delete_scope(&full).await.map_err(|e| fail("delete", &e.error))?,
        "scope {full} was deleted twice"
    );
    context.held("an empty scope is deleted");
    Ok(())
}

async fn life(context: &Context) -> Result<()> {
    let controller = context.controller();
    let stream = context.stream("life");
    let fail = |what: &str, error: &dyn std::fmt::Display| anyhow!("{what} {stream}: {error}");

    let mut config = fixed(&stream, 3);
    config.tags = Some(vec!["first".into(), "second".into()]);
    ensure!(
        !controller.check_stream_exists(&stream).await.map_err(|e| fail("exists", &e.error))?,
        "{stream} exists before it was created"
    );
    ensure!(controller.create_stream(&config).await.map_err(|e| fail("create", &e.error))?, "{stream} existed");
    ensure!(
        !controller.create_stream(&config).await.map_err(|e| fail("create", &e.error))?,
        "{stream} was created twice"
    );
    ensure!(
        controller.check_stream_exists(&stream).await.map_err(|e| fail("exists", &e.error))?,
        "{stream} does not exist after it was created"
    );
    let tags = controller.get_stream_tags(&stream).await.map_err(|e| fail("tags of", &e.error))?;
    let mut tags = tags.unwrap_or_default();
    tags.sort();
    ensure!(tags == ["first", "second"], "tags of {stream} are {tags:?}");
    let segments = current_segments(context, &stream).await?;
    ensure!(segments.key_segment_map.len() == 3, "{stream} has {} segments", segments.key_segment_map.len());
    context.held("a stream is created once, with its tags and segments");

    let current = segments.get_segments().into_iter().map(|s| s.segment).collect::<Vec<_>>();
    for ranges in [&[(0.0, 1.0)][..], &[(0.0, 0.5), (0.6, 1.0)], &[(0.0, 0.3), (0.3, 0.6), (0.6, 0.9)]] {
        ensure!(
            controller.scale_stream(&stream, &current, ranges).await.is_err(),
            "a scale below the minimum, with a gap or with the end missing was accepted: {ranges:?}"
        );
    }
    let after = current_segments(context, &stream).await?.get_segments();
    ensure!(after == segments.get_segments(), "a refused scale changed the segments to {after:?}");
    context.held("a scale below the minimum or with a gap is refused and changes nothing");

    for (scaling, retention) in [
        (ScaleType::ByRateInEventsPerSec, RetentionType::Time),
        (ScaleType::ByRateInKbytesPerSec, RetentionType::Size),
        (ScaleType::FixedNumSegments, RetentionType::None),
    ] {
        let mut update = config.clone();
        update.scaling = Scaling { scale_type: scaling, target_rate: 1000, scale_factor: 2, min_num_segments: 3 };
        if update.scaling.scale_type == ScaleType::FixedNumSegments {
            (update.scaling.target_rate, update.scaling.scale_factor) = (0, 0);
        }
        update.retention = Retention { retention_type: retention, retention_param: 0 };
        if update.retention.retention_type != RetentionType::None {
            update.retention.retention_param = 86_400_000;
        }
        update.tags = Some(vec!["third".into()]);
        controller.update_stream(&update).await.map_err(|e| fail("update", &e.error))?;
        let seen =
            controller.get_stream_configuration(&stream).await.map_err(|e| fail("configuration of", &e.error))?;
        ensure!(seen == update, "configuration of {stream} is {seen:?}, expected {update:?}");
    }
    context.held("an update changes policies and tags, and they are returned as given");
    context.held_of("retention", "policies by time and by size are kept as they were set");

    controller.seal_stream(&stream).await.map_err(|e| fail("seal", &e.error))?;
    let segments = current_segments(context, &stream).await?;
    ensure!(segments.key_segment_map.is_empty(), "a sealed stream has {} segments", segments.key_segment_map.len());
    ensure!(
        controller.delete_stream(&stream).await.map_err(|e| fail("delete", &e.error))?,
        "{stream} was not there to be deleted"
    );
    ensure!(
        !controller.check_stream_exists(&stream).await.map_err(|e| fail("exists", &e.error))?,
        "{stream} exists after it was deleted"
    );
    context.held("a sealed stream has no segments and can be deleted");

    // Made again under its old name, it must not show anything of its former self.
    ensure!(
        controller.create_stream(&fixed(&stream, 1)).await.map_err(|e| fail("create", &e.error))?,
        "{stream} existed"
    );
    let mut writer = context.factory.create_event_writer(stream.clone());
    let ack = writer.write_event_by_routing_key("k".into(), b"k:1".to_vec()).await;
    soon("write to a stream made again", ack).await?.map_err(|e| anyhow!("{e}"))?.map_err(|e| anyhow!("{e}"))?;
    let group = context.factory.create_reader_group("life-group".into(), stream.clone()).await;
    let mut reader = group.create_reader("reader".into()).await;
    let seen = texts(&read_all(&mut reader, 1, Duration::from_secs(2)).await?)?;
    ensure!(seen == ["k:1"], "the stream made again delivered {seen:?}");
    soon("reader offline", reader.reader_offline()).await?.map_err(|e| anyhow!("{e}"))?;
    drop(writer);

    ensure!(controller.delete_stream(&stream).await.is_err(), "an open stream was deleted without being sealed");
    ensure!(
        controller.check_stream_exists(&stream).await.map_err(|e| fail("exists", &e.error))?,
        "a refused deletion removed {stream}"
    );
    controller.seal_stream(&stream).await.map_err(|e| fail("seal", &e.error))?;
    controller.delete_stream(&stream).await.map_err(|e| fail("delete", &e.error))?;
    context.held("a stream made again under its old name starts empty");
    Ok(())
}

/// Truncates at a cut in the middle and reads what is left.
pub async fn truncate(context: &Context, _arguments: &mut Arguments) -> Result<()> {
    let (stream, created) = context.create_stream("truncated", 2).await?;
    ensure!(created, "{stream} existed");
    let mut writer = context.factory.create_event_writer(stream.clone());
    let write = |number: u64| (format!("key-{}", number % 7), format!("key-{}:{number}", number % 7));
    for number in 0..200 {
        let (key, event) = write(number);
        let _ = writer.write_event_by_routing_key(key, event.into_bytes()).await;
    }
    soon("flush", writer.flush()).await?.map_err(|e| anyhow!("flush: {e}"))?;

    // A cut at the present tail: two segments of a fixed stream and their lengths, learnt from a group made at the
    // tail.
    let group = context.factory.create_reader_group("truncated-all".into(), stream.clone()).await;
    let mut reader = group.create_reader("reader".into()).await;
    let seen = read_all(&mut reader, 200, Duration::from_secs(2)).await?;
    same_elements(texts(&seen)?, (0..200).map(|n| write(n).1).collect(), "before the truncation")?;
    soon("reader offline", reader.reader_offline()).await?.map_err(|e| anyhow!("{e}"))?;
    let mut ends = HashMap::<i64, i64>::new();
    for event in &seen {
        let segment = ScopedSegment::from(event.segment.as_str()).segment.number;
        let end = event.offset + 8 + event.payload.len() as i64;
        let known = ends.entry(segment).or_default();
        *known = end.max(*known);
    }
    ensure!(ends.len() == 2, "seven keys ended up in {} of 2 segments", ends.len());
    for number in 200..260 {
        let (key, event) = write(number);
        let _ = writer.write_event_by_routing_key(key, event.into_bytes()).await;
    }
    soon("flush", writer.flush()).await?.map_err(|e| anyhow!("flush: {e}"))?;
    let cut = StreamCut { scoped_stream: stream.clone(), segment_offset_map: ends.clone() };
    context.controller().truncate_stream(&cut).await.map_err(|e| anyhow!("truncate: {}", e.error))?;
    let head = context.controller().get_head_segments(&stream).await.map_err(|e| anyhow!("head: {}", e.error))?;
    let head: HashMap<i64, i64> = head.into_iter().map(|(segment, offset)| (segment.number, offset)).collect();
    ensure!(head == ends, "after a truncation at {ends:?} the head is {head:?}");
    context.held("the head of a truncated stream is the cut");

    let group = context.factory.create_reader_group("truncated-rest".into(), stream.clone()).await;
    let mut reader = group.create_reader("reader".into()).await;
    let seen = texts(&read_all(&mut reader, 60, Duration::from_secs(2)).await?)?;
    order_per_key(&seen, "after the truncation")?;
    same_elements(seen, (200..260).map(|n| write(n).1).collect(), "after the truncation")?;
    soon("reader offline", reader.reader_offline()).await?.map_err(|e| anyhow!("{e}"))?;
    context.held("a group made after a truncation reads exactly what is left");
    Ok(())
}
