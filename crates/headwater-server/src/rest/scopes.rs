//! Scopes.

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use headwater_auth::Resource;
use headwater_controller::model::{CreateScope, DeleteScope};
use headwater_types::Name;

use super::body::Json;
use super::lists::{self, Part};
use super::{Asked, models};
use crate::auth::Caller;
use crate::http::Pages;
use crate::problem::Problem;

/// `GET /v1/scopes`: those that the caller may read.
pub(crate) async fn list(
    State(pages): State<Pages>,
    Extension(caller): Extension<Caller>,
    asked: Asked,
) -> Result<Response, Problem> {
    use futures::StreamExt as _;
    let controller = pages.controller()?.clone();
    let part = Part::of(&asked)?;
    let names = lists::names(&part, move |token| {
        let controller = controller.clone();
        async move { Ok(controller.list_scopes(&token).await?) }
    });
    let seen = names.map(move |page| {
        let visible = page?.into_iter().filter(|name| caller.sees(Resource::Scope(name)));
        Ok(visible.map(|scope_name| models::Scope { scope_name }).collect::<Vec<_>>())
    });
    lists::document("{\"scopes\":[", "]}", part.limit, seen.boxed()).await
}

/// `POST /v1/scopes`: 201, 400 for a name that breaks the rules, 409 if there is one of that name.
pub(crate) async fn create(State(pages): State<Pages>, Json(scope): Json<models::Scope>) -> Result<Response, Problem> {
    let controller = pages.controller()?;
    let invalid = |error: &dyn std::fmt::Display| Problem::bad(format!("scopeName: {error}"));
    let name = Name::parse_user(&scope.scope_name).map_err(|error| invalid(&error))?;
    match controller.create_scope(name.as_str()).await? {
        CreateScope::Success => Ok((StatusCode::CREATED, axum::Json(scope)).into_response()),
        CreateScope::Exists => Err(Problem::new(StatusCode::CONFLICT, format!("scope {name} exists"))),
        CreateScope::InvalidName => Err(invalid(&"the name breaks the rules")),
    }
}

/// `GET /v1/scopes/{scope}`
pub(crate) async fn show(State(pages): State<Pages>, Path(scope): Path<String>) -> Result<Response, Problem> {
    let controller = pages.controller()?;
    let name = super::scope(&scope)?;
    match controller.scope_exists(&name).await? {
        true => Ok(axum::Json(models::Scope { scope_name: scope }).into_response()),
        false => Err(Problem::not_found(format_args!("scope {name}"))),
    }
}

/// `DELETE /v1/scopes/{scope}`: 204, 404, 412 if there is something in it.
pub(crate) async fn delete(State(pages): State<Pages>, Path(scope): Path<String>) -> Result<Response, Problem> {
    let controller = pages.controller()?;
    let name = super::scope(&scope)?;
    match controller.delete_scope(&name).await? {
        DeleteScope::Success => Ok(StatusCode::NO_CONTENT.into_response()),
        DeleteScope::NotFound => Err(Problem::not_found(format_args!("scope {name}"))),
        DeleteScope::NotEmpty => {
            Err(Problem::new(StatusCode::PRECONDITION_FAILED, format!("scope {name} is not empty")))
        }
    }
}
