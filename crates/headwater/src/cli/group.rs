//! `headwater group`.

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::sync::Arc;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use futures::FutureExt as _;
use headwater_client::{
    AcknowledgingOptions, AcknowledgingReader, Client, Cut, Delivery, Error, ErrorKind, EventPointer, EventReader,
    GroupEvent, GroupRetention, Name, Position, ReadEvent, ReaderGroup, ReaderGroupConfig, ReaderOptions, Received,
    ScopedStream, TimeWindow,
};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::event::{Format, described, put};
use super::output::Output;
use super::{Failure, duration, missing, scope_name, stream_name, usage};

/// Time a reader that is interrupted has for leaving its group.
const LEAVING: Duration = Duration::from_secs(5);
/// Between two looks at what time it is where a group reads.
const WINDOWS_EVERY: Duration = Duration::from_secs(1);
/// Lines of acknowledgements taken from the input before they are looked at.
const LINES_AHEAD: usize = 1024;

#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Action {
    /// Make a reader group
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
    /// Names of a scope's reader groups
    List {
        /// The scope
        #[arg(value_parser = scope_name)]
        scope: Name,
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
        /// Beat, and let other readers that beat take this one out of the group when it has not for so long, at least 1s; it
        /// does the same with them
        #[arg(long, value_parser = duration, value_name = "TIME")]
        dead_after: Option<Duration>,
        /// An event is read when its pointer, as --json prints it, comes back as a line of standard input; until then it comes
        /// again. Leaves when standard input ends
        #[arg(long, conflicts_with_all = ["max", "windows"])]
        acknowledge: bool,
        /// With --acknowledge: print an event again that was not acknowledged for so long
        #[arg(long, value_parser = duration, value_name = "TIME", default_value = "30s", requires = "acknowledge")]
        redeliver_after: Duration,
        /// With --json: between events, also print between which times each stream is read, as its writers noted them
        #[arg(long)]
        windows: bool,
    },
    /// Take a checkpoint, and print the cut of each stream once all readers have reached it
    Checkpoint {
        /// SCOPE/GROUP
        #[arg(value_parser = stream_name)]
        group: ScopedStream,
        /// Its name, which no checkpoint that the group remembers has; without it, it gets one that no other has
        name: Option<String>,
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
        Action::List { scope } => {
            for group in client.reader_groups(&scope).await? {
                out.put(&json!({"scope": scope.as_str(), "group": group.as_str()}), format!("{scope}/{group}"))?;
            }
            Ok(out.flush()?)
        }
        Action::Describe { group } => describe(&open(client, &group).await?, &group, out).await,
        Action::Read { group, reader, idle, dead_after, acknowledge: true, redeliver_after, .. } => {
            if !out.is_json() {
                return Err(usage("--acknowledge needs --json, which prints the pointers of events"));
            }
            let options = AcknowledgingOptions { redeliver_after, dead_after, ..AcknowledgingOptions::default() };
            acknowledged(&open(client, &group).await?, &reader, options, idle, out).await
        }
        Action::Read { group, reader, max, idle, format, dead_after, windows, .. } => {
            if windows && !out.is_json() {
                return Err(usage("--windows needs --json"));
            }
            let opened = open(client, &group).await?;
            let streams = if windows { opened.config().await?.streams.into_keys().collect() } else { Vec::new() };
            let windows = Windows { streams, told: BTreeMap::new(), due: Instant::now() };
            let asked = Asked { left: max.unwrap_or(u64::MAX), idle, format, windows };
            let options = ReaderOptions { dead_after, ..ReaderOptions::at_once() };
            read(&opened, &reader, options, asked, out).await
        }
        Action::Checkpoint { group, name } => {
            let name = name.unwrap_or_else(|| format!("headwater-cli-{}", uuid::Uuid::new_v4()));
            let checkpoint = open(client, &group).await?.initiate_checkpoint(&name).await?.wait().await?;
            if !out.is_json() {
                // Standard output has the cuts alone, for those who put them into variables.
                eprintln!("headwater: checkpoint {name}");
            }
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

/// What a reader is to print.
struct Asked {
    /// So many events.
    left: u64,
    idle: Option<Duration>,
    format: Format,
    windows: Windows,
}

/// Between which times streams are read, as far as somebody wants to know.
struct Windows {
    streams: Vec<ScopedStream>,
    told: BTreeMap<ScopedStream, TimeWindow>,
    due: Instant,
}

impl Windows {
    /// Prints those that are others than before, every now and then.
    async fn look(&mut self, reader: &mut EventReader, out: &mut Output) -> Result<(), Failure> {
        if self.streams.is_empty() || Instant::now() < self.due {
            return Ok(());
        }
        for stream in &self.streams {
            let window = reader.time_window(stream).await?;
            if self.told.insert(stream.clone(), window) != Some(window) {
                let TimeWindow { lower, upper } = window;
                out.put(&json!({"stream": stream.to_string(), "lower": lower, "upper": upper}), "")?;
            }
        }
        self.due = Instant::now() + WINDOWS_EVERY;
        Ok(())
    }
}

async fn read(
    group: &ReaderGroup,
    id: &str,
    options: ReaderOptions,
    asked: Asked,
    out: &mut Output,
) -> Result<(), Failure> {
    // Before it joins: whoever is told to end meanwhile leaves, too.
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut reader = group.reader_with(id, options).await?;
    // Behind what was written to the output, whatever the reader has handed out since.
    let mut shown = reader.position();
    let mut outcome = tokio::select! {
        outcome = print(&mut reader, asked, out, &mut shown) => outcome,
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
    told(left.await.ok(), outcome)
}

/// How it ended: `left` is `None` if the reader could not leave in time.
fn told(left: Option<Result<(), Error>>, outcome: Result<(), Failure>) -> Result<(), Failure> {
    match (left, outcome) {
        // What went wrong first is what a person has to know.
        (_, Err(failure)) => Err(failure),
        (Some(left), Ok(())) => Ok(left?),
        (None, Ok(())) => {
            Err(Failure::Client(Error::new(ErrorKind::Unavailable, "the reader could not leave its group")))
        }
    }
}

async fn print(reader: &mut EventReader, asked: Asked, out: &mut Output, shown: &mut Position) -> Result<(), Failure> {
    let Asked { mut left, idle, format, mut windows } = asked;
    while left > 0 {
        match next(reader, idle, &mut windows, out, shown).await {
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
    windows: &mut Windows,
    out: &mut Output,
    shown: &mut Position,
) -> Result<Option<Delivery>, Failure> {
    let begun = Instant::now();
    loop {
        windows.look(reader, out).await?;
        if let Some(next) = reader.next().now_or_never() {
            return Ok(next?);
        }
        // What is shown so far is seen before waiting for more.
        out.flush()?;
        *shown = reader.position();
        let rest = idle.map(|idle| idle.saturating_sub(begun.elapsed()));
        let slice = if windows.streams.is_empty() { None } else { Some(WINDOWS_EVERY) };
        let Some(limit) = rest.into_iter().chain(slice).min() else { return Ok(reader.next().await?) };
        match timeout(limit, reader.next()).await {
            Ok(next) => return Ok(next?),
            Err(_) if rest == Some(limit) => return Ok(None),
            Err(_) => {}
        }
    }
}

/// Prints events until they are acknowledged.
async fn acknowledged(
    group: &ReaderGroup,
    id: &str,
    options: AcknowledgingOptions,
    idle: Option<Duration>,
    out: &mut Output,
) -> Result<(), Failure> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let (lines, acknowledgements) = mpsc::channel(LINES_AHEAD);
    // A thread of its own, which may wait for somebody when the process ends.
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let is_over = line.is_err();
            if lines.blocking_send(line).is_err() || is_over {
                return;
            }
        }
    });
    let mut reader = group.acknowledging_reader(id, options).await?;
    let outcome = tokio::select! {
        outcome = hand_out(&mut reader, acknowledgements, idle, out) => outcome,
        _ = interrupted.recv() => Err(Failure::Interrupted),
        _ = terminated.recv() => Err(Failure::Interrupted),
    };
    // Whatever went wrong: others go on with what is not acknowledged.
    let left = timeout(LEAVING, reader.close()).await;
    told(left.ok(), outcome)
}

async fn hand_out(
    reader: &mut AcknowledgingReader,
    mut acknowledgements: mpsc::Receiver<std::io::Result<String>>,
    idle: Option<Duration>,
    out: &mut Output,
) -> Result<(), Failure> {
    let acknowledger = reader.acknowledger();
    let mut last = Instant::now();
    loop {
        let until = idle.and_then(|idle| last.checked_add(idle));
        tokio::select! {
            biased; // acknowledgements first: they make room for events
            line = acknowledgements.recv() => match line {
                None => return Ok(()),
                Some(Err(source)) => return Err(Failure::Input { what: "standard input".to_owned(), source }),
                Some(Ok(line)) if line.trim().is_empty() => {}
                Some(Ok(line)) => {
                    let event = event_at(line.trim())?;
                    if !acknowledger.acknowledge(&event) {
                        eprintln!("headwater: nobody waits for {}: it was acknowledged before, or is another reader's", line.trim());
                    }
                }
            },
            received = received(reader) => match received {
                Ok(None) => return Ok(()),
                Ok(Some(Received { event, attempt })) => {
                    let mut object = described(&event.event, event.pointer()?.to_string());
                    object["attempt"] = json!(attempt);
                    // Whoever handles it waits for it.
                    out.say(&object, "")?;
                    last = Instant::now();
                }
                Err(error) if error.kind() == ErrorKind::Truncated => eprintln!("headwater: {error}"),
                Err(error) => return Err(error.into()),
            },
            () = async { sleep_until(until.expect("it is only waited for with an end")).await }, if until.is_some() => {
                return Ok(());
            }
        }
    }
}

/// The next event. With as many unacknowledged as there may be, it waits for one that is acknowledged, or due again.
async fn received(reader: &mut AcknowledgingReader) -> Result<Option<Received>, Error> {
    reader.room().await?;
    reader.next().await
}

/// What an acknowledgement is about: only its place counts.
fn event_at(pointer: &str) -> Result<GroupEvent, Failure> {
    let bad = || usage(format!("{pointer:?} is no event pointer"));
    let EventPointer { segment, offset, .. } = pointer.parse::<EventPointer>().map_err(|_| bad())?;
    let offset = u64::try_from(offset).map_err(|_| bad())?;
    Ok(GroupEvent { event: Default::default(), segment: Arc::new(segment), offset })
}
