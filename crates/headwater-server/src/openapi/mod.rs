//! The document that describes every route of the HTTP listener, for people and for generators of clients.
//!
//! There is nothing to keep in step by hand: paths, methods and permissions are read from the table that also makes the
//! router and the guard, [`operations`] cannot leave a route out, and tests hold real answers against [`schemas`].
//!
//! Source: OpenAPI 3.1.1, whose schemas are JSON Schema 2020-12.

mod operations;
mod schemas;

use std::sync::LazyLock;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use headwater_auth::HttpRoute;
use operations::{Answer, Operation, Parameter, described};
use serde_json::{Map, Value, json};

static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| document().to_string().into());

/// `GET /openapi.json`
pub(crate) async fn serve() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.clone()).into_response()
}

fn document() -> Value {
    let mut paths = Map::new();
    for route in HttpRoute::ALL {
        // A `*` says that a part may have slashes, which these documents cannot say.
        let path = paths.entry(route.path().replace("{*", "{")).or_insert_with(|| json!({}));
        path[route.method().to_ascii_lowercase()] = operation(*route);
    }
    json!({
        "openapi": "3.1.1",
        "info": {
            "title": "Headwater over HTTP",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Pravega's interface for administrators with its names, words and statuses; views for operators; \
                health, figures and online backups. Whatever is wrong is said as application/problem+json. A server without \
                authentication asks nobody who they are.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas::all(),
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic"},
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
            },
        },
    })
}

fn operation(route: HttpRoute) -> Value {
    let described = described(route);
    let name = format!("{route:?}");
    let (first, rest) = name.split_at(1);
    let mut operation = json!({
        "operationId": first.to_ascii_lowercase() + rest,
        "tags": [described.tag],
        "summary": described.summary,
        "parameters": parameters(route, &described),
        "responses": responses(route, &described),
        "security": [],
    });
    if let Some((resource, level)) = route.need() {
        operation["security"] = json!([{"basic": []}, {"bearer": []}]);
        operation["description"] = json!(format!("Needs {level} on `{resource}`."));
    }
    if let Some(schema) = described.body {
        operation["requestBody"] =
            json!({"required": true, "content": {"application/json": {"schema": named(schema)}}});
    }
    operation
}

fn parameters(route: HttpRoute, described: &Operation) -> Value {
    let in_path = route.path().split('{').skip(1).filter_map(|part| part.split_once('}')).map(|(name, _)| {
        let name = name.trim_start_matches('*');
        json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})
    });
    let in_query = described.parameters.iter().map(|Parameter { name, required, schema, about }| {
        json!({"name": name, "in": "query", "required": required, "schema": schema, "description": about})
    });
    let in_header = described
        .headers
        .iter()
        .map(|(name, about)| json!({"name": name, "in": "header", "schema": {"type": "string"}, "description": about}));
    in_path.chain(in_query).chain(in_header).collect()
}

fn responses(route: HttpRoute, described: &Operation) -> Value {
    let mut responses = Map::new();
    for (status, about, answer) in &described.answers {
        let mut response = json!({"description": about});
        match answer {
            Answer::Nothing => {}
            Answer::Json(schema) => response["content"] = json!({"application/json": {"schema": named(schema)}}),
            Answer::Other(kind) => response["content"] = json!({*kind: {"schema": {"type": "string"}}}),
        }
        responses.insert(status.to_string(), response);
    }
    let mut problem = |status: u16, about: &str| {
        let content = json!({"application/problem+json": {"schema": named("Problem")}});
        responses.insert(status.to_string(), json!({"description": about, "content": content}));
    };
    for (status, about) in &described.problems {
        problem(*status, about);
    }
    if described.body.is_some() {
        problem(413, "The body is too long.");
        problem(415, "The body is not said to be JSON.");
    }
    problem(421, "Nobody has to prove who they are, and the host that was asked for is not known to the server.");
    if !route.is_open() {
        problem(401, "Nobody said who they are, or it is not true; the header says how to.");
        problem(403, "They may not, or a page in a browser asks to change something.");
        problem(503, "The server is starting or stopping, or something does not answer now; come back.");
    }
    Value::Object(responses)
}

fn named(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Names of all schemas that a part of the document refers to.
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                    found.insert(reference.strip_prefix("#/components/schemas/").unwrap().to_owned());
                }
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn the_document_has_every_route_of_the_table_and_nothing_else() {
        let document = document();
        let mut described = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                described.insert((method.to_ascii_uppercase(), path.clone()));
                let is_open = operation["security"].as_array().unwrap().is_empty();
                assert_eq!(is_open, operation["responses"].get("401").is_none(), "{method} {path}");
            }
        }
        let routes: BTreeSet<_> =
            HttpRoute::ALL.iter().map(|route| (route.method().to_owned(), route.path().replace("{*", "{"))).collect();
        assert_eq!(described, routes);
    }

    #[test]
    fn every_schema_is_there_and_used() {
        let document = document();
        let schemas: BTreeSet<_> = document["components"]["schemas"].as_object().unwrap().keys().cloned().collect();
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        assert_eq!(found, schemas);
    }

    #[test]
    fn operations_have_names_of_their_own() {
        let ids: BTreeSet<_> =
            HttpRoute::ALL.iter().map(|route| operation(*route)["operationId"].to_string()).collect();
        assert_eq!(ids.len(), HttpRoute::ALL.len());
        assert!(ids.contains("\"listScopes\""), "{ids:?}");
    }
}
