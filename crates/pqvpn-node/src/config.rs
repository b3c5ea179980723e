// SPDX-License-Identifier: MIT OR Apache-2.0
//! The configuration: one plain struct, read from TOML or YAML, checked once, written back with comments kept.
//!
//! Both formats become one tree ([`tree`]), the tree becomes a [`Config`] ([`read`]), and everything that contradicts
//! itself is found before anything is applied ([`check`]). All problems of a file are reported together, each with
//! file, line, key and what was expected. Values under unknown keys are never printed: somebody may have put a secret
//! there.

mod check;
mod edit;
mod error;
mod legacy;
mod paths;
mod read;
mod schema;
mod tree;
mod value;
mod write;

use std::{
    fs::File,
    io::Read as _,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use ipnet::{IpNet, Ipv4Net};
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::NetworkId;

pub(crate) use self::value::peer_id;
pub use self::{
    edit::{add_peer, remove_peer, set},
    error::{ConfigError, Problem, Warning},
    legacy::convert,
    paths::Paths,
    value::{Cipher, DhtMode, DnsMode, Endpoint, LogFormat, LogLevel, Mtu, Queues, Rate},
    write::sample,
};
use crate::bootstrap::BootstrapEntry;
pub use crate::carrier::{BadProxy, CarrierListen, Proxy, ProxyChoice, Transport};

/// UDP port of a node that chose no other.
pub const DEFAULT_PORT: u16 = 41641;
/// Port of `relay.listen`: the one that is let out where nothing else is.
pub const CARRIER_PORT: u16 = 443;
/// Default of `crypto.rekey_seconds` (security.md 1.7, `EPOCH_TIME`).
pub const DEFAULT_REKEY_SECONDS: u32 = 120;
/// Allowed `crypto.rekey_seconds`: half of `EPOCH_HARD` (security.md 1.7) leaves room for retries.
pub const REKEY_SECONDS: std::ops::RangeInclusive<u32> = 5..=300;
/// Allowed `peers.keepalive_seconds` when it is not 0.
pub const KEEPALIVE_SECONDS: std::ops::RangeInclusive<u16> = 5..=3600;
/// Allowed numeric `interface.mtu`; the upper end is the largest UDP payload less the tunnel's 32 bytes.
pub const MTU: std::ops::RangeInclusive<u16> = 576..=65475;
/// Smallest MTU that may carry IPv6 (RFC 8200 §5).
pub const MTU_MIN_IPV6: u16 = 1280;
/// Allowed numeric `interface.queues`.
pub const QUEUES: std::ops::RangeInclusive<u16> = 1..=64;
/// Default of `dht.difficulty`, the one of the open DHT (security.md 7.1).
pub const DEFAULT_DIFFICULTY: u32 = 512;
/// Allowed `dht.difficulty`: about 10 ms to a week's worth of minutes on one core.
pub const DIFFICULTY: std::ops::RangeInclusive<u32> = 1..=65_536;
/// Most `bootstrap.nodes`.
pub const MAX_BOOTSTRAP_NODES: usize = 64;
/// Most `bootstrap.lists` and `bootstrap.signers`.
pub const MAX_BOOTSTRAP_LISTS: usize = 16;
/// Largest config file read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Everything a user can set, with what is in force where he set nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// `[node]`: who this node is and where it listens.
    pub node: NodeConfig,
    /// `[interface]`: the TUN device and the overlay addresses on it.
    pub interface: InterfaceConfig,
    /// `[crypto]`: what little of the cryptography can be chosen.
    pub crypto: CryptoConfig,
    /// `[[peers]]`: pinned peers, which work with no network and no DHT.
    pub peers: Vec<PeerConfig>,
    /// `[bootstrap]`: where discovery starts.
    pub bootstrap: BootstrapConfig,
    /// `[dht]`: finding and being found.
    pub dht: DhtConfig,
    /// `[dns]`: names of the networks' members.
    pub dns: DnsConfig,
    /// `[relay]`: forwarding for others.
    pub relay: RelayConfig,
    /// `[metrics]`: the metrics listener.
    pub metrics: MetricsConfig,
    /// `[logging]`: what is logged, how and where.
    pub logging: LoggingConfig,
    /// What an old configuration said that has no effect here; empty for the current format.
    pub notes: Vec<Warning>,
}

/// `[node]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// Name other people see; none: the host's name (see [`Config::name`]).
    pub name: Option<String>,
    /// UDP sockets to listen on; port 0 lets the kernel choose.
    pub listen: Vec<SocketAddr>,
    /// Where identity and state live; none: [`Paths::state_dir`].
    pub state_dir: Option<PathBuf>,
    /// Whether ports are guessed where a router gives each destination another one; off: such paths stay relayed.
    pub port_guessing: bool,
    /// Whether the router is asked to forward the UDP port.
    pub port_mapping: bool,
    /// The HTTP proxy to TCP port 443.
    pub proxy: ProxyChoice,
}

/// `[interface]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceConfig {
    /// Name of the kernel TUN device, at most 15 bytes.
    pub name: String,
    /// Inner MTU.
    pub mtu: Mtu,
    /// Whether the overlay has IPv4 addresses.
    pub ipv4: bool,
    /// Whether the overlay has IPv6 addresses.
    pub ipv6: bool,
    /// Pool overlay IPv4 addresses are taken from.
    pub ipv4_pool: Ipv4Net,
    /// TUN queues, each with its own pair of threads.
    pub queues: Queues,
}

/// `[crypto]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CryptoConfig {
    /// Data-plane AEAD.
    pub cipher: Cipher,
    /// Seconds between post-quantum ratchet steps, within [`REKEY_SECONDS`].
    pub rekey_seconds: u32,
}

/// One `[[peers]]` entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConfig {
    /// The identity that must answer.
    pub id: PeerId,
    /// Unique name; the first 8 digits of the id when none was given.
    pub name: String,
    /// Where to try to reach it, best first; empty: it calls us.
    pub endpoints: Vec<Endpoint>,
    /// Seconds between keepalive packets while idle, 0 = off: needed only where a NAT must be kept open.
    pub keepalive_seconds: u16,
    /// Prefixes behind the peer, besides its own overlay addresses.
    pub routes: Vec<IpNet>,
}

/// `[bootstrap]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootstrapConfig {
    /// Nodes to start discovery from, each with its pinned PeerID; at most [`MAX_BOOTSTRAP_NODES`].
    pub nodes: Vec<BootstrapEntry>,
    /// Files with signed lists of such nodes, the last door to try; absolute paths.
    pub lists: Vec<PathBuf>,
    /// Who may sign a list.
    pub signers: Vec<PeerId>,
    /// Whether nodes on the local network are found, and told of this one.
    pub lan: bool,
}

/// `[dht]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DhtConfig {
    /// Whether this node takes part at all.
    pub enabled: bool,
    /// Whether it serves or only asks.
    pub mode: DhtMode,
    /// Expected tries of the weekly proof of work, within [`DIFFICULTY`]; none: [`DEFAULT_DIFFICULTY`]. The open DHT
    /// has no other.
    pub difficulty: Option<u32>,
    /// Which DHT; none: the open one ([`NetworkId::OPEN`]). One of its own also takes private addresses.
    pub network: Option<[u8; 32]>,
}

impl DhtConfig {
    /// Which DHT.
    #[must_use]
    pub fn network_id(&self) -> NetworkId {
        self.network.map_or(NetworkId::OPEN, NetworkId::from_bytes)
    }
}

/// `[dns]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DnsConfig {
    /// How this host comes to know the names of the networks' members.
    pub mode: DnsMode,
}

/// `[relay]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayConfig {
    /// Whether this node forwards (sealed) packets of others.
    pub enabled: bool,
    /// How much of it, all together; none: as much as comes.
    pub limit: Option<Rate>,
    /// Where members come in that cannot send UDP anywhere, while `enabled`.
    pub listen: Vec<CarrierListen>,
}

/// `[metrics]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MetricsConfig {
    /// TCP address of the metrics listener; none: off.
    pub listen: Option<SocketAddr>,
}

/// `[logging]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LoggingConfig {
    /// Least important level that is logged.
    pub level: LogLevel,
    /// Text for people or JSON for machines.
    pub format: LogFormat,
    /// Log file, relative to the state directory unless absolute; none: stderr.
    pub file: Option<PathBuf>,
}

impl Config {
    /// Reads and checks a file; `.yaml` and `.yml` are YAML, everything else is TOML.
    ///
    /// # Errors
    /// The file cannot be read, is not well-formed, or holds problems; see [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = read_file(path)?;
        let origin = path.display().to_string();
        if is_yaml(path) { Self::parse_yaml(&text, &origin) } else { Self::parse_toml(&text, &origin) }
    }

    /// Parses and checks TOML; `origin` names the source in errors.
    ///
    /// # Errors
    /// The text is not well-formed TOML or holds problems.
    pub fn parse_toml(text: &str, origin: &str) -> Result<Self, ConfigError> {
        let root = tree::from_toml(text, origin)?;
        read::config(&root, text, origin)
    }

    /// Parses and checks YAML with the same keys, or with those of the first prototype's sample.
    ///
    /// Keys of the prototype that have no effect here end up in [`Config::notes`].
    ///
    /// # Errors
    /// The text is not well-formed YAML or holds problems.
    pub fn parse_yaml(text: &str, origin: &str) -> Result<Self, ConfigError> {
        let root = tree::from_yaml(text, origin)?;
        let (root, notes) = legacy::modernise(root);
        let mut config = read::config(&root, text, origin)?;
        config.notes = notes;
        Ok(config)
    }

    /// What is legal but probably not meant, [`Config::notes`] included.
    #[must_use]
    pub fn check(&self) -> Vec<Warning> {
        let mut warnings = self.notes.clone();
        warnings.extend(check::warnings(self));
        warnings
    }

    /// Refuses a configuration that names this node as its own peer.
    ///
    /// # Errors
    /// `own` is the id of a peer or bootstrap node; `origin` names the file in the error.
    pub fn check_identity(&self, own: &PeerId, origin: &str) -> Result<(), ConfigError> {
        check::own_identity(self, own, origin)
    }

    /// The name of this node: the configured one, else the host's, else `node`.
    #[must_use]
    pub fn name(&self) -> String {
        self.node.name.clone().unwrap_or_else(|| {
            std::fs::read_to_string("/proc/sys/kernel/hostname")
                .ok()
                .map(|name| value::sanitise_name(name.trim()))
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| "node".to_owned())
        })
    }

    /// The whole configuration as TOML, every key with the value in force.
    #[must_use]
    pub fn to_toml(&self) -> String {
        write::to_toml(self)
    }
}

impl Default for NodeConfig {
    fn default() -> Self {
        let listen = vec![
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, DEFAULT_PORT)),
            SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, DEFAULT_PORT)),
        ];
        Self { name: None, listen, state_dir: None, port_guessing: true, port_mapping: true, proxy: ProxyChoice::Auto }
    }
}

impl Default for RelayConfig {
    fn default() -> Self {
        let at = |transport| CarrierListen {
            transport,
            address: SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, CARRIER_PORT)),
        };
        Self { enabled: false, limit: None, listen: vec![at(Transport::Wss), at(Transport::Udp)] }
    }
}

impl Default for InterfaceConfig {
    fn default() -> Self {
        Self {
            name: "pqvpn0".to_owned(),
            mtu: Mtu::Auto,
            ipv4: true,
            ipv6: true,
            ipv4_pool: Ipv4Net::new_assert(Ipv4Addr::new(10, 100, 0, 0), 16),
            queues: Queues::Auto,
        }
    }
}

impl Default for CryptoConfig {
    fn default() -> Self {
        Self { cipher: Cipher::Auto, rekey_seconds: DEFAULT_REKEY_SECONDS }
    }
}

impl Default for BootstrapConfig {
    fn default() -> Self {
        Self { nodes: Vec::new(), lists: Vec::new(), signers: Vec::new(), lan: true }
    }
}

impl Default for DhtConfig {
    fn default() -> Self {
        Self { enabled: true, mode: DhtMode::Auto, difficulty: None, network: None }
    }
}

impl PeerConfig {
    /// A peer with nothing but its identity.
    #[must_use]
    pub fn new(id: PeerId) -> Self {
        Self { id, name: id.short(), endpoints: Vec::new(), keepalive_seconds: 0, routes: Vec::new() }
    }
}

/// Whether `path` names a YAML file.
#[must_use]
pub fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|ext| ext.eq_ignore_ascii_case("yaml") || ext.eq_ignore_ascii_case("yml"))
}

/// Whether `text` is YAML rather than TOML: what TOML does not accept, and YAML sees keys in.
fn is_yaml_text(text: &str) -> bool {
    toml::de::DeTable::parse(text).is_err()
}

/// Reads a config file, bounded in size.
///
/// # Errors
/// The file cannot be read, is larger than 1 MiB or is not UTF-8.
pub fn read_file(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(ConfigError::TooLarge { path: path.to_owned(), limit: MAX_FILE });
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..good].iter().filter(|&&byte| byte == b'\n').count();
        ConfigError::Syntax {
            origin: path.display().to_string(),
            line: Some(line),
            what: "this is not UTF-8 text".to_owned(),
        }
    })
}
