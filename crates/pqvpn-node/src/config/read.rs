// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the tree to a [`Config`], collecting every problem on the way.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, str::FromStr};

use ipnet::{IpNet, Ipv4Net};

use super::{
    BootstrapConfig, BootstrapEntry, CarrierListen, Cipher, Config, ConfigError, DEFAULT_DIFFICULTY, DIFFICULTY,
    DhtConfig, DhtMode, DnsMode, Endpoint, KEEPALIVE_SECONDS, LogFormat, LogLevel, Mtu, PeerConfig, Problem,
    ProxyChoice, Queues, REKEY_SECONDS, Rate, check, schema,
    tree::{At, Entry, Node, Table},
    value::{in_range, interface_name, is_name, network, peer_id},
};

/// More problems than this are not shown.
const MAX_PROBLEMS: usize = 20;
/// More entries than this in a list are a mistake.
const MAX_ITEMS: usize = 10_000;

/// Reads and checks a whole configuration; `text` is what `root` was parsed from.
pub(super) fn config(root: &Table, text: &str, origin: &str) -> Result<Config, ConfigError> {
    let mut reader = Reader::default();
    reader.unknown_keys(root);
    let config = reader.config(root);
    let mut places = BTreeMap::new();
    if reader.problems.is_empty() {
        collect_places(root, "", &mut places);
        for wrong in check::contradictions(&config) {
            reader.contradiction(wrong, &places, text);
        }
    }
    if reader.problems.is_empty() {
        return Ok(config);
    }
    reader.problems.truncate(MAX_PROBLEMS);
    let place = |found: Found| Problem {
        origin: origin.to_owned(),
        line: found.at.and_then(|at| at.line(text)),
        key: found.key,
        what: found.what,
    };
    let mut problems: Vec<Problem> = reader.problems.into_iter().map(place).collect();
    problems.sort_by_key(|problem| problem.line);
    Err(ConfigError::Invalid(problems))
}

/// A problem whose line is not looked up yet.
struct Found {
    at: Option<At>,
    key: String,
    what: String,
}

#[derive(Default)]
struct Reader {
    problems: Vec<Found>,
}

/// A section being read and the dotted name of it.
struct Section<'t> {
    table: &'t Table,
    name: String,
}

impl Reader {
    fn config(&mut self, root: &Table) -> Config {
        let mut config = Config::default();
        if let Some(section) = self.section(root, "node") {
            config.node.name = self.value(&section, "name", node_name);
            assign(&mut config.node.listen, self.list(&section, "listen", parse::<SocketAddr>));
            config.node.state_dir = self.value(&section, "state_dir", absolute_path);
            assign(&mut config.node.port_guessing, self.value(&section, "port_guessing", boolean));
            assign(&mut config.node.port_mapping, self.value(&section, "port_mapping", boolean));
            assign(&mut config.node.proxy, self.value(&section, "proxy", parse::<ProxyChoice>));
        }
        if let Some(section) = self.section(root, "interface") {
            self.interface(&section, &mut config);
        }
        if let Some(section) = self.section(root, "crypto") {
            assign(&mut config.crypto.cipher, self.value(&section, "cipher", parse::<Cipher>));
            let seconds = self.value(&section, "rekey_seconds", |node| in_range(integer(node)?, &REKEY_SECONDS));
            assign(&mut config.crypto.rekey_seconds, seconds);
        }
        config.peers = self.peers(root);
        if let Some(section) = self.section(root, "bootstrap") {
            self.bootstrap(&section, &mut config.bootstrap);
        }
        if let Some(section) = self.section(root, "dht") {
            self.dht(&section, &mut config.dht);
        }
        if let Some(section) = self.section(root, "dns") {
            assign(&mut config.dns.mode, self.value(&section, "mode", parse::<DnsMode>));
        }
        if let Some(section) = self.section(root, "relay") {
            assign(&mut config.relay.enabled, self.value(&section, "enabled", boolean));
            assign(&mut config.relay.listen, self.list(&section, "listen", parse::<CarrierListen>));
            config.relay.limit = self.value(&section, "limit", or_empty(parse::<Rate>)).flatten();
        }
        if let Some(section) = self.section(root, "metrics") {
            config.metrics.listen = self.value(&section, "listen", or_empty(parse::<SocketAddr>)).flatten();
        }
        if let Some(section) = self.section(root, "logging") {
            assign(&mut config.logging.level, self.value(&section, "level", parse::<LogLevel>));
            assign(&mut config.logging.format, self.value(&section, "format", parse::<LogFormat>));
            let file = |node: &Node| Ok(PathBuf::from(text(node)?));
            config.logging.file = self.value(&section, "file", or_empty(file)).flatten();
        }
        config
    }

    fn interface(&mut self, section: &Section<'_>, config: &mut Config) {
        let interface = &mut config.interface;
        let name = |node: &Node| {
            let name = text(node)?;
            interface_name(name).map(|()| name.to_owned())
        };
        assign(&mut interface.name, self.value(section, "name", name));
        assign(&mut interface.mtu, self.value(section, "mtu", auto_or(Mtu::Auto, Mtu::fixed)));
        assign(&mut interface.ipv4, self.value(section, "ipv4", boolean));
        assign(&mut interface.ipv6, self.value(section, "ipv6", boolean));
        assign(&mut interface.ipv4_pool, self.value(section, "ipv4_pool", pool));
        assign(&mut interface.queues, self.value(section, "queues", auto_or(Queues::Auto, Queues::fixed)));
    }

    fn bootstrap(&mut self, section: &Section<'_>, bootstrap: &mut BootstrapConfig) {
        assign(&mut bootstrap.nodes, self.list(section, "nodes", parse::<BootstrapEntry>));
        assign(&mut bootstrap.lists, self.list(section, "lists", absolute_path));
        assign(&mut bootstrap.signers, self.list(section, "signers", |node| peer_id(text(node)?)));
        assign(&mut bootstrap.lan, self.value(section, "lan", boolean));
    }

    fn dht(&mut self, section: &Section<'_>, dht: &mut DhtConfig) {
        assign(&mut dht.enabled, self.value(section, "enabled", boolean));
        assign(&mut dht.mode, self.value(section, "mode", parse::<DhtMode>));
        let difficulty = self.value(section, "difficulty", |node| in_range(integer(node)?, &DIFFICULTY));
        // Written down or not: the same configuration.
        dht.difficulty = difficulty.filter(|difficulty| *difficulty != DEFAULT_DIFFICULTY);
        assign(&mut dht.network, self.value(section, "network", |node| network(text(node)?)));
    }

    fn peers(&mut self, root: &Table) -> Vec<PeerConfig> {
        let Some(entry) = root.get("peers") else {
            return Vec::new();
        };
        let Node::List(items) = &entry.node else {
            if entry.node != Node::Null {
                let found = entry.node.kind();
                self.wrong(&entry.at, "peers".to_owned(), format!("expected [[peers]] tables, found {found}"));
            }
            return Vec::new();
        };
        if items.len() > MAX_ITEMS {
            self.wrong(&entry.at, "peers".to_owned(), format!("more than {MAX_ITEMS} peers"));
            return Vec::new();
        }
        items.iter().enumerate().filter_map(|(index, item)| self.peer(index, item)).collect()
    }

    fn peer(&mut self, index: usize, item: &Entry) -> Option<PeerConfig> {
        let name = format!("peers[{index}]");
        let Node::Table(table) = &item.node else {
            let found = item.node.kind();
            self.wrong(&item.at, name, format!("expected a table with a key \"id\", found {found}"));
            return None;
        };
        let section = Section { table, name };
        let before = self.problems.len();
        let id = self.value(&section, "id", |node| peer_id(text(node)?));
        let name = self.value(&section, "name", node_name);
        let endpoints = self.list(&section, "endpoints", parse::<Endpoint>).unwrap_or_default();
        let keepalive = self.value(&section, "keepalive_seconds", keepalive).unwrap_or(0);
        let routes = self.list(&section, "routes", prefix).unwrap_or_default();
        let Some(id) = id else {
            if self.problems.len() == before {
                let what = "missing; expected the PeerID of the peer, 64 hex digits".to_owned();
                self.wrong(&item.at, format!("{}.id", section.name), what);
            }
            return None;
        };
        let name = name.unwrap_or_else(|| id.short());
        Some(PeerConfig { id, name, endpoints, keepalive_seconds: keepalive, routes })
    }

    fn section<'t>(&mut self, root: &'t Table, name: &str) -> Option<Section<'t>> {
        let entry = root.get(name)?;
        match &entry.node {
            Node::Table(table) => Some(Section { table, name: name.to_owned() }),
            Node::Null => None,
            other @ (Node::Text(_) | Node::Integer(_) | Node::Bool(_) | Node::List(_) | Node::Other(_)) => {
                let what = format!("expected a section [{name}], found {}", other.kind());
                self.wrong(&entry.at, name.to_owned(), what);
                None
            }
        }
    }

    /// The value of `key`, None when it is absent, null or wrong.
    fn value<T>(
        &mut self,
        section: &Section<'_>,
        key: &str,
        read: impl FnOnce(&Node) -> Result<T, String>,
    ) -> Option<T> {
        let entry = section.table.get(key).filter(|entry| entry.node != Node::Null)?;
        match read(&entry.node) {
            Ok(value) => Some(value),
            Err(what) => {
                self.wrong(&entry.at, format!("{}.{key}", section.name), what);
                None
            }
        }
    }

    /// The list under `key`, each wrong item reported by itself.
    fn list<T>(
        &mut self,
        section: &Section<'_>,
        key: &str,
        read: impl Fn(&Node) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let entry = section.table.get(key).filter(|entry| entry.node != Node::Null)?;
        let name = format!("{}.{key}", section.name);
        let Node::List(items) = &entry.node else {
            let found = entry.node.kind();
            self.wrong(&entry.at, name, format!("expected a list of strings, like [\"..\"], found {found}"));
            return None;
        };
        if items.len() > MAX_ITEMS {
            self.wrong(&entry.at, name, format!("more than {MAX_ITEMS} entries"));
            return None;
        }
        let mut values = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            match read(&item.node) {
                Ok(value) => values.push(value),
                Err(what) => self.wrong(&item.at, format!("{name}[{index}]"), what),
            }
        }
        Some(values)
    }

    fn unknown_keys(&mut self, root: &Table) {
        for (name, entry) in &root.0 {
            let Some(section) = schema::find(name) else {
                self.wrong(&entry.at, name.clone(), schema::unknown_section(name));
                continue;
            };
            match &entry.node {
                Node::Table(table) => self.unknown_in(section, name, table),
                Node::List(items) if section.repeated => {
                    for (index, item) in items.iter().enumerate() {
                        if let Node::Table(table) = &item.node {
                            self.unknown_in(section, &format!("{name}[{index}]"), table);
                        }
                    }
                }
                Node::Text(_) | Node::Integer(_) | Node::Bool(_) | Node::List(_) | Node::Null | Node::Other(_) => {}
            }
        }
    }

    fn unknown_in(&mut self, section: &schema::Section, name: &str, table: &Table) {
        for (key, entry) in &table.0 {
            if section.kind(key).is_none() {
                self.wrong(&entry.at, format!("{name}.{key}"), schema::unknown_key(section, key));
            }
        }
    }

    fn contradiction(&mut self, wrong: check::Contradiction, places: &BTreeMap<String, At>, source: &str) {
        let mut what = wrong.what;
        if let Some(other) = wrong.with {
            let line = place(&other, places).and_then(|at| at.line(source));
            what = match line {
                Some(line) => format!("{what} {other} in line {line}"),
                None => format!("{what} {other}"),
            };
        }
        self.problems.push(Found { at: place(&wrong.key, places).cloned(), key: wrong.key, what });
    }

    fn wrong(&mut self, at: &At, key: String, what: String) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Found { at: Some(at.clone()), key, what });
        }
    }
}

/// The place of `key`, else that of the nearest thing around it that was written down.
fn place<'p>(key: &str, places: &'p BTreeMap<String, At>) -> Option<&'p At> {
    let around = key.char_indices().rev().filter(|(_, c)| matches!(c, '.' | '[')).map(|(index, _)| &key[..index]);
    std::iter::once(key).chain(around).find_map(|key| places.get(key))
}

fn collect_places(table: &Table, prefix: &str, places: &mut BTreeMap<String, At>) {
    for (key, entry) in &table.0 {
        collect_place(entry, if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") }, places);
    }
}

fn collect_place(entry: &Entry, name: String, places: &mut BTreeMap<String, At>) {
    match &entry.node {
        Node::Table(table) => collect_places(table, &name, places),
        Node::List(items) => {
            for (index, item) in items.iter().enumerate() {
                collect_place(item, format!("{name}[{index}]"), places);
            }
        }
        Node::Text(_) | Node::Integer(_) | Node::Bool(_) | Node::Null | Node::Other(_) => {}
    }
    places.insert(name, entry.at.clone());
}

fn assign<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}

fn text(node: &Node) -> Result<&str, String> {
    match node {
        Node::Text(text) => Ok(text),
        Node::Integer(_) | Node::Bool(_) => Err(format!("expected a string, found {}; put it in quotes", node.kind())),
        Node::List(_) | Node::Table(_) | Node::Null | Node::Other(_) => {
            Err(format!("expected a string, found {}", node.kind()))
        }
    }
}

fn integer(node: &Node) -> Result<i64, String> {
    match node {
        Node::Integer(integer) => Ok(*integer),
        Node::Text(_) | Node::Bool(_) | Node::List(_) | Node::Table(_) | Node::Null | Node::Other(_) => {
            Err(format!("expected an integer, found {}", node.kind()))
        }
    }
}

fn boolean(node: &Node) -> Result<bool, String> {
    match node {
        Node::Bool(value) => Ok(*value),
        Node::Text(_) | Node::Integer(_) | Node::List(_) | Node::Table(_) | Node::Null | Node::Other(_) => {
            Err(format!("expected true or false, found {}", node.kind()))
        }
    }
}

/// Any type with a spelling of its own.
fn parse<T: Spelled>(node: &Node) -> Result<T, String> {
    T::spelled(text(node)?)
}

trait Spelled: Sized {
    fn spelled(text: &str) -> Result<Self, String>;
}

macro_rules! spelled_by_from_str {
    ($($type:ty),+) => { $(impl Spelled for $type {
        fn spelled(text: &str) -> Result<Self, String> {
            Self::from_str(text)
        }
    })+ };
}

spelled_by_from_str!(
    Cipher,
    DhtMode,
    DnsMode,
    LogLevel,
    LogFormat,
    Endpoint,
    Rate,
    CarrierListen,
    ProxyChoice,
    BootstrapEntry
);

impl Spelled for SocketAddr {
    fn spelled(text: &str) -> Result<Self, String> {
        let expected = "expected \"address:port\", like \"0.0.0.0:41641\" or \"[::]:41641\"";
        text.parse().map_err(|_| format!("{expected}, found {text:?}"))
    }
}

/// `read`, but an empty string means "not set".
fn or_empty<T>(read: impl Fn(&Node) -> Result<T, String>) -> impl Fn(&Node) -> Result<Option<T>, String> {
    move |node| {
        if *node == Node::Text(String::new()) { Ok(None) } else { read(node).map(Some) }
    }
}

fn auto_or<T: Copy>(auto: T, fixed: impl Fn(i64) -> Result<T, String>) -> impl Fn(&Node) -> Result<T, String> {
    move |node| match node {
        Node::Text(text) if text == "auto" => Ok(auto),
        Node::Integer(number) => fixed(*number).map_err(|what| format!("{what} (or \"auto\")")),
        Node::Text(_) | Node::Bool(_) | Node::List(_) | Node::Table(_) | Node::Null | Node::Other(_) => {
            Err("expected \"auto\" or a number".to_owned())
        }
    }
}

fn node_name(node: &Node) -> Result<String, String> {
    let name = text(node)?;
    if is_name(name) {
        return Ok(name.to_owned());
    }
    Err("expected a name of 1 to 63 letters, digits, \"-\", \"_\" or \".\", beginning and ending with a letter or digit".to_owned())
}

fn absolute_path(node: &Node) -> Result<PathBuf, String> {
    let path = PathBuf::from(text(node)?);
    if path.is_absolute() { Ok(path) } else { Err("expected an absolute path, beginning with \"/\"".to_owned()) }
}

fn keepalive(node: &Node) -> Result<u16, String> {
    match integer(node)? {
        0 => Ok(0),
        seconds => in_range(seconds, &KEEPALIVE_SECONDS).map_err(|what| format!("{what} (or 0 for none)")),
    }
}

fn pool(node: &Node) -> Result<Ipv4Net, String> {
    let text = text(node)?;
    let Ok(net) = text.parse::<Ipv4Net>() else {
        return Err(format!("expected an IPv4 prefix, like \"10.100.0.0/16\", found {text:?}"));
    };
    if net != net.trunc() {
        return Err(format!("{net} has host bits set; did you mean \"{}\"?", net.trunc()));
    }
    Ok(net)
}

fn prefix(node: &Node) -> Result<IpNet, String> {
    let text = text(node)?;
    let Ok(net) = text.parse::<IpNet>() else {
        return Err(format!("expected a prefix, like \"192.168.7.0/24\" or \"fd00:7::/64\", found {text:?}"));
    };
    if net != net.trunc() {
        return Err(format!("{net} has host bits set; did you mean \"{}\"?", net.trunc()));
    }
    Ok(net)
}
