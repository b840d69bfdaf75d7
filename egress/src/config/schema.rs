//! JSON Schemas (draft 2020-12) of the operator's files, made of the tables that the parser looks keys up in.
//!
//! A schema sees one value at a time, so it admits more than the parser; it never refuses what the parser takes.

use serde_json::{Map, Value, json};

use super::keys::{Form, Key, Keys, Others};
use super::{agents, manifest, routes_file};

/// The schema of a routes file.
pub fn routes() -> Value {
    file(
        "egress routes file",
        "What the sidecar admits, and the slots of the credentials that it injects.",
        &routes_file::KEYS,
    )
}

/// The schema of a manifest.
pub fn manifest() -> Value {
    file(
        "egress manifest",
        "Bottles, what the agents in them may reach, and where the host has the credentials.",
        &manifest::keys::KEYS,
    )
}

/// The schema of an agents file.
pub fn agents() -> Value {
    file(
        "egress agents file",
        "Agents of the operator's own: how they are run, and which files of the host they get.",
        &agents::KEYS,
    )
}

fn file(title: &str, about: &str, keys: &Keys) -> Value {
    let mut schema = Map::new();
    schema.insert(
        "$schema".into(),
        "https://json-schema.org/draft/2020-12/schema".into(),
    );
    schema.insert("title".into(), title.into());
    schema.insert("description".into(), about.into());
    schema.extend(object(keys));
    Value::Object(schema)
}

fn object(keys: &Keys) -> Map<String, Value> {
    let properties: Map<String, Value> = keys
        .iter()
        .map(|key| (key.name.to_owned(), property(key)))
        .collect();
    let mut schema = Map::new();
    schema.insert("type".into(), "object".into());
    schema.insert("properties".into(), properties.into());
    if keys.others == Others::Faults {
        schema.insert("additionalProperties".into(), false.into());
    }
    match keys.one_of {
        [] => {}
        [one] => _ = schema.insert("required".into(), json!([one])),
        several => {
            let required = several.iter().map(|name| json!({"required": [name]}));
            schema.insert("oneOf".into(), required.collect());
        }
    }
    let mut demands: Map<String, Value> = Map::new();
    for (first, second) in keys.pairs {
        demands.insert((*first).into(), json!([second]));
    }
    if !demands.is_empty() {
        schema.insert("dependentRequired".into(), demands.into());
    }
    schema
}

fn property(key: &Key) -> Value {
    let mut schema = form(&key.form);
    if let Value::Object(map) = &mut schema {
        map.insert("description".into(), key.about.into());
    }
    schema
}

/// A value's schema. Where a pattern would have to be as long as the parser is, the parser alone is asked.
fn form(form: &Form) -> Value {
    let text = || json!({"type": "string", "minLength": 1});
    let scalar = json!({"type": ["string", "number", "boolean"]});
    let list = |items: Value| json!({"type": "array", "minItems": 1, "items": items});
    match form {
        Form::Text | Form::User => json!({"type": "string"}),
        Form::Host | Form::TokenRef | Form::Dial | Form::Header => text(),
        Form::Written => scalar,
        Form::Flag => json!({"type": "boolean"}),
        Form::Port => json!({"type": "integer", "minimum": 1, "maximum": 65535}),
        Form::Paths(pattern) => {
            let prefix = json!({"type": "string", "pattern": "^/"});
            list(json!({"anyOf": [prefix, object(pattern)]}))
        }
        Form::Methods => list(json!({
            "type": "string",
            "pattern": "^[^a-z]+$",
            "not": {"enum": ["TRACE", "CONNECT"]},
        })),
        Form::Networks => list(text()),
        Form::NetworksIfAny => json!({"type": "array", "items": text()}),
        Form::Slot => json!({"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}),
        Form::Query => json!({
            "type": "object",
            "minProperties": 1,
            "additionalProperties": scalar,
        }),
        Form::Cookies => json!({
            "type": "array",
            "items": {"type": "string", "pattern": "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"},
        }),
        Form::Word(words) => json!({"enum": words()}),
        Form::Texts => json!({"anyOf": [text(), {"type": "array", "items": text()}]}),
        Form::Argv => list(scalar),
        Form::Variables => json!({"type": "object", "additionalProperties": scalar}),
        Form::Anything => json!({}),
        Form::Map(keys) => object(keys).into(),
        Form::Maps(keys) => json!({"type": "array", "items": object(keys)}),
        Form::Named(keys) => json!({"type": "object", "additionalProperties": object(keys)}),
    }
}
