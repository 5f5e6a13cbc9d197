//! What `--json` prints, key by key: programs rely on it. Keys are only ever added, here and in `docs/command-line.md`.

use serde_json::Value;

use super::Store;
use super::commands::{ok, ok_alone};

/// What is typed, one after the other, and the keys of the last line that comes of it, each with the type of its value: a
/// string, a number, a boolean, null, an object or a list (of the first of its items). `CUT`, `POINTER` and `ID` are what an
/// earlier line has shown under such a key.
const SCHEMA: &[(&str, &str)] = &[
    ("scope create shop", "{created: boolean, scope: string}"),
    ("scope list", "{scope: string}"),
    (
        "stream create shop/orders --events-per-second 100 --retain-for 7d --tag blue",
        "{created: boolean, scope: string, stream: string}",
    ),
    ("stream list shop", "{scope: string, stream: string}"),
    (
        "stream describe shop/orders",
        "{bytes: number, retention: {max_seconds: null, min_seconds: number, type: string}, scaling: {factor: number, segments_min: number, target: number, type: string}, scope: string, sealed: boolean, segments: [{end: number, keys: [number], segment: string, start: number}], stream: string, tags: [string]}",
    ),
    ("stream update shop/orders --retain-bytes 1GiB --segments 1", "{scope: string, stream: string, updated: boolean}"),
    (
        "stream describe shop/orders",
        "{bytes: number, retention: {max_bytes: null, min_bytes: number, type: string}, scaling: {factor: number, segments_min: number, target: number, type: string}, scope: string, sealed: boolean, segments: [{end: number, keys: [number], segment: string, start: number}], stream: string, tags: [string]}",
    ),
    ("stream scale shop/orders --segments 2", "{scope: string, segments: number, stream: string}"),
    ("stream cut shop/orders", "{cut: string, scope: string, stream: string}"),
    ("stream truncate shop/orders --at CUT", "{scope: string, stream: string, truncated: boolean}"),
    (
        "event write shop/orders --key a",
        "{bytes: number, events: number, scope: string, seconds: number, stream: string}",
    ),
    (
        "event write shop/orders --key a --numbered input",
        "{bytes: number, events: number, scope: string, seconds: number, stored_before: number, stream: string}",
    ),
    (
        "event write shop/orders --key a --transaction",
        "{bytes: number, events: number, scope: string, seconds: number, stream: string}",
    ),
    ("event read shop/orders", "{pointer: string, text: string}"),
    ("event get POINTER", "{pointer: string, text: string}"),
    ("txn list shop/orders", "{state: string, transaction: string}"),
    ("txn state shop/orders ID", "{state: string, transaction: string}"),
    ("stream remove-writer shop/orders w", "{removed: null, scope: string, stream: string}"),
    ("group create shop/billing shop/orders --retain checkpoint", "{created: boolean, group: string, scope: string}"),
    ("group list shop", "{group: string, scope: string}"),
    (
        "group describe shop/billing",
        "{checkpoint_seconds: number, group: string, readers: [], retain: string, scope: string, streams: [string], unread_bytes: number}",
    ),
    ("stream subscribers shop/orders", "{group: string, scope: string, stream: string}"),
    ("group read shop/billing --max 1", "{pointer: string, text: string}"),
    ("group checkpoint shop/billing", "{checkpoint: string, cut: string, stream: string}"),
    ("group reset shop/billing shop/orders", "{group: string, reset: boolean, scope: string}"),
    ("group delete shop/billing", "{deleted: boolean, group: string, scope: string}"),
    ("stream create shop/log", "{created: boolean, scope: string, stream: string}"),
    ("bytes write shop/log", "{bytes: number, scope: string, seconds: number, stream: string, tail: number}"),
    ("bytes describe shop/log", "{head: number, scope: string, stream: string, tail: number}"),
    ("bytes truncate shop/log --to 1", "{head: number, scope: string, stream: string}"),
    ("table create shop/stock --key-bytes 5", "{created: boolean, scope: string, table: string}"),
    ("table list shop", "{scope: string, table: string}"),
    ("table put shop/stock apple 10", "{scope: string, table: string, version: number}"),
    ("table get shop/stock apple", "{value: string, version: number}"),
    ("table entries shop/stock", "{key: string, value: string, version: number}"),
    (
        "table describe shop/stock",
        "{key_bytes: number, keys: number, partitions: number, scope: string, secondary_key_bytes: number, table: string}",
    ),
    ("table remove shop/stock apple", "{removed: string, scope: string, table: string}"),
    ("table remove shop/stock apple", "{removed: null, scope: string, table: string}"),
    ("table delete shop/stock", "{deleted: boolean, scope: string, table: string}"),
    ("stream seal shop/orders", "{scope: string, sealed: boolean, stream: string}"),
    ("stream delete shop/orders", "{deleted: boolean, scope: string, stream: string}"),
    ("scope delete shop --recursive", "{deleted: boolean, scope: string}"),
    ("user add FILE ada --grant prn::*,READ", "{done: string, user: string}"),
    ("user list FILE", "{grants: [string], user: string}"),
    ("user remove FILE ada", "{done: string, user: string}"),
    ("config show --origin", "{origin: string, setting: string, value: string}"),
    ("explain 69", "{exit: number, text: string, word: string}"),
];

/// What all commands read that read anything.
const INPUT: &str = "one\ntwo\n";

fn shape(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "boolean".to_owned(),
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(items) => format!("[{}]", items.first().map_or(String::new(), shape)),
        Value::Object(fields) => {
            let fields: Vec<_> = fields.iter().map(|(key, value)| format!("{key}: {}", shape(value))).collect();
            format!("{{{}}}", fields.join(", "))
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_programs_are_told_has_the_keys_that_it_had() {
    let store = Store::start().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("users");
    let documented = include_str!("../../../../docs/command-line.md");
    let (mut cut, mut pointer, mut id) = (String::new(), String::new(), String::new());
    let mut wrong = Vec::new();
    for (typed, expected) in SCHEMA {
        let words: Vec<_> = typed.split(' ').collect();
        let mut arguments: Vec<&str> = words.clone();
        for word in &mut arguments {
            *word = match *word {
                "CUT" => &cut,
                "POINTER" => &pointer,
                "ID" => &id,
                "FILE" => file.to_str().unwrap(),
                word => word,
            };
        }
        arguments.push("--json");
        let said = match words[0] {
            "user" | "config" | "explain" => ok_alone(&arguments, INPUT).await,
            _ => ok(&store, &arguments, INPUT).await,
        };
        let last: Value = serde_json::from_str(said.lines().last().unwrap_or_default()).unwrap();
        let text = |key: &str| last[key].as_str().map(str::to_owned);
        (cut, pointer, id) =
            (text("cut").unwrap_or(cut), text("pointer").unwrap_or(pointer), text("transaction").unwrap_or(id));
        if shape(&last) != *expected {
            wrong.push(format!("    ({typed:?}, {:?}),", shape(&last)));
        }
        for key in last.as_object().unwrap().keys() {
            assert!(documented.contains(&format!("`{key}`")), "{typed}: {key} is not documented");
        }
    }
    assert!(wrong.is_empty(), "other keys than before:\n{}", wrong.join("\n"));
}
