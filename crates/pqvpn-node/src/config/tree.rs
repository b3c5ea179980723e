// SPDX-License-Identifier: MIT OR Apache-2.0
//! One tree for TOML and YAML, each node knowing where it came from.

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::error::ConfigError;

/// A value of either format.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Text(String),
    Integer(i64),
    Bool(bool),
    List(Vec<Entry>),
    Table(Table),
    /// YAML `null`: as if the key were not there.
    Null,
    /// A kind no key takes, by its name.
    Other(&'static str),
}

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) at: At,
    pub(super) node: Node,
}

/// Keys in the order of the format's parser; keys are unique.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Table(pub(super) Vec<(String, Entry)>);

/// Where a node is. YAML lines are looked up only when one is to be shown.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum At {
    Line(usize),
    Yaml(Vec<Step>),
}

/// One step of the way from the root of a YAML document.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

impl Table {
    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, entry)| entry)
    }

    pub(super) fn take(&mut self, key: &str) -> Option<Entry> {
        let index = self.0.iter().position(|(name, _)| name == key)?;
        Some(self.0.remove(index).1)
    }
}

impl Node {
    /// What it is, for "expected .., found ..".
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Bool(_) => "true or false",
            Self::List(_) => "a list",
            Self::Table(_) => "a section",
            Self::Null => "nothing",
            Self::Other(kind) => kind,
        }
    }
}

impl At {
    /// The 1-based line in `text`.
    pub(super) fn line(&self, text: &str) -> Option<usize> {
        match self {
            Self::Line(line) => Some(*line),
            Self::Yaml(steps) => {
                let seed = Locate(steps);
                // The seed fails on purpose: the error carries the position serde has no other way to give.
                let error = seed.deserialize(serde_yaml_ng::Deserializer::from_str(text)).err()?;
                error.location().map(|location| location.line())
            }
        }
    }
}

/// Parses TOML.
pub(super) fn from_toml(text: &str, origin: &str) -> Result<Table, ConfigError> {
    let lines = Lines::new(text);
    let root = DeTable::parse(text).map_err(|error| {
        // `message` alone: the full text of the error quotes the line, which may hold a secret.
        let mut what = error.message().replace('\n', ", ");
        if let ("duplicate key", Some(key)) = (error.message(), error.span().and_then(|span| text.get(span))) {
            what = format!("duplicate key {key:?}; each key is written once");
        }
        let line = error.span().map(|span| lines.of(span.start));
        ConfigError::Syntax { origin: origin.to_owned(), line, what }
    })?;
    Ok(toml_table(root.into_inner(), &lines))
}

/// Parses YAML; an empty document is an empty table.
pub(super) fn from_yaml(text: &str, origin: &str) -> Result<Table, ConfigError> {
    let failed = |line, what: String| ConfigError::Syntax { origin: origin.to_owned(), line, what };
    let value: serde_yaml_ng::Value = serde_yaml_ng::from_str(text).map_err(|error| {
        let line = error.location().map(|location| location.line());
        failed(line, error.to_string().replace('\n', ", "))
    })?;
    match yaml_node(value, &mut Vec::new()) {
        Node::Table(table) => Ok(table),
        Node::Null => Ok(Table::default()),
        Node::Text(_) | Node::Integer(_) | Node::Bool(_) | Node::List(_) | Node::Other(_) => {
            Err(failed(Some(1), "expected sections with keys, like \"node:\"".to_owned()))
        }
    }
}

fn toml_table(table: DeTable<'_>, lines: &Lines) -> Table {
    let entry = |(key, value): (Spanned<_>, Spanned<DeValue<'_>>)| {
        let at = At::Line(lines.of(key.span().start));
        let key: std::borrow::Cow<'_, str> = key.into_inner();
        (key.into_owned(), Entry { at, node: toml_node(value.into_inner(), lines) })
    };
    Table(table.into_iter().map(entry).collect())
}

fn toml_node(value: DeValue<'_>, lines: &Lines) -> Node {
    match value {
        DeValue::String(text) => Node::Text(text.into_owned()),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .map_or(Node::Other("an integer beyond 64 bits"), Node::Integer),
        DeValue::Float(_) => Node::Other("a number with a fraction"),
        DeValue::Boolean(value) => Node::Bool(value),
        DeValue::Datetime(_) => Node::Other("a date"),
        DeValue::Array(items) => Node::List(
            items
                .into_iter()
                .map(|item| Entry {
                    at: At::Line(lines.of(item.span().start)),
                    node: toml_node(item.into_inner(), lines),
                })
                .collect(),
        ),
        DeValue::Table(table) => Node::Table(toml_table(table, lines)),
    }
}

fn yaml_node(value: serde_yaml_ng::Value, path: &mut Vec<Step>) -> Node {
    use serde_yaml_ng::Value;
    match value {
        Value::Null => Node::Null,
        Value::Bool(value) => Node::Bool(value),
        Value::Number(number) => {
            let other = if number.is_f64() { "a number with a fraction" } else { "an integer beyond 64 bits" };
            number.as_i64().map_or(Node::Other(other), Node::Integer)
        }
        Value::String(text) => Node::Text(text),
        Value::Sequence(items) => {
            let items = items.into_iter().enumerate();
            Node::List(items.map(|(index, item)| yaml_entry(Step::Index(index), item, path)).collect())
        }
        Value::Mapping(map) => {
            let mut entries = Vec::with_capacity(map.len());
            for (key, value) in map {
                let Value::String(key) = key else {
                    return Node::Other("a section with a key that is no string");
                };
                let entry = yaml_entry(Step::Key(key.clone()), value, path);
                entries.push((key, entry));
            }
            Node::Table(Table(entries))
        }
        Value::Tagged(_) => Node::Other("a tagged value"),
    }
}

fn yaml_entry(step: Step, value: serde_yaml_ng::Value, path: &mut Vec<Step>) -> Entry {
    path.push(step);
    let entry = Entry { at: At::Yaml(path.clone()), node: yaml_node(value, path) };
    path.pop();
    entry
}

/// Byte offsets of line starts.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(index, _)| index + 1).collect())
    }

    fn of(&self, offset: usize) -> usize {
        1 + self.0.partition_point(|start| *start <= offset)
    }
}

/// Walks to the last step and fails there.
#[derive(Clone, Copy)]
struct Locate<'a>(&'a [Step]);

/// Reads a key, and fails on it when it is the one looked for.
struct LocateKey<'a> {
    wanted: Option<&'a str>,
    last: bool,
}

impl<'de> DeserializeSeed<'de> for Locate<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Locate<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the node looked for")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let wanted = match self.0.first() {
            Some(Step::Key(key)) => Some(key.as_str()),
            Some(Step::Index(_)) => None,
            None => return Err(A::Error::custom("here")),
        };
        while let Some(found) = map.next_key_seed(LocateKey { wanted, last: self.0.len() == 1 })? {
            if found {
                map.next_value_seed(Self(&self.0[1..]))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let wanted = match self.0.first() {
            Some(Step::Index(index)) => Some(*index),
            Some(Step::Key(_)) => None,
            None => return Err(A::Error::custom("here")),
        };
        for index in 0.. {
            let more = if Some(index) == wanted {
                seq.next_element_seed(Self(&self.0[1..]))?
            } else {
                seq.next_element::<IgnoredAny>()?.map(|_| ())
            };
            if more.is_none() {
                break;
            }
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for LocateKey<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for LocateKey<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<bool, E> {
        let found = self.wanted == Some(key);
        if found && self.last { Err(E::custom("here")) } else { Ok(found) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line_of(text: &str, steps: &[Step]) -> Option<usize> {
        At::Yaml(steps.to_vec()).line(text)
    }

    #[test]
    fn yaml_lines_are_found_for_keys_and_items() {
        let text = "# comment\nnode:\n  name: a\n\n  listen:\n    - '0.0.0.0:1'\n    - '0.0.0.0:2'\npeers:\n  - id: x\n    name: y\n";
        let key = |key: &str| Step::Key(key.to_owned());
        assert_eq!(line_of(text, &[key("node")]), Some(2));
        assert_eq!(line_of(text, &[key("node"), key("name")]), Some(3));
        assert_eq!(line_of(text, &[key("node"), key("listen")]), Some(5));
        assert_eq!(line_of(text, &[key("node"), key("listen"), Step::Index(1)]), Some(7));
        assert_eq!(line_of(text, &[key("peers"), Step::Index(0), key("name")]), Some(10));
    }

    #[test]
    fn toml_lines_are_those_of_the_keys() {
        let table = from_toml("\n[node]\n\nname = \"a\"\n", "x").unwrap();
        let Some(Entry { at: At::Line(2), node: Node::Table(node) }) = table.get("node") else {
            panic!("{table:?}");
        };
        assert_eq!(node.get("name").unwrap().at, At::Line(4));
    }

    #[test]
    fn syntax_errors_do_not_quote_the_line() {
        let error = from_toml("secret = \"hunter2\n", "x").unwrap_err().to_string();
        assert!(error.starts_with("x:1: ") && !error.contains("hunter2"), "{error}");
        let error = from_yaml("a: [hunter2\nb: }", "x").unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn yaml_merge_bombs_and_tags_are_refused() {
        let bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]\n";
        assert!(from_yaml(bomb, "x").is_err());
        let table = from_yaml("a: !tag b", "x").unwrap();
        assert_eq!(table.get("a").unwrap().node, Node::Other("a tagged value"));
    }
}
