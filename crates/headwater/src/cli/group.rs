//! `headwater group`.

use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use futures::FutureExt as _;
use headwater_client::{
    Client, Cut, Delivery, Error, ErrorKind, EventReader, GroupRetention, Position, ReadEvent, ReaderGroup,
    ReaderGroupConfig, ReaderOptions, ScopedStream,
};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use super::event::{Format, put};
use super::output::Output;
use super::{Failure, duration, missing, stream_name, usage};

/// Time a reader that is interrupted has for leaving its group.
const LEAVING: Duration = Duration::from_secs(5);

#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Action {
    /// Make a reader group
    #[command(after_help = "Examples:
  headwater group create shop/billing shop/orders
  headwater group create shop/audit shop/orders shop/returns --from \"$(headwater stream cut shop/orders)\"")]
    Create {
        /// SCOPE/GROUP
        #[arg(value_parser = stream_name)]
        group: ScopedStream,
        #[command(flatten)]
        reading: Reading,
        /// Keep what the group has not read from being truncated by retention
        #[arg(long, value_enum)]
        retain: Option<Retain>,
        /// Time between two checkpoints that readers make by themselves; 0: none
        #[arg(long, value_parser = duration, default_value = "30s")]
        checkpoint_every: Duration,
    },
    /// What a group reads, who reads, and how much is left
    Describe {
        /// SCOPE/GROUP
        #[arg(value_parser = stream_name)]
        group: ScopedStream,
    },
    /// Print events as a reader of a group, until interrupted; others go on where it leaves
    Read {
        /// SCOPE/GROUP
        #[arg(value_parser = stream_name)]
        group: ScopedStream,
        /// Id of the reader, which nobody else in the group has
        #[arg(long, default_value = "headwater-cli")]
        reader: String,
        /// No more events than so many
        #[arg(long, value_name = "N")]
        max: Option<u64>,
        /// End when nothing has come for so long
        #[arg(long, value_parser = duration, value_name = "TIME")]
        idle: Option<Duration>,
        /// How to show them; --json has the text, or base64 where it is none
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Take a checkpoint, and print the cut of each stream once all readers have reached it
    Checkpoint {
        /// SCOPE/GROUP
        #[arg(value_parser = stream_name)]
        group: ScopedStream,
        /// Its name
        #[arg(default_value = "headwater-cli")]
        name: String,
    },
    /// Begin anew: all readers are put out of the group
    Reset {
        /// SCOPE/GROUP
        #[arg(value_parser = stream_name)]
        group: ScopedStream,
        #[command(flatten)]
        reading: Reading,
    },
    /// Take a reader that died out of its group: others read what it had since its last checkpoint
    Offline {
        /// SCOPE/GROUP
        #[arg(value_parser = stream_name)]
        group: ScopedStream,
        /// Its id
        reader: String,
    },
    /// Delete a group; the streams stay
    Delete {
        /// SCOPE/GROUP
        #[arg(value_parser = stream_name)]
        group: ScopedStream,
    },
}

/// What a group reads, and from where to where.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Reading {
    /// Streams to read, as SCOPE/STREAM
    #[arg(required = true, value_parser = stream_name)]
    streams: Vec<ScopedStream>,
    /// Where to begin: head, tail, or a cut as `stream cut` prints it; a cut is for its own stream
    #[arg(long, default_value = "head")]
    from: Vec<String>,
    /// Where to end: a cut, for its own stream
    #[arg(long, value_name = "CUT")]
    until: Vec<String>,
}

/// From when on retention may truncate what a group has read.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Retain {
    /// Once it is released, by a program
    Cut,
    /// Once a checkpoint is behind it
    Checkpoint,
}

impl Reading {
    async fn config(&self, client: &Client) -> Result<ReaderGroupConfig, Failure> {
        let mut config = ReaderGroupConfig::default();
        for stream in &self.streams {
            config = config.stream(stream);
        }
        for from in &self.from {
            match from.as_str() {
                "head" => {}
                "tail" => {
                    for stream in &self.streams {
                        config = config.stream_from(stream, Cut::At(client.tail_cut(stream).await?));
                    }
                }
                text => match Cut::from_text(text) {
                    Ok(Cut::At(cut)) if self.streams.contains(&cut.stream) => {
                        let stream = cut.stream.clone();
                        config = config.stream_from(&stream, Cut::At(cut));
                    }
                    Ok(Cut::At(cut)) => {
                        return Err(usage(format!("--from is a cut of {}, which is not read", cut.stream)));
                    }
                    Ok(Cut::Unbounded) => {}
                    Err(_) => return Err(usage(format!("{text:?} is neither head nor tail nor a stream cut"))),
                },
            }
        }
        for until in &self.until {
            match Cut::from_text(until) {
                Ok(Cut::At(cut)) => config = config.until(cut),
                _ => return Err(usage(format!("{until:?} is no stream cut"))),
            }
        }
        Ok(config)
    }
}

impl Action {
    /// Whether it is told of an interruption, instead of being dropped: a reader leaves its group.
    pub(super) fn ends_itself(&self) -> bool {
        matches!(self, Self::Read { .. })
    }
}

pub(super) async fn run(action: Action, client: &Client, out: &mut Output) -> Result<(), Failure> {
    match action {
        Action::Create { group, reading, retain, checkpoint_every } => {
            let mut config = reading.config(client).await?;
            config.automatic_checkpoint = (!checkpoint_every.is_zero()).then_some(checkpoint_every);
            config.retention = match retain {
                None => GroupRetention::None,
                Some(Retain::Cut) => GroupRetention::AtCut,
                Some(Retain::Checkpoint) => GroupRetention::AtCheckpoint,
            };
            let created = client.create_reader_group(&group.scope, &group.stream, &config).await?;
            let text = if created { "created" } else { "was there already:" };
            Ok(out.say(&named(&group, "created", json!(created)), format!("{text} {group}"))?)
        }
        Action::Describe { group } => describe(&open(client, &group).await?, &group, out).await,
        Action::Read { group, reader, max, idle, format } => {
            read(&open(client, &group).await?, &reader, max.unwrap_or(u64::MAX), idle, format, out).await
        }
        Action::Checkpoint { group, name } => {
            let checkpoint = open(client, &group).await?.initiate_checkpoint(&name).await?.wait().await?;
            for cut in checkpoint.cuts.values() {
                let object = json!({"checkpoint": name, "stream": cut.stream.to_string(), "cut": cut.to_text()});
                out.put(&object, cut.to_text())?;
            }
            Ok(out.flush()?)
        }
        Action::Reset { group, reading } => {
            let (opened, reading) = (open(client, &group).await?, reading.config(client).await?);
            // What is not said stays as it is.
            let config = ReaderGroupConfig { streams: reading.streams, ends: reading.ends, ..opened.config().await? };
            opened.reset(&config).await?;
            Ok(out.say(&named(&group, "reset", json!(true)), format!("reset {group}"))?)
        }
        Action::Offline { group, reader } => {
            if !open(client, &group).await?.reader_offline(&reader, None).await? {
                return Err(missing("reader", format!("{reader} of {group}")));
            }
            Ok(out.say(&named(&group, "offline", json!(reader)), format!("took {reader} out of {group}"))?)
        }
        Action::Delete { group } => {
            if !client.delete_reader_group(&group.scope, &group.stream).await? {
                return Err(missing("reader group", &group));
            }
            Ok(out.say(&named(&group, "deleted", json!(true)), format!("deleted {group}"))?)
        }
    }
}

fn named(group: &ScopedStream, what: &str, value: Value) -> Value {
    json!({"scope": group.scope.as_str(), "group": group.stream.as_str(), what: value})
}

async fn open(client: &Client, group: &ScopedStream) -> Result<ReaderGroup, Failure> {
    Ok(client.reader_group(&group.scope, &group.stream).await?)
}

async fn describe(opened: &ReaderGroup, group: &ScopedStream, out: &mut Output) -> Result<(), Failure> {
    let (config, readers) = (opened.config().await?, opened.online_readers().await?);
    let unread = opened.unread_bytes().await?;
    let streams: Vec<String> = config.streams.keys().map(ToString::to_string).collect();
    let object = json!({
        "scope": group.scope.as_str(),
        "group": group.stream.as_str(),
        "streams": streams,
        "readers": readers,
        "unread_bytes": unread,
        "checkpoint_seconds": config.automatic_checkpoint.map(|every| every.as_secs_f64()),
        "retain": match config.retention {
            GroupRetention::None => Value::Null,
            GroupRetention::AtCut => json!("cut"),
            GroupRetention::AtCheckpoint => json!("checkpoint"),
        },
    });
    let list = |names: Vec<String>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let text = format!(
        "reads     {}\nreaders   {}\nunread    {unread} bytes",
        list(streams),
        list(readers.into_iter().collect())
    );
    Ok(out.say(&object, text)?)
}

async fn read(
    group: &ReaderGroup,
    id: &str,
    max: u64,
    idle: Option<Duration>,
    format: Format,
    out: &mut Output,
) -> Result<(), Failure> {
    // Before it joins: whoever is told to end meanwhile leaves, too.
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut reader = group.reader_with(id, ReaderOptions::at_once()).await?;
    // Behind what was written to the output, whatever the reader has handed out since.
    let mut shown = reader.position();
    let mut outcome = tokio::select! {
        outcome = print(&mut reader, max, idle, format, out, &mut shown) => outcome,
        _ = interrupted.recv() => Err(Failure::Interrupted),
        _ = terminated.recv() => Err(Failure::Interrupted),
    };
    if matches!(outcome, Err(Failure::Interrupted)) {
        outcome = out.flush().map_or_else(|error| Err(error.into()), |()| outcome);
    }
    let left = timeout(LEAVING, async {
        match outcome {
            Ok(()) | Err(Failure::Interrupted) => reader.close().await,
            Err(_) => {
                // Nobody has seen what could not be shown: others read it again.
                drop(reader);
                group.reader_offline(id, Some(&shown)).await.map(drop)
            }
        }
    });
    match (left.await, outcome) {
        // What went wrong first is what a person has to know.
        (_, Err(failure)) => Err(failure),
        (Ok(left), Ok(())) => Ok(left?),
        (Err(_), Ok(())) => {
            Err(Failure::Client(Error::new(ErrorKind::Unavailable, "the reader could not leave its group")))
        }
    }
}

async fn print(
    reader: &mut EventReader,
    max: u64,
    idle: Option<Duration>,
    format: Format,
    out: &mut Output,
    shown: &mut Position,
) -> Result<(), Failure> {
    let mut left = max;
    while left > 0 {
        match next(reader, idle, out, shown).await {
            Ok(None) => break,
            Ok(Some(Delivery::Event(event))) => {
                let pointer = ReadEvent { event: event.event, segment: event.segment.id, offset: event.offset };
                put(out, &event.segment.stream, &pointer, format)?;
                left -= 1;
            }
            Ok(Some(Delivery::Checkpoint(_))) => {}
            // Retention is at work; what is left is shown.
            Err(Failure::Client(error)) if error.kind() == ErrorKind::Truncated => eprintln!("headwater: {error}"),
            Err(failure) => return Err(failure),
        }
    }
    out.flush()?;
    *shown = reader.position();
    Ok(())
}

/// `None` at the end, and when nothing has come for so long.
async fn next(
    reader: &mut EventReader,
    idle: Option<Duration>,
    out: &mut Output,
    shown: &mut Position,
) -> Result<Option<Delivery>, Failure> {
    if let Some(next) = reader.next().now_or_never() {
        return Ok(next?);
    }
    // What is shown so far is seen before waiting for more.
    out.flush()?;
    *shown = reader.position();
    match idle {
        None => Ok(reader.next().await?),
        Some(idle) => timeout(idle, reader.next()).await.map_or(Ok(None), |next| Ok(next?)),
    }
}
