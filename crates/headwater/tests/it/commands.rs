//! The commands that operate a store, as a person or a script starts them.

use std::io::{BufRead as _, Write as _};
use std::process::{Command, Stdio};

use super::Store;

struct Said {
    code: i32,
    out: String,
    error: String,
}

/// Runs a command on the store with this input.
async fn run(store: &Store, arguments: &[&str], input: &'static str) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
    command.args(arguments).args(["--server", &store.address(), "--patience", "5"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let running = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    });
    let output = running.await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code().unwrap(), out: text(output.stdout), error: text(output.stderr) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_operates_a_store_without_code() {
    let store = Store::start().await;
    let ok = async |arguments: &[&str], input: &'static str| {
        let said = run(&store, arguments, input).await;
        assert_eq!(said.code, 0, "{arguments:?}: {}", said.error);
        said.out
    };
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
    let described = ok(&["stream", "describe", "shop/orders", "--json"], "").await;
    let described: serde_json::Value = serde_json::from_str(&described).unwrap();
    assert_eq!(described["segments"].as_array().unwrap().len(), 5);
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
    for (arguments, code, word) in [
        (&["stream", "describe", "s/missing"][..], 66, "does not exist"),
        (&["stream", "delete", "s/t"], 65, "has to be sealed"),
        (&["stream", "create", "nonsense"], 64, "SCOPE/STREAM"),
        (&["stream", "truncate", "s/t", "--at", "nonsense"], 64, "no stream cut"),
        (&["event", "write", "s/t", "/does/not/exist"], 66, "cannot be read"),
        (&["event", "get", "s/t/0.#epoch.0:0-99"], 64, "ends at 0"),
        (&["event", "read", "s/t", "--from", "nonsense"], 64, "nor a stream cut"),
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
    let nobody = Command::new(env!("CARGO_BIN_EXE_headwater"))
        .args(["scope", "list", "--server", "tcp://127.0.0.1:1", "--patience", "1"])
        .output()
        .unwrap();
    assert_eq!(nobody.status.code(), Some(69));
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_bytes_and_tables_need_no_code_either() {
    let store = Store::start().await;
    let ok = async |arguments: &[&str], input: &'static str| {
        let said = run(&store, arguments, input).await;
        assert_eq!(said.code, 0, "{arguments:?}: {}", said.error);
        said.out
    };
    ok(&["scope", "create", "shop"], "").await;
    ok(&["stream", "create", "shop/orders", "--segments", "2"], "").await;
    ok(&["event", "write", "shop/orders", "--key", "a"], "one\ntwo\nthree\n").await;
    assert_eq!(ok(&["group", "create", "shop/billing", "shop/orders"], "").await, "created shop/billing\n");
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
    ok(&["table", "remove", "shop/stock", "aa"], "").await;
    assert_eq!(run(&store, &["table", "get", "shop/stock", "aa"], "").await.code, 66);
    assert_eq!(run(&store, &["table", "get", "shop/stock", "long"], "").await.code, 64);
    let described = ok(&["table", "describe", "shop/stock"], "").await;
    assert_eq!(described, "partitions 3\nkeys       1 of 2 + 0 bytes\n");
    ok(&["table", "delete", "shop/stock"], "").await;
    assert_eq!(ok(&["table", "list", "shop"], "").await, "");
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
