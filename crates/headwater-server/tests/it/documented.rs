//! Requests over HTTP whose answers are held against the document that the server serves.

use headwater_auth::HttpRoute;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::server::Running;

/// A server with what it says about itself.
pub(crate) struct Documented<'a> {
    running: &'a Running,
    document: Value,
    /// Sent with every request.
    pub(crate) headers: String,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    fn of(answer: &[u8]) -> Self {
        let answer = String::from_utf8(answer.to_vec()).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
        let head = head.to_ascii_lowercase();
        let is_chunked = head.contains("transfer-encoding: chunked");
        let body = if is_chunked { whole(body) } else { body.to_owned() };
        Self { status: head.split(' ').nth(1).unwrap().parse().unwrap(), head, body }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Media type, without parameters; empty if there is none.
    fn kind(&self) -> &str {
        let line = self.head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap_or_default();
        line.split(';').next().unwrap()
    }
}

/// A body that came in pieces. The last one says that it is the last.
fn whole(mut pieces: &str) -> String {
    let mut body = String::new();
    loop {
        let (length, rest) = pieces.split_once("\r\n").expect("a piece has a length");
        let length = usize::from_str_radix(length, 16).unwrap();
        body.push_str(&rest[..length]);
        pieces = rest[length..].strip_prefix("\r\n").expect("a piece has an end");
        if length == 0 {
            return body;
        }
    }
}

impl<'a> Documented<'a> {
    pub(crate) async fn new(running: &'a Running) -> Self {
        let mut this = Self { running, document: Value::Null, headers: String::new() };
        let answer = this.send("GET", "/openapi.json", "", "").await;
        assert_eq!((answer.status, answer.kind()), (200, "application/json"));
        this.document = answer.json();
        this
    }

    /// Sends a request as it is, and returns whatever comes back.
    pub(crate) async fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        self.send_to("localhost", method, path, &format!("{}{headers}", self.headers), body).await
    }

    /// Asks under another name, without a body.
    pub(crate) async fn send_as(&self, host: &str, method: &str, path: &str, headers: &str) -> Answer {
        self.send_to(host, method, path, headers, "").await
    }

    async fn send_to(&self, host: &str, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let mut socket = self.running.connect(self.running.server.http(), &["http/1.1"]).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{headers}Connection: close\r\n\r\n{body}");
        // The server may have answered, and gone, before it has read everything.
        let _ = socket.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let read = socket.read_to_end(&mut answer).await;
        assert!(!answer.is_empty(), "{method} {path} is not answered: {read:?}");
        Answer::of(&answer)
    }

    /// Asks without a body.
    pub(crate) async fn ask(&self, route: HttpRoute, path: &str) -> Answer {
        self.checked(route, path, "", "").await
    }

    /// Asks with a body of JSON.
    pub(crate) async fn put(&self, route: HttpRoute, path: &str, body: &Value) -> Answer {
        self.text(route, path, &body.to_string()).await
    }

    /// Asks with a body that is said to be JSON.
    pub(crate) async fn text(&self, route: HttpRoute, path: &str, body: &str) -> Answer {
        let headers = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        self.checked(route, path, &headers, body).await
    }

    /// Asks, and holds the answer against the document: its status is there, and so is what it carries.
    pub(crate) async fn checked(&self, route: HttpRoute, path: &str, headers: &str, body: &str) -> Answer {
        let answer = self.send(route.method(), path, headers, body).await;
        let template = route.path().replace("{*", "{");
        let operation = &self.document["paths"][&template][route.method().to_ascii_lowercase()];
        let documented = &operation["responses"][answer.status.to_string()];
        assert!(documented.is_object(), "{route}: status is not documented: {answer:?}");
        match documented.get("content") {
            None => assert_eq!(answer.body, "", "{route}"),
            Some(kinds) => {
                let schema = &kinds[answer.kind()]["schema"];
                assert!(schema.is_object(), "{route}: type is not documented: {answer:?}");
                if answer.kind().ends_with("json") {
                    self.validate(schema, &answer.json(), &route.to_string());
                }
            }
        }
        if answer.kind() == "application/problem+json" {
            assert_eq!(answer.json()["status"], answer.status, "{route}");
        }
        answer
    }

    /// Whether a value is as a schema says, as far as our schemas say anything.
    pub(crate) fn validate(&self, schema: &Value, value: &Value, at: &str) {
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            let target = self.document.pointer(reference.trim_start_matches('#'));
            return self.validate(target.expect("references lead somewhere"), value, at);
        }
        let is = |kind: &str| match kind {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "null" => value.is_null(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            other => panic!("{at}: unknown type {other}"),
        };
        match &schema["type"] {
            Value::Null => assert!(schema.get("enum").is_some(), "{at}: the schema says nothing"),
            Value::String(kind) => assert!(is(kind), "{at}: {value} is no {kind}"),
            Value::Array(kinds) => assert!(kinds.iter().any(|kind| is(kind.as_str().unwrap())), "{at}: {value}"),
            other => panic!("{at}: {other}"),
        }
        if let Some(words) = schema.get("enum") {
            assert!(words.as_array().unwrap().contains(value), "{at}: {value} is none of {words}");
        }
        for (limit, holds) in [("minimum", (|a, b| a >= b) as fn(f64, f64) -> bool), ("maximum", |a, b| a <= b)] {
            if let (Some(limit), Some(value)) = (schema.get(limit).and_then(Value::as_f64), value.as_f64()) {
                assert!(holds(value, limit), "{at}: {value} is beyond {limit}");
            }
        }
        for (index, item) in value.as_array().into_iter().flatten().enumerate() {
            self.validate(&schema["items"], item, &format!("{at}/{index}"));
        }
        let Some(fields) = value.as_object() else { return };
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            assert!(fields.contains_key(name.as_str().unwrap()), "{at}: {name} is missing in {value}");
        }
        for (name, field) in fields {
            let at = format!("{at}/{name}");
            match (schema["properties"].get(name), schema.get("additionalProperties")) {
                (Some(schema), _) => self.validate(schema, field, &at),
                (None, Some(schema @ Value::Object(_))) => self.validate(schema, field, &at),
                (None, Some(Value::Bool(false))) => panic!("{at} is not documented"),
                (None, _) => {}
            }
        }
    }

    /// The schema of an operation's body.
    pub(crate) fn body_schema(&self, route: HttpRoute) -> Option<&Value> {
        let operation = &self.document["paths"][route.path()][route.method().to_ascii_lowercase()];
        operation.pointer("/requestBody/content/application~1json/schema")
    }
}
