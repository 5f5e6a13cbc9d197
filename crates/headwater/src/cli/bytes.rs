//! `headwater bytes`.

use std::io::Read as _;
use std::path::PathBuf;
use std::time::Instant;

use bytes::Bytes;
use clap::Subcommand;
use headwater_client::{Client, ScopedStream};
use serde_json::json;

use super::event::Progress;
use super::output::Output;
use super::{Failure, input, size, stream_name, usage};

/// Read from input at a time, in bytes.
const PIECE_BYTES: usize = 1 << 20;

#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Action {
    /// Append a file, or standard input, to a stream of one segment
    Write {
        /// SCOPE/STREAM
        #[arg(value_parser = stream_name)]
        stream: ScopedStream,
        /// The file; standard input without it
        file: Option<PathBuf>,
    },
    /// Copy bytes of a stream to standard output, up to what is there now
    Read {
        /// SCOPE/STREAM
        #[arg(value_parser = stream_name)]
        stream: ScopedStream,
        /// Offset to begin at, in bytes; with a hyphen before it, so many bytes before the end. Without it, the first that is left
        #[arg(long, value_name = "OFFSET", allow_hyphen_values = true)]
        from: Option<String>,
        /// No more bytes than so many
        #[arg(long, value_parser = size, value_name = "SIZE")]
        max: Option<u64>,
        /// Go on at the end until interrupted, or until the stream is sealed
        #[arg(long)]
        follow: bool,
    },
    /// The offsets of the first byte that is left and behind the last one
    Describe {
        /// SCOPE/STREAM
        #[arg(value_parser = stream_name)]
        stream: ScopedStream,
    },
    /// Drop all bytes before an offset
    Truncate {
        /// SCOPE/STREAM
        #[arg(value_parser = stream_name)]
        stream: ScopedStream,
        /// The offset, in bytes
        #[arg(long)]
        to: u64,
    },
}

pub(super) async fn run(action: Action, client: &Client, out: &mut Output) -> Result<(), Failure> {
    match action {
        Action::Write { stream, file } => write(client, out, &stream, file).await,
        Action::Read { .. } if out.is_json() => Err(usage("bytes are printed as they are: there is no --json of them")),
        Action::Read { stream, from, max, follow } => {
            let mut reader = client.byte_reader(&stream, 0).await?;
            let (head, tail) = (reader.head().await?, reader.tail().await?);
            let from = match from.as_deref() {
                None => head,
                Some(text) => match text.strip_prefix('-') {
                    Some(before) => tail.saturating_sub(size(before).map_err(usage)?).max(head),
                    None => size(text).map_err(usage)?,
                },
            };
            reader.seek_to(from);
            let end = if follow { u64::MAX } else { tail };
            let mut left = max.unwrap_or(u64::MAX).min(end.saturating_sub(from));
            while left > 0 {
                let Some(mut bytes) = reader.next().await? else { break };
                bytes.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                out.put_raw(&bytes)?;
                left -= bytes.len() as u64;
                if follow {
                    out.flush()?;
                }
            }
            Ok(out.flush()?)
        }
        Action::Describe { stream } => {
            let reader = client.byte_reader(&stream, 0).await?;
            let (head, tail) = (reader.head().await?, reader.tail().await?);
            let object = json!({
                "scope": stream.scope.as_str(),
                "stream": stream.stream.as_str(),
                "head": head,
                "tail": tail,
            });
            Ok(out.say(&object, format!("head      {head}\ntail      {tail}"))?)
        }
        Action::Truncate { stream, to } => {
            client.byte_writer(&stream, Default::default()).await?.truncate(to).await?;
            let object = json!({"scope": stream.scope.as_str(), "stream": stream.stream.as_str(), "head": to});
            Ok(out.say(&object, format!("truncated {stream} to {to}"))?)
        }
    }
}

async fn write(client: &Client, out: &mut Output, stream: &ScopedStream, file: Option<PathBuf>) -> Result<(), Failure> {
    let (name, mut input) = input(file.as_deref())?;
    let writer = client.byte_writer(stream, Default::default()).await?;
    let (pieces, mut read) = tokio::sync::mpsc::channel::<Bytes>(16);
    // Input is read by a thread of its own, since it may wait for a person.
    let reading = std::thread::spawn(move || -> std::io::Result<()> {
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            let length = input.read(&mut piece)?;
            piece.truncate(length);
            if length == 0 || pieces.blocking_send(piece.into()).is_err() {
                return Ok(());
            }
        }
    });
    let (mut bytes, begun) = (0_u64, Instant::now());
    let mut progress = Progress::new(out.is_json());
    while let Some(piece) = read.recv().await {
        bytes += piece.len() as u64;
        // Failures are told by the flush in the end.
        drop(writer.write(piece).await?);
        progress.show(format_args!("{bytes} bytes"));
    }
    writer.flush().await?;
    reading.join().expect("the thread does not panic").map_err(|source| Failure::Input { what: name, source })?;
    progress.end();
    let (seconds, tail) = (begun.elapsed().as_secs_f64(), writer.tail().await?);
    let object = json!({
        "scope": stream.scope.as_str(),
        "stream": stream.stream.as_str(),
        "bytes": bytes,
        "tail": tail,
        "seconds": seconds,
    });
    Ok(out.say(&object, format!("wrote {bytes} bytes in {seconds:.2} s; the stream ends at {tail}"))?)
}
