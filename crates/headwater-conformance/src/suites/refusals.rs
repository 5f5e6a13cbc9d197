//! Starts that must be refused: one clear line, the right exit code, nothing touched. And servers that refuse to go on
//! ([`disk`]).

mod disk;

use super::{Case, Outcome, in_scratch, run_cases};
use crate::prepare::Places;
use crate::server::{Addresses, Launch, wait};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// The configuration asks for something that cannot be.
const CONFIG: i32 = 78;
/// Something could not be created: a directory, a file, a listening socket.
const CANNOT_CREATE: i32 = 73;
/// What is on disk cannot be used.
const IO_OR_INTEGRITY: i32 = 74;
/// The service cannot run now: another process has its data.
const UNAVAILABLE: i32 = 69;

/// A refusal is quick.
const REFUSED_WITHIN: Duration = Duration::from_secs(10);

/// Runs it.
///
/// # Errors
/// When the suite's directory cannot be made.
pub fn run(places: &Places) -> Result<Outcome> {
    in_scratch(places, "refusals", |scratch| {
        let launch = |name: &str| -> Result<Launch> {
            let directory = scratch.join(name);
            std::fs::create_dir_all(&directory).context("make a directory")?;
            Ok(Launch::new(places.server(), &directory))
        };
        let mut cases = vec![
            Case::new("refusals: each port when it is taken", || taken_ports(&launch)),
            Case::new("refusals: a data directory that another process has locked", || locked(&launch("locked")?)),
            Case::new("refusals: a data directory that cannot be made or written", || not_writable(&launch)),
            Case::new("refusals: data written by a newer version, or damaged", || newer(&launch("newer")?)),
            Case::new("refusals: a directory with somebody else's files, which stay as they are", || {
                foreign(&launch("foreign")?)
            }),
            Case::new("refusals: unknown keys, unknown flags and values that make no sense", || settings(&launch)),
            Case::new("refusals: listening beyond loopback without saying so", || beyond_loopback(&launch)),
        ];
        for (number, failing) in disk::FAILING.into_iter().enumerate() {
            let name = format!("refusals: a disk that fails under a running server: {}", failing.what);
            let launch = launch(&format!("failing-{number}"))?;
            cases.push(Case::new(name, move || disk::check(&launch, failing)));
        }
        Ok(run_cases(cases, 2))
    })
}

/// Starts it, expects it to end with one of `codes`, and one clear line on standard error.
fn refused(launch: &Launch, codes: &[i32], mentions: &[&str]) -> Result<String> {
    let mut command = launch.command();
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().with_context(|| format!("start {command:?}"))?;
    if wait(&mut child, REFUSED_WITHIN)?.is_none() {
        let _ = child.kill();
        let _ = child.wait();
        anyhow::bail!("not refused within {REFUSED_WITHIN:?}: {command:?}");
    }
    let output = child.wait_with_output().context("collect what it said")?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let code = output.status.code().with_context(|| format!("ended by a signal, {}\n{stderr}", output.status))?;
    ensure!(codes.contains(&code), "exit code {code}, expected one of {codes:?}\n{stderr}");
    ensure!(!stdout.contains("ready "), "it said that it was ready: {stdout}");
    ensure!(!stderr.contains("panicked"), "it panicked\n{stderr}");
    ensure!(!stderr.trim().is_empty(), "it said nothing");
    for mention in mentions {
        ensure!(stderr.contains(mention), "{mention:?} is not mentioned in\n{stderr}");
    }
    Ok(stderr)
}

/// As [`refused`], and what is said is a single line. Not asked of the command line's own parser, which shows usage.
fn refused_in_a_line(launch: &Launch, codes: &[i32], mentions: &[&str]) -> Result<()> {
    let stderr = refused(launch, codes, mentions)?;
    let lines = stderr.lines().filter(|line| !line.trim().is_empty()).count();
    ensure!(lines == 1, "{lines} lines instead of one:\n{stderr}");
    Ok(())
}

fn taken_ports(launch: &dyn Fn(&str) -> Result<Launch>) -> Result<String> {
    let holder = TcpListener::bind("127.0.0.1:0").context("take a port")?;
    let taken = holder.local_addr().context("take a port")?;
    for which in ["controller", "segment-store", "http"] {
        let mut launch = launch(&format!("taken-{which}"))?;
        launch.addresses = Addresses::any();
        *match which {
            "controller" => &mut launch.addresses.controller,
            "segment-store" => &mut launch.addresses.segment_store,
            _ => &mut launch.addresses.http,
        } = taken;
        let port = taken.port().to_string();
        refused_in_a_line(&launch, &[CANNOT_CREATE, UNAVAILABLE], &[&port]).with_context(|| which.to_owned())?;
    }
    Ok(String::new())
}

fn locked(launch: &Launch) -> Result<String> {
    let server = launch.start()?;
    let before = snapshot(&launch.data, false)?;
    let data = launch.data.to_string_lossy().into_owned();
    refused_in_a_line(launch, &[UNAVAILABLE, CANNOT_CREATE, IO_OR_INTEGRITY], &[&data])?;
    ensure!(snapshot(&launch.data, false)? == before, "the refused start changed the directory");
    let (status, _) = server.get("/readyz")?;
    ensure!(status == 200, "the first server answers {status} after the second was refused");
    server.stop()?;
    launch.start().context("start after the lock was given back")?.stop()?;
    // A lock must not outlive a process that is killed.
    launch.start()?.kill()?;
    launch.start().context("start after the holder of the lock was killed")?.stop()?;
    Ok(String::new())
}

fn not_writable(launch: &dyn Fn(&str) -> Result<Launch>) -> Result<String> {
    let mut under_a_file = launch("under-a-file")?;
    let file = under_a_file.data.with_extension("file");
    std::fs::write(&file, "a file, not a directory").context("make a file")?;
    under_a_file.data = file.join("data");
    refused_in_a_line(&under_a_file, &[CANNOT_CREATE], &[&under_a_file.data.to_string_lossy()])?;
    under_a_file.data = file.clone();
    refused_in_a_line(&under_a_file, &[CANNOT_CREATE, CONFIG], &[&file.to_string_lossy()])?;
    ensure!(std::fs::read_to_string(&file).is_ok_and(|text| text == "a file, not a directory"), "the file was changed");

    // A file system on which nobody can create anything, not even the administrator.
    let mut read_only = launch("read-only")?;
    read_only.data = PathBuf::from("/proc/headwater-conformance");
    refused_in_a_line(&read_only, &[CANNOT_CREATE], &["/proc/headwater-conformance"])?;
    Ok(String::new())
}

fn newer(launch: &Launch) -> Result<String> {
    launch.start()?.stop()?;
    // The file that says which layout the directory has: 8 bytes of magic, the version as u32, and at the end the
    // CRC-32C of everything before.
    let path = launch.data.join("store");
    let original = std::fs::read(&path).context("read the store's file")?;
    let (content, checksum) = original.split_last_chunk::<4>().context("the store's file is too short")?;
    ensure!(
        crc32c::crc32c(content).to_be_bytes() == *checksum,
        "the store's file has another form than this test knows"
    );
    let mut newer = content.to_vec();
    newer.get_mut(8..12).context("the store's file is too short")?.copy_from_slice(&9999_u32.to_be_bytes());
    let checksum = crc32c::crc32c(&newer);
    newer.extend_from_slice(&checksum.to_be_bytes());
    std::fs::write(&path, &newer).context("write a newer version")?;
    let before = snapshot(&launch.data, true)?;
    refused_in_a_line(launch, &[CONFIG], &["9999"])?;
    ensure!(snapshot(&launch.data, true)? == before, "the refused start changed the directory");

    // A damaged file is another matter: the bytes are not what was written.
    let mut damaged = original.clone();
    damaged[20] ^= 1;
    std::fs::write(&path, &damaged).context("damage the store's file")?;
    let before = snapshot(&launch.data, true)?;
    refused_in_a_line(launch, &[IO_OR_INTEGRITY], &["store"])?;
    ensure!(snapshot(&launch.data, true)? == before, "the refused start changed the directory");

    std::fs::write(&path, original).context("put the version back")?;
    launch.start().context("start with the right version again")?.stop()?;
    Ok(String::new())
}

/// A directory may be somebody's. Files beside a store and the root of a file system with its `lost+found` are fine.
fn foreign(launch: &Launch) -> Result<String> {
    std::fs::create_dir_all(&launch.data).context("make a directory")?;
    let theirs = launch.data.join("thesis.txt");
    std::fs::write(&theirs, "years of work").context("make a file")?;
    let before = snapshot(&launch.data, true)?;
    refused_in_a_line(launch, &[CONFIG], &["thesis.txt"])?;
    ensure!(snapshot(&launch.data, true)? == before, "the refused start changed the directory");
    std::fs::remove_file(&theirs).context("remove a file")?;
    std::fs::create_dir(launch.data.join("lost+found")).context("make a directory")?;
    launch.start()?.stop()?;
    std::fs::write(&theirs, "years of work").context("make a file")?;
    launch.start()?.stop()?;
    ensure!(std::fs::read_to_string(&theirs).is_ok_and(|text| text == "years of work"), "a foreign file was changed");
    Ok(String::new())
}

fn settings(launch: &dyn Fn(&str) -> Result<Launch>) -> Result<String> {
    let with = |name: &str, extra: &[&str]| -> Result<Launch> {
        let mut launch = launch(name)?;
        launch.extra = extra.iter().map(|argument| (*argument).to_owned()).collect();
        Ok(launch)
    };
    let usage = [CONFIG, 2, 64];
    refused(&with("flag", &["--no-such-flag", "7"])?, &usage, &["--no-such-flag"])?;
    refused(&with("address", &["--memory-limit", "lots"])?, &usage, &["lots"])?;
    refused_in_a_line(&with("level", &["--log", "inof"])?, &[CONFIG], &["inof"])?;
    // An unknown variable as an unknown flag: a misspelt limit is worse than none.
    let mut variable = with("variable", &[])?;
    variable.environment = vec![("HEADWATER_NO_SUCH_SETTING".into(), "7".into())];
    refused_in_a_line(&variable, &[CONFIG], &["HEADWATER_NO_SUCH_SETTING"])?;
    let missing = with("missing", &["--config", "/no/such/headwater.toml"])?;
    refused_in_a_line(&missing, &[CONFIG], &["/no/such/headwater.toml"])?;
    for (name, content, mention) in [
        ("key", "no-such-key = 7\n", "no-such-key"),
        ("nested", "[no-such-table]\nx = 1\n", "no-such-table"),
        ("type", "memory-limit = [1]\n", "memory-limit"),
    ] {
        let mut launch = with(name, &[])?;
        let file = launch.data.with_extension("toml");
        std::fs::write(&file, content).context("write a configuration")?;
        launch.extra = vec!["--config".into(), file.to_string_lossy().into_owned()];
        refused_in_a_line(&launch, &[CONFIG], &[mention]).with_context(|| format!("configuration {content:?}"))?;
        ensure!(!launch.data.exists(), "a start refused for its configuration made the data directory");
    }
    // A syntax error may show the place, in several lines.
    let mut syntax = with("syntax", &[])?;
    let file = syntax.data.with_extension("toml");
    std::fs::write(&file, "controller = = \n").context("write a configuration")?;
    syntax.extra = vec!["--config".into(), file.to_string_lossy().into_owned()];
    refused(&syntax, &[CONFIG], &[&file.to_string_lossy()])?;
    Ok(String::new())
}

fn beyond_loopback(launch: &dyn Fn(&str) -> Result<Launch>) -> Result<String> {
    let everywhere = SocketAddr::from(([0, 0, 0, 0], 0));
    for which in 0..3 {
        let mut launch = launch(&format!("beyond-{which}"))?;
        let addresses = &mut launch.addresses;
        *[&mut addresses.controller, &mut addresses.segment_store, &mut addresses.http][which] = everywhere;
        refused_in_a_line(&launch, &[CONFIG], &["--insecure"])?;
        ensure!(!launch.data.exists(), "a start refused for its addresses made the data directory");
    }
    // Said aloud, it is allowed; and no client is told to connect to a wildcard.
    let mut allowed = launch("allowed")?;
    allowed.addresses.segment_store = everywhere;
    allowed.extra = vec!["--insecure".into(), "--advertise".into(), "127.0.0.1".into()];
    allowed.start().context("start with --insecure")?.stop()?;
    let mut wildcard = launch("wildcard")?;
    wildcard.extra = vec!["--insecure".into(), "--advertise".into(), "0.0.0.0".into()];
    refused_in_a_line(&wildcard, &[CONFIG], &["0.0.0.0"])?;
    Ok(String::new())
}

/// Every file below a directory with its length, or its content; what runs may keep writing only to its own journal,
/// so lengths are compared while a server runs and contents when none does.
fn snapshot(directory: &Path, contents: bool) -> Result<BTreeMap<PathBuf, (u64, u32)>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in std::fs::read_dir(&next).with_context(|| format!("list {}", next.display()))? {
            let path = entry.context("list a directory")?.path();
            let metadata = std::fs::symlink_metadata(&path).context("look at a file")?;
            if metadata.is_dir() {
                found.insert(path.clone(), (0, 0));
                waiting.push(path);
            } else {
                let checksum = if contents { crc32c::crc32c(&std::fs::read(&path).context("read a file")?) } else { 0 };
                found.insert(path, (metadata.len(), checksum));
            }
        }
    }
    Ok(found)
}
