// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a configuration says against itself, and what it says that is probably not meant.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use ipnet::{IpNet, Ipv4Net};
use pqvpn_crypto::peer_id::PeerId;

use super::{
    Config, ConfigError, DEFAULT_DIFFICULTY, Endpoint, MAX_BOOTSTRAP_LISTS, MAX_BOOTSTRAP_NODES, MTU_MIN_IPV6, Mtu,
    PeerConfig, Problem, Warning,
};

/// Prefix lengths a pool may have: room for nodes, and no more than one private block.
const POOL_PREFIX: std::ops::RangeInclusive<u8> = 8..=24;
/// Most sockets a node listens on.
const MAX_LISTEN: usize = 16;
/// Blocks nobody else on the Internet owns.
const PRIVATE: [&str; 5] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "198.18.0.0/15"];

/// Two statements that cannot both hold, or one that cannot hold at all.
#[derive(Debug)]
pub(super) struct Contradiction {
    /// Dotted key of the later one.
    pub(super) key: String,
    /// What is wrong; when `with` is there the text ends before the key it names.
    pub(super) what: String,
    /// Dotted key of the earlier one.
    pub(super) with: Option<String>,
}

/// Everything in `config` that cannot hold.
pub(super) fn contradictions(config: &Config) -> Vec<Contradiction> {
    let mut found = Vec::new();
    listen(&config.node.listen, &mut found);
    interface(config, &mut found);
    peers_twice(config, &mut found);
    for (index, peer) in config.peers.iter().enumerate() {
        routes(config, index, peer, &mut found);
        endpoints(config, index, peer, &mut found);
    }
    bootstrap(config, &mut found);
    found
}

fn bootstrap(config: &Config, found: &mut Vec<Contradiction>) {
    let bootstrap = &config.bootstrap;
    for (key, count, most) in [
        ("bootstrap.nodes", bootstrap.nodes.len(), MAX_BOOTSTRAP_NODES),
        ("bootstrap.lists", bootstrap.lists.len(), MAX_BOOTSTRAP_LISTS),
        ("bootstrap.signers", bootstrap.signers.len(), MAX_BOOTSTRAP_LISTS),
    ] {
        if count > most {
            found.push(alone(key, format!("expected at most {most}, found {count}")));
        }
    }
    if config.dht.difficulty.is_some() && config.dht.network.is_none() {
        let what =
            format!("the open DHT has one difficulty, {DEFAULT_DIFFICULTY}; another needs a dht.network of its own");
        found.push(alone("dht.difficulty", what));
    }
    twice("bootstrap.nodes", &bootstrap.nodes, found);
    twice("bootstrap.lists", &bootstrap.lists, found);
    twice("bootstrap.signers", &bootstrap.signers, found);
}

fn twice<T: Ord>(list: &str, items: &[T], found: &mut Vec<Contradiction>) {
    let mut seen = BTreeMap::new();
    for (index, item) in items.iter().enumerate() {
        let key = format!("{list}[{index}]");
        if let Some(first) = earlier(&mut seen, item, key.clone()) {
            found.push(Contradiction { key, what: "the same as".to_owned(), with: Some(first) });
        }
    }
}

/// What is legal but probably not meant.
pub(super) fn warnings(config: &Config) -> Vec<Warning> {
    let mut found = Vec::new();
    let mut warn = |code, key: String, text: String| found.push(Warning { code, key, text });
    if config.peers.is_empty() {
        let (code, text) = if config.dht.enabled {
            (
                "no-peers-yet",
                "no peers: this node helps others find each other, and carries nothing until it is in a network (`pqvpn net \
                 create` or `pqvpn join`) or a peer is added with [[peers]]",
            )
        } else {
            (
                "no-peers",
                "no peers: this node talks to nobody until it is in a network (`pqvpn net create` or `pqvpn join`) or a peer \
                 is added with [[peers]]",
            )
        };
        warn(code, "peers".to_owned(), text.to_owned());
    }
    if let Some(listen) = config.metrics.listen.filter(|listen| !listen.ip().is_loopback()) {
        let text = format!("everybody who reaches {listen} can read the metrics; 127.0.0.1 keeps them here");
        warn("metrics-open", "metrics.listen".to_owned(), text);
    }
    let pool = config.interface.ipv4_pool;
    if config.interface.ipv4 && !is_private(pool) {
        let text = format!("{pool} belongs to others on the Internet; they become unreachable from here");
        warn("pool-public", "interface.ipv4_pool".to_owned(), text);
    }
    if config.node.listen.iter().all(|listen| listen.ip().is_loopback()) && !config.peers.is_empty() {
        let text = "listens on this host only; nobody else can reach it";
        warn("listen-loopback", "node.listen".to_owned(), text.to_owned());
    }
    found.extend(discovery_warnings(config));
    found.extend(peer_warnings(&config.peers, config.dht.enabled));
    found
}

fn discovery_warnings(config: &Config) -> Vec<Warning> {
    let mut found = Vec::new();
    let mut warn = |code, key: &str, text: String| found.push(Warning { code, key: key.to_owned(), text });
    let bootstrap = &config.bootstrap;
    let unused = !config.dht.enabled && (bootstrap.nodes.len() + bootstrap.lists.len() > 0);
    if unused {
        warn("bootstrap-unused", "bootstrap", "kept, but dht.enabled is false: nothing is searched for".to_owned());
    }
    if !bootstrap.lists.is_empty() && bootstrap.signers.is_empty() {
        let text = "no list is believed without its signer; name the PeerID of who signed in bootstrap.signers";
        warn("bootstrap-unsigned", "bootstrap.lists", text.to_owned());
    }
    found
}

/// Refuses `own` among the peers and bootstrap nodes.
pub(super) fn own_identity(config: &Config, own: &PeerId, origin: &str) -> Result<(), ConfigError> {
    let peers = config.peers.iter().enumerate().map(|(index, peer)| (format!("peers[{index}].id"), peer.id));
    let nodes = config.bootstrap.nodes.iter().enumerate();
    let nodes = nodes.map(|(index, node)| (format!("bootstrap.nodes[{index}]"), node.id));
    let problem = |(key, _)| Problem {
        origin: origin.to_owned(),
        line: None,
        key,
        what: format!("{} is this node itself; expected the PeerID of another", own.short()),
    };
    let problems: Vec<Problem> = peers.chain(nodes).filter(|(_, id)| id == own).map(problem).collect();
    if problems.is_empty() { Ok(()) } else { Err(ConfigError::Invalid(problems)) }
}

fn listen(listen: &[SocketAddr], found: &mut Vec<Contradiction>) {
    if listen.is_empty() || listen.len() > MAX_LISTEN {
        found.push(alone("node.listen", format!("expected 1 to {MAX_LISTEN} addresses, found {}", listen.len())));
    }
    for (index, address) in listen.iter().enumerate() {
        let key = format!("node.listen[{index}]");
        if address.ip().is_multicast() {
            found.push(alone(&key, format!("{} is a multicast address; nothing can listen there", address.ip())));
        }
        if let Some(earlier) = listen[..index].iter().position(|other| collide(*other, *address)) {
            let what = format!("{address} takes the same port as");
            found.push(Contradiction { key, what, with: Some(format!("node.listen[{earlier}]")) });
        }
    }
}

/// Whether the kernel refuses to bind both. IPv6 sockets are v6-only here, so families never meet.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let same_family = a.is_ipv4() == b.is_ipv4();
    let overlap = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    same_family && overlap && a.port() == b.port() && a.port() != 0
}

fn interface(config: &Config, found: &mut Vec<Contradiction>) {
    let interface = &config.interface;
    if !interface.ipv4 && !interface.ipv6 {
        found.push(alone("interface.ipv6", "ipv4 and ipv6 are both off; expected at least one of them on".to_owned()));
    }
    if let Mtu::Fixed(mtu) = interface.mtu
        && interface.ipv6
        && mtu < MTU_MIN_IPV6
    {
        let what = format!("{mtu} is too small for IPv6; expected at least {MTU_MIN_IPV6}, or interface.ipv6 = false");
        found.push(alone("interface.mtu", what));
    }
    let pool = interface.ipv4_pool;
    if !POOL_PREFIX.contains(&pool.prefix_len()) {
        let (least, most) = (POOL_PREFIX.start(), POOL_PREFIX.end());
        let size = if pool.prefix_len() > *most { "small" } else { "large" };
        found.push(alone("interface.ipv4_pool", format!("{pool} is too {size}; expected /{least} to /{most}")));
    } else if !is_unicast(IpNet::V4(pool)) {
        found.push(alone("interface.ipv4_pool", format!("{pool} holds addresses no host can have")));
    }
}

fn peers_twice(config: &Config, found: &mut Vec<Contradiction>) {
    let (mut ids, mut names, mut prefixes) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    if let Some(name) = &config.node.name {
        names.insert(name.to_lowercase(), "node.name".to_owned());
    }
    let mut once = |what: String, key: String, with: Option<String>| {
        if with.is_some() {
            found.push(Contradiction { key, what, with });
        }
    };
    for (index, peer) in config.peers.iter().enumerate() {
        let key = format!("peers[{index}].id");
        once("the same PeerID as".to_owned(), key.clone(), earlier(&mut ids, peer.id, key));
        let key = format!("peers[{index}].name");
        let what = format!("{:?} is the same name as", peer.name);
        once(what, key.clone(), earlier(&mut names, peer.name.to_lowercase(), key));
        for (nth, route) in peer.routes.iter().enumerate() {
            let key = format!("peers[{index}].routes[{nth}]");
            once(format!("{route} is routed already by"), key.clone(), earlier(&mut prefixes, *route, key));
        }
    }
}

/// The key that had `value` before; the first one keeps it.
fn earlier<T: Ord>(seen: &mut BTreeMap<T, String>, value: T, key: String) -> Option<String> {
    if let Some(first) = seen.get(&value) {
        return Some(first.clone());
    }
    seen.insert(value, key);
    None
}

fn routes(config: &Config, index: usize, peer: &PeerConfig, found: &mut Vec<Contradiction>) {
    let pool = config.interface.ipv4_pool;
    for (nth, route) in peer.routes.iter().enumerate() {
        let key = format!("peers[{index}].routes[{nth}]");
        let family_off = match route {
            IpNet::V4(_) if !config.interface.ipv4 => Some("ipv4"),
            IpNet::V6(_) if !config.interface.ipv6 => Some("ipv6"),
            IpNet::V4(_) | IpNet::V6(_) => None,
        };
        if route.prefix_len() == 0 {
            found.push(alone(&key, format!("{route} is everything; exit nodes are not available in this version")));
        } else if !is_unicast(*route) {
            found.push(alone(&key, format!("{route} holds addresses no host behind a peer can have")));
        } else if let Some(family) = family_off {
            found.push(alone(&key, format!("{route} needs interface.{family} = true")));
        } else if matches!(route, IpNet::V4(route) if overlap(IpNet::V4(*route), IpNet::V4(pool))) {
            let what = format!("{route} overlaps {pool}, where overlay addresses come from:");
            found.push(Contradiction { key, what, with: Some("interface.ipv4_pool".to_owned()) });
        }
    }
}

fn endpoints(config: &Config, index: usize, peer: &PeerConfig, found: &mut Vec<Contradiction>) {
    for (nth, endpoint) in peer.endpoints.iter().enumerate() {
        let key = format!("peers[{index}].endpoints[{nth}]");
        if let Some(earlier) = peer.endpoints[..nth].iter().position(|other| other == endpoint) {
            let with = Some(format!("peers[{index}].endpoints[{earlier}]"));
            found.push(Contradiction { key, what: "the same as".to_owned(), with });
            continue;
        }
        let Endpoint::Address(address) = endpoint else { continue };
        let in_pool = matches!(address.ip().to_canonical(), IpAddr::V4(ip) if config.interface.ipv4_pool.contains(&ip));
        if in_pool && config.interface.ipv4 {
            let what = format!("{address} would be reached through the tunnel itself; it lies in");
            found.push(Contradiction { key, what, with: Some("interface.ipv4_pool".to_owned()) });
        }
    }
}

fn peer_warnings(peers: &[PeerConfig], discovery: bool) -> Vec<Warning> {
    let mut found = Vec::new();
    let mut owners: BTreeMap<&Endpoint, usize> = BTreeMap::new();
    for (index, peer) in peers.iter().enumerate() {
        let name = &peer.name;
        if peer.endpoints.is_empty() {
            let text = if discovery {
                format!("{name} has no endpoints: it must call this node, or be found through the DHT")
            } else {
                format!("{name} has no endpoints: it must call this node")
            };
            found.push(Warning { code: "peer-no-endpoint", key: format!("peers[{index}].endpoints"), text });
        }
        for (nth, endpoint) in peer.endpoints.iter().enumerate() {
            let key = format!("peers[{index}].endpoints[{nth}]");
            let first = *owners.entry(endpoint).or_insert(index);
            if first != index {
                let text =
                    format!("{endpoint} is also given for {}; only one of them can answer there", peers[first].name);
                found.push(Warning { code: "endpoint-shared", key: key.clone(), text });
            }
            let Endpoint::Address(address) = endpoint else { continue };
            let ip = address.ip().to_canonical();
            if let Some(route) = peers.iter().flat_map(|peer| &peer.routes).find(|route| route.contains(&ip)) {
                let text = format!(
                    "{endpoint} lies in {route}, which is routed through the tunnel; it works only on that LAN"
                );
                found.push(Warning { code: "endpoint-routed", key, text });
            }
        }
    }
    found
}

fn alone(key: &str, what: String) -> Contradiction {
    Contradiction { key: key.to_owned(), what, with: None }
}

fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

fn is_private(net: Ipv4Net) -> bool {
    PRIVATE.iter().filter_map(|block| block.parse::<Ipv4Net>().ok()).any(|block| block.contains(&net))
}

/// Whether `net` is free of loopback, link-local, multicast and reserved addresses.
fn is_unicast(net: IpNet) -> bool {
    let special = ["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/127", "fe80::/10", "ff00::/8"];
    !special.iter().filter_map(|block| block.parse::<IpNet>().ok()).any(|block| overlap(block, net))
}
