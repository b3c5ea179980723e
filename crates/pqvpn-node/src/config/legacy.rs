// SPDX-License-Identifier: MIT OR Apache-2.0
//! The keys of the first prototype's YAML: each becomes a key of today, or a note that says why it has no effect.

use super::{
    Config, ConfigError, DEFAULT_PORT, REKEY_SECONDS, Warning, is_yaml_text,
    tree::{self, At, Entry, Node, Table},
    value::{Endpoint, LogLevel, sanitise_name},
    write,
};

/// What an old key becomes.
enum Becomes {
    /// `section.key` of today.
    Key(&'static str),
    /// Nothing, because.
    Nothing(&'static str),
}

use Becomes::{Key, Nothing};

const IDENTITY: &str =
    "a node has one identity, Ed25519 + ML-DSA-87, in the keystore of its state directory; see `pqvpn keys`";
const PINNED: &str = "a peer is accepted by its PeerID alone, never on first use";
const BOUNDED: &str = "queues and buffers are bounded and sized by the node itself";
const COVER: &str =
    "traffic shaping is not available in this version; packets are encrypted, their sizes are not hidden";
const EPHEMERAL: &str = "the identity is kept on disk; `pqvpn daemon --ephemeral` keeps keys in memory only";

/// Every key of the old sample, in its order.
const MAPPINGS: &[(&str, &str, Becomes)] = &[
    ("peer", "nickname", Key("node.name")),
    ("peer", "brainpoolP512r1_sk_file", Nothing(IDENTITY)),
    ("peer", "ed25519_sk_file", Nothing(IDENTITY)),
    ("security", "require_hybrid_handshake", Nothing("the handshake is always hybrid; there is no switch")),
    ("security", "strict_sig_verify", Nothing("both signatures are always verified; there is no switch")),
    ("security", "tofu", Nothing(PINNED)),
    ("security", "strict_tofu", Nothing(PINNED)),
    ("security", "known_peers_file", Nothing("write each known peer as [[peers]] with its PeerID")),
    (
        "security",
        "handshake_per_minute_per_ip",
        Nothing("under load every address must prove itself first; no rate to set"),
    ),
    ("network", "bind_host", Key("node.listen")),
    ("network", "listen_port", Key("node.listen")),
    ("network", "max_concurrent_datagrams", Nothing(BOUNDED)),
    ("network", "udp_recv_buffer_size", Nothing(BOUNDED)),
    ("bootstrap", "peers", Key("bootstrap.nodes")),
    ("traffic_obfuscation", "enabled", Nothing(COVER)),
    ("traffic_obfuscation", "buckets", Nothing(COVER)),
    ("rekey", "interval_seconds", Key("crypto.rekey_seconds")),
    ("rekey", "threshold_seconds", Nothing("crypto.rekey_seconds alone says when")),
    ("relay", "enabled", Key("relay.enabled")),
    ("relay", "accept_circuits", Nothing("circuits are not available in this version")),
    ("relay", "exit_policy", Nothing("exit nodes are not available in this version; nothing leaves the mesh here")),
    ("metrics", "prometheus", Key("metrics.listen")),
    ("metrics", "bind_host", Key("metrics.listen")),
    ("metrics", "bind_port", Key("metrics.listen")),
    ("logging", "file", Key("logging.file")),
    ("logging", "level", Key("logging.level")),
    ("keys", "runtime_temp_keys", Nothing(EPHEMERAL)),
    ("keys", "temp_keys_prefix", Nothing(EPHEMERAL)),
];

/// Old metrics address, where the old configuration gave none.
const OLD_METRICS: (&str, i64) = ("127.0.0.1", 9001);

/// Rewrites a configuration from `origin`, YAML of either generation, as TOML; what has no effect becomes a comment that says why.
///
/// # Errors
/// The text is not well-formed or what it says cannot be done.
pub fn convert(text: &str, origin: &str) -> Result<String, ConfigError> {
    if !is_yaml_text(text) {
        return Config::parse_toml(text, origin).map(|_| text.to_owned());
    }
    Config::parse_yaml(text, origin)?;
    let rewritten = rewrite(tree::from_yaml(text, origin)?);
    let mut out = String::from("# Rewritten by `pqvpn config convert`.\n");
    out.push_str(&write::sparse(&rewritten.root, &rewritten.origins));
    if !rewritten.notes.is_empty() {
        out.push_str("\n# Not carried over:\n");
    }
    for note in &rewritten.notes {
        out.push_str(&format!("#   {}: {}\n", note.key, note.why));
    }
    Config::parse_toml(&out, origin).map(|_| out)
}

/// Turns old keys of `root` into those of today; the warnings name what had no effect.
pub(super) fn modernise(root: Table) -> (Table, Vec<Warning>) {
    let rewritten = rewrite(root);
    let warning = |note: Note| Warning { code: "config-old-key", key: note.key, text: note.why };
    (rewritten.root, rewritten.notes.into_iter().filter(|note| note.was_set).map(warning).collect())
}

/// Where an old key of this name went, for "unknown key" in a file of today.
pub(super) fn moved(section: &str, key: Option<&str>) -> Option<String> {
    if let Some(key) = key {
        let (_, _, becomes) = MAPPINGS.iter().find(|(s, k, _)| *s == section && *k == key)?;
        return match becomes {
            Key(target) => Some(format!("this key is now {target}")),
            Nothing(why) => Some(format!("this key is gone: {why}")),
        };
    }
    MAPPINGS.iter().any(|(old, _, _)| *old == section).then(|| {
        "a section of the old YAML format, unknown in TOML; `pqvpn config convert` rewrites the file".to_owned()
    })
}

struct Note {
    key: String,
    why: String,
    /// False for a key that was there but null.
    was_set: bool,
}

struct Rewritten {
    root: Table,
    notes: Vec<Note>,
    /// New key and the old ones it was made from.
    origins: Vec<(&'static str, String)>,
}

fn rewrite(root: Table) -> Rewritten {
    let mut to = Rewritten { root, notes: Vec::new(), origins: Vec::new() };
    to.relay_scalar();
    to.listen();
    to.metrics();
    for (section, key, becomes) in MAPPINGS {
        let same = matches!(becomes, Key(target) if target.split_once('.') == Some((section, key)));
        if same {
            to.normalise(section, key);
            continue;
        }
        let Some(entry) = to.take(section, key) else { continue };
        let old = format!("{section}.{key}");
        match becomes {
            Nothing(why) => to.note(old, (*why).to_owned(), entry.node != Node::Null),
            Key(target) => to.translate(target, old, entry),
        }
    }
    to.drop_emptied();
    to
}

impl Rewritten {
    /// `relay: true`, as the old text had it in one place.
    fn relay_scalar(&mut self) {
        let Some(entry) = self.root.get("relay").filter(|entry| matches!(entry.node, Node::Bool(_))).cloned() else {
            return;
        };
        self.root.take("relay");
        self.put("relay.enabled", "relay".to_owned(), entry);
    }

    /// `network.bind_host` and `network.listen_port` are one address today.
    fn listen(&mut self) {
        let (host, port) = (self.take("network", "bind_host"), self.take("network", "listen_port"));
        let Some(at) = host.as_ref().or(port.as_ref()).map(|entry| entry.at.clone()) else {
            return;
        };
        let node = socket(host, port, ("0.0.0.0", i64::from(DEFAULT_PORT)));
        let list = Node::List(vec![Entry { at: at.clone(), node }]);
        self.put("node.listen", "network.bind_host, network.listen_port".to_owned(), Entry { at, node: list });
    }

    /// The metrics listener is on when it has an address.
    fn metrics(&mut self) {
        let on = self.take("metrics", "prometheus");
        let (host, port) = (self.take("metrics", "bind_host"), self.take("metrics", "bind_port"));
        let Some(on) = on else { return };
        if on.node == Node::Bool(false) {
            self.note("metrics.prometheus".to_owned(), "metrics are off unless metrics.listen is set".to_owned(), true);
            return;
        }
        let node = socket(host, port, OLD_METRICS);
        self.put("metrics.listen", "metrics.prometheus, .bind_host, .bind_port".to_owned(), Entry { at: on.at, node });
    }

    /// A key with the old name and, perhaps, an old spelling of its value.
    fn normalise(&mut self, section: &str, key: &str) {
        if (section, key) != ("logging", "level") {
            return;
        }
        let Some((_, Entry { node: Node::Table(table), .. })) =
            self.root.0.iter_mut().find(|(name, _)| name == section)
        else {
            return;
        };
        if let Some((_, Entry { node: Node::Text(level), .. })) = table.0.iter_mut().find(|(name, _)| name == key) {
            let lower = level.to_lowercase();
            let name = match lower.as_str() {
                "warning" => "warn",
                "critical" | "fatal" => "error",
                "notset" => "trace",
                other => other,
            };
            if name.parse::<LogLevel>().is_ok() {
                *level = name.to_owned();
            }
        }
    }

    fn translate(&mut self, target: &'static str, old: String, entry: Entry) {
        match (target, entry.node) {
            (_, Node::Null) => {}
            ("node.name", Node::Text(name)) => {
                let node = Node::Text(sanitise_name(&name));
                self.put(target, old, Entry { at: entry.at, node });
            }
            ("crypto.rekey_seconds", Node::Integer(seconds)) => {
                let (least, most) = (i64::from(*REKEY_SECONDS.start()), i64::from(*REKEY_SECONDS.end()));
                let within = seconds.clamp(least, most);
                if within != seconds {
                    let why = format!("{seconds} is outside {least} to {most}; {within} is used");
                    self.note(old.clone(), why, true);
                }
                self.put(target, old, Entry { at: entry.at, node: Node::Integer(within) });
            }
            ("bootstrap.nodes", Node::List(items)) => self.bootstrap(target, old, entry.at, items),
            (_, node) => self.put(target, old, Entry { at: entry.at, node }),
        }
    }

    /// Entries with a pinned PeerID stay; an address alone would let anybody answer.
    fn bootstrap(&mut self, target: &'static str, old: String, at: At, items: Vec<Entry>) {
        let mut kept = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            match &item.node {
                Node::Text(text) if text.parse::<Endpoint>().is_ok() => {
                    let why =
                        format!("{text} has no PeerID; write \"pqvpn://<64 hex digits>@{text}\" in bootstrap.nodes");
                    self.note(format!("{old}[{index}]"), why, true);
                }
                Node::Text(_)
                | Node::Integer(_)
                | Node::Bool(_)
                | Node::List(_)
                | Node::Table(_)
                | Node::Null
                | Node::Other(_) => kept.push(item),
            }
        }
        if !kept.is_empty() {
            self.put(target, old, Entry { at, node: Node::List(kept) });
        }
    }

    fn put(&mut self, target: &'static str, old: String, entry: Entry) {
        let Some((section, key)) = target.split_once('.') else {
            return;
        };
        let home = match self.root.0.iter().position(|(name, _)| name == section) {
            Some(index) => index,
            None => {
                let node = Node::Table(Table::default());
                self.root.0.push((section.to_owned(), Entry { at: entry.at.clone(), node }));
                self.root.0.len() - 1
            }
        };
        let Node::Table(table) = &mut self.root.0[home].1.node else {
            return;
        };
        if table.get(key).is_some() {
            self.note(old, format!("{target} is set as well and wins"), true);
            return;
        }
        table.0.push((key.to_owned(), entry));
        self.origins.push((target, old));
    }

    fn take(&mut self, section: &str, key: &str) -> Option<Entry> {
        let (_, entry) = self.root.0.iter_mut().find(|(name, _)| name == section)?;
        let Node::Table(table) = &mut entry.node else {
            return None;
        };
        table.take(key)
    }

    fn note(&mut self, key: String, why: String, was_set: bool) {
        self.notes.push(Note { key, why, was_set });
    }

    fn drop_emptied(&mut self) {
        let old = |name: &str| MAPPINGS.iter().any(|(section, _, _)| *section == name);
        self.root.0.retain(|(name, entry)| !old(name) || entry.node != Node::Table(Table::default()));
    }
}

/// `host:port` from two values; a value of the wrong kind stays, to be reported where it is read.
fn socket(host: Option<Entry>, port: Option<Entry>, default: (&str, i64)) -> Node {
    let node = |entry: Option<Entry>| entry.map_or(Node::Null, |entry| entry.node);
    let host = match node(host) {
        Node::Text(host) => host,
        Node::Null => default.0.to_owned(),
        other @ (Node::Integer(_) | Node::Bool(_) | Node::List(_) | Node::Table(_) | Node::Other(_)) => return other,
    };
    let port = match node(port) {
        Node::Integer(port) => port,
        Node::Null => default.1,
        Node::Text(_) => return Node::Other("a port in quotes"),
        other @ (Node::Bool(_) | Node::List(_) | Node::Table(_) | Node::Other(_)) => return other,
    };
    let host = if host == "localhost" { "127.0.0.1" } else { &host };
    Node::Text(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_a_key_of_today() {
        for (section, key, becomes) in MAPPINGS {
            let Key(target) = becomes else { continue };
            let (home, name) = target.split_once('.').unwrap();
            let known = super::super::schema::find(home).and_then(|home| home.kind(name));
            assert!(known.is_some(), "{section}.{key} -> {target}");
        }
    }

    #[test]
    fn old_and_new_key_together_keep_the_new_one() {
        let config = Config::parse_yaml("peer: {nickname: old}\nnode: {name: new}\n", "x").unwrap();
        assert_eq!(config.node.name.as_deref(), Some("new"));
        assert!(config.notes[0].text.contains("wins"), "{:?}", config.notes);
    }

    #[test]
    fn old_errors_point_to_the_old_line() {
        let error = Config::parse_yaml("network:\n  bind_host: 0.0.0.0\n  listen_port: 70000\n", "x").unwrap_err();
        assert!(error.to_string().starts_with("x:2: node.listen[0]: "), "{error}");
    }

    #[test]
    fn old_relay_scalar_is_understood() {
        assert!(Config::parse_yaml("relay: true\n", "x").unwrap().relay.enabled);
    }

    #[test]
    fn metrics_stay_off_when_they_were_off() {
        let config =
            Config::parse_yaml("metrics: {prometheus: false, bind_host: 0.0.0.0, bind_port: 1}\n", "x").unwrap();
        assert_eq!(config.metrics.listen, None);
    }
}
