//! The JSON Schemas and the parser, held together: every key and every word is driven through both.

use regex::Regex;
use serde_json::{Map, Value, json};

use super::super::keys::{Form, Key, Keys, Others};
use super::super::{manifest, presets, routes_file, schema};
use super::{draft, manifests};

/// A kind of file: its schema, its keys, and whether the parser takes a text of it.
struct Kind {
    schema: Value,
    keys: &'static Keys,
    parses: fn(&str) -> bool,
    /// A good file.
    whole: fn() -> Value,
}

fn kinds() -> [Kind; 2] {
    [
        Kind {
            schema: schema::routes(),
            keys: &routes_file::KEYS,
            parses: |text| draft(text).finish().is_ok(),
            whole: || json!({"routes": []}),
        },
        Kind {
            schema: schema::manifest(),
            keys: &manifest::keys::KEYS,
            parses: |text| manifests::read(text).is_ok(),
            whole: || json!({"bottles": {"dev": {}}}),
        },
    ]
}

impl Kind {
    /// Puts a file to both; the parser may see more than the schema, and never less.
    #[track_caller]
    fn both(&self, file: &Value) -> (bool, bool) {
        let (parsed, valid) = (
            (self.parses)(&file.to_string()),
            validates(&self.schema, file),
        );
        assert!(
            valid || !parsed,
            "the schema refuses what the parser takes: {file}"
        );
        (parsed, valid)
    }

    #[track_caller]
    fn accepts(&self, file: &Value) {
        assert_eq!(self.both(file), (true, true), "{file}");
    }

    #[track_caller]
    fn refuses(&self, file: &Value) {
        assert_eq!(self.both(file), (false, false), "{file}");
    }
}

/// Values of every type, most of which are wrong for any one key.
fn pool() -> Vec<Value> {
    let values = json!([
        null, true, 0, 1, 443, 65536, -1, 1.5, "", "x", "/", "/v1", "GET", "get", "Bearer", "a.test", "a.test:1", [], [[]], [null],
        ["x"], ["/v1"], ["GET"], ["TRACE"], ["10.0.0.0/8"], [{}], [{"regex": "/x"}], [{"regex": "/x", "y": 1}], {}, {"x": "y"}, {"x": 1},
        {"x": null}, {"x": {}}, {"x": []}
    ]);
    values.as_array().cloned().unwrap_or_default()
}

/// A map of these keys in which a key can stand alone.
fn beside(keys: &Keys, key: &str) -> Value {
    let credential = |scheme: &str| match keys.names().any(|name| name == "auth") {
        true => json!({"host": "a.test", "auth": {"scheme": scheme, "token_ref": "A"}}),
        false => json!({"host": "a.test", "auth_scheme": scheme, "token_env": "A"}),
    };
    match (keys.of, key) {
        ("a route", "preset") => json!({}),
        ("a route", "auth_header" | "auth_scheme" | "token_env") => credential("raw"),
        ("a route", "auth_user") => credential("Basic"),
        ("a route", _) => json!({"host": "a.test"}),
        ("`auth`", _) => json!({"scheme": "raw", "token_ref": "A"}),
        ("`agent_provider`", "forward_host_credentials") => json!({"template": "codex"}),
        ("a manifest", "agents") => json!({"bottles": {"dev": {}}}),
        _ => json!({}),
    }
}

/// Is shown each map's keys, each key, and how a whole file is made of a value of it.
type Visit<'v> = dyn FnMut(&'static Keys, &'static Key, &dyn Fn(Value) -> Value) + 'v;

/// Walks over every key of every map. `wrap` puts a map where it belongs in a whole file.
fn walk(keys: &'static Keys, wrap: &dyn Fn(Value) -> Value, visit: &mut Visit<'_>) {
    for key in keys.iter() {
        let put = |value: Value| {
            let mut map = beside(keys, key.name);
            if let Value::Object(map) = &mut map {
                map.insert(key.name.to_owned(), value);
            }
            wrap(map)
        };
        visit(keys, key, &put);
        match &key.form {
            Form::Map(inner) => walk(inner, &put, visit),
            Form::Maps(inner) | Form::Paths(inner) => walk(inner, &|map| put(json!([map])), visit),
            Form::Named(inner) => walk(inner, &|map| put(json!({"dev": map})), visit),
            _ => {}
        }
    }
}

#[test]
fn the_schema_never_refuses_what_the_parser_takes() {
    for kind in kinds() {
        let mut keys = 0;
        walk(kind.keys, &|map| map, &mut |_, key, put| {
            keys += 1;
            let mut taken = 0;
            for value in pool() {
                let (parsed, _) = kind.both(&put(value));
                taken += usize::from(parsed);
            }
            // What the pool cannot know.
            for value in [
                json!(word_of(key)),
                json!({"scheme": "raw", "token_ref": "A"}),
                json!("dev"),
                json!({"dev": {"bottle": "dev"}}),
                json!({"dev": {}}),
            ] {
                taken += usize::from(kind.both(&put(value)).0);
            }
            // This one names a file, which is not there.
            assert!(
                taken > 0 || key.name == "upstream_ca",
                "no value of {} was good",
                key.name
            );
        });
        assert!(keys > 18, "{keys}");
    }
}

fn word_of(key: &Key) -> Option<&'static str> {
    match &key.form {
        Form::Word(words) => words().first().copied(),
        _ => None,
    }
}

#[test]
fn values_of_the_wrong_type_are_refused_by_both() {
    for kind in kinds() {
        walk(kind.keys, &|map| map, &mut |_, key, put| {
            if matches!(key.form, Form::Anything) {
                return;
            }
            for wrong in [
                json!(null),
                json!([[[1]]]),
                json!({"zz": {"yy": ["xx"], "auth": 1, "bottle": []}}),
                json!(-1.5),
            ] {
                // Names are the operator's, and what bottles have besides is somebody else's; a number may be a text.
                let (parsed, valid) = kind.both(&put(wrong.clone()));
                let lenient = match key.form {
                    Form::Named(_) | Form::Query => wrong.is_object(),
                    Form::Map(keys) => wrong.is_object() && keys.others == Others::ReadOver,
                    Form::Written => wrong.is_number(),
                    _ => false,
                };
                assert!(
                    lenient || (!parsed && !valid),
                    "{}: {wrong} {parsed} {valid}",
                    key.name
                );
            }
        });
    }
}

#[test]
fn every_word_is_known_to_both_and_no_other() {
    for kind in kinds() {
        let mut words = 0;
        walk(kind.keys, &|map| map, &mut |_, key, put| {
            let Form::Word(all) = &key.form else { return };
            for word in all() {
                words += 1;
                // Basic wants a user, and forwarding a template; that is not what is asked here.
                assert!(kind.both(&put(json!(word))).1, "{word}");
                if !["Basic", "passthrough"].contains(&word) {
                    let passed = kind.both(&put(json!(word))).0;
                    assert!(passed, "{}: {word}", key.name);
                }
            }
            kind.refuses(&put(json!("no-such-word")));
        });
        assert!(words >= 8, "{words}");
    }
}

#[test]
fn unknown_keys_are_judged_alike() {
    for kind in kinds() {
        walk(kind.keys, &|map| map, &mut |keys, key, put| {
            let sample = put(json!("@"));
            let text = sample.to_string();
            // The same map with another key beside this one.
            let other = text.replace(
                &format!("\"{}\":\"@\"", key.name),
                &format!("\"{}\":\"@\",\"zzzzzzzz\":1", key.name),
            );
            let other: Value = serde_json::from_str(&other).unwrap();
            assert_ne!(other, sample);
            if keys.others == Others::Faults {
                assert!(!validates(&kind.schema, &other), "{other}");
            }
        });
        kind.accepts(&(kind.whole)());
    }
    let [routes, manifest] = kinds();
    routes.refuses(&json!({"routes": [], "x": 1}));
    routes.refuses(&json!({"routes": [{"host": "a.test", "auth": {}}]}));
    manifest.accepts(&json!({"bottles": {"d": {"env": 1}}, "x": 1, "agents": {"a": {"bottle": "d", "skills": []}}}));
    manifest.refuses(&json!({"bottles": {"d": {"egress": {"x": 1}}}}));
    manifest.refuses(&json!({"bottles": {"d": {"agent_provider": {"x": 1}}}}));
    manifest.refuses(
        &json!({"bottles": {"d": {"egress": {"routes": [{"host": "a.test", "preset": "npm"}]}}}}),
    );
    manifest.refuses(&json!({"bottles": {"d": {"egress": {"routes": [{"auth": {"scheme": "raw", "token_ref": "A"}}]}}}}));
    manifest.refuses(&json!({"agents": {}}));
}

#[test]
fn keys_that_demand_others_do_so_in_both() {
    let [routes, manifest] = kinds();
    for (first, value) in [
        ("auth_scheme", "raw"),
        ("token_env", "A"),
        ("auth_header", "x-key"),
        ("auth_user", "u"),
    ] {
        routes.refuses(&json!({"routes": [{"host": "a.test", first: value}]}));
    }
    for (first, value) in [("auth_header", "x-key"), ("auth_user", "u")] {
        let route = json!({"host": "a.test", first: value});
        manifest.refuses(&json!({"bottles": {"d": {"egress": {"routes": [route]}}}}));
    }
}

#[test]
fn the_examples_and_all_that_is_rendered_are_valid() {
    let [routes, manifest] = kinds();
    let value = |text: &str| serde_yaml::from_str::<Value>(text).unwrap();
    let example = include_str!("../../../../routes.example.yaml");
    assert!(validates(&routes.schema, &value(example)));
    assert!(
        example.starts_with("# yaml-language-server: $schema=docs/schema/routes.schema.json\n")
    );
    let bottle = include_str!("../../../../docker/example/bottle.yaml");
    assert!(
        bottle.starts_with(
            "# yaml-language-server: $schema=../../docs/schema/manifest.schema.json\n"
        )
    );
    assert!(validates(&manifest.schema, &value(bottle)));
    let rendered = manifests::good(bottle)
        .bottle(Some("demo"))
        .unwrap()
        .render()
        .unwrap();
    assert!(validates(&routes.schema, &value(&rendered.routes)));
    for form in presets::ALL.iter().flat_map(|preset| preset.forms) {
        assert!(validates(&routes.schema, &value(form.routes)));
        assert!(validates(
            &routes.schema,
            &json!({"routes": form.to_json()})
        ));
    }
}

/// Whether a value is valid, as far as our schemas go: a keyword that is not known here fails the test.
fn validates(schema: &Value, value: &Value) -> bool {
    let Some(schema) = schema.as_object() else {
        panic!("{schema} is no schema");
    };
    schema
        .iter()
        .all(|(keyword, argument)| keyword_holds(keyword, argument, schema, value))
}

fn keyword_holds(
    keyword: &str,
    argument: &Value,
    schema: &Map<String, Value>,
    value: &Value,
) -> bool {
    let list = || argument.as_array().unwrap().iter();
    let bound = || argument.as_u64().unwrap();
    let has = |name: &Value| value.get(name.as_str().unwrap()).is_some();
    match keyword {
        "$schema" | "title" | "description" => true,
        "type" => match argument {
            Value::Array(types) => types.iter().any(|name| is(name, value)),
            name => is(name, value),
        },
        "enum" => list().any(|one| one == value),
        "anyOf" => list().any(|one| validates(one, value)),
        "oneOf" => list().filter(|one| validates(one, value)).count() == 1,
        "not" => !validates(argument, value),
        // The rest speaks of one type, and holds for every other.
        "properties" => argument
            .as_object()
            .unwrap()
            .iter()
            .all(|(name, schema)| value.get(name).is_none_or(|value| validates(schema, value))),
        "additionalProperties" => value.as_object().is_none_or(|map| {
            let known = schema.get("properties").and_then(Value::as_object);
            map.iter()
                .filter(|(name, _)| known.is_none_or(|known| !known.contains_key(*name)))
                .all(|(_, value)| *argument != json!(false) && validates(argument, value))
        }),
        "required" => !value.is_object() || list().all(has),
        "dependentRequired" => argument
            .as_object()
            .unwrap()
            .iter()
            .all(|(first, demanded)| {
                value.get(first).is_none() || demanded.as_array().unwrap().iter().all(has)
            }),
        "minProperties" => value
            .as_object()
            .is_none_or(|map| map.len() as u64 >= bound()),
        "items" => value
            .as_array()
            .is_none_or(|items| items.iter().all(|item| validates(argument, item))),
        "minItems" => value
            .as_array()
            .is_none_or(|items| items.len() as u64 >= bound()),
        "minLength" => value
            .as_str()
            .is_none_or(|text| text.chars().count() as u64 >= bound()),
        "pattern" => value.as_str().is_none_or(|text| {
            Regex::new(argument.as_str().unwrap())
                .unwrap()
                .is_match(text)
        }),
        "minimum" => value
            .as_f64()
            .is_none_or(|number| number >= argument.as_f64().unwrap()),
        "maximum" => value
            .as_f64()
            .is_none_or(|number| number <= argument.as_f64().unwrap()),
        _ => panic!("the keyword {keyword} is not known to this test"),
    }
}

fn is(name: &Value, value: &Value) -> bool {
    match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        other => panic!("the type {other} is not known to this test"),
    }
}
