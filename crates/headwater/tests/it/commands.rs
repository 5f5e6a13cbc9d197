//! The commands that operate a store, as a person or a script starts them.

use std::io::{BufRead as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use headwater_client::ScopedStream;

use super::Store;

struct Said {
    code: i32,
    out: String,
    error: String,
}

/// Runs a command on the store with this input.
async fn run(store: &Store, arguments: &[&str], input: &'static str) -> Said {
    run_alone(&[arguments, &["--server", &store.address(), "--patience", "5"]].concat(), input).await
}

/// Runs a command with this input.
async fn run_alone(arguments: &[&str], input: &'static str) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let running = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().unwrap();
        // One that reads nothing may have ended before.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    });
    let output = running.await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code().unwrap(), out: text(output.stdout), error: text(output.stderr) }
}

/// What a command on the store says that does what it is asked.
pub(crate) async fn ok(store: &Store, arguments: &[&str], input: &'static str) -> String {
    let said = run(store, arguments, input).await;
    assert_eq!(said.code, 0, "{arguments:?}: {}", said.error);
    said.out
}

/// The same for one that is on no store.
pub(crate) async fn ok_alone(arguments: &[&str], input: &'static str) -> String {
    let said = run_alone(arguments, input).await;
    assert_eq!(said.code, 0, "{arguments:?}: {}", said.error);
    said.out
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_operates_a_store_without_code() {
    let store = Store::start().await;
    let ok = async |arguments: &[&str], input: &'static str| ok(&store, arguments, input).await;
    assert_eq!(ok(&["scope", "create", "shop"], "").await, "created shop\n");
    let created = ok(&["stream", "create", "shop/orders", "--segments", "2", "--tag", "blue", "--json"], "").await;
    assert_eq!(created, "{\"created\":true,\"scope\":\"shop\",\"stream\":\"orders\"}\n");
    let input = "{\"customer\":\"x\",\"n\":1}\n\n{\"customer\":\"x\",\"n\":2}\n";
    let wrote = ok(&["event", "write", "shop/orders", "--key-field", "customer"], input).await;
    assert!(wrote.starts_with("wrote 2 events of 44 bytes in "), "{wrote}");
    let read = ok(&["event", "read", "shop/orders"], "").await;
    assert_eq!(read, "{\"customer\":\"x\",\"n\":1}\n{\"customer\":\"x\",\"n\":2}\n");

    let described = ok(&["event", "read", "shop/orders", "--json", "--containing", "\"n\":2"], "").await;
    let described: serde_json::Value = serde_json::from_str(&described).unwrap();
    assert_eq!(described["text"], "{\"customer\":\"x\",\"n\":2}");
    let pointer = described["pointer"].as_str().unwrap();
    assert_eq!(ok(&["event", "get", pointer], "").await, "{\"customer\":\"x\",\"n\":2}\n");

    let cut = ok(&["stream", "cut", "shop/orders"], "").await;
    ok(&["stream", "scale", "shop/orders", "--segments", "3"], "").await;
    ok(&["event", "write", "shop/orders", "--key-before-tab", "--transaction"], "a\tlater\n").await;
    assert_eq!(ok(&["event", "read", "shop/orders", "--from", cut.trim()], "").await, "later\n");
    assert_eq!(ok(&["event", "read", "shop/orders", "--to", cut.trim()], "").await, read);
    // Some bytes on is where the first events end, and from there the tail is not far.
    let after = ok(&["stream", "cut", "shop/orders", "--after", "head", "--bytes", "1"], "").await;
    assert_eq!(ok(&["event", "read", "shop/orders", "--to", after.trim()], "").await, read);
    let rest = ["event", "read", "shop/orders", "--from", after.trim(), "--to", "tail", "--json"];
    let rest: serde_json::Value = serde_json::from_str(&ok(&rest, "").await).unwrap();
    assert_eq!(rest["text"], "later");
    let described = ok(&["stream", "describe", "shop/orders", "--json"], "").await;
    let described: serde_json::Value = serde_json::from_str(&described).unwrap();
    assert_eq!(described["segments"].as_array().unwrap().len(), 5);
    ok(&["stream", "update", "shop/orders", "--retain-for", "7d"], "").await;
    let described = ok(&["stream", "describe", "shop/orders"], "").await;
    assert!(described.contains("\nscaling: none, 2 segments\nkept: 7d\n"), "{described}");
    let removed = ok(&["stream", "remove-writer", "shop/orders", "w"], "").await;
    assert_eq!(removed, "w notes no times in shop/orders\n");
    ok(&["stream", "truncate", "shop/orders", "--at", "tail"], "").await;
    assert_eq!(ok(&["event", "read", "shop/orders"], "").await, "");
    ok(&["event", "write", "shop/orders", "--key", "a"], "last\n").await;
    ok(&["stream", "seal", "shop/orders"], "").await;
    assert_eq!(ok(&["event", "read", "shop/orders"], "").await, "last\n");
    ok(&["stream", "delete", "shop/orders"], "").await;
    ok(&["scope", "delete", "shop"], "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_tell_what_kind_of_failure_it_was() {
    let store = Store::start().await;
    store.stream("s/t", 1).await;
    let other = store.stream("s/other", 1).await;
    let elsewhere = store.client.tail_cut(&other).await.unwrap().to_text();
    for (arguments, code, word) in [
        (&["stream", "describe", "s/missing"][..], 66, "does not exist (not-found)\n`headwater scope list` and"),
        (&["stream", "create", "nope/t"], 66, "or say --create-scope."),
        (&["stream", "list", "nope"], 66, "`headwater scope list` shows"),
        (
            &["stream", "delete", "s/t"],
            65,
            "has to be sealed before it can be deleted (conflict)\n--seal seals it first",
        ),
        (&["scope", "delete", "s"], 65, "is not empty (conflict)\n--recursive deletes"),
        (&["stream", "update", "s/t"], 64, "nothing to change was named"),
        (&["bytes", "read", "s/t", "--json"], 64, "there is no --json of them"),
        (&["group", "describe", "s/nope"], 66, "`headwater group list SCOPE` shows"),
        (&["stream", "create", "nonsense"], 64, "SCOPE/STREAM"),
        (&["stream", "truncate", "s/t", "--at", "nonsense"], 64, "nor a stream cut"),
        (&["event", "write", "s/t", "/does/not/exist"], 66, "No such file or directory (os error 2) (no-input)"),
        (&["scope", "list", "--credentials", "/does/not/exist"], 66, "cannot be read"),
        (&["event", "get", "s/t/0.#epoch.0:0-99"], 64, "ends at 0"),
        (&["event", "read", "s/t", "--from", "nonsense"], 64, "nor a stream cut"),
        (&["event", "read", "s/t", "--to", &elsewhere], 64, "this is a cut of stream s/other"),
        (&["event", "read", "s/t", "--to", "head", "--follow"], 64, "cannot be used with"),
        (&["stream", "cut", "s/t", "--after", "head"], 64, "--bytes <SIZE>"),
        (&["txn", "state", "s/t", "1234"], 64, "32 hexadecimal digits"),
    ] {
        let said = run(&store, arguments, "").await;
        assert_eq!(said.code, code, "{arguments:?}: {}", said.error);
        assert!(said.error.contains(word), "{arguments:?}: {}", said.error);
        assert_eq!(said.out, "");
    }
    let said = run(&store, &["event", "write", "s/t", "--key-before-tab"], "a\tone\nno tab\n").await;
    assert_eq!((said.code, said.out.as_str()), (65, ""));
    assert!(said.error.contains("1 events were written before this: line 2 has no tab"), "{}", said.error);
    let said = run(&store, &["stream", "describe", "s/missing", "--json"], "").await;
    let told: serde_json::Value = serde_json::from_str(&said.error).unwrap();
    assert_eq!((&told["error"], &told["exit"], said.code), (&"not-found".into(), &66.into(), 66), "{told}");
    assert!(told["message"].as_str().unwrap().contains("does not exist"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_bytes_and_tables_need_no_code_either() {
    let store = Store::start().await;
    let ok = async |arguments: &[&str], input: &'static str| ok(&store, arguments, input).await;
    ok(&["scope", "create", "shop"], "").await;
    ok(&["stream", "create", "shop/orders", "--segments", "2"], "").await;
    ok(&["event", "write", "shop/orders", "--key", "a"], "one\ntwo\nthree\n").await;
    assert_eq!(ok(&["group", "list", "shop"], "").await, "");
    assert_eq!(ok(&["group", "create", "shop/billing", "shop/orders"], "").await, "created shop/billing\n");
    assert_eq!(ok(&["group", "list", "shop"], "").await, "shop/billing\n");
    assert_eq!(ok(&["stream", "subscribers", "shop/orders"], "").await, "");
    ok(&["group", "create", "shop/audit", "shop/orders", "--retain", "checkpoint"], "").await;
    assert_eq!(ok(&["stream", "subscribers", "shop/orders"], "").await, "shop/audit\n");
    ok(&["group", "delete", "shop/audit"], "").await;
    let described = ok(&["group", "describe", "shop/billing", "--json"], "").await;
    let described: serde_json::Value = serde_json::from_str(&described).unwrap();
    assert_eq!(described["streams"], serde_json::json!(["shop/orders"]));
    assert_eq!(described["unread_bytes"], 3 * 8 + 11);
    assert_eq!(ok(&["group", "read", "shop/billing", "--max", "2"], "").await, "one\ntwo\n");
    // The reader has left, and others go on behind it.
    assert_eq!(ok(&["group", "read", "shop/billing", "--reader", "other", "--idle", "1s"], "").await, "three\n");
    let described = ok(&["group", "describe", "shop/billing"], "").await;
    assert_eq!(described, "reads     shop/orders\nreaders   none\nunread    0 bytes\n");
    let cut = ok(&["group", "checkpoint", "shop/billing", "--json"], "").await;
    let cut: serde_json::Value = serde_json::from_str(&cut).unwrap();
    assert_eq!(cut["stream"], "shop/orders");
    let again = run(&store, &["group", "checkpoint", "shop/billing"], "").await;
    assert!(again.code == 0 && again.error.starts_with("headwater: checkpoint headwater-cli-"), "{}", again.error);
    assert_eq!(again.out.trim_end(), cut["cut"].as_str().unwrap());
    ok(&["group", "reset", "shop/billing", "shop/orders"], "").await;
    assert_eq!(ok(&["group", "read", "shop/billing", "--max", "3"], "").await, "one\ntwo\nthree\n");
    ok(&["group", "reset", "shop/billing", "shop/orders", "--from", cut["cut"].as_str().unwrap()], "").await;
    assert_eq!(ok(&["group", "read", "shop/billing", "--idle", "1s"], "").await, "");
    let said = run(&store, &["group", "offline", "shop/billing", "nobody"], "").await;
    assert_eq!(said.code, 66, "{}", said.error);
    ok(&["group", "delete", "shop/billing"], "").await;
    assert_eq!(run(&store, &["group", "describe", "shop/billing"], "").await.code, 66);

    ok(&["stream", "create", "shop/log"], "").await;
    let wrote = ok(&["bytes", "write", "shop/log"], "0123456789").await;
    assert!(wrote.ends_with("the stream ends at 10\n"), "{wrote}");
    assert_eq!(ok(&["bytes", "read", "shop/log", "--from", "-4"], "").await, "6789");
    assert_eq!(ok(&["bytes", "read", "shop/log", "--from", "2", "--max", "3"], "").await, "234");
    ok(&["bytes", "truncate", "shop/log", "--to", "5"], "").await;
    assert_eq!(ok(&["bytes", "read", "shop/log"], "").await, "56789");
    let described = ok(&["bytes", "describe", "shop/log", "--json"], "").await;
    assert_eq!(described, "{\"head\":5,\"scope\":\"shop\",\"stream\":\"log\",\"tail\":10}\n");
    assert_eq!(run(&store, &["bytes", "write", "shop/orders"], "x").await.code, 64);

    ok(&["table", "create", "shop/stock", "--key-bytes", "2", "--partitions", "3"], "").await;
    assert_eq!(ok(&["table", "list", "shop"], "").await, "shop/stock\n");
    ok(&["table", "put", "shop/stock", "aa", "ten"], "").await;
    ok(&["table", "put", "shop/stock", "6262", "eleven", "--hex", "--if-absent"], "").await;
    assert_eq!(run(&store, &["table", "put", "shop/stock", "aa", "no", "--if-absent"], "").await.code, 65);
    let got = ok(&["table", "get", "shop/stock", "aa", "--json"], "").await;
    let got: serde_json::Value = serde_json::from_str(&got).unwrap();
    assert_eq!(got["value"], "ten");
    let version = got["version"].to_string();
    ok(&["table", "put", "shop/stock", "aa", "nine", "--if-version", &version], "").await;
    assert_eq!(run(&store, &["table", "remove", "shop/stock", "aa", "--if-version", &version], "").await.code, 65);
    assert_eq!(ok(&["table", "entries", "shop/stock"], "").await, "aa\tnine\nbb\televen\n");
    assert_eq!(
        ok(&["table", "entries", "shop/stock", "--from", "b", "--format", "hex"], "").await,
        "6262\t656c6576656e\n"
    );
    assert_eq!(ok(&["table", "remove", "shop/stock", "aa"], "").await, "removed aa from shop/stock\n");
    assert_eq!(ok(&["table", "remove", "shop/stock", "aa"], "").await, "aa is not in shop/stock\n");
    let again = ok(&["table", "remove", "shop/stock", "aa", "--json"], "").await;
    assert!(again.contains("\"removed\":null"), "{again}");
    assert_eq!(run(&store, &["table", "get", "shop/stock", "aa"], "").await.code, 66);
    assert_eq!(run(&store, &["table", "get", "shop/stock", "long"], "").await.code, 64);
    let described = ok(&["table", "describe", "shop/stock"], "").await;
    assert_eq!(described, "partitions 3\nkeys       1 of 2 + 0 bytes\n");
    ok(&["table", "delete", "shop/stock"], "").await;
    assert_eq!(ok(&["table", "list", "shop"], "").await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_that_is_written_again_under_its_name_is_stored_once() {
    let store = Store::start().await;
    store.stream("s/t", 2).await;
    let write = async |input: &'static str, more: &[&str]| {
        let arguments = [&["event", "write", "s/t", "--numbered", "log"][..], more].concat();
        run(&store, &arguments, input).await
    };
    let said = write("a\tone\nb\ttwo\nno tab\n", &["--key-before-tab"]).await;
    assert_eq!(said.code, 65, "{}", said.error);
    assert!(said.error.contains("2 events were written before this: line 3 has no tab"), "{}", said.error);
    // It goes on, and empty lines count for nothing.
    let said = write("a\tone\n\nb\ttwo\na\tthree\n", &["--key-before-tab"]).await;
    assert!(said.out.starts_with("wrote 1 events of 5 bytes in "), "{}{}", said.out, said.error);
    assert!(said.out.ends_with("; 2 were stored before\n"), "{}", said.out);
    let said = write("a\tone\nb\ttwo\na\tthree\nb\tfour\n", &["--key-before-tab", "--json"]).await;
    let object: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&object["events"], &object["stored_before"]), (&1.into(), &3.into()), "{object}");
    let mut events: Vec<_> = run(&store, &["event", "read", "s/t"], "").await.out.lines().map(str::to_owned).collect();
    events.sort_unstable();
    assert_eq!(events, ["four", "one", "three", "two"]);
    // Without keys, too, under a name of its own.
    for (input, expected) in [("1\n2\n3\n", "wrote 3 "), ("1\n2\n3\n4\n", "wrote 1 ")] {
        let said = run(&store, &["event", "write", "s/t", "--numbered", "other"], input).await;
        assert!(said.out.starts_with(expected), "{}{}", said.out, said.error);
    }
    assert_eq!(run(&store, &["event", "read", "s/t"], "").await.out.lines().count(), 8);
    for more in [&["--transaction"][..], &["--whole"]] {
        assert_eq!(write("x\n", more).await.code, 64);
    }
    assert_eq!(run(&store, &["event", "write", "s/t", "--numbered", ""], "x\n").await.code, 64);
}

/// Starts a reader and returns it with its output, line by line.
fn start_reader(store: &Store, more: &[&str]) -> (Child, mpsc::Receiver<serde_json::Value>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
    command.args(["group", "read", "s/g", "--json", "--server", &store.address()]).args(more);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (lines, said) = mpsc::channel();
    let out = std::io::BufReader::new(child.stdout.take().unwrap());
    std::thread::spawn(move || {
        for line in out.lines() {
            let _ = lines.send(serde_json::from_str(&line.unwrap()).unwrap());
        }
    });
    (child, said)
}

fn event(said: &mpsc::Receiver<serde_json::Value>) -> (String, u64, String) {
    let event = said.recv_timeout(Duration::from_secs(30)).expect("an event is printed");
    let text = |key: &str| event[key].as_str().unwrap().to_owned();
    (text("text"), event["attempt"].as_u64().unwrap(), text("pointer"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_goes_on_before_what_was_not_acknowledged() {
    let store = Store::start().await;
    store.stream("s/t", 1).await;
    assert_eq!(run(&store, &["event", "write", "s/t", "--key", "a"], "one\ntwo\nthree\n").await.code, 0);
    assert_eq!(run(&store, &["group", "create", "s/g", "s/t"], "").await.code, 0);
    let (mut child, said) = start_reader(&store, &["--acknowledge", "--redeliver-after", "3s"]);
    let waited = tokio::task::spawn_blocking(move || {
        let events = [event(&said), event(&said), event(&said)];
        assert_eq!(
            events.each_ref().map(|(text, attempt, _)| (text.as_str(), *attempt)),
            [("one", 1), ("two", 1), ("three", 1)]
        );
        let mut input = child.stdin.take().unwrap();
        writeln!(input, "{}\n{}", events[0].2, events[2].2).unwrap();
        // The one that is missing comes again.
        let (text, attempt, pointer) = event(&said);
        assert_eq!((text.as_str(), attempt, &pointer), ("two", 2, &events[1].2));
        drop(input);
        child.wait().unwrap().code()
    });
    assert_eq!(waited.await.unwrap(), Some(0));
    // What came behind it is there once more.
    let read = run(&store, &["group", "read", "s/g", "--max", "2"], "").await;
    assert_eq!(read.out, "two\nthree\n", "{}", read.error);
    assert_eq!(run(&store, &["group", "read", "s/g", "--acknowledge"], "").await.code, 64);
    let bad = run(&store, &["group", "read", "s/g", "--acknowledge", "--json"], "nonsense\n").await;
    assert_eq!((bad.code, bad.out.as_str()), (64, ""));
    assert!(bad.error.contains(r#"\"nonsense\" is no event pointer"#), "{}", bad.error);
    let described = run(&store, &["group", "describe", "s/g"], "").await;
    assert_eq!(described.out, "reads     s/t\nreaders   none\nunread    0 bytes\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_was_killed_is_taken_out_by_another() {
    let store = Store::start().await;
    store.stream("s/t", 1).await;
    assert_eq!(run(&store, &["event", "write", "s/t", "--key", "a"], "one\n").await.code, 0);
    assert_eq!(run(&store, &["group", "create", "s/g", "s/t"], "").await.code, 0);
    let (mut child, said) = start_reader(&store, &["--acknowledge", "--dead-after", "1s", "--reader", "mortal"]);
    let killed = tokio::task::spawn_blocking(move || {
        assert_eq!(event(&said).0, "one");
        child.kill().unwrap();
        child.wait().unwrap()
    });
    assert!(!killed.await.unwrap().success());
    let described = run(&store, &["group", "describe", "s/g"], "").await;
    assert!(described.out.contains("readers   mortal\n"), "{}", described.out);
    let read = run(&store, &["group", "read", "s/g", "--dead-after", "1", "--max", "1"], "").await;
    assert_eq!((read.code, read.out.as_str()), (0, "one\n"), "{}", read.error);
    let described = run(&store, &["group", "describe", "s/g"], "").await;
    assert!(described.out.contains("readers   none\n"), "{}", described.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_says_between_which_times_it_reads() {
    let store = Store::start().await;
    store.stream("s/t", 1).await;
    assert_eq!(run(&store, &["event", "write", "s/t", "--key", "a"], "one\n").await.code, 0);
    let marks = store.client.revisioned_stream(&ScopedStream::parse("s/_MARKt").unwrap()).await.unwrap();
    marks.write(&super::windows::mark(1000, 2000, 11)).await.unwrap();
    assert_eq!(run(&store, &["group", "create", "s/g", "s/t"], "").await.code, 0);
    let (mut child, said) = start_reader(&store, &["--windows"]);
    let lines = tokio::task::spawn_blocking(move || {
        let mut lines: Vec<serde_json::Value> = Vec::new();
        while lines.last().is_none_or(|line| line["lower"] != 1000) {
            lines.push(said.recv_timeout(Duration::from_secs(60)).expect("a window is printed"));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        lines
    });
    let lines = lines.await.unwrap();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert_eq!(lines[0], serde_json::json!({"stream": "s/t", "lower": null, "upper": 2000}));
    assert_eq!(lines[1]["text"], "one");
    assert_eq!(lines[2], serde_json::json!({"stream": "s/t", "lower": 1000, "upper": null}));
    assert_eq!(run(&store, &["group", "read", "s/g", "--windows"], "").await.code, 64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_interrupted_leaves_its_group() {
    let store = Store::start().await;
    for arguments in [
        &["scope", "create", "shop"][..],
        &["stream", "create", "shop/orders"],
        &["group", "create", "shop/billing", "shop/orders"],
    ] {
        assert_eq!(run(&store, arguments, "").await.code, 0);
    }
    assert_eq!(run(&store, &["event", "write", "shop/orders", "--key", "a"], "one\n").await.code, 0);
    let mut reading = Command::new(env!("CARGO_BIN_EXE_headwater"));
    reading.args(["group", "read", "shop/billing", "--server", &store.address()]).stdout(Stdio::piped());
    let code = tokio::task::spawn_blocking(move || {
        let mut reading = reading.spawn().unwrap();
        let mut first = String::new();
        std::io::BufReader::new(reading.stdout.take().unwrap()).read_line(&mut first).unwrap();
        assert_eq!(first, "one\n");
        assert!(Command::new("kill").args(["-INT", &reading.id().to_string()]).status().unwrap().success());
        reading.wait().unwrap().code()
    });
    assert_eq!(code.await.unwrap(), Some(130));
    // What could not be shown was not read.
    assert_eq!(run(&store, &["event", "write", "shop/orders", "--key", "a"], "two\n").await.code, 0);
    let mut refused = Command::new(env!("CARGO_BIN_EXE_headwater"));
    refused.args(["group", "read", "shop/billing", "--max", "1", "--server", &store.address()]);
    refused.stdout(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap()).stderr(Stdio::null());
    let code = tokio::task::spawn_blocking(move || refused.status().unwrap().code());
    assert_eq!(code.await.unwrap(), Some(74));
    let again = run(&store, &["group", "read", "shop/billing", "--max", "1"], "").await;
    assert_eq!((again.code, again.out.as_str()), (0, "two\n"), "{}", again.error);
    let described = run(&store, &["group", "describe", "shop/billing"], "").await;
    assert_eq!(described.out, "reads     shop/orders\nreaders   none\nunread    0 bytes\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_streams_flights_of_anybody_and_says_what_is_wrong_with_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("flights.csv");
    let flights: String = (0..3000).map(|number| format!("{number},carrier {},x\n", number % 7)).collect();
    std::fs::write(&file, flights).unwrap();
    let demo = async |column: &'static str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
        command.arg("demo").arg(&file).args(["--key-column", column]);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    };
    let odd = demo("4").await;
    assert_eq!(odd.status.code(), Some(65));
    assert!(String::from_utf8_lossy(&odd.stderr).contains("line 1 has no column 4"));
    let shown = demo("2").await;
    let said = String::from_utf8(shown.stdout).unwrap();
    assert_eq!(shown.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&shown.stderr));
    assert!(said.contains("every segment is split: 4 now\n"), "{said}");
    assert!(said.ends_with("all 3000 flights were read once, and those of each carrier in order\n"), "{said}");
}

/// Runs a command that needs no store.
fn alone(arguments: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
    let output = command.args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code().unwrap(), out: text(output.stdout), error: text(output.stderr) }
}

#[test]
fn a_command_line_that_cannot_be_is_64_and_78_only_for_a_server() {
    for (arguments, code, word) in [
        (&["strem"][..], 64, "strem"),
        (&["config", "show", "--nope"], 64, "--nope"),
        (&["user", "add"], 64, "<FILE>"),
        (&["backup", "--nope"], 64, "--nope"),
        (&["serve", "--nope"], 78, "--nope"),
        (&["scope", "list", "--patience", "x"], 64, "\"x\" is no time, such as 90s"),
        (&["user", "list", "/does/not/exist"], 66, "cannot be read"),
        (&["check", "/does/not/exist"], 66, "/does/not/exist"),
        (&["bench", "write", "--server", "127.0.0.1:1", "--seconds", "0.2"], 69, "could not connect to"),
        (&["bench", "scale", "--server", "127.0.0.1:1", "--rounds", "0"], 64, "--rounds is from 1 to 100"),
        (&["scope", "list", "--server", "tls://127.0.0.1:1"], 64, "certificates to trust: give them with --ca FILE"),
        (&["scope", "list", "--server", "tcp://127.0.0.1:1", "--patience", "1"], 69, "No answer within"),
    ] {
        let said = alone(arguments);
        assert_eq!((said.code, said.out.as_str()), (code, ""), "{arguments:?}: {}", said.error);
        assert!(said.error.contains(word), "{arguments:?}: {}", said.error);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_say_what_all_commands_have_in_common() {
    let store = Store::start().await;
    store.stream("s/t", 1).await;
    let list = async |variables: &[(&str, &str)], more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
        command.args(["stream", "list", "s", "--patience", "5"]).args(more).envs(variables.iter().copied());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let address = store.address();
    assert_eq!(list(&[("HEADWATER_SERVER", &address)], &[]).await, (0, "s/t\n".to_owned()));
    assert_eq!(list(&[("HEADWATER_SERVER", "tcp://127.0.0.1:1")], &["--server", &address]).await.0, 0, "a flag wins");
    assert_eq!(list(&[("HEADWATER_CREDENTIALS", "/does/not/exist")], &["--server", &address]).await.0, 66);
    assert_eq!(list(&[("HEADWATER_CA", "/does/not/exist")], &["--server", &address]).await.0, 66);
    let (code, help) = list(&[("HEADWATER_CREDENTIALS", "/home/somebody/planted")], &["--help"]).await;
    assert!(code == 0 && help.contains("HEADWATER_CREDENTIALS") && !help.contains("planted"), "{help}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_loses_its_server_says_what_is_stored() {
    for numbered in [None, Some("log")] {
        let store = Store::start().await;
        let stream = store.stream("s/t", 1).await;
        let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
        command.args(["event", "write", "s/t", "--server", &store.address(), "--patience", "1"]);
        command.args(numbered.iter().flat_map(|name| ["--numbered", *name]));
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(b"one\ntwo\nthree\n").unwrap();
        let mut reader = store.client.stream_reader(&stream, Default::default()).await.unwrap();
        for expected in ["one", "two", "three"] {
            assert_eq!(reader.next().await.unwrap().unwrap().event, expected);
        }
        store.stop().await;
        let ended = tokio::task::spawn_blocking(move || {
            // It may have ended before all is read.
            let _ = input.write_all(b"four\nfive\n");
            drop(input);
            child.wait_with_output().unwrap()
        });
        let ended = ended.await.unwrap();
        let error = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(69), "{error}");
        assert!(error.contains("3 events were acknowledged, 2 may be stored or not: "), "{error}");
        assert!(error.contains("(unavailable)\nNo answer within"), "{error}");
        let hint =
            if numbered.is_some() { "The same command, given again," } else { "--numbered NAME can be given again" };
        assert!(error.contains(hint), "{error}");
    }
}

#[test]
fn every_word_of_an_error_is_explained() {
    assert!(alone(&["explain", "no-input"]).out.starts_with("no-input (exit code 66): A file could not be read"));
    assert_eq!(alone(&["explain", "nonsense"]).code, 64);
}
