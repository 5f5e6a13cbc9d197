//! `headwater stream`.

use std::fmt::Write as _;
use std::time::Duration;

use clap::Subcommand;
use headwater_client::{Client, KeyRange, Name, Retention, Scaling, ScopedStream, StreamConfig};
use serde_json::{Value, json};

use super::output::Output;
use super::{Failure, counted, cut_of, duration, missing, scope_name, size, span, stream_name, usage};

#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Action {
    /// Make a stream, and its scope with --create-scope; one that is there stays as it is
    Create {
        /// SCOPE/STREAM
        #[arg(value_parser = stream_name)]
        stream: ScopedStream,
        #[command(flatten)]
        settings: Settings,
        /// Make the scope, too, if it is not there
        #[arg(long)]
        create_scope: bool,
    },
    /// Names of a scope's streams
    List {
        /// The scope
        #[arg(value_parser = scope_name)]
        scope: Name,
        /// Only those that carry this tag
        #[arg(long)]
        tag: Option<String>,
    },
    /// Configuration, segments, and what they hold
    Describe {
        /// SCOPE/STREAM
        #[arg(value_parser = stream_name)]
        stream: ScopedStream,
    },
    /// Reader groups that hold back what retention drops
    Subscribers {
        /// SCOPE/STREAM
        #[arg(value_parser = stream_name)]
        stream: ScopedStream,
    },
    /// Let time windows go on without a writer that notes no times any more
    RemoveWriter {
        /// SCOPE/STREAM
        #[arg(value_parser = stream_name)]
        stream: ScopedStream,
        /// Under what it noted them, as its program was configured
        writer: String,
    },
    /// Change settings; those that are not named stay as they are
    Update {
        /// SCOPE/STREAM
        #[arg(value_parser = stream_name)]
        stream: ScopedStream,
        #[command(flatten)]
        settings: Settings,
        /// Keep everything from now on
        #[arg(long, conflicts_with_all = ["retain_for", "retain_bytes"])]
        retain_all: bool,
    },
    /// Replace the current segments by so many with equal shares of the keys
    Scale {
        /// SCOPE/STREAM
        #[arg(value_parser = stream_name)]
        stream: ScopedStream,
        /// How many
        #[arg(long)]
        segments: u32,
    },
    /// Drop everything before a cut
    Truncate {
        /// SCOPE/STREAM
        #[arg(value_parser = stream_name)]
        stream: ScopedStream,
        /// The cut, as `stream cut` prints it; `tail` drops everything there is, `head` and the unbounded cut what is dropped already
        #[arg(long)]
        at: String,
    },
    /// Make a stream read-only for ever; open transactions are aborted
    Seal {
        /// SCOPE/STREAM
        #[arg(value_parser = stream_name)]
        stream: ScopedStream,
    },
    /// Delete a stream that is sealed
    Delete {
        /// SCOPE/STREAM
        #[arg(value_parser = stream_name)]
        stream: ScopedStream,
        /// Seal it first
        #[arg(long)]
        seal: bool,
    },
    /// A position in a stream as text that all clients read
    Cut {
        /// SCOPE/STREAM
        #[arg(value_parser = stream_name)]
        stream: ScopedStream,
        /// The oldest position instead of the newest
        #[arg(long, conflicts_with = "after")]
        head: bool,
        /// A later position than this one, which is head or a cut; the same if nothing is behind it
        #[arg(long, value_name = "CUT", requires = "bytes")]
        after: Option<String>,
        /// About how many bytes later, such as 64MiB: at least an event, where there is one
        #[arg(long, value_name = "SIZE", value_parser = size, requires = "after")]
        bytes: Option<u64>,
    },
}

/// A stream's settings.
#[derive(clap::Args, Clone, Debug, Default, PartialEq)]
pub(crate) struct Settings {
    /// Segments; the fewest, with a rate [default: 1]
    #[arg(long)]
    segments: Option<u32>,
    /// Split segments that take more events per second than this, merge those that take much less
    #[arg(long, value_name = "RATE", conflicts_with = "kb_per_second")]
    events_per_second: Option<u32>,
    /// Split segments that take more KB per second than this, merge those that take much less
    #[arg(long, value_name = "RATE")]
    kb_per_second: Option<u32>,
    /// Into how many a segment is split [default: 2]
    #[arg(long, value_name = "N")]
    split_into: Option<u32>,
    /// Drop what is older, such as 7d
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "retain_bytes")]
    retain_for: Option<Duration>,
    /// Drop what is older even if readers hold it back
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "retain_for")]
    retain_for_at_most: Option<Duration>,
    /// Drop the oldest beyond this size, such as 10GiB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    retain_bytes: Option<u64>,
    /// Drop the oldest beyond this size even if readers hold it back
    #[arg(long, value_name = "SIZE", value_parser = size, requires = "retain_bytes")]
    retain_bytes_at_most: Option<u64>,
    /// A word that streams can be found by; again for more. Replaces those there were
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
}

impl Settings {
    fn apply(&self, config: &mut StreamConfig) -> Result<(), Failure> {
        let (segments, split) = match config.scaling {
            Scaling::Fixed { segments } => (segments, 2),
            Scaling::ByThroughput { segments_min, factor, .. } | Scaling::ByEventRate { segments_min, factor, .. } => {
                (segments_min, factor)
            }
        };
        let segments = self.segments.unwrap_or(segments);
        let factor = self.split_into.unwrap_or(split);
        config.scaling = match (self.events_per_second, self.kb_per_second, config.scaling) {
            (Some(target), _, _) => Scaling::ByEventRate { target, factor, segments_min: segments },
            (None, Some(target), _) => Scaling::ByThroughput { target, factor, segments_min: segments },
            (None, None, Scaling::Fixed { .. }) if self.split_into.is_some() => {
                return Err(usage("--split-into needs --events-per-second or --kb-per-second"));
            }
            (None, None, Scaling::Fixed { .. }) => Scaling::Fixed { segments },
            (None, None, Scaling::ByEventRate { target, .. }) => {
                Scaling::ByEventRate { target, factor, segments_min: segments }
            }
            (None, None, Scaling::ByThroughput { target, .. }) => {
                Scaling::ByThroughput { target, factor, segments_min: segments }
            }
        };
        if let Some(min) = self.retain_for {
            config.retention = Some(Retention::Time { min, max: self.retain_for_at_most });
        }
        if let Some(min_bytes) = self.retain_bytes {
            config.retention = Some(Retention::Size { min_bytes, max_bytes: self.retain_bytes_at_most });
        }
        if !self.tags.is_empty() {
            config.tags.clone_from(&self.tags);
        }
        Ok(())
    }
}

pub(super) async fn run(action: Action, client: &Client, out: &mut Output) -> Result<(), Failure> {
    match action {
        Action::Create { stream, settings, create_scope } => {
            let mut config = StreamConfig::fixed(1);
            settings.apply(&mut config)?;
            if create_scope {
                client.create_scope(&stream.scope).await?;
            }
            let created = client.create_stream(&stream, &config).await?;
            let text = if created { "created" } else { "was there already:" };
            say(out, &stream, "created", created, format!("{text} {stream}"))
        }
        Action::List { scope, tag } => {
            let streams = match tag {
                None => client.streams(&scope).await?,
                Some(tag) => client.streams_with_tag(&scope, &tag).await?,
            };
            for stream in streams {
                out.put(&json!({"scope": scope.as_str(), "stream": stream.as_str()}), format!("{scope}/{stream}"))?;
            }
            Ok(out.flush()?)
        }
        Action::Describe { stream } => describe(client, &stream, out).await,
        Action::Subscribers { stream } => {
            for group in client.subscribers(&stream).await? {
                let object = json!({"scope": stream.scope.as_str(), "stream": stream.stream.as_str(), "group": group});
                out.put(&object, &group)?;
            }
            Ok(out.flush()?)
        }
        Action::RemoveWriter { stream, writer } => {
            let removed = client.remove_writer(&stream, &writer).await?;
            let text = if removed {
                format!("removed {writer} from {stream}")
            } else {
                format!("{writer} notes no times in {stream}")
            };
            say(out, &stream, "removed", removed.then_some(writer), text)
        }
        Action::Update { stream, settings, retain_all } => {
            if !retain_all && settings == Settings::default() {
                return Err(usage("nothing to change was named; `headwater stream update --help` shows what there is"));
            }
            let mut config = client.stream_config(&stream).await?;
            settings.apply(&mut config)?;
            if retain_all {
                config.retention = None;
            }
            client.update_stream(&stream, &config).await?;
            say(out, &stream, "updated", true, format!("updated {stream}"))
        }
        Action::Scale { stream, segments } => {
            let current = client.current_segments(&stream).await?;
            if current.is_empty() {
                let what = format!("stream {stream} is sealed");
                return Err(headwater_client::Error::new(headwater_client::ErrorKind::Sealed, what).into());
            }
            let parts = usize::try_from(segments).ok().filter(|parts| *parts > 0);
            let parts = parts.ok_or_else(|| usage("a stream has at least one segment"))?;
            let sealed: Vec<_> = current.iter().map(|segment| segment.id).collect();
            client.scale_stream(&stream, &sealed, &KeyRange::split(parts)).await?;
            say(out, &stream, "segments", segments, format!("{stream} has {}", counted(segments, "segment")))
        }
        Action::Truncate { stream, at } => {
            client.truncate_stream(&cut_of(client, &stream, &at).await?).await?;
            say(out, &stream, "truncated", true, format!("truncated {stream}"))
        }
        Action::Seal { stream } => {
            client.seal_stream(&stream).await?;
            say(out, &stream, "sealed", true, format!("sealed {stream}"))
        }
        Action::Delete { stream, seal } => {
            if seal {
                client.seal_stream(&stream).await?;
            }
            if !client.delete_stream(&stream).await? {
                return Err(missing("stream", &stream));
            }
            say(out, &stream, "deleted", true, format!("deleted {stream}"))
        }
        Action::Cut { stream, head, after, bytes } => {
            let cut = match after.zip(bytes) {
                Some((after, bytes)) => client.next_cut(&cut_of(client, &stream, &after).await?, bytes).await?,
                None => cut_of(client, &stream, if head { "head" } else { "tail" }).await?,
            };
            let text = cut.to_text();
            say(out, &stream, "cut", text.clone(), text)
        }
    }
}

fn say(
    out: &mut Output,
    stream: &ScopedStream,
    key: &str,
    value: impl Into<Value>,
    text: impl std::fmt::Display,
) -> Result<(), Failure> {
    let mut object = json!({"scope": stream.scope.as_str(), "stream": stream.stream.as_str()});
    object[key] = value.into();
    Ok(out.say(&object, text)?)
}

async fn describe(client: &Client, stream: &ScopedStream, out: &mut Output) -> Result<(), Failure> {
    let config = client.stream_config(stream).await?;
    let current = client.current_segments(stream).await?;
    let (mut segments, mut table) = (Vec::new(), String::new());
    let mut bytes = 0;
    for slice in client.slices(stream).await? {
        let range = current.iter().find(|segment| segment.id == slice.segment).map(|segment| segment.range);
        bytes += slice.end - slice.start;
        segments.push(json!({
            "segment": slice.segment.to_string(),
            "start": slice.start,
            "end": slice.end,
            "keys": range.map(|range| [range.low(), range.high()]),
        }));
        let keys = range.map_or("sealed".to_owned(), |range| format!("keys {:.4} to {:.4}", range.low(), range.high()));
        let _ = write!(table, "\n  {:<16} {:>14} to {:>14}  {keys}", slice.segment, slice.start, slice.end);
    }
    let (scaling, scaling_text) = match config.scaling {
        Scaling::Fixed { segments } => {
            (json!({"type": "fixed", "segments": segments}), format!("none, {}", counted(segments, "segment")))
        }
        Scaling::ByEventRate { target, factor, segments_min } => (
            json!({"type": "events-per-second", "target": target, "factor": factor, "segments_min": segments_min}),
            format!(
                "beyond {target} events/s per segment into {factor}, at least {}",
                counted(segments_min, "segment")
            ),
        ),
        Scaling::ByThroughput { target, factor, segments_min } => (
            json!({"type": "kb-per-second", "target": target, "factor": factor, "segments_min": segments_min}),
            format!("beyond {target} KB/s per segment into {factor}, at least {}", counted(segments_min, "segment")),
        ),
    };
    let (retention, retention_text) = match config.retention {
        None => (Value::Null, "everything".to_owned()),
        Some(Retention::Time { min, max }) => (
            json!({"type": "time", "min_seconds": min.as_secs_f64(), "max_seconds": max.map(|max| max.as_secs_f64())}),
            max.map_or(span(min), |max| format!("{}, at most {}", span(min), span(max))),
        ),
        Some(Retention::Size { min_bytes, max_bytes }) => (
            json!({"type": "size", "min_bytes": min_bytes, "max_bytes": max_bytes}),
            max_bytes.map_or(format!("{min_bytes} bytes"), |max| format!("{min_bytes} bytes, at most {max}")),
        ),
    };
    let is_sealed = current.is_empty();
    let object = json!({
        "scope": stream.scope.as_str(),
        "stream": stream.stream.as_str(),
        "sealed": is_sealed,
        "bytes": bytes,
        "scaling": scaling,
        "retention": retention,
        "tags": config.tags,
        "segments": segments,
    });
    let state = if is_sealed { "sealed" } else { "open" };
    let tags = if config.tags.is_empty() { "none".to_owned() } else { config.tags.join(", ") };
    let text = format!(
        "{stream}: {state}, {bytes} bytes\nscaling: {scaling_text}\nkept: {retention_text}\ntags: {tags}\nsegments:{table}"
    );
    Ok(out.say(&object, text)?)
}
