//! Bytes that no client sends: the connection they came on may suffer, nobody else may notice.
//!
//! While every case runs, a genuine writer keeps writing and a witness connection keeps asking; both must go on as if
//! nothing had happened, and the ledger of the writer is judged at the end.

mod barrage;

use super::{Case, Outcome, in_scratch, run_cases};
use crate::chance::Chance;
use crate::driver::{Client, Driver};
use crate::ledger::{Written, check_file, parse_ledger};
use crate::prepare::Places;
use crate::raw::{Raw, Reaction, code, frame, header, hello_payload, text};
use crate::server::{Launch, Server};
use anyhow::{Context, Result, bail, ensure};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

/// How long the server may think about bytes it cannot make sense of.
const REACTION: Duration = Duration::from_secs(5);
/// What hostile peers together may make the server hold. The frames below promise far more than that.
const GROWTH_BYTES_MAX: u64 = 192 * 1024 * 1024;

/// Runs it.
///
/// # Errors
/// When the server or the writer does not start.
pub fn run(places: &Places, seed: u64) -> Result<Outcome> {
    in_scratch(places, "malformed", |scratch| {
        let mut server = Launch::new(places.server(), scratch).start()?;
        let controller = server.ready.controller.clone();
        let rust = |name: &str, arguments: &[&str]| {
            let arguments = [&["--scope", "malformed", "--stream", "ledger"][..], arguments].concat();
            Client::Rust.command(places, &controller, name, &arguments)
        };
        Driver::run(rust("setup", &["--segments", "2"]), Duration::from_secs(60))?;
        let ledger = scratch.join("ledger.txt");
        let path = ledger.to_str().context("the path of the ledger is text")?;
        let mut writer = Driver::start(rust("ledger-write", &["--ledger", path, "--in-flight", "8"]))?;
        let mut witness = Raw::hello(&server.ready.segment_store)?;

        let mut outcome = Outcome::default();
        for (name, bytes, expected) in cases(seed) {
            let address = server.ready.segment_store.clone();
            let case = Case::new(format!("malformed: {name}"), || {
                one(&address, &bytes, expected)?;
                unmoved(&mut server, &mut witness, &mut writer)
            });
            outcome = outcome.and(run_cases(vec![case], 1));
        }
        let others = [Case::new("malformed: a peer that stops in the middle of a frame keeps nobody waiting", || {
            let mut half = Vec::new();
            for length in [0, 1, 7, 8, 9, 15] {
                let mut raw = Raw::connect(&server.ready.segment_store)?;
                raw.send(&frame(code::HELLO, &hello_payload())[..length])?;
                half.push(raw);
            }
            std::thread::sleep(Duration::from_secs(1));
            unmoved(&mut server, &mut witness, &mut writer)
        })];
        outcome = outcome.and(run_cases(others.into(), 1));
        let one_byte = Case::new("malformed: frames that arrive byte by byte are understood", || {
            let mut raw = Raw::connect(&server.ready.segment_store)?;
            for byte in frame(code::HELLO, &hello_payload()) {
                raw.send(&[byte])?;
            }
            match raw.receive()? {
                Some((code::HELLO, _)) => {}
                other => bail!("Hello was answered by {other:?}"),
            }
            raw.still_works()?;
            Ok(String::new())
        });
        outcome = outcome.and(run_cases(vec![one_byte], 1));
        let barrage = Case::new("malformed: every command, bent in every way that can be listed", || {
            let address = server.ready.segment_store.clone();
            let count = barrage::run(&address, || unmoved(&mut server, &mut witness, &mut writer).map(drop))?;
            Ok(format!("{count} frames"))
        });
        outcome = outcome.and(run_cases(vec![barrage], 1));
        let ports = Case::new("malformed: garbage on the controller and HTTP ports", || {
            let mut chance = Chance::new(seed ^ 1);
            for address in [server.ready.controller.clone(), server.ready.http.clone()] {
                for _ in 0..8 {
                    let mut connection = TcpStream::connect(&address).context("connect")?;
                    let length = 1 + chance.below(20_000) as usize;
                    let _ = connection.write_all(&chance.bytes(length));
                    let _ = connection.set_read_timeout(Some(Duration::from_millis(200)));
                    let _ = connection.read(&mut [0; 1024]);
                }
            }
            let (status, _) = server.get("/healthz")?;
            ensure!(status == 200, "/healthz answers {status} after garbage");
            unmoved(&mut server, &mut witness, &mut writer)
        });
        outcome = outcome.and(run_cases(vec![ports], 1));
        let flood = Case::new("malformed: two hundred peers that promise 16 MiB each take no memory", || {
            let before = server.resident_bytes()?;
            let mut peers = Vec::new();
            for _ in 0..200 {
                let mut raw = Raw::hello(&server.ready.segment_store)?;
                raw.send(&header(code::APPEND_BLOCK_END, 16_777_000))?;
                raw.send(&[0; 64])?;
                peers.push(raw);
            }
            std::thread::sleep(Duration::from_millis(500));
            let growth = server.resident_bytes()?.saturating_sub(before);
            ensure!(growth < GROWTH_BYTES_MAX, "the server grew by {} MiB", growth >> 20);
            unmoved(&mut server, &mut witness, &mut writer)?;
            Ok(format!("grew by {} MiB meanwhile", growth >> 20))
        });
        outcome = outcome.and(run_cases(vec![flood], 1));
        let ledger = Case::new("malformed: the genuine writer lost nothing", || {
            judge(writer, &ledger, scratch, &rust)?;
            Ok(String::new())
        });
        outcome = outcome.and(run_cases(vec![ledger], 1));
        let stop = Case::new("malformed: the server stops with peers hanging on it", || {
            let mut hanging = Raw::connect(&server.ready.segment_store)?;
            hanging.send(&header(code::HELLO, 8))?;
            server.stop()?;
            Ok(String::new())
        });
        Ok(outcome.and(run_cases(vec![stop], 1)))
    })
}

/// What must come of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// The connection is closed, whatever was said before.
    Closed,
    /// A reply that is no success, or the connection is closed.
    Refused,
}

/// Name, bytes after Hello, expectation.
fn cases(seed: u64) -> Vec<(String, Vec<u8>, Expected)> {
    use Expected::{Closed, Refused};
    let id = 1_i64.to_be_bytes();
    let writer = [7_u8; 16];
    let setup = |segment: &str| frame(code::SETUP_APPEND, &[&id[..], &writer, &text(segment), &text("")].concat());
    let block_end = |numbers: [i32; 2], data: &[u8]| {
        let length = i32::try_from(data.len()).expect("small");
        let payload = [
            &writer[..],
            &numbers[0].to_be_bytes(),
            &length.to_be_bytes(),
            data,
            &numbers[1].to_be_bytes(),
            &0_i64.to_be_bytes(),
            &id,
        ];
        frame(code::APPEND_BLOCK_END, &payload.concat())
    };
    let counted = |kind, segment: &str, count: i32| {
        frame(kind, &[&id[..], &text(segment), &text(""), &count.to_be_bytes(), &[0; 32]].concat())
    };
    let create = |segment: &str| {
        frame(code::CREATE_SEGMENT, &[&id[..], &text(segment), &0_i32.to_be_bytes(), &[0], &text("")].concat())
    };
    let read = |segment: &str, offset: i64, length: i32| {
        let payload = [&text(segment)[..], &offset.to_be_bytes(), &length.to_be_bytes(), &text(""), &id].concat();
        frame(code::READ_SEGMENT, &payload)
    };
    let mut cases = vec![
        ("a length above the limit".into(), header(code::APPEND_BLOCK_END, 0x0100_0000), Closed),
        ("the largest length".into(), header(code::SETUP_APPEND, i32::MAX), Closed),
        ("a negative length".into(), header(code::SETUP_APPEND, -1), Closed),
        ("an unknown command".into(), frame(120, &[0; 16]), Closed),
        ("a retired command".into(), frame(72, &[0; 16]), Closed),
        ("a payload too short for its command".into(), frame(code::SETUP_APPEND, &[0; 3]), Closed),
        (
            "a string longer than its frame".into(),
            frame(code::SEGMENT_INFO, &[&id[..], &[0xff, 0xff, b'x']].concat()),
            Closed,
        ),
        ("an append without a set-up".into(), block_end([0, 1], b"data"), Closed),
        ("a block without a set-up".into(), frame(code::APPEND_BLOCK, &[&writer[..], b"data"].concat()), Closed),
        (
            "a conditional append without a set-up".into(),
            frame(code::CONDITIONAL_APPEND, &[&writer[..], &[0; 16], &[0; 8], &id].concat()),
            Closed,
        ),
        (
            "a set-up for a segment that does not exist, then an append".into(),
            [setup("malformed/none/0.#epoch.0"), block_end([0, 1], b"data")].concat(),
            Refused,
        ),
        (
            "an append with a negative number of bytes inside".into(),
            frame(code::APPEND_BLOCK_END, &[&writer[..], &[0; 4], &(-5_i32).to_be_bytes(), &[0; 20]].concat()),
            Closed,
        ),
        (
            "a table update with two thousand million entries".into(),
            counted(code::UPDATE_TABLE, "malformed/t_kvtable/0.#epoch.0", i32::MAX),
            Closed,
        ),
        (
            "a table read with a negative number of keys".into(),
            counted(code::READ_TABLE, "malformed/t_kvtable/0.#epoch.0", -1),
            Closed,
        ),
        (
            "a batch merge of two thousand million sources".into(),
            frame(code::MERGE_BATCH, &[&id[..], &text("a/b/0.#epoch.0"), &i32::MAX.to_be_bytes(), &[0; 32]].concat()),
            Closed,
        ),
        (
            "a reply where a request belongs".into(),
            frame(code::NO_SUCH_SEGMENT, &[&id[..], &text("x"), &text(""), &id].concat()),
            Closed,
        ),
        ("a read at a negative offset".into(), read("malformed/ledger/0.#epoch.0", -9, 100), Refused),
        ("a read of a name that is a path".into(), read("../../../../etc/passwd", 0, 100), Refused),
        ("a read of no name".into(), read("", 0, 100), Refused),
    ];
    for name in ["../../../../tmp/escaped", "/tmp/escaped", "a/../../b/0.#epoch.0", "", "nul\0name/x/0.#epoch.0"] {
        cases.push((format!("creating a segment called {name:?}"), create(name), Refused));
    }
    let mut chance = Chance::new(seed);
    for i in 0..6 {
        // A leading byte that makes the first four no known command, so that chance cannot hit a valid request.
        let length = 1_000 + chance.below(60_000) as usize;
        let garbage = [&[0x5a][..], &chance.bytes(length)].concat();
        cases.push((format!("{} bytes of garbage, the {}th", garbage.len(), i + 1), garbage, Closed));
    }
    cases
}

fn one(address: &str, bytes: &[u8], expected: Expected) -> Result<()> {
    // Once behind a proper Hello, once as the very first bytes, once with the connection ended behind them.
    for ended in [false, true] {
        let mut raw = Raw::hello(address)?;
        raw.send_or_be_closed(bytes);
        if ended {
            raw.end();
        }
        judge_reaction(&raw.reaction(REACTION)?, expected, ended)?;
    }
    let mut raw = Raw::connect(address)?;
    raw.send_or_be_closed(bytes);
    judge_reaction(&raw.reaction(REACTION)?, expected, false)
}

fn judge_reaction(reaction: &Reaction, expected: Expected, ended: bool) -> Result<()> {
    // Replies that mean success, whatever was asked.
    const SUCCESS: [i32; 12] = [2, 7, 10, 12, 21, 29, 31, 39, 59, 75, 79, 91];
    let (closed, frames) = match reaction {
        Reaction::Closed(frames) => (true, frames.as_slice()),
        Reaction::Answered(frames) => (false, frames.as_slice()),
        Reaction::Silent => (false, &[][..]),
    };
    if let Some((kind, _)) = frames.iter().find(|(kind, _)| SUCCESS.contains(kind)) {
        bail!("answered with success (command {kind})");
    }
    ensure!(closed || !ended, "the peer ended the connection and the server kept it");
    match expected {
        Expected::Closed => ensure!(closed, "the connection stays open: {reaction:?}"),
        Expected::Refused => ensure!(closed || !frames.is_empty(), "neither an answer nor a closed connection"),
    }
    Ok(())
}

/// The server lives, the witness is answered, the writer gets acknowledgements.
fn unmoved(server: &mut Server, witness: &mut Raw, writer: &mut Driver) -> Result<String> {
    server.alive()?;
    witness.still_works().context("another connection suffered")?;
    let before = writer.progress();
    for _ in 0..400 {
        if writer.progress() > before {
            return Ok(String::new());
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    bail!("the genuine writer gets no acknowledgements any more")
}

fn judge(
    writer: Driver,
    ledger: &Path,
    scratch: &Path,
    rust: &dyn Fn(&str, &[&str]) -> std::process::Command,
) -> Result<()> {
    let printed = writer.finish(Duration::from_secs(60))?;
    let mut written = Written { run: 1, ..Written::default() };
    written.acknowledged = parse_ledger(&std::fs::read_to_string(ledger).context("read the ledger")?)?;
    let failed = crate::driver::number(&printed, "failed")?;
    ensure!(failed == 0.0, "{failed} events of the genuine writer were refused");
    for event in &written.acknowledged {
        let sent = written.sent.entry((event.writer, event.key)).or_default();
        *sent = (*sent).max(event.sequence + 1);
    }
    let payloads = scratch.join("read.bin");
    let out = payloads.to_str().context("the path of the payloads is text")?;
    let expect = written.acknowledged.len().to_string();
    Driver::run(rust("ledger-read", &["--out", out, "--expect", &expect]), Duration::from_secs(300))?;
    check_file(&written, &payloads)?.map_err(|violations| anyhow::anyhow!("{violations:?}"))?;
    Ok(())
}
