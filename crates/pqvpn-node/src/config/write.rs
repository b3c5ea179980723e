// SPDX-License-Identifier: MIT OR Apache-2.0
//! Configurations as text: the one in force, a commented sample, and what a conversion kept.

use std::fmt::{Display, Write as _};

use toml_edit::Value;

use super::{
    Config, DEFAULT_DIFFICULTY, Mtu, Queues, schema,
    tree::{Node, Table},
    value::network_name,
};

/// A commented configuration that means exactly the defaults.
#[must_use]
pub fn sample() -> String {
    SAMPLE.to_owned()
}

const SAMPLE: &str = include_str!("sample.toml");

/// Every key with the value in force.
pub(super) fn to_toml(config: &Config) -> String {
    let mut out = Out::default();
    out.section("[node]");
    out.optional("name", config.node.name.as_deref().map(quoted));
    out.key("listen", list(&config.node.listen));
    out.optional("state_dir", config.node.state_dir.as_ref().map(|path| quoted(path.display())));
    out.key("port_mapping", config.node.port_mapping);
    out.key("proxy", quoted(&config.node.proxy));

    out.key("port_guessing", config.node.port_guessing);
    let interface = &config.interface;
    out.section("[interface]");
    out.key("name", quoted(&interface.name));
    out.key(
        "mtu",
        auto_or(match interface.mtu {
            Mtu::Auto => None,
            Mtu::Fixed(bytes) => Some(bytes),
        }),
    );
    out.key("ipv4", interface.ipv4);
    out.key("ipv6", interface.ipv6);
    out.key("ipv4_pool", quoted(interface.ipv4_pool));
    out.key(
        "queues",
        auto_or(match interface.queues {
            Queues::Auto => None,
            Queues::Fixed(count) => Some(count),
        }),
    );

    out.section("[crypto]");
    out.key("cipher", quoted(config.crypto.cipher));
    out.key("rekey_seconds", config.crypto.rekey_seconds);

    for peer in &config.peers {
        out.section("[[peers]]");
        out.key("id", quoted(peer.id));
        out.key("name", quoted(&peer.name));
        out.key("endpoints", list(&peer.endpoints));
        out.key("keepalive_seconds", peer.keepalive_seconds);
        out.key("routes", list(&peer.routes));
    }

    out.section("[bootstrap]");
    out.key("nodes", list(&config.bootstrap.nodes));
    out.key("lists", list(&config.bootstrap.lists.iter().map(|path| path.display()).collect::<Vec<_>>()));
    out.key("signers", list(&config.bootstrap.signers));
    out.key("lan", config.bootstrap.lan);
    out.section("[dht]");
    out.key("enabled", config.dht.enabled);
    out.key("mode", quoted(config.dht.mode));
    out.key("difficulty", config.dht.difficulty.unwrap_or(DEFAULT_DIFFICULTY));
    out.key("network", quoted(network_name(config.dht.network.as_ref())));
    out.section("[dns]");
    out.key("mode", quoted(config.dns.mode));
    out.section("[relay]");
    out.key("enabled", config.relay.enabled);
    out.key("limit", quoted(config.relay.limit.map(|limit| limit.to_string()).unwrap_or_default()));
    out.key("listen", list(&config.relay.listen));
    out.section("[metrics]");
    out.key("listen", quoted(config.metrics.listen.map(|listen| listen.to_string()).unwrap_or_default()));

    out.section("[logging]");
    out.key("level", quoted(config.logging.level));
    out.key("format", quoted(config.logging.format));
    let file = config.logging.file.as_ref().map(|path| path.display().to_string());
    out.key("file", quoted(file.unwrap_or_default()));
    out.0
}

/// The keys of `root` and nothing else, each with the old keys it came from.
pub(super) fn sparse(root: &Table, origins: &[(&'static str, String)]) -> String {
    let mut out = Out::default();
    for section in schema::SECTIONS {
        let Some(entry) = root.get(section.name) else { continue };
        let tables = match &entry.node {
            Node::Table(table) => vec![table],
            Node::List(items) => items
                .iter()
                .filter_map(|item| match &item.node {
                    Node::Table(table) => Some(table),
                    Node::Text(_) | Node::Integer(_) | Node::Bool(_) | Node::List(_) | Node::Null | Node::Other(_) => {
                        None
                    }
                })
                .collect(),
            Node::Text(_) | Node::Integer(_) | Node::Bool(_) | Node::Null | Node::Other(_) => continue,
        };
        for table in tables {
            out.section(&section.heading());
            for (key, _) in section.keys {
                let Some(value) = table.get(key).and_then(|entry| plain(&entry.node)) else {
                    continue;
                };
                let from = origins.iter().find(|(target, _)| target.split_once('.') == Some((section.name, key)));
                out.commented(key, value, from.map(|(_, old)| old.as_str()));
            }
        }
    }
    out.0
}

/// A TOML string of `value`.
pub(super) fn quoted(value: impl Display) -> Value {
    Value::from(value.to_string())
}

/// A TOML list of strings.
pub(super) fn list<T: Display>(items: &[T]) -> Value {
    Value::from(items.iter().map(ToString::to_string).collect::<toml_edit::Array>())
}

fn auto_or(number: Option<u16>) -> Value {
    number.map_or_else(|| quoted("auto"), |number| Value::from(i64::from(number)))
}

fn plain(node: &Node) -> Option<Value> {
    match node {
        Node::Text(text) => Some(quoted(text)),
        Node::Integer(number) => Some(Value::from(*number)),
        Node::Bool(value) => Some(Value::from(*value)),
        Node::List(items) => {
            let items: Option<Vec<Value>> = items.iter().map(|item| plain(&item.node)).collect();
            items.map(|items| Value::from(items.into_iter().collect::<toml_edit::Array>()))
        }
        Node::Table(_) | Node::Null | Node::Other(_) => None,
    }
}

#[derive(Default)]
struct Out(String);

impl Out {
    fn section(&mut self, heading: &str) {
        let gap = if self.0.is_empty() { "" } else { "\n" };
        self.line(format_args!("{gap}{heading}"));
    }

    fn key(&mut self, key: &str, value: impl Display) {
        self.line(format_args!("{key} = {value}"));
    }

    fn optional(&mut self, key: &str, value: Option<Value>) {
        if let Some(value) = value {
            self.key(key, value);
        }
    }

    fn commented(&mut self, key: &str, value: Value, from: Option<&str>) {
        match from {
            Some(old) => self.line(format_args!("{key} = {value}  # was {old}")),
            None => self.key(key, value),
        }
    }

    fn line(&mut self, line: impl Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{line}");
    }
}
