//! How the server is, component by component, in Pravega's words.
//!
//! There are two components: `store`, where everything is kept, and `controller`, which knows what a stream is. The
//! root, `headwater`, is as well as the worse of them. Probes have simpler pages: `/healthz`, `/readyz` and `/ping`.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};

use crate::http::{Pages, Phase};
use crate::problem::Problem;

/// The root and all components.
const ROOT: &str = "headwater";
const COMPONENTS: [&str; 2] = ["store", "controller"];

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Status {
    Up,
    Starting,
    Down,
    Failed,
}

#[derive(Debug, Serialize)]
struct Health {
    name: &'static str,
    status: Status,
    readiness: bool,
    liveness: bool,
    details: BTreeMap<&'static str, Value>,
    children: BTreeMap<&'static str, Health>,
}

impl Health {
    fn of(pages: &Pages, id: &str) -> Result<Self, Problem> {
        if let Some(component) = COMPONENTS.into_iter().find(|component| *component == id) {
            return Ok(Self::component(pages, component));
        }
        if id != ROOT {
            return Err(Problem::not_found("a component of such a name"));
        }
        let children: BTreeMap<_, _> =
            COMPONENTS.into_iter().map(|name| (name, Self::component(pages, name))).collect();
        Ok(Self {
            name: ROOT,
            status: children.values().map(|child| child.status).max().expect("there are components"),
            readiness: children.values().all(|child| child.readiness),
            liveness: children.values().all(|child| child.liveness),
            details: BTreeMap::from([("version", json!(env!("CARGO_PKG_VERSION")))]),
            children,
        })
    }

    fn component(pages: &Pages, name: &'static str) -> Self {
        let phase = pages.phase();
        let status = match phase {
            Phase::Starting => Status::Starting,
            Phase::Ready => Status::Up,
            Phase::Stopping => Status::Down,
            Phase::Failed => Status::Failed,
        };
        let details = match name {
            // Times that stored bytes were not what was written.
            "store" => pages.doubts().map(|doubts| ("doubts", json!(doubts))),
            _ => pages.clock_jumped().map(|jumped| ("clockJumped", json!(jumped))),
        };
        Self {
            name,
            status,
            readiness: phase == Phase::Ready,
            liveness: phase != Phase::Failed,
            details: details.into_iter().collect(),
            children: BTreeMap::new(),
        }
    }
}

macro_rules! routes {
    ($($root:ident $component:ident: $health:ident => $shown:expr;)*) => {
        $(
            pub(crate) async fn $root(State(pages): State<Pages>) -> Result<Response, Problem> {
                let $health = Health::of(&pages, ROOT)?;
                Ok(Json($shown).into_response())
            }

            pub(crate) async fn $component(
                State(pages): State<Pages>,
                Path(id): Path<String>,
            ) -> Result<Response, Problem> {
                let $health = Health::of(&pages, &id)?;
                Ok(Json($shown).into_response())
            }
        )*
    };
}

routes! {
    all all_of: health => health;
    readiness readiness_of: health => health.readiness;
    liveness liveness_of: health => health.liveness;
    details details_of: health => health.details;
    status status_of: health => health.status;
}
