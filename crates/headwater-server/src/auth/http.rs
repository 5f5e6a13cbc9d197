//! The HTTP listener's routes, guarded.

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::routing::MethodRouter;
use headwater_auth::{Access, HttpRoute, Target};

use super::{Guard, Origin, Unknown};
use crate::problem::Problem;

/// What browsers and tools are told to come back with.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"headwater\", Bearer realm=\"headwater\"");

/// A handler that is reached only by those who may, and that finds out who it is by the [`Caller`](super::Caller) among
/// the request's extensions, where it finds the guard, too. A route that is open asks nobody.
///
/// What changes something does not take orders from pages in a browser: these come with an `Origin`, and on a server
/// where nobody has to prove anything any page could send them.
pub(crate) fn guarded<S>(route: HttpRoute, handler: MethodRouter<S>, guard: &Guard) -> MethodRouter<S>
where
    S: Clone + Send + Sync + 'static,
{
    let guard = guard.clone();
    type Names = Result<RawPathParams, RawPathParamsRejection>;
    handler.route_layer(from_fn(move |names: Names, mut request: Request, next: Next| {
        let guard = guard.clone();
        async move {
            if route.is_open() {
                return next.run(request).await;
            }
            let origin = request.extensions().get::<Origin>().copied().unwrap_or_default();
            let caller = match guard.identify(request.headers(), origin).await {
                Ok(caller) => caller,
                Err(Unknown::Refused) => return unauthenticated(),
                Err(Unknown::Busy) => {
                    return Problem::unavailable("too many others prove who they are").into_response();
                }
            };
            let Ok(names) = names else {
                return match caller.is_nobody() {
                    true => unauthenticated(),
                    false => Problem::bad("the path is not UTF-8 once it is decoded").into_response(),
                };
            };
            let named = |wanted| names.iter().find(|(name, _)| *name == wanted).map_or("", |(_, value)| value);
            let name = [named("stream"), named("group")].into_iter().find(|name| !name.is_empty()).unwrap_or("");
            let target = Target { scope: named("scope"), name, access: Access::Change };
            match route.check(caller.grants(), &target) {
                Ok(()) if route.method() != "GET" && request.headers().contains_key(header::ORIGIN) => {
                    Problem::new(StatusCode::FORBIDDEN, "pages in a browser may not ask for this").into_response()
                }
                Ok(()) => {
                    request.extensions_mut().insert(caller);
                    request.extensions_mut().insert(guard);
                    next.run(request).await
                }
                Err(_) if caller.is_nobody() => unauthenticated(),
                Err(missing) => Problem::new(StatusCode::FORBIDDEN, missing.to_string()).into_response(),
            }
        }
    }))
}

fn unauthenticated() -> Response {
    Problem::new(StatusCode::UNAUTHORIZED, "say who you are").with(header::WWW_AUTHENTICATE, CHALLENGE).into_response()
}
