//! The JSON Schema (draft 2020-12) of the configuration file, for editors.
//!
//! Which keys there are, and what their values look like, comes from the reader itself (`config::keys`): a key that is
//! read is in the schema. What a key is for, and its default, comes from the reference, `config/onlyonce.toml`.

use std::ops::RangeInclusive;

use serde_json::{Map, Value, json};

use crate::config::{self, KnownKey, Shape};
use crate::units::{DURATIONS, HumanDuration, SIZES};

const REFERENCE: &str = include_str!("../config/onlyonce.toml");

/// The schema of the configuration file, as JSON.
pub fn configuration() -> Value {
    let keys = config::keys();
    let file = File { reference: Reference::read(REFERENCE, &keys), keys };
    let mut schema = file.table("");
    schema.insert("$schema".into(), json!("https://json-schema.org/draft/2020-12/schema"));
    schema.insert("title".into(), json!("onlyonce"));
    Value::Object(schema)
}

struct File {
    keys: Vec<KnownKey>,
    reference: Reference,
}

impl File {
    fn table(&self, table: &str) -> Map<String, Value> {
        let keys = || self.keys.iter().filter(|known| known.table == table);
        let properties = keys().map(|known| (known.key.to_owned(), Value::Object(self.key(known))));
        let mut schema = Map::new();
        schema.insert("type".into(), json!("object"));
        schema.insert("properties".into(), Value::Object(properties.collect()));
        schema.insert("additionalProperties".into(), json!(false));
        let required: Vec<&str> = keys().filter(|known| self.is_required(known)).map(|known| known.key).collect();
        if !required.is_empty() {
            schema.insert("required".into(), json!(required));
        }
        schema
    }

    /// A table is required if one of its keys is.
    fn is_required(&self, known: &KnownKey) -> bool {
        let path = path(known);
        known.required
            || self.keys.iter().any(|inner| inner.required && known.shapes == [Shape::Table] && inner.table == path)
    }

    fn key(&self, known: &KnownKey) -> Map<String, Value> {
        let mut schema = any_of(&known.shapes, &|shape| match shape {
            Shape::Table => self.table(&path(known)),
            Shape::Tables => {
                object(json!({ "type": "array", "minItems": 1, "items": Value::Object(self.table(&path(known))) }))
            }
            Shape::NamedTables => {
                let named = self.table(&format!("{}.*", path(known)));
                object(json!({ "type": "object", "additionalProperties": Value::Object(named) }))
            }
            scalar => value(scalar),
        });
        let Some(entry) = self.reference.entry(&known.table, known.key) else { return schema };
        let least = known.shapes.iter().find_map(least).map(|least| format!(" At least {least}.")).unwrap_or_default();
        schema.insert("description".into(), json!(format!("{}{least}", entry.why)));
        match &entry.value {
            Some(value) if entry.is_default && known.table != "defaults" => {
                schema.insert("default".into(), value.clone())
            }
            Some(value) => schema.insert("examples".into(), json!([value])),
            None => None,
        };
        schema
    }
}

/// The header of the table that a key stands for.
fn path(known: &KnownKey) -> String {
    if known.table.is_empty() { known.key.to_owned() } else { format!("{}.{}", known.table, known.key) }
}

fn any_of(shapes: &[Shape], schema: &dyn Fn(&Shape) -> Map<String, Value>) -> Map<String, Value> {
    match shapes {
        [only] => schema(only),
        several => {
            object(json!({ "anyOf": several.iter().map(|shape| Value::Object(schema(shape))).collect::<Vec<_>>() }))
        }
    }
}

fn value(shape: &Shape) -> Map<String, Value> {
    let list = |elements: &[Shape]| json!({ "type": "array", "items": Value::Object(any_of(elements, &value)), "uniqueItems": true });
    object(match shape {
        Shape::Text => json!({ "type": "string" }),
        Shape::Choice(words) => json!({ "anyOf": [{ "enum": words }, { "type": "string", "pattern": ENV }] }),
        Shape::Duration { .. } => measure(&DURATIONS),
        Shape::Size => measure(&SIZES),
        Shape::Number(range) => number(range),
        Shape::ChoiceOrNumber(word, range) => {
            json!({ "anyOf": [{ "enum": [word] }, number(range), { "type": "string", "pattern": ENV }] })
        }
        Shape::Boolean => json!({ "type": "boolean" }),
        Shape::List(elements) => list(elements),
        Shape::OneOrMore(elements) => json!({ "anyOf": [Value::Object(any_of(elements, &value)), list(elements)] }),
        Shape::Table | Shape::Tables | Shape::NamedTables => json!({ "type": "object" }),
    })
}

const ENV: &str = "^env:.";

fn measure(units: &[(&str, u64)]) -> Value {
    let units: Vec<&str> = units.iter().map(|(unit, _)| *unit).collect();
    json!({ "type": "string", "pattern": format!("^[0-9]+({})$|{ENV}", units.join("|")) })
}

fn number(range: &RangeInclusive<u64>) -> Value {
    json!({ "type": "integer", "minimum": range.start(), "maximum": range.end() })
}

fn least(shape: &Shape) -> Option<HumanDuration> {
    match shape {
        Shape::Duration { least } if !least.is_zero() => Some(HumanDuration(*least)),
        _ => None,
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        other => Map::from_iter([("const".to_owned(), other)]),
    }
}

/// The descriptions and defaults of the reference file.
struct Reference {
    entries: Vec<ReferenceEntry>,
}

struct ReferenceEntry {
    table: String,
    key: String,
    /// The comment above it.
    why: String,
    value: Option<Value>,
    /// The value of a key that is required, or commented out, is an example and not a default.
    is_default: bool,
}

impl Reference {
    /// The file has comments, then the key or header that they describe. A key without a default is commented out.
    fn read(text: &str, keys: &[KnownKey]) -> Self {
        let mut entries = Vec::new();
        let mut table = String::new();
        let mut why: Vec<&str> = Vec::new();
        for line in text.lines() {
            let bare = line.strip_prefix("# ").unwrap_or(line);
            if let Some(header) = header(bare) {
                let (parent, key) = header.rsplit_once('.').unwrap_or(("", header));
                let is_known = keys.iter().any(|known| known.table == parent && known.key == key);
                // Otherwise its last part is a name of the file's own.
                let (parent, key) =
                    if is_known { (parent, key) } else { parent.split_once('.').unwrap_or(("", parent)) };
                let is_named = !is_known;
                table = if is_named { format!("{parent}.{key}.*") } else { header.to_owned() };
                let (parent, key, why) = (parent.to_owned(), key.to_owned(), sentence(&mut why));
                entries.push(ReferenceEntry { table: parent, key, why, value: None, is_default: false });
            } else if let Some((key, value)) = assignment(bare) {
                let why = sentence(&mut why);
                let is_default = bare == line && !why.contains("Required");
                entries.push(ReferenceEntry { table: table.clone(), key, why, value: Some(value), is_default });
            } else if let Some(comment) = line.strip_prefix("# ") {
                why.push(comment);
            } else {
                why.clear();
            }
        }
        Self { entries }
    }

    /// `[defaults]` has the keys of `[[route]]`, which describes them.
    fn entry(&self, table: &str, key: &str) -> Option<&ReferenceEntry> {
        let table = if table == "defaults" { "route" } else { table };
        self.entries.iter().find(|entry| entry.table == table && entry.key == key)
    }
}

fn sentence(lines: &mut Vec<&str>) -> String {
    std::mem::take(lines).join(" ")
}

fn header(line: &str) -> Option<&str> {
    let inner = line.strip_prefix('[')?.strip_suffix(']')?.trim_matches(['[', ']']);
    inner.chars().all(|c| c.is_ascii_lowercase() || "._".contains(c)).then_some(inner)
}

/// `key = value`, where that is TOML.
fn assignment(line: &str) -> Option<(String, Value)> {
    let (key, _) = line.split_once(" = ")?;
    let mut table: Map<String, Value> = toml::from_str(line).ok()?;
    Some((key.to_owned(), table.remove(key)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_tells_of_every_key_and_of_no_other() {
        let keys = config::keys();
        let reference = Reference::read(REFERENCE, &keys);
        let told =
            |known: &&KnownKey| reference.entry(&known.table, known.key).is_some_and(|entry| !entry.why.is_empty());
        let untold: Vec<String> = keys.iter().filter(|known| !told(known)).map(path).collect();
        assert_eq!(untold, Vec::<String>::new(), "not in config/onlyonce.toml, or without a word of why");
        let known =
            |entry: &&ReferenceEntry| keys.iter().any(|known| known.table == entry.table && known.key == entry.key);
        let strangers: Vec<&str> =
            reference.entries.iter().filter(|entry| !known(entry)).map(|entry| entry.key.as_str()).collect();
        assert_eq!(strangers, Vec::<&str>::new(), "in config/onlyonce.toml, and no key");
    }

    #[test]
    fn what_is_required_is_told_so() {
        let reference = Reference::read(REFERENCE, &config::keys());
        for known in config::keys().iter().filter(|known| known.required && !known.table.is_empty()) {
            let entry = reference.entry(&known.table, known.key).expect("an entry");
            assert!(entry.why.contains("Required"), "{}", path(known));
        }
    }

    #[test]
    fn every_key_has_a_shape() {
        for known in config::keys() {
            assert!(!known.shapes.is_empty(), "{} asks for nothing", path(&known));
        }
    }
}
