// SPDX-License-Identifier: MIT OR Apache-2.0
//! The values a key can hold, each with its one spelling and an error that says what was expected.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use data_encoding::HEXLOWER;
use pqvpn_crypto::peer_id::PeerId;

use super::{MTU, QUEUES};
use crate::names;

/// The name of the DHT everybody may use.
const OPEN_NETWORK: &str = "open";

/// Inner MTU of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mtu {
    /// From the underlay.
    #[default]
    Auto,
    /// This many bytes.
    Fixed(u16),
}

/// Number of TUN queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Queues {
    /// From the number of cores.
    #[default]
    Auto,
    /// This many.
    Fixed(u16),
}

/// Choice of the data-plane AEAD.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cipher {
    /// AES-256-GCM where both ends have it in hardware, else ChaCha20-Poly1305.
    #[default]
    Auto,
    /// ChaCha20-Poly1305 always.
    ChaCha20Poly1305,
    /// AES-256-GCM where the peer takes it too.
    Aes256Gcm,
}

/// Bits a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(u64);

impl Rate {
    /// The same in whole bytes a second.
    #[must_use]
    pub const fn bytes_per_second(self) -> u64 {
        self.0 / 8
    }
}

/// Units of a [`Rate`], the largest first.
const RATE_UNITS: [(&str, u64); 3] = [("gbit", 1_000_000_000), ("mbit", 1_000_000), ("kbit", 1_000)];

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, unit): &&(&str, u64)| self.0.is_multiple_of(*unit);
        let (name, unit) = RATE_UNITS.iter().find(fits).copied().unwrap_or(("bit", 1));
        write!(f, "{}{name}", self.0 / unit)
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected =
            || format!("expected a rate from 1kbit to 100gbit, like \"50mbit\" or \"1gbit\", found {text:?}");
        let of_unit = |(name, unit): &(&str, u64)| Some((text.strip_suffix(name)?, *unit));
        let (number, unit) = RATE_UNITS.iter().find_map(of_unit).ok_or_else(expected)?;
        let number: u64 = number.trim_end().parse().map_err(|_| expected())?;
        let bits = number.checked_mul(unit).filter(|bits| (1_000..=100_000_000_000).contains(bits));
        bits.map(Self).ok_or_else(expected)
    }
}

/// Least important level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// Something does not work.
    Error,
    /// Something works less well than it should.
    Warn,
    /// What an operator cares about.
    #[default]
    Info,
    /// For finding faults.
    Debug,
    /// Per packet.
    Trace,
}

/// Shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

/// Where a peer may be reached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// An address.
    Address(SocketAddr),
    /// A name to be resolved, and a port.
    Name(String, u16),
}

/// Whether this node serves the DHT or only asks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DhtMode {
    /// Serves once others can reach it.
    #[default]
    Auto,
    /// Serves always: its address is reachable.
    Server,
    /// Only asks.
    Client,
}

/// How this host comes to know the names of the networks' members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DnsMode {
    /// Through systemd-resolved where it runs, for the zone of the mesh alone; otherwise not at all.
    #[default]
    Auto,
    /// Not at all; nobody answers either.
    Off,
    /// Like `auto`, and where systemd-resolved does not run, by a line in /etc/resolv.conf while the node is up.
    ResolvConf,
}

/// Gives an enum its spellings: `name`, `Display` and `FromStr` whose error lists them.
macro_rules! spelled {
    ($type:ty, $($variant:ident = $text:literal),+) => {
        impl $type {
            /// The spelling in the configuration.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// All spellings, in the order of the documentation.
            pub(super) const NAMES: &'static [&'static str] = &[$($text),+];
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl FromStr for $type {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(not_one_of(text, Self::NAMES)),
                }
            }
        }
    };
}

spelled!(Cipher, Auto = "auto", ChaCha20Poly1305 = "chacha20-poly1305", Aes256Gcm = "aes-256-gcm");
spelled!(LogLevel, Error = "error", Warn = "warn", Info = "info", Debug = "debug", Trace = "trace", Off = "off");
spelled!(LogFormat, Text = "text", Json = "json");
spelled!(DhtMode, Auto = "auto", Server = "server", Client = "client");
spelled!(DnsMode, Auto = "auto", Off = "off", ResolvConf = "resolv-conf");

impl Mtu {
    /// The MTU of `bytes`, when that is allowed at all.
    pub(super) fn fixed(bytes: i64) -> Result<Self, String> {
        in_range(bytes, &MTU).map(Self::Fixed)
    }
}

impl Queues {
    /// `count` queues, when that is allowed.
    pub(super) fn fixed(count: i64) -> Result<Self, String> {
        in_range(count, &QUEUES).map(Self::Fixed)
    }
}

impl Endpoint {
    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        match self {
            Self::Address(address) => address.port(),
            Self::Name(_, port) => *port,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return usable_address(address).map(Self::Address);
        }
        if text.parse::<Ipv6Addr>().is_ok() {
            return Err(format!("an IPv6 address needs brackets and a port, like \"[{text}]:41641\""));
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(format!("expected \"host:port\", found no port; did you mean \"{text}:41641\"?"));
        };
        let port = parse_port(port)?;
        if host.parse::<IpAddr>().is_ok() || !is_host_name(host) {
            return Err(format!("expected \"host:port\" with a host name or address, found host {host:?}"));
        }
        if names::is_ours(host) {
            return Err(format!("{host} is a name of the mesh, which nobody can look up before being in it"));
        }
        Ok(Self::Name(host.to_ascii_lowercase(), port))
    }
}

/// Parses a PeerID; the error does not repeat the text, which may be a key pasted by mistake.
pub(crate) fn peer_id(text: &str) -> Result<PeerId, String> {
    text.parse().map_err(|_| {
        let digits = text.chars().count();
        let why = if digits != 64 {
            format!("found {digits} characters")
        } else if text.chars().all(|c| c.is_ascii_hexdigit()) {
            "found uppercase digits".to_owned()
        } else {
            "found other characters".to_owned()
        };
        format!("expected a PeerID of 64 lowercase hex digits, {why}; `pqvpn id` on the peer shows it")
    })
}

/// Parses the name of a DHT: `open` (none), or the 64 hex digits of a separate one.
pub(super) fn network(text: &str) -> Result<Option<[u8; 32]>, String> {
    if text == OPEN_NETWORK {
        return Ok(None);
    }
    let bytes = HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    let expected = "expected \"open\", or 64 lowercase hex digits that all nodes of a separate DHT share";
    bytes.map(Some).ok_or_else(|| expected.to_owned())
}

/// The spelling [`network`] reads.
pub(super) fn network_name(network: Option<&[u8; 32]>) -> String {
    network.map_or_else(|| OPEN_NETWORK.to_owned(), |id| HEXLOWER.encode(id))
}

/// Whether `name` can name a node: 1 to 63 letters, digits, `-`, `_` or `.`, beginning and ending with a letter or digit.
pub(super) fn is_name(name: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    name.len() <= 63
        && edge(name.chars().next())
        && edge(name.chars().next_back())
        && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// The nearest legal name, possibly empty.
pub(super) fn sanitise_name(text: &str) -> String {
    let mut name: String =
        text.chars().map(|c| if c.is_alphanumeric() || c == '_' || c == '.' { c } else { '-' }).collect();
    while name.len() > 63 {
        name.pop();
    }
    name.trim_matches(|c: char| !c.is_alphanumeric()).to_owned()
}

/// Whether Linux takes `name` for an interface, and it means no other thing here.
pub(super) fn interface_name(name: &str) -> Result<(), String> {
    if name == "userspace" {
        return Err(
            "the userspace interface is not available in this version; name a kernel interface, like \"pqvpn0\""
                .to_owned(),
        );
    }
    let legal = (1..=15).contains(&name.len())
        && !matches!(name, "." | ".." | "all" | "default" | "lo")
        && name.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '/' | ':' | '%' | '"' | '\\'));
    if legal {
        Ok(())
    } else {
        Err("expected an interface name of 1 to 15 letters and digits, like \"pqvpn0\"".to_owned())
    }
}

/// "expected one of .., found ..", with a suggestion where one is near.
pub(super) fn not_one_of(found: &str, names: &[&str]) -> String {
    let list = names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    let hint = did_you_mean(&found.to_lowercase(), names.iter().copied());
    format!("expected one of {list}{hint}")
}

/// "; did you mean ..?" when one of `names` is near `found`, else nothing.
pub(super) fn did_you_mean<'a>(found: &str, names: impl Iterator<Item = &'a str>) -> String {
    let near = |name: &&str| {
        let common = found.len() >= 4 && (name.starts_with(found) || found.starts_with(*name));
        if common {
            0.9
        } else {
            strsim::jaro_winkler(found, name).min(strsim::normalized_damerau_levenshtein(found, name) + 0.35)
        }
    };
    names
        .map(|name| (near(&name), name))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| format!("; did you mean \"{name}\"?"))
        .unwrap_or_default()
}

/// `number` as a `T` within `range`.
pub(super) fn in_range<T>(number: i64, range: &std::ops::RangeInclusive<T>) -> Result<T, String>
where
    T: TryFrom<i64> + PartialOrd + fmt::Display,
{
    T::try_from(number)
        .ok()
        .filter(|number| range.contains(number))
        .ok_or_else(|| format!("expected {} to {}, found {number}", range.start(), range.end()))
}

fn usable_address(address: SocketAddr) -> Result<SocketAddr, String> {
    if address.port() == 0 {
        return Err("port 0 is not a port a peer can be reached at; expected 1 to 65535".to_owned());
    }
    let ip = address.ip().to_canonical();
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    if ip.is_unspecified() || ip.is_multicast() || broadcast {
        return Err(format!("{ip} is not an address a peer can be reached at"));
    }
    Ok(address)
}

fn parse_port(text: &str) -> Result<u16, String> {
    match text.parse::<u16>() {
        Ok(port) if port != 0 && !text.starts_with('+') => Ok(port),
        _ => Err("expected a port of 1 to 65535 after the last \":\"".to_owned()),
    }
}

/// RFC 1123 host name; labels of `_` are tolerated, all-numeric last labels are mistyped addresses.
fn is_host_name(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    host.len() <= 253
        && host.split('.').all(label)
        && !host.rsplit('.').next().is_some_and(|last| last.chars().all(|c| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_addresses_or_names_with_a_port() {
        assert_eq!("198.51.100.7:41641".parse(), Ok(Endpoint::Address("198.51.100.7:41641".parse().unwrap())));
        assert_eq!("[2001:db8::1]:9".parse(), Ok(Endpoint::Address("[2001:db8::1]:9".parse().unwrap())));
        assert_eq!("NAS.example:9".parse(), Ok(Endpoint::Name("nas.example".to_owned(), 9)));
    }

    #[test]
    fn malformed_endpoints_say_what_was_expected() {
        for (text, needle) in [
            ("198.51.100.7", "did you mean \"198.51.100.7:41641\"?"),
            ("2001:db8::1", "[2001:db8::1]:41641"),
            ("198.51.100.7:0", "port 0"),
            ("nas:0", "1 to 65535"),
            ("nas:+80", "1 to 65535"),
            ("nas:65536", "1 to 65535"),
            ("300.1.2.3:80", "host \"300.1.2.3\""),
            ("a b:80", "host \"a b\""),
            (":80", "host \"\""),
            ("0.0.0.0:80", "0.0.0.0 is not an address"),
            ("[::ffff:0.0.0.0]:80", "is not an address"),
            ("224.0.0.1:80", "224.0.0.1 is not"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err();
            assert!(error.contains(needle), "{text}: {error}");
        }
    }

    #[test]
    fn a_network_is_open_or_64_digits() {
        assert_eq!(network("open"), Ok(None));
        let id = "ab".repeat(32);
        assert_eq!(network_name(network(&id).unwrap().as_ref()), id);
        for text in ["", "Open", "ab", &"AB".repeat(32), &"ab".repeat(33)] {
            assert!(network(text).unwrap_err().contains("64 lowercase hex digits"), "{text}");
        }
    }

    #[test]
    fn suggestions_are_near_or_absent() {
        let names = ["name", "listen", "state_dir"];
        assert_eq!(did_you_mean("nmae", names.into_iter()), "; did you mean \"name\"?");
        assert_eq!(did_you_mean("statedir", names.into_iter()), "; did you mean \"state_dir\"?");
        assert_eq!(did_you_mean("colour", names.into_iter()), "");
    }

    #[test]
    fn names_are_made_legal() {
        assert_eq!(sanitise_name("Alice's laptop"), "Alice-s-laptop");
        assert_eq!(sanitise_name("--"), "");
        assert!(is_name(&sanitise_name(&"é".repeat(40))));
        assert!(!is_name("a b") && !is_name("") && !is_name("-a") && is_name("nas.home-2"));
    }

    #[test]
    fn a_malformed_id_is_not_repeated() {
        let error = peer_id(&"Q".repeat(64)).unwrap_err();
        assert!(!error.contains("QQ"), "{error}");
    }
}
