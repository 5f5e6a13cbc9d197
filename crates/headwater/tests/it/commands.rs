//! The commands that operate a store, as a person or a script starts them.

use std::io::Write as _;
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
