// SPDX-License-Identifier: MIT OR Apache-2.0
//! Changes to a configuration file that keep its comments and layout.

use pqvpn_crypto::peer_id::PeerId;
use toml_edit::{ArrayOfTables, DocumentMut, InlineTable, Item, Table, TableLike, Value};

use super::{
    Config, ConfigError, Endpoint, Problem,
    schema::{self, Kind},
    value::did_you_mean,
    write::{list, quoted},
};

/// Name of the source in errors of a change.
const ORIGIN: &str = "new value";

/// Sets `section.key`, or `peers.NAME.key`, to `value` as typed on a command line; an empty value removes the key.
///
/// Lists are written `a,b` or as TOML. The result is checked as a whole; comments and layout stay.
///
/// # Errors
/// The text is not TOML, the key is unknown, or the configuration would not hold with the new value.
pub fn set(text: &str, key: &str, value: &str) -> Result<String, ConfigError> {
    let mut document = parse(text)?;
    let (section, rest) = key.split_once('.').ok_or_else(|| wrong(key, unknown_path(key)))?;
    let schema = schema::find(section).ok_or_else(|| wrong(key, schema::unknown_section(section)))?;
    let (peer, name) = match rest.rsplit_once('.') {
        Some((peer, name)) if schema.repeated => (Some(peer), name),
        _ if schema.repeated => return Err(wrong(key, format!("expected {section}.NAME.KEY"))),
        _ => (None, rest),
    };
    let kind = schema.kind(name).ok_or_else(|| wrong(key, schema::unknown_key(schema, name)))?;
    let table: &mut dyn TableLike = match peer {
        Some(peer) => {
            find_peer(&mut document, peer).ok_or_else(|| wrong(key, format!("no peer is called {peer:?}")))?
        }
        None => {
            section_of(&mut document, section).ok_or_else(|| wrong(key, format!("{section} is no section here")))?
        }
    };
    if value.is_empty() {
        table.remove(name);
    } else {
        put(table, name, typed(kind, value).map_err(|what| wrong(key, what))?);
    }
    checked(document)
}

/// Adds a `[[peers]]` entry.
///
/// # Errors
/// The text is not TOML, the id or name is taken, or an endpoint is malformed.
pub fn add_peer(text: &str, id: &PeerId, name: Option<&str>, endpoints: &[Endpoint]) -> Result<String, ConfigError> {
    let mut document = parse(text)?;
    let mut values = vec![("id", quoted(id))];
    values.extend(name.map(|name| ("name", quoted(name))));
    if !endpoints.is_empty() {
        values.push(("endpoints", list(endpoints)));
    }
    if let Some(Item::Value(Value::Array(inline))) = document.get_mut("peers") {
        let entry: InlineTable = values.into_iter().collect();
        inline.push(entry);
        return checked(document);
    }
    let entry: Table = values.into_iter().collect();
    let peers = document.entry("peers").or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
    peers.as_array_of_tables_mut().ok_or_else(|| wrong("peers", "expected [[peers]] tables".to_owned()))?.push(entry);
    checked(document)
}

/// Removes the `[[peers]]` entry with this name or id.
///
/// # Errors
/// The text is not TOML or has no such peer.
pub fn remove_peer(text: &str, peer: &str) -> Result<String, ConfigError> {
    let mut document = parse(text)?;
    let missing = || wrong("peers", format!("no peer is called {peer:?}"));
    match document.get_mut("peers") {
        Some(Item::ArrayOfTables(tables)) => {
            let index = tables.iter().position(|table| is_called(table, peer)).ok_or_else(missing)?;
            tables.remove(index);
        }
        Some(Item::Value(Value::Array(items))) => {
            let called = |item: &Value| item.as_inline_table().is_some_and(|table| is_called(table, peer));
            let index = items.iter().position(called).ok_or_else(missing)?;
            items.remove(index);
        }
        Some(Item::None | Item::Value(_) | Item::Table(_)) | None => return Err(missing()),
    }
    checked(document)
}

fn parse(text: &str) -> Result<DocumentMut, ConfigError> {
    // The other parser is asked first: its errors have lines.
    super::tree::from_toml(text, "config")?;
    text.parse::<DocumentMut>().map_err(|error| ConfigError::Syntax {
        origin: "config".to_owned(),
        line: None,
        what: error.message().to_owned(),
    })
}

fn checked(document: DocumentMut) -> Result<String, ConfigError> {
    let text = document.to_string();
    match Config::parse_toml(&text, ORIGIN) {
        Ok(_) => Ok(text),
        // Lines of a file that is not written yet would only mislead.
        Err(ConfigError::Invalid(mut problems)) => {
            problems.iter_mut().for_each(|problem| problem.line = None);
            Err(ConfigError::Invalid(problems))
        }
        Err(other) => Err(other),
    }
}

fn section_of<'d>(document: &'d mut DocumentMut, section: &str) -> Option<&'d mut dyn TableLike> {
    document.entry(section).or_insert(Item::Table(Table::new())).as_table_like_mut()
}

fn find_peer<'d>(document: &'d mut DocumentMut, peer: &str) -> Option<&'d mut dyn TableLike> {
    match document.get_mut("peers")? {
        Item::ArrayOfTables(tables) => {
            tables.iter_mut().find(|table| is_called(*table, peer)).map(|table| table as &mut dyn TableLike)
        }
        Item::Value(Value::Array(items)) => items
            .iter_mut()
            .filter_map(Value::as_inline_table_mut)
            .find(|table| is_called(*table, peer))
            .map(|table| table as &mut dyn TableLike),
        Item::None | Item::Value(_) | Item::Table(_) => None,
    }
}

fn is_called(table: &dyn TableLike, peer: &str) -> bool {
    let is = |key: &str| table.get(key).and_then(Item::as_str).is_some_and(|text| text.eq_ignore_ascii_case(peer));
    is("name") || is("id")
}

/// Replaces a value and keeps the space and comment around the old one.
fn put(table: &mut dyn TableLike, key: &str, mut value: Value) {
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) => {
            *value.decor_mut() = old.decor().clone();
            *old = value;
        }
        None => {
            table.insert(key, Item::Value(value));
        }
    }
}

fn typed(kind: Kind, text: &str) -> Result<Value, String> {
    let number = || text.parse::<i64>().map(Value::from);
    match kind {
        Kind::Text => Ok(quoted(text)),
        Kind::Integer => number().map_err(|_| "expected an integer".to_owned()),
        Kind::AutoOrInteger if text == "auto" => Ok(quoted(text)),
        Kind::AutoOrInteger => number().map_err(|_| "expected \"auto\" or a number".to_owned()),
        Kind::Bool => match text {
            "true" | "on" | "yes" => Ok(Value::from(true)),
            "false" | "off" | "no" => Ok(Value::from(false)),
            _ => Err("expected true or false".to_owned()),
        },
        Kind::TextList if is_toml_list(text) => {
            text.parse::<Value>().map_err(|error| format!("not a TOML list: {}", error.message()))
        }
        Kind::TextList => {
            let items: Vec<&str> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
            Ok(list(&items))
        }
    }
}

/// `["..` is TOML, `[::]:41641` an address.
fn is_toml_list(text: &str) -> bool {
    let inside = text.trim_start().strip_prefix('[').map(str::trim_start);
    inside.is_some_and(|inside| inside.starts_with(['"', '\'', ']']))
}

fn unknown_path(key: &str) -> String {
    let paths = schema::SECTIONS.iter().flat_map(|section| {
        section.keys.iter().map(move |(name, _)| format!("{}.{name}", section.name)).collect::<Vec<_>>()
    });
    let paths: Vec<String> = paths.collect();
    let home = paths.iter().find(|path| path.rsplit('.').next() == Some(key));
    match home {
        Some(path) => format!("expected SECTION.KEY; did you mean \"{path}\"?"),
        None => format!("expected SECTION.KEY, like node.name{}", did_you_mean(key, paths.iter().map(String::as_str))),
    }
}

fn wrong(key: &str, what: String) -> ConfigError {
    ConfigError::Invalid(vec![Problem { origin: ORIGIN.to_owned(), line: None, key: key.to_owned(), what }])
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# mine\n[node]\nname = \"a\"   # short\n\n[[peers]]\nid = \"abababababababababababababababababababababababababababababababab\"\nname = \"nas\"\n";

    #[test]
    fn set_keeps_comments_and_adds_sections() {
        let text = set(TEXT, "node.name", "b").unwrap();
        assert!(text.starts_with("# mine\n[node]\nname = \"b\"   # short\n"), "{text}");
        let text = set(&text, "crypto.rekey_seconds", "60").unwrap();
        assert_eq!(Config::parse_toml(&text, "x").unwrap().crypto.rekey_seconds, 60);
        let text = set(&text, "node.listen", "127.0.0.1:5,[::1]:5").unwrap();
        assert_eq!(Config::parse_toml(&text, "x").unwrap().node.listen.len(), 2);
        let text = set(&text, "node.listen", "[\"127.0.0.1:6\"]").unwrap();
        assert_eq!(Config::parse_toml(&text, "x").unwrap().node.listen.len(), 1);
        let text = set(&text, "node.listen", "[::]:7").unwrap();
        assert!(text.contains("listen = [\"[::]:7\"]"), "{text}");
        let text = set(&text, "interface.mtu", "1300").unwrap();
        let text = set(&text, "interface.mtu", "").unwrap();
        assert!(!text.contains("mtu"), "{text}");
    }

    #[test]
    fn set_reaches_a_peer_by_name_or_id() {
        let text = set(TEXT, "peers.nas.keepalive_seconds", "25").unwrap();
        assert_eq!(Config::parse_toml(&text, "x").unwrap().peers[0].keepalive_seconds, 25);
        let text = set(&text, &format!("peers.{}.name", "ab".repeat(32)), "box").unwrap();
        assert_eq!(Config::parse_toml(&text, "x").unwrap().peers[0].name, "box");
        assert!(set(TEXT, "peers.other.name", "x").unwrap_err().to_string().contains("no peer is called"));
    }

    #[test]
    fn set_refuses_what_would_not_hold() {
        for (key, value, needle) in [
            ("node.nmae", "x", "did you mean \"name\"?"),
            ("nodes.name", "x", "did you mean \"node\"?"),
            ("mtu", "1", "did you mean \"interface.mtu\"?"),
            ("crypto.rekey_seconds", "9999", "expected 5 to 300, found 9999"),
            ("crypto.rekey_seconds", "soon", "expected an integer"),
            ("relay.enabled", "maybe", "expected true or false"),
            ("relay.listen", "tcp://[::]:443", "expected wss://address:port or udp://address:port"),
            ("node.proxy", "socks5://proxy:1080", "expected http://[user:password@]host[:port], \"auto\" or \"none\""),
            ("relay.limit", "50", "expected a rate from 1kbit to 100gbit"),
            ("relay.limit", "0mbit", "expected a rate from 1kbit to 100gbit"),
            ("relay.limit", "99999999999999gbit", "expected a rate from 1kbit to 100gbit"),
            ("interface.ipv4_pool", "10.1.0.0/30", "too small"),
            ("peers.name", "x", "peers.NAME.KEY"),
            ("peers.nas.name", "a", "same name as node.name"),
        ] {
            let error = set(TEXT, key, value).unwrap_err().to_string();
            assert!(error.contains(needle), "{key}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn peers_are_added_and_removed() {
        let id: PeerId = "cd".repeat(32).parse().unwrap();
        let text = add_peer(TEXT, &id, Some("pi"), &["pi.lan:41641".parse().unwrap()]).unwrap();
        assert!(text.starts_with(TEXT), "{text}");
        let config = Config::parse_toml(&text, "x").unwrap();
        assert_eq!((config.peers.len(), config.peers[1].name.as_str()), (2, "pi"));
        assert!(add_peer(&text, &id, None, &[]).unwrap_err().to_string().contains("same PeerID"));
        assert!(add_peer(&text, &"ef".repeat(32).parse().unwrap(), Some("nas"), &[]).is_err());
        assert_eq!(Config::parse_toml(&remove_peer(&text, "nas").unwrap(), "x").unwrap().peers.len(), 1);
        assert!(remove_peer(&text, "nobody").is_err());
        assert_eq!(Config::parse_toml(&add_peer("", &id, None, &[]).unwrap(), "x").unwrap().peers.len(), 1);
        let inline = add_peer("peers = []\n", &id, None, &[]).unwrap();
        assert_eq!(Config::parse_toml(&inline, "x").unwrap().peers.len(), 1);
    }
}
