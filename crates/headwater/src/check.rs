//! `headwater check`: what the engine finds in a data directory, for people and for programs.
//!
//! People get a line for each finding on standard output and a last line with the verdict; programs get one JSON object,
//! described in `docs/operations.md`. The exit code says the same: 0 only if nothing is doubtful (with `--repair`: any more).

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use headwater_server::check::repair::{self, Repair, Repaired};
use headwater_server::check::{self, CheckError, Finding, Progress, Severity, Summary, Watch};
use headwater_server::{BucketOptions, S3Location};
use serde_json::{Value, json};

use crate::backup;
use crate::exit;
use crate::serve::{chain, print};
use crate::storage;

/// Findings that are kept for the JSON object; the counts in it are always of all.
const FINDINGS_MAX: usize = 100_000;
/// How often a terminal is told how far the check is.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// What to check and how to say it.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// Data directory that no server uses, or a backup of one in a directory or at s3://bucket/prefix
    directory: PathBuf,
    /// Object storage that has its chunks, as `serve` is told; without it they are not looked at, which is a doubt
    #[arg(long, value_name = "URL", value_parser = S3Location::parse)]
    chunks: Option<S3Location>,
    /// Print one JSON object instead of lines for people
    #[arg(long)]
    json: bool,
    /// Put right what is proven to be harmless, keep what it was below `aside`, and check again
    #[arg(long)]
    repair: bool,
}

/// Checks; returns the code to end with.
pub(crate) fn run(arguments: &Arguments) -> i32 {
    if let Some(place) = arguments.directory.to_str().filter(|text| text.starts_with("s3://")) {
        if arguments.repair {
            let error = CheckError::Backup { path: arguments.directory.clone() };
            eprintln!("headwater: {}", chain(&error));
            return of_error(&error);
        }
        if arguments.chunks.is_some() {
            eprintln!("headwater: {place} would be a backup, which has its chunks in itself: leave out --chunks");
            return exit::USAGE;
        }
        return backup::judge(place, arguments.json);
    }
    let bucket = match arguments.chunks.as_ref().map(storage::chunks).transpose() {
        Ok(bucket) => bucket,
        Err(reason) => {
            eprintln!("headwater: {reason}");
            return exit::SETTINGS;
        }
    };
    let (directory, bucket) = (&arguments.directory, bucket.as_ref());
    let judged = match arguments.repair {
        true => mend(directory, bucket, arguments.json),
        false => judge(directory, bucket, arguments.json),
    };
    match judged {
        Ok(summary) if summary.is_sound() => 0,
        Ok(_) => exit::DOUBT,
        Err(error) => {
            eprintln!("headwater: {}", chain(&error));
            of_error(&error)
        }
    }
}

/// Checks a directory, with the bucket that has its chunks if there is one, and prints what is found.
///
/// # Errors
/// As [`check::directory_with_bucket`].
pub(crate) fn judge(directory: &Path, bucket: Option<&BucketOptions>, json: bool) -> Result<Summary, CheckError> {
    let shown = directory.to_string_lossy();
    tell(&shown, json, |watch| match bucket {
        Some(bucket) => check::directory_with_bucket(directory, bucket, watch),
        None => check::directory(directory, watch),
    })
}

/// Prints what a check finds, and its verdict.
pub(crate) fn tell<E>(
    shown: &str,
    json: bool,
    check: impl FnOnce(&mut dyn Watch) -> Result<Summary, E>,
) -> Result<Summary, E> {
    let begun = now();
    let mut teller = Teller::new(json);
    let result = quietly(|| check(&mut teller));
    teller.clear_line();
    let summary = result?;
    if json {
        print(&format!("{}\n", object(shown, &teller, &summary)));
    } else {
        print(&format!("{}\n", verdict(&summary, begun.elapsed())));
    }
    Ok(summary)
}

/// Checks a directory, puts right what is harmless, checks again and prints all of that. What is returned is how the store
/// is afterwards.
///
/// # Errors
/// As [`repair::directory`].
fn mend(directory: &Path, bucket: Option<&BucketOptions>, json: bool) -> Result<Summary, CheckError> {
    let begun = now();
    let (mut before, mut after) = (Teller::new(json), Teller { speaks: false, ..Teller::new(json) });
    let result = quietly(|| repair::directory(directory, bucket, &mut before, &mut after));
    before.clear_line();
    after.clear_line();
    let repaired = result?;
    if json {
        print(&format!("{}\n", repaired_object(&directory.to_string_lossy(), &before, &after, &repaired)));
        return Ok(repaired.after);
    }
    if repaired.repairs.is_empty() {
        // What the second check finds is what the first has found.
        let left = if repaired.before.is_sound() {
            "nothing to repair"
        } else {
            "nothing repaired: there are doubts that no repair settles"
        };
        print(&format!("{left}\n"));
    } else {
        print("checked again:\n");
        after.lines.iter().for_each(|line| print(&format!("{line}\n")));
    }
    print(&format!("{}\n", verdict(&repaired.after, begun.elapsed())));
    Ok(repaired.after)
}

/// A contradiction in a store is a finding of its own; the words of an assertion would only disturb the list.
fn quietly<T>(check: impl FnOnce() -> T) -> T {
    std::panic::set_hook(Box::new(|_| {}));
    let result = check();
    drop(std::panic::take_hook());
    result
}

/// The code for a directory that cannot be judged.
pub(crate) fn of_error(error: &CheckError) -> i32 {
    match error {
        CheckError::NotAStore { .. } | CheckError::Backup { .. } => exit::SETTINGS,
        CheckError::Locked { .. } => exit::CANNOT_CREATE,
        CheckError::Directory { source, .. } if source.kind() == std::io::ErrorKind::NotFound => exit::NO_INPUT,
        CheckError::Directory { source, .. } if source.kind() == std::io::ErrorKind::NotADirectory => exit::NO_INPUT,
        CheckError::Directory { .. } => exit::CANNOT_CREATE,
        CheckError::Store { source, .. } | CheckError::Repair { source, .. } => exit::of_store(source),
    }
}

#[allow(clippy::disallowed_methods, reason = "a person waits; the store's own time is not concerned")]
fn now() -> Instant {
    Instant::now()
}

/// Says things as they come, or keeps them.
struct Teller {
    json: bool,
    /// Prints lines for people at once.
    speaks: bool,
    findings: Vec<Value>,
    repairs: Vec<Value>,
    /// Lines that were not printed.
    lines: Vec<String>,
    left_out: u64,
    told: Instant,
    /// A line on the terminal says how far we are.
    has_line: bool,
}

impl Teller {
    fn new(json: bool) -> Self {
        Self {
            json,
            speaks: !json,
            findings: Vec::new(),
            repairs: Vec::new(),
            lines: Vec::new(),
            left_out: 0,
            told: now(),
            has_line: false,
        }
    }

    fn clear_line(&mut self) {
        if std::mem::take(&mut self.has_line) {
            eprint!("\r\x1b[K");
        }
    }
}

impl Watch for Teller {
    fn finding(&mut self, finding: Finding) {
        if self.speaks {
            self.clear_line();
            print(&format!("{}\n", line(&finding)));
        } else if self.findings.len() + self.lines.len() >= FINDINGS_MAX {
            self.left_out += 1;
        } else if self.json {
            self.findings.push(value(&finding));
        } else {
            self.lines.push(line(&finding));
        }
    }

    fn repaired(&mut self, repair: &Repair) {
        if self.speaks {
            self.clear_line();
            let Repair { code, file, aside, what } = repair;
            print(&format!("fixed {}: {what}: {} [{code}]\n", plain(file), plain(aside)));
        } else {
            let Repair { code, file, aside, what } = repair;
            self.repairs.push(json!({ "code": code, "file": file, "aside": aside, "what": what }));
        }
    }

    fn progress(&mut self, progress: Progress<'_>) -> bool {
        if self.told.elapsed() >= PROGRESS_EVERY && std::io::stderr().is_terminal() {
            self.told = now();
            self.has_line = true;
            let percent = (progress.bytes * 100).checked_div(progress.bytes_total).unwrap_or(0).min(100);
            eprint!("\r\x1b[K{percent:3} % of {}, {}", size(progress.bytes_total), progress.place);
            let _ = std::io::stderr().flush();
        }
        true
    }
}

fn severity(finding: &Finding) -> &'static str {
    match finding.severity {
        Severity::Note => "note",
        Severity::Doubt => "doubt",
    }
}

/// Names come from a damaged disk; a terminal must not obey them.
fn plain(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

fn line(finding: &Finding) -> String {
    let mut line = format!("{:5} {}", severity(finding), plain(&finding.file));
    if let Some(offset) = finding.offset {
        line.push_str(&format!(" at byte {offset}"));
    }
    if let Some(segment) = &finding.segment {
        line.push_str(&format!(", segment {}", plain(segment)));
    }
    format!("{line}: {} [{}]", plain(&finding.what), finding.code)
}

fn value(finding: &Finding) -> Value {
    json!({
        "severity": severity(finding),
        "code": finding.code,
        "file": finding.file,
        "offset": finding.offset,
        "container": finding.container,
        "segment": finding.segment,
        "what": finding.what,
    })
}

fn object(directory: &str, teller: &Teller, summary: &Summary) -> Value {
    json!({
        "format": 1,
        "directory": directory,
        "verdict": word(summary),
        "findings": teller.findings,
        "findings_left_out": teller.left_out,
        "summary": {
            "store": format!("{:032x}", summary.store),
            "doubts": summary.doubts,
            "notes": summary.notes,
            "containers": summary.containers,
            "files": summary.files,
            "bytes": summary.bytes,
            "segments": summary.segments,
            "chunks": summary.chunks,
            "journal_files": summary.journal_files,
            "journal_frame": summary.journal_frame,
            "journal_records": summary.records,
            "torn_bytes": summary.torn_bytes,
            "closed": summary.is_closed,
            "complete": summary.is_complete,
            "chunks_left_out": summary.are_chunks_left_out,
        },
    })
}

/// As [`object`], of the second check, and what was done before it.
fn repaired_object(directory: &str, before: &Teller, after: &Teller, repaired: &Repaired) -> Value {
    let mut object = object(directory, after, &repaired.after);
    object["repairs"] = before.repairs.clone().into();
    object["findings_before"] = before.findings.clone().into();
    object["verdict_before"] = word(&repaired.before).into();
    object
}

fn word(summary: &Summary) -> &'static str {
    if summary.is_sound() { "sound" } else { "doubtful" }
}

fn verdict(summary: &Summary, took: Duration) -> String {
    let closed = if summary.is_closed { "closed in order" } else { "not closed: the next start replays the journal" };
    let Summary { doubts, notes, files, bytes, segments, records, journal_frame, .. } = summary;
    let chunks = match summary.are_chunks_left_out {
        true => "CHUNKS NOT LOOKED AT".to_owned(),
        false => format!("{} chunks", summary.chunks),
    };
    format!(
        "{}: {doubts} doubts, {notes} notes; {files} files, {} read in {:.1} s; {segments} segments, {chunks}, \
         journal to frame {journal_frame}, {records} records replayed; {closed}",
        word(summary),
        size(*bytes),
        took.as_secs_f64(),
    )
}

/// Bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_whatever_the_disk_says() {
        let finding = Finding {
            severity: Severity::Doubt,
            code: "damaged",
            file: "journal/x\n\u{1b}[2J".into(),
            offset: Some(64),
            container: Some(1),
            segment: Some("s/t/0.#epoch.0".into()),
            what: "block has checksum 1, expected 2".into(),
        };
        let expected = "doubt journal/x\\n\\u{1b}[2J at byte 64, segment s/t/0.#epoch.0: \
                        block has checksum 1, expected 2 [damaged]";
        assert_eq!(line(&finding), expected);
    }
}
