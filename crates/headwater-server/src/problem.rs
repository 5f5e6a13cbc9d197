//! Answers of the HTTP listener that say what is wrong: `application/problem+json` with status, title and detail.
//!
//! Source: RFC 9457. Of what a caller sent a name or a word is shown, as text in JSON.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use headwater_controller::model::ControllerError;
use serde_json::json;

/// What is wrong with a request, or with us.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    detail: String,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), header: None }
    }

    /// A mistake of the caller in what they sent.
    pub(crate) fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(crate) fn not_found(what: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("{what} does not exist"))
    }

    /// The server has not begun to serve, or is about to end.
    pub(crate) fn not_ready() -> Self {
        Self::unavailable("the server is not ready")
    }

    /// Trouble that passes: the caller should come back.
    pub(crate) fn unavailable(detail: impl Into<String>) -> Self {
        Self {
            header: Some((header::RETRY_AFTER, HeaderValue::from_static("1"))),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
        }
    }

    pub(crate) fn with(self, name: HeaderName, value: HeaderValue) -> Self {
        Self { header: Some((name, value)), ..self }
    }
}

impl From<ControllerError> for Problem {
    fn from(error: ControllerError) -> Self {
        let text = error.to_string();
        match error {
            ControllerError::Invalid(_) => Self::bad(text),
            ControllerError::NotFound(_) => Self::new(StatusCode::NOT_FOUND, text),
            ControllerError::Unavailable(_) => Self::unavailable(text),
            ControllerError::Exhausted(_) => {
                Self { status: StatusCode::INSUFFICIENT_STORAGE, ..Self::unavailable(text) }
            }
            ControllerError::Foreign(_) => {
                tracing::warn!(%error, "a request over HTTP has no answer");
                Self::new(StatusCode::CONFLICT, text)
            }
            ControllerError::Damaged(_) | ControllerError::Newer(_) | ControllerError::Internal(_) => {
                tracing::error!(%error, "a request over HTTP failed");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, text)
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, detail, header } = self;
        let body = json!({"status": status.as_u16(), "title": status.canonical_reason(), "detail": detail});
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (status, kind, body.to_string()).into_response();
        if let Some((name, value)) = header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}
