//! `headwater event`.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{BufRead, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use clap::{Subcommand, ValueEnum};
use futures::FutureExt as _;
use headwater_client::{
    Ack, Client, Error, ErrorKind, EventWriter, NumberedWriter, ReadEvent, ReadFrom, ScopedStream, SegmentSlice,
    SliceReader, StreamCut, StreamReader, Transaction,
};
use serde_json::{Value, json};

use super::output::Output;
use super::{Failure, cut_of, input, stream_name, usage};

/// Longest line taken from input, in bytes; a longer one is refused before it fills memory.
const LINE_BYTES_MAX: u64 = 64 << 20;
/// Between two lines of progress on a terminal.
const PROGRESS_EVERY: std::time::Duration = std::time::Duration::from_millis(200);

#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Action {
    /// Write each line of a file, or of standard input, as an event
    Write {
        /// SCOPE/STREAM
        #[arg(value_parser = stream_name)]
        stream: ScopedStream,
        /// The file; standard input without it
        file: Option<PathBuf>,
        #[command(flatten)]
        keys: Keys,
        #[command(flatten)]
        way: Way,
    },
    /// Print events, up to what is there now
    Read {
        /// SCOPE/STREAM
        #[arg(value_parser = stream_name)]
        stream: ScopedStream,
        /// Where to begin: head, tail, or a cut as `stream cut` prints it
        #[arg(long, default_value = "head")]
        from: String,
        /// Where to end, in the same words: exactly what lies between the two, segment by segment
        #[arg(long, value_name = "CUT")]
        to: Option<String>,
        #[command(flatten)]
        shown: Shown,
        /// Go on at the tail until interrupted
        #[arg(long, conflicts_with = "to")]
        follow: bool,
    },
    /// Print events as they are written, until interrupted
    Tail {
        /// SCOPE/STREAM
        #[arg(value_parser = stream_name)]
        stream: ScopedStream,
        #[command(flatten)]
        shown: Shown,
    },
    /// Print the event at a pointer, as `event read --json` shows it
    Get {
        /// SCOPE/STREAM/NUMBER.#epoch.EPOCH:OFFSET-LENGTH
        pointer: String,
        /// How to show it
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

/// Where keys come from.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Keys {
    /// The same routing key for all events
    #[arg(long, conflicts_with_all = ["key_field", "key_before_tab"])]
    key: Option<String>,
    /// Events are JSON objects; this field of theirs is the key
    #[arg(long, value_name = "FIELD", conflicts_with = "key_before_tab")]
    key_field: Option<String>,
    /// The key stands before the first tab of a line, the event behind it
    #[arg(long)]
    key_before_tab: bool,
}

/// How the input becomes events.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Way {
    /// The file is one event, whatever is in it
    #[arg(long)]
    whole: bool,
    /// All in one transaction: they become readable together, or none of them
    #[arg(long)]
    transaction: bool,
    /// Store each event once under this name, which is for this input alone: a command that was interrupted is given again
    /// with the same input and keys, and goes on where it stopped; the input may have grown by whole lines. Without keys, each
    /// event has its own
    #[arg(long, value_name = "NAME", conflicts_with_all = ["whole", "transaction"])]
    numbered: Option<String>,
}

/// Which events are shown, and how.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Shown {
    /// No more than so many
    #[arg(long, value_name = "N")]
    max: Option<u64>,
    /// Only events with this text in them
    #[arg(long, value_name = "TEXT")]
    containing: Option<String>,
    /// How to show them; --json has the text, or base64 where it is none
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// How an event is shown.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub(crate) enum Format {
    /// Its bytes as they are
    #[default]
    Raw,
    /// Base64
    Base64,
    /// Hexadecimal digits
    Hex,
}

impl Format {
    /// These bytes as they are shown.
    pub(super) fn shown(self, bytes: &[u8]) -> Cow<'_, [u8]> {
        match self {
            Self::Raw => bytes.into(),
            Self::Base64 => STANDARD.encode(bytes).into_bytes().into(),
            Self::Hex => bytes.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect(),
        }
    }
}

pub(super) async fn run(action: Action, client: &Client, out: &mut Output) -> Result<(), Failure> {
    match action {
        Action::Write { stream, file, keys, way } => write(client, out, &stream, file.as_deref(), &keys, way).await,
        Action::Read { stream, from, to, shown, follow } => {
            // Without a cut, retention may go on while it is read.
            let from = if from == "head" { None } else { Some(cut_of(client, &stream, &from).await?) };
            let reading = match to {
                Some(to) => {
                    let to = cut_of(client, &stream, &to).await?;
                    let left = client.slices_between(&stream, from.as_ref(), Some(&to)).await?.into();
                    Reading::Between { client: client.clone(), left, current: None }
                }
                None => {
                    let until = if follow { None } else { Some(client.tail_cut(&stream).await?) };
                    let from = from.map_or(ReadFrom::Head, ReadFrom::Cut);
                    Reading::On { reader: client.stream_reader(&stream, from).await?, until }
                }
            };
            read(out, &stream, reading, &shown).await
        }
        Action::Tail { stream, shown } => {
            let reader = client.stream_reader(&stream, ReadFrom::Tail).await?;
            read(out, &stream, Reading::On { reader, until: None }, &shown).await
        }
        Action::Get { pointer, format } => {
            let pointer = pointer.parse().map_err(|_| usage(format!("{pointer:?} is no event pointer")))?;
            let event = client.fetch_event(&pointer).await?;
            let object = described(&event, pointer.to_string());
            show(out, &object, &event, format)?;
            Ok(out.flush()?)
        }
    }
}

/// Whatever takes events.
enum Writing {
    Stream(EventWriter),
    Transaction(Transaction),
    Numbered(NumberedWriter),
}

impl Writing {
    /// `number`: its place in the input. `None`: it was stored before.
    async fn write(&self, number: u64, key: Option<&str>, event: Bytes) -> Result<Option<Ack>, Error> {
        let ack = match (self, key) {
            (Self::Stream(writer), Some(key)) => writer.write(key, event).await?,
            (Self::Stream(writer), None) => writer.write_anywhere(event).await?,
            (Self::Transaction(transaction), key) => transaction.write(key.unwrap_or_default(), event).await?,
            (Self::Numbered(writer), key) => {
                // The same in each run, and all segments get their part.
                let key = key.map_or_else(|| number.to_string().into(), Cow::Borrowed);
                if writer.is_stored(number, &key) {
                    return Ok(None);
                }
                writer.write(number, &key, event).await?
            }
        };
        Ok(Some(ack))
    }

    /// Waits until all that was taken is stored, or has failed. A transaction's events are stored by its commit.
    async fn flush(&self) -> Result<(), Error> {
        match self {
            Self::Stream(writer) => writer.flush().await,
            Self::Numbered(writer) => writer.flush().await,
            Self::Transaction(transaction) => transaction.flush().await,
        }
    }
}

/// What has become of the lines of the input.
#[derive(Default)]
struct Lines {
    read: u64,
    /// Events handed over, which are all but those that were stored before, and their bytes.
    events: u64,
    bytes: u64,
    stored: u64,
    /// Given up after they may have been sent.
    doubtful: u64,
    /// Handed over, and not known to be stored; oldest first.
    under_way: VecDeque<Ack>,
}

impl Lines {
    fn took(&mut self, ack: Ack, bytes: u64) {
        (self.events, self.bytes) = (self.events + 1, self.bytes + bytes);
        self.under_way.push_back(ack);
        while let Some(outcome) = self.under_way.front_mut().and_then(|ack| ack.now_or_never()) {
            self.under_way.pop_front();
            self.count(Some(outcome.map(drop)));
        }
    }

    fn count(&mut self, outcome: Option<Result<(), Error>>) {
        match outcome {
            Some(Ok(())) => self.stored += 1,
            Some(Err(error)) if error.kind() != ErrorKind::Unavailable => {}
            Some(Err(_)) | None => self.doubtful += 1,
        }
    }

    /// The failure of a command whose events were not all taken.
    fn lost(mut self, source: Error, hint: Option<&'static str>) -> Failure {
        if self.events == 0 {
            return source.into();
        }
        for ack in std::mem::take(&mut self.under_way) {
            self.count(ack.now_or_never().map(|outcome| outcome.map(drop)));
        }
        Failure::Lost { stored: self.stored, doubtful: self.doubtful, hint, source }
    }
}

async fn write(
    client: &Client,
    out: &mut Output,
    stream: &ScopedStream,
    file: Option<&Path>,
    keys: &Keys,
    way: Way,
) -> Result<(), Failure> {
    let Way { whole, transaction, numbered } = way;
    if whole && (keys.key_field.is_some() || keys.key_before_tab) {
        return Err(usage("--whole takes its key from --key"));
    }
    let (name, input) = input(file)?;
    let writing = if transaction {
        Writing::Transaction(client.transaction_writer(stream, Default::default()).begin().await?)
    } else if let Some(name) = &numbered {
        Writing::Numbered(client.numbered_writer(stream, name, Default::default()).await?)
    } else {
        Writing::Stream(client.event_writer(stream, Default::default()).await?)
    };
    let (mut lines, begun) = (Lines::default(), Instant::now());
    let mut progress = Progress::new(out.is_json());
    // Input is read by a thread of its own, since it may wait for a person.
    let (feeding, mut fed) = tokio::sync::mpsc::channel(1024);
    let reading = std::thread::spawn(move || feed(input, whole, &feeding));
    let outcome = match pour(&writing, keys, &mut fed, &mut lines, &mut progress).await {
        Ok(()) => {
            reading.join().expect("the thread does not panic").map_err(|source| Failure::Input { what: name, source })
        }
        failed => failed,
    };
    match (writing, outcome) {
        (Writing::Transaction(transaction), Ok(())) => transaction.commit(None).await?.committed().await?,
        // Nothing of it is ever readable.
        (Writing::Transaction(_), Err(failure)) => return Err(failure),
        (writing, outcome) => match (outcome, writing.flush().await) {
            (Ok(()), Ok(())) => {}
            (Err(Failure::Client(error)), _) | (_, Err(error)) => {
                let hint = match (&numbered, whole) {
                    (Some(_), _) => Some("The same command, given again, stores what is missing, and nothing twice."),
                    (None, true) => None,
                    (None, false) => Some(
                        "A command with --numbered NAME can be given again: it stores what is missing, and nothing twice.",
                    ),
                };
                return Err(lines.lost(error, hint));
            }
            (Err(failure), Ok(())) => {
                return Err(Failure::Partly { written: lines.events, source: Box::new(failure) });
            }
        },
    }
    let Lines { read, events: count, bytes, .. } = lines;
    progress.end();
    let seconds = begun.elapsed().as_secs_f64();
    let mut object = json!({
        "scope": stream.scope.as_str(),
        "stream": stream.stream.as_str(),
        "events": count,
        "bytes": bytes,
        "seconds": seconds,
    });
    let mut text = format!("wrote {count} events of {bytes} bytes in {seconds:.2} s");
    if numbered.is_some() {
        let before = read - count;
        object["stored_before"] = json!(before);
        text.push_str(&format!("; {before} were stored before"));
    }
    Ok(out.say(&object, text)?)
}

/// Hands over what the input has. Whoever calls waits for what was taken.
async fn pour(
    writing: &Writing,
    keys: &Keys,
    fed: &mut tokio::sync::mpsc::Receiver<Bytes>,
    lines: &mut Lines,
    progress: &mut Progress,
) -> Result<(), Failure> {
    while let Some(line) = fed.recv().await {
        lines.read += 1;
        let (key, event) = keyed(keys, line, lines.read)?;
        let length = event.len() as u64;
        if let Some(ack) = writing.write(lines.read, key.as_deref(), event).await? {
            lines.took(ack, length);
        }
        progress.show(format_args!("{} events, {} bytes", lines.events, lines.bytes));
    }
    Ok(())
}

/// Hands on the lines of the input, or all of it.
fn feed(
    mut input: Box<dyn BufRead + Send>,
    whole: bool,
    lines: &tokio::sync::mpsc::Sender<Bytes>,
) -> std::io::Result<()> {
    if whole {
        let mut all = Vec::new();
        input.read_to_end(&mut all)?;
        let _ = lines.blocking_send(all.into());
        return Ok(());
    }
    loop {
        let mut line = Vec::new();
        let bytes = (&mut input).take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        if bytes == 0 {
            return Ok(());
        }
        if bytes as u64 == LINE_BYTES_MAX && line.last() != Some(&b'\n') {
            return Err(std::io::Error::other(format!("a line has more than {LINE_BYTES_MAX} bytes")));
        }
        while line.last().is_some_and(|byte| b"\r\n".contains(byte)) {
            line.pop();
        }
        // An empty line is no event: there are none without bytes.
        if !line.is_empty() && lines.blocking_send(line.into()).is_err() {
            return Ok(());
        }
    }
}

fn keyed(keys: &Keys, line: Bytes, number: u64) -> Result<(Option<String>, Bytes), Failure> {
    if let Some(key) = &keys.key {
        return Ok((Some(key.clone()), line));
    }
    if let Some(field) = &keys.key_field {
        let object: Value = serde_json::from_slice(&line)
            .map_err(|error| usage(format!("line {number} is no JSON object: {error}")))?;
        let key = match object.get(field) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => return Err(usage(format!("line {number} has no field {field:?}"))),
            Some(other) => other.to_string(),
        };
        return Ok((Some(key), line));
    }
    if keys.key_before_tab {
        let tab = line.iter().position(|byte| *byte == b'\t');
        let tab = tab.ok_or_else(|| usage(format!("line {number} has no tab")))?;
        let key = std::str::from_utf8(&line[..tab]).map_err(|_| usage(format!("key of line {number} is no text")))?;
        return Ok((Some(key.to_owned()), line.slice(tab + 1..)));
    }
    Ok((None, line))
}

/// Where events come from.
enum Reading {
    /// From somewhere on, up to what was there or for ever.
    On { reader: StreamReader, until: Option<StreamCut> },
    /// What lies between two cuts, slice by slice.
    Between { client: Client, left: VecDeque<SegmentSlice>, current: Option<SliceReader> },
}

impl Reading {
    async fn next(&mut self) -> Result<Option<ReadEvent>, Error> {
        match self {
            Self::On { reader, until: Some(until) } => reader.next_before(until).await,
            Self::On { reader, until: None } => reader.next().await,
            Self::Between { client, left, current } => {
                while let Some(slice) = left.front() {
                    let reader = current.get_or_insert_with(|| client.read_slice(slice));
                    if let Some((offset, event)) = reader.next().await? {
                        return Ok(Some(ReadEvent { event, segment: slice.segment, offset }));
                    }
                    *current = None;
                    left.pop_front();
                }
                Ok(None)
            }
        }
    }
}

async fn read(out: &mut Output, stream: &ScopedStream, mut reading: Reading, shown: &Shown) -> Result<(), Failure> {
    let mut left = shown.max.unwrap_or(u64::MAX);
    while left > 0 {
        let mut next = pin!(reading.next());
        // What is shown so far is seen before waiting for more.
        let next = match next.as_mut().now_or_never() {
            Some(next) => next,
            None => {
                out.flush()?;
                next.await
            }
        };
        match next {
            Ok(None) => break,
            Ok(Some(event)) => {
                let wanted = shown.containing.as_ref();
                if wanted.is_some_and(|text| !contains(&event.event, text.as_bytes())) {
                    continue;
                }
                put(out, stream, &event, shown.format)?;
                left -= 1;
            }
            // Retention is at work; what is left is shown.
            Err(error) if error.kind() == ErrorKind::Truncated => eprintln!("headwater: {error}"),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(out.flush()?)
}

pub(super) fn put(out: &mut Output, stream: &ScopedStream, event: &ReadEvent, format: Format) -> Result<(), Failure> {
    let object = if out.is_json() { described(&event.event, event.pointer(stream)?.to_string()) } else { Value::Null };
    show(out, &object, &event.event, format)
}

pub(super) fn described(event: &[u8], pointer: String) -> Value {
    match std::str::from_utf8(event) {
        Ok(text) => json!({"pointer": pointer, "text": text}),
        Err(_) => json!({"pointer": pointer, "base64": STANDARD.encode(event)}),
    }
}

fn show(out: &mut Output, object: &Value, event: &[u8], format: Format) -> Result<(), Failure> {
    if out.is_json() {
        return Ok(out.put(object, "")?);
    }
    Ok(out.put_bytes(&format.shown(event))?)
}

fn contains(event: &[u8], text: &[u8]) -> bool {
    text.is_empty() || event.windows(text.len()).any(|window| window == text)
}

/// A line that is written over and over, for a person at a terminal.
pub(super) struct Progress {
    last: Option<Instant>,
}

impl Progress {
    pub(super) fn new(is_json: bool) -> Self {
        Self { last: (!is_json && std::io::stderr().is_terminal()).then(Instant::now) }
    }

    pub(super) fn show(&mut self, so_far: std::fmt::Arguments<'_>) {
        if let Some(last) = &mut self.last
            && last.elapsed() >= PROGRESS_EVERY
        {
            *last = Instant::now();
            eprint!("\r{so_far} ");
        }
    }

    pub(super) fn end(&self) {
        if self.last.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}
