//! Backups into and out of buckets, of stores on a disk and of stores in a bucket.

use super::super::operations::ends_in;
use super::{
    BUCKET, CANNOT_CREATE, CONFIG, FAULT_PERCENT, Place, USAGE, Writer, address, metric_falls_to, metric_reaches,
    refused, until,
};
use crate::s3::S3Server;
use crate::server::{Launch, Server};
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const DOUBT: i32 = 1;
const IO_OR_INTEGRITY: i32 = 74;
/// Enough for chunks and several journal files.
const EVENTS: usize = 48;

/// A launch of the place with its chunks on the disk.
fn on_disk(place: &Place) -> Launch {
    let mut launch = place.launch.clone();
    launch.extra.truncate(2);
    launch
}

fn filled(server: &Server) -> Result<Writer> {
    let mut writer = Writer::open(server, 1, 1)?;
    for _ in 0..EVENTS {
        writer.append()?;
    }
    Ok(writer)
}

fn http(server: &Server) -> String {
    format!("http://{}", server.ready.http)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("the path is text")
}

/// Runs a command with the way to the bucket.
fn run(launch: &Launch, arguments: &[&str], expected: i32) -> Result<String> {
    ends_in(&launch.binary, arguments, &launch.environment, expected)
}

/// The store in a directory has exactly what was written.
fn holds(launch: &Launch, directory: &Path, writer: &Writer) -> Result<()> {
    let mut launch = launch.clone();
    launch.data = directory.to_owned();
    let server = launch.start().with_context(|| format!("start on {}", directory.display()))?;
    let read = writer.read_all(&server)?;
    ensure!(read == writer.written, "{}: read {} bytes, not those written", directory.display(), read.len());
    server.stop().map(drop)
}

fn beside(launch: &Launch, name: &str) -> PathBuf {
    launch.data.with_extension(name)
}

/// The first object of a place whose name ends so.
fn object(s3: &S3Server, prefix: &str, suffix: &str) -> Result<String> {
    let names = s3.names(BUCKET, &format!("{prefix}/"))?;
    names.into_iter().find(|name| name.ends_with(suffix)).with_context(|| format!("no {suffix} in {prefix}"))
}

pub(super) fn into_a_bucket(s3: &S3Server, place: &Place) -> Result<String> {
    let launch = &on_disk(place);
    let server = launch.start()?;
    let writer = filled(&server)?;
    metric_reaches(&server, "checkpoints_total", 2)?;
    let saved = address("saved/backup");
    place.proxy.set_faults(FAULT_PERCENT);
    let said = run(launch, &["backup", "--server", &http(&server), &saved], 0)?;
    ensure!(said.contains("sound") && said.contains("backup of"), "{said}");
    let restored = beside(launch, "restored");
    run(launch, &["restore", &saved, text(&restored)?], 0)?;
    place.proxy.set_faults(0);
    let met: u64 = place.proxy.faults().iter().map(|(_, count)| count).sum();
    ensure!(met > 4, "only {met} requests met a fault");
    run(launch, &["backup", "--server", &http(&server), &saved], CONFIG)?;
    server.kill()?;
    holds(launch, &restored, &writer)?;
    run(launch, &["check", &saved], 0)?;
    run(launch, &["check", &saved, "--repair"], CONFIG)?;
    run(launch, &["check", &saved, "--chunks", &saved], USAGE)?;

    // The same with chunks in another bucket.
    let (elsewhere, chunks) = (beside(launch, "elsewhere"), address("saved/chunks"));
    run(launch, &["restore", &saved, text(&elsewhere)?, "--chunks", &chunks], 0)?;
    run(launch, &["restore", &saved, text(&beside(launch, "again"))?, "--chunks", &chunks], CONFIG)?;
    let mut with_chunks = launch.clone();
    with_chunks.extra.extend(["--chunks".to_owned(), chunks.clone()]);
    holds(&with_chunks, &elsewhere, &writer)?;
    run(launch, &["check", text(&elsewhere)?, "--chunks", &chunks], 0)?;

    // A backup is not mistaken for a place for chunks.
    let mut mistaken = launch.clone();
    mistaken.data = beside(launch, "mistaken");
    mistaken.extra.extend(["--chunks".to_owned(), saved.clone()]);
    refused(&mistaken, CONFIG, "is no store")?;

    let victim = object(s3, "saved/backup", ".chunk")?;
    s3.flip(BUCKET, &victim)?;
    let doubtful = run(launch, &["check", &saved], DOUBT)?;
    let name = victim.strip_prefix("saved/backup/").context("the object is in the backup")?;
    ensure!(doubtful.contains(name), "{name} is not named in\n{doubtful}");
    let from_damaged = beside(launch, "from-damaged");
    run(launch, &["restore", &saved, text(&from_damaged)?], IO_OR_INTEGRITY)?;
    let mut of_damaged = launch.clone();
    of_damaged.data = from_damaged;
    refused(&of_damaged, CONFIG, "restoring")?;
    place.proxy.set_down(true);
    run(launch, &["restore", &saved, text(&beside(launch, "away"))?], CANNOT_CREATE)?;
    Ok(format!("{met} requests met a fault"))
}

pub(super) fn killed(s3: &S3Server, place: &Place) -> Result<String> {
    let launch = &on_disk(place);
    let server = launch.start()?;
    let writer = filled(&server)?;
    let saved = address("killed/backup");
    // One asks whether there is anything, one claims the place; then files come.
    place.proxy.down_after(5);
    let mut command = Command::new(&launch.binary);
    command.args(["backup", "--server", &http(&server), &saved]);
    command.envs(launch.environment.iter().map(|(name, value)| (name, value)));
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("start")?;
    let files = || s3.names(BUCKET, "killed/backup/");
    // What was on its way to storage arrives before its sender is killed.
    let went_down = until("the backup is in the middle", || Ok(place.proxy.is_down() && files()?.len() > 1));
    let ended = child.try_wait().context("look after the backup")?;
    child.kill().context("kill the backup")?;
    child.wait().context("wait for the backup")?;
    went_down?;
    ensure!(ended.is_none(), "the backup ended by itself");
    place.proxy.set_down(false);
    let left = files()?;
    ensure!(left.len() > 1 && !left.iter().any(|name| name.ends_with("backup.json")), "{left:?}");

    run(launch, &["restore", &saved, text(&beside(launch, "restored"))?], CONFIG)?;
    run(launch, &["check", &saved], CONFIG)?;
    run(launch, &["backup", "--server", &http(&server), &saved], CONFIG)?;
    // The server goes on as if nothing had been.
    ensure!(writer.read_all(&server)? == writer.written, "not what was written");
    server.stop()?;
    let mut mistaken = launch.clone();
    mistaken.data = beside(launch, "mistaken");
    mistaken.extra.extend(["--chunks".to_owned(), saved]);
    refused(&mistaken, CONFIG, "is no store")?;

    Ok(format!("{} objects were there", left.len()))
}

pub(super) fn of_a_bucket(s3: &S3Server, place: &Place) -> Result<String> {
    let Place { proxy, launch } = place;
    let chunks = address("bucket");
    let server = launch.start()?;
    let writer = filled(&server)?;
    metric_reaches(&server, "checkpoints_total", 2)?;
    proxy.set_faults(FAULT_PERCENT);
    let (saved, in_bucket) = (beside(launch, "saved"), address("of-bucket/backup"));
    run(launch, &["backup", "--server", &http(&server), text(&saved)?], 0)?;
    run(launch, &["backup", "--server", &http(&server), &in_bucket], 0)?;
    proxy.set_faults(0);
    metric_falls_to(&server, "chunk_storage_copies_due", 0)?;
    // Its own place is none for a backup.
    run(launch, &["backup", "--server", &http(&server), &chunks], CONFIG)?;
    run(launch, &["check", text(&launch.data)?, "--chunks", &chunks], CANNOT_CREATE)?;
    server.kill()?;

    let data = text(&launch.data)?;
    let said = run(launch, &["check", data], DOUBT)?;
    ensure!(said.contains("NOT LOOKED AT") && said.contains("not-checked"), "{said}");
    run(launch, &["check", data, "--chunks", &chunks], 0)?;
    run(launch, &["check", data, "--chunks", &address("nobody")], CONFIG)?;
    let left = launch.data.join("catalogue-0000/0000000000000777.run");
    std::fs::write(&left, "left over").context("leave a file over")?;
    let said = run(launch, &["check", data, "--repair"], DOUBT)?;
    ensure!(said.contains("nothing repaired") && left.exists(), "{said}");
    let said = run(launch, &["check", data, "--repair", "--chunks", &chunks], 0)?;
    ensure!(said.contains("fixed catalogue-0000/0000000000000777.run") && !left.exists(), "{said}");
    let victim = object(s3, "bucket", ".chunk")?;
    s3.flip(BUCKET, &victim)?;
    let said = run(launch, &["check", data, "--chunks", &chunks, "--json"], DOUBT)?;
    let json: serde_json::Value = serde_json::from_str(&said).context("what check --json says")?;
    let name = victim.strip_prefix("bucket/").context("the object is the store's")?;
    let named = json["findings"].as_array().is_some_and(|all| all.iter().any(|one| one["file"] == name));
    ensure!(named && json["summary"]["chunks_left_out"] == false, "{said}");
    s3.flip(BUCKET, &victim)?;
    run(launch, &["check", data, "--chunks", &chunks], 0)?;

    // Both backups are stores on a disk.
    for (from, to) in [(text(&saved)?, beside(launch, "restored")), (&in_bucket, beside(launch, "from-bucket"))] {
        run(launch, &["restore", from, text(&to)?], 0)?;
        holds(&on_disk(place), &to, &writer)?;
    }
    Ok(String::new())
}
