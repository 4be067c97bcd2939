//! `/openapi.json`, made from the list of routes and from one typed example of every body.
//!
//! An example is a value of the real type, so it cannot be built any more when the type changes:
//! the description then has to follow. A schema is read off its example, which shows every field.

use serde_json::{Map, Value, json};

use super::examples;
use super::routes::{self, Route};

/// The whole document.
pub(super) fn document() -> Value {
    let mut paths = Map::new();
    for route in routes::all() {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.to_ascii_lowercase()] = operation(&route);
    }
    let schemas: Map<String, Value> = examples::all()
        .into_iter()
        .map(|example| {
            let mut schema = schema_of(&example.value);
            if let Some(required) = example.required {
                schema["required"] = json!(required);
            }
            schema["example"] = example.value;
            (example.name.to_owned(), schema)
        })
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Wharf",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The API of a Wharf daemon: JSON over HTTP/1.1 on the unix socket \
                            `api.sock` in the daemon's runtime directory.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "paths": paths,
        "components": { "schemas": schemas },
    })
}

fn operation(route: &Route) -> Value {
    let in_path = route
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{').and_then(|part| part.strip_suffix('}')));
    let parameter = |name: &str, place: &str| {
        json!({
            "name": name,
            "in": place,
            "required": place == "path" || name == "spec",
            "schema": { "type": "string" },
        })
    };
    let parameters: Vec<Value> = in_path
        .map(|name| parameter(name, "path"))
        .chain(route.query.iter().map(|name| parameter(name, "query")))
        .collect();
    let mut operation = json!({
        "summary": route.summary,
        "operationId": operation_id(route),
        "parameters": parameters,
        "responses": { "default": { "description": "An error", "content": content("ErrorBody") } },
    });
    if let Some(request) = route.request {
        operation["requestBody"] = json!({ "required": true, "content": content(request) });
    }
    let (status, mut success) = match route.answer {
        Some(answer) => ("2XX", json!({ "content": content(answer) })),
        None => ("2XX", json!({})),
    };
    success["description"] = json!("Done");
    operation["responses"][status] = success;
    operation
}

/// `get_networks_name` for `GET /v1/networks/{name}`.
fn operation_id(route: &Route) -> String {
    let words = route.path.trim_start_matches("/v1/").trim_start_matches('/');
    let words = words.replace(['{', '}'], "").replace(['/', '.'], "_");
    format!("{}_{words}", route.method.to_ascii_lowercase())
}

fn content(schema: &str) -> Value {
    let reference = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
    let schema = match schema.strip_suffix("[]") {
        Some(item) => json!({ "type": "array", "items": reference(item) }),
        None => reference(schema),
    };
    json!({ "application/json": { "schema": schema } })
}

/// The schema that an example shows. What is null there may be anything or absent.
fn schema_of(value: &Value) -> Value {
    match value {
        Value::Null => json!({}),
        Value::Bool(_) => json!({ "type": "boolean" }),
        Value::Number(n) if n.is_f64() => json!({ "type": "number" }),
        Value::Number(_) => json!({ "type": "integer" }),
        Value::String(_) => json!({ "type": "string" }),
        Value::Array(items) => match items.first() {
            // A pair of an address and a port, say.
            Some(first) if items.iter().any(|i| !same_kind(i, first)) => {
                json!({ "type": "array", "prefixItems": items.iter().map(schema_of).collect::<Vec<_>>() })
            }
            Some(first) => json!({ "type": "array", "items": schema_of(first) }),
            None => json!({ "type": "array" }),
        },
        Value::Object(fields) => {
            let properties: Map<String, Value> =
                fields.iter().map(|(name, value)| (name.clone(), schema_of(value))).collect();
            json!({ "type": "object", "properties": properties })
        }
    }
}

fn same_kind(a: &Value, b: &Value) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(name)) = fields.get("$ref") {
                    found.insert(name.trim_start_matches("#/components/schemas/").to_owned());
                }
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_route_is_described() {
        let document = document();
        for route in routes::all() {
            let operation = &document["paths"][route.path][route.method.to_ascii_lowercase()];
            assert_eq!(operation["summary"], route.summary, "{} {}", route.method, route.path);
        }
    }

    #[test]
    fn every_schema_that_is_named_exists_and_none_is_left_over() {
        let document = document();
        let mut named = BTreeSet::new();
        references(&document["paths"], &mut named);
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let existing: BTreeSet<String> = schemas.keys().cloned().collect();
        assert_eq!(named, existing);
    }

    #[test]
    fn operations_have_distinct_names() {
        let ids: Vec<String> = routes::all().iter().map(operation_id).collect();
        let distinct: BTreeSet<&String> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
        assert!(ids.contains(&"get_networks_name".to_owned()), "{ids:?}");
    }

    #[test]
    fn fields_that_must_be_there_are_fields() {
        let document = document();
        for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
            for field in schema["required"].as_array().into_iter().flatten() {
                let field = field.as_str().unwrap();
                assert!(schema["properties"].get(field).is_some(), "{name} has no {field}");
            }
        }
    }
}
