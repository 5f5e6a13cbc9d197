//! The HTTP listener's routes, guarded.

use axum::extract::{RawPathParams, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::routing::MethodRouter;
use headwater_auth::{Access, HttpRoute, Target};

use super::{Guard, Unknown};

/// What browsers and tools are told to come back with.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"headwater\", Bearer realm=\"headwater\"");

/// A handler that is reached only by those who may. A route that is open asks nobody.
pub(crate) fn guarded<S>(route: HttpRoute, handler: MethodRouter<S>, guard: &Guard) -> MethodRouter<S>
where
    S: Clone + Send + Sync + 'static,
{
    let guard = guard.clone();
    handler.route_layer(from_fn(move |names: RawPathParams, request: Request, next: Next| {
        let guard = guard.clone();
        async move {
            if route.is_open() {
                return next.run(request).await;
            }
            let caller = match guard.identify(request.headers()).await {
                Ok(caller) => caller,
                Err(Unknown::Refused) => return unauthenticated(),
                Err(Unknown::Busy) => {
                    return (StatusCode::SERVICE_UNAVAILABLE, "too many others prove who they are\n").into_response();
                }
            };
            let named = |wanted| names.iter().find(|(name, _)| *name == wanted).map_or("", |(_, value)| value);
            let target = Target { scope: named("scope"), name: named("stream"), access: Access::Change };
            match route.check(caller.grants(), &target) {
                Ok(()) => next.run(request).await,
                Err(_) if caller.is_nobody() => unauthenticated(),
                Err(_) => (StatusCode::FORBIDDEN, "not allowed\n").into_response(),
            }
        }
    }))
}

fn unauthenticated() -> Response {
    let mut response = (StatusCode::UNAUTHORIZED, "say who you are\n").into_response();
    response.headers_mut().insert(header::WWW_AUTHENTICATE, CHALLENGE);
    response
}
