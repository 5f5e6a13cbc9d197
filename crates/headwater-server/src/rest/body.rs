//! Bodies of requests: JSON of a bounded size and depth, or a problem that says what is wrong with it.

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;

use crate::problem::Problem;

/// Largest body. All tags that a stream may carry take half of it.
pub(crate) const BODY_BYTES_MAX: usize = 256 << 10;
/// Most bytes that are read of a body that is too long.
const DISCARDED_BYTES_MAX: usize = 4 << 20;
/// Deepest nesting of objects and lists; ours have three levels.
const DEPTH_MAX: usize = 64;

/// A body of this type. Fields that the type has not are passed over, as Pravega does.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body has to be application/json"));
        }
        let (parts, body) = request.into_parts();
        let bytes = read(&parts.headers, body).await?;
        if bytes.is_empty() {
            return Err(Problem::bad("the body is empty"));
        }
        if depth(&bytes) > DEPTH_MAX {
            return Err(Problem::bad(format!("the body is nested more than {DEPTH_MAX} deep")));
        }
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| Problem::bad(format!("the body is not as it should be: {error}")))
    }
}

/// The whole body. One that is too long is read on and thrown away while it is bearable: whoever is still sending when
/// the connection closes does not get to see why.
async fn read(headers: &HeaderMap, mut body: Body) -> Result<Vec<u8>, Problem> {
    let too_long =
        || Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is longer than {BODY_BYTES_MAX} bytes"));
    let said = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if said.is_some_and(|length| length > DISCARDED_BYTES_MAX) {
        return Err(too_long());
    }
    let (mut read, mut bytes) = (0, Vec::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::bad("the body ended before its end"))?;
        let Ok(data) = frame.into_data() else { continue };
        read += data.len();
        if read <= BODY_BYTES_MAX {
            bytes.extend_from_slice(&data);
        } else if read > DISCARDED_BYTES_MAX {
            break;
        }
    }
    if read > BODY_BYTES_MAX { Err(too_long()) } else { Ok(bytes) }
}

/// Deepest nesting of what is perhaps JSON.
fn depth(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest, mut is_text, mut is_escaped) = (0_usize, 0, false, false);
    for byte in bytes {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_text => is_escaped = true,
            b'"' => is_text = !is_text,
            b'{' | b'[' if !is_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !is_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_in_texts_are_not_nesting() {
        for (text, expected) in
            [("", 0), ("{}", 1), (r#"{"a":[{}]}"#, 3), (r#"{"[[[":"{\"[{"}"#, 1), ("[[[", 3), ("]]][", 1)]
        {
            assert_eq!(depth(text.as_bytes()), expected, "{text}");
        }
    }
}
