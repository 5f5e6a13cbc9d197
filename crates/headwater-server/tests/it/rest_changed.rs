//! Requests over HTTP that are changed anywhere: path, query and body. Whatever they say, that ends in an answer which
//! is not the server's failure, and the next request is answered as before.

use headwater_auth::HttpRoute;
use serde_json::json;

use crate::documented::Documented;
use crate::server::Running;

/// Changed requests to each route. Many more were sent once by hand; see the page on promises.
const EACH: usize = 40;

/// Numbers that follow no order, the same in every run.
struct Noise(u64);

impl Noise {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        (self.0 >> 33) as usize % count
    }

    fn one_of<'a>(&mut self, texts: &[&'a str]) -> &'a str {
        texts[self.below(texts.len())]
    }

    /// Puts something in the place of a few bytes, somewhere.
    fn change(&mut self, text: &str, pieces: &[&str]) -> String {
        let mut chars: Vec<char> = text.chars().collect();
        for _ in 0..=self.below(2) {
            let at = self.below(chars.len() + 1);
            let end = chars.len().min(at + self.below(5));
            let piece = self.one_of(pieces).chars().collect::<Vec<_>>();
            chars.splice(at..end, piece);
        }
        chars.into_iter().collect()
    }
}

/// What stands for itself in a line of HTTP.
const IN_PATHS: &[&str] = &[
    "", "/", "//", "..", "%2e%2e", "%00", "%", "%zz", "%ff", "?", "&", "=", "#", ";", "+", "*", "~", "a", "_MARK", "9",
];
const QUERIES: &[&str] = &[
    "",
    "?limit=-1",
    "?limit=99999999999999999999",
    "?from=-9223372036854775808&to=9223372036854775807",
    "?from=x",
    "?after=%00",
    "?filter_type=showInternalStreams",
    "?filter_type=tag&filter_value=%ff",
    "?filter_type",
    "?&&==&",
    "?recursive=maybe",
];
const IN_BODIES: &[&str] = &[
    "",
    "\"",
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "null",
    "-1",
    "0",
    "1e400",
    "99999999999999999999",
    "\\",
    "\\u0000",
    "\\ud800",
    "true",
    "\u{0}",
    "\u{fffd}",
    "FIXED_NUM_SEGMENTS",
    "LIMITED_DAYS",
];

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_changed_anywhere_are_the_callers_mistakes_or_are_done() {
    let running = Running::start(|_| {}).await;
    let http = Documented::new(&running).await;
    let stream = json!({
        "scopeName": "s",
        "streamName": "t",
        "scalingPolicy": {"type": "BY_RATE_IN_EVENTS_PER_SEC", "targetRate": 10, "scaleFactor": 2, "minSegments": 1},
        "retentionPolicy": {"type": "LIMITED_DAYS", "value": 1, "timeBasedRetention": {"days": 1, "hours": 0, "minutes": 0}},
        "streamTags": ["a", "b"],
        "streamState": "SEALED",
    })
    .to_string();
    let mut noise = Noise(0x5EED);
    let (mut done, mut refused) = (0, 0);
    for route in HttpRoute::ALL {
        // What an earlier one has taken away.
        http.put(HttpRoute::CreateScope, "/v1/scopes", &json!({"scopeName": "s"})).await;
        http.text(HttpRoute::CreateStream, "/v1/scopes/s/streams", &stream).await;
        let names = [("{scope}", "s"), ("{stream}", "t"), ("{group}", "g"), ("{id}", "store"), ("{*name}", "store")];
        let path = names.iter().fold(route.path().to_owned(), |path, (part, name)| path.replace(part, name));
        for _ in 0..EACH {
            let path = if noise.below(3) == 0 { noise.change(&path, IN_PATHS) } else { path.clone() };
            let path = format!("/{}{}", path.trim_start_matches('/'), noise.one_of(QUERIES));
            let body = match noise.below(3) {
                0 => stream.clone(),
                1 => noise.change(&stream, IN_BODIES),
                _ => stream[..noise.below(stream.len())].to_owned(),
            };
            let headers = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
            let answer = http.send(route.method(), &path, &headers, &body).await;
            let (method, status) = (route.method(), answer.status);
            assert!((200..500).contains(&status), "{method} {path} {body:?}: {answer:?}");
            if status < 300 { done += 1 } else { refused += 1 }
        }
    }
    assert!(done > 100 && refused > 100, "{done} done, {refused} refused: one side was hardly looked at");
    assert_eq!(http.ask(HttpRoute::Ping, "/ping").await.status, 200);
}
