// SPDX-License-Identifier: MIT OR Apache-2.0
//! The text of a code: `"pqvpn1-" || base32(version || fields || checksum)`, and what to make of typing errors.

use std::net::{IpAddr, SocketAddr};

use data_encoding::BASE32_NOPAD;
use pqvpn_crypto::peer_id::PeerId;
use sha2::{Digest, Sha256};

use super::{Code, CodeError, Door, MAX_CODE_NAME_LEN};
use crate::network::{InviteSecret, MAX_DOOR_ADDRESSES, MAX_DOORS, NetworkId, name::is_label};

/// How every code begins, before its version.
const PREFIX: &str = "pqvpn";
/// Version of the format: the digit after the prefix, and the first byte.
const VERSION: u8 = 1;
/// Bytes of the checksum.
const CHECKSUM_LEN: usize = 4;
/// RFC 4648 §6, in lower case.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// Most characters after the prefix: all doors with all IPv6 addresses and the longest name need 844.
const MAX_SYMBOLS: usize = 900;

/// Writes the code.
pub(super) fn write(code: &Code) -> String {
    let mut bytes = fields(code);
    bytes.extend_from_slice(&checksum(&bytes));
    format!("{PREFIX}{VERSION}-{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
}

/// Reads a code as people paste and type it.
pub(super) fn read(text: &str) -> Result<Code, CodeError> {
    let text: String = text.chars().filter(|c| !is_filler(*c)).map(|c| c.to_ascii_lowercase()).collect();
    let rest = text.strip_prefix(PREFIX).ok_or(CodeError::NotACode)?;
    let version = rest.chars().next().and_then(|c| c.to_digit(10)).ok_or(CodeError::NotACode)?;
    if version != u32::from(VERSION) {
        return Err(CodeError::Version(u8::try_from(version).unwrap_or(u8::MAX)));
    }
    let symbols: Vec<Option<u8>> = rest.chars().skip(1).take(MAX_SYMBOLS + 1).map(symbol).collect();
    if symbols.len() > MAX_SYMBOLS {
        return Err(CodeError::Malformed);
    }
    if let Some(bytes) = symbols.iter().copied().collect::<Option<Vec<u8>>>().and_then(|symbols| unchecked(&symbols)) {
        return match bytes.first() {
            Some(&version) if version != VERSION => Err(CodeError::Version(version)),
            _ => parse(&bytes).ok_or(CodeError::Malformed),
        };
    }
    if let Some(suggestion) = suggest(&symbols) {
        return Err(CodeError::Checksum { suggestion: Some(suggestion) });
    }
    if is_short(&symbols) { Err(CodeError::Truncated) } else { Err(CodeError::Checksum { suggestion: None }) }
}

/// What chat programs, mail and people put in between.
fn is_filler(c: char) -> bool {
    c.is_whitespace() || matches!(c, '-' | '\u{2010}'..='\u{2015}' | '\u{200b}' | '\u{feff}' | '"' | '\'' | '`')
}

/// `version || network(32) || secret(16) || u32 not_after_s || u8 length, name || u8 doors || door ...`,
/// `door = PeerID(32) || u8 addresses || address ...`, `address = u8 4 or 6 || ip || u16 port`
fn fields(code: &Code) -> Vec<u8> {
    let name = code.network_name.get(..MAX_CODE_NAME_LEN).unwrap_or(&code.network_name);
    let name = name.trim_end_matches('-');
    let mut out = vec![VERSION];
    out.extend_from_slice(code.network.as_bytes());
    out.extend_from_slice(code.secret.expose());
    out.extend_from_slice(&code.not_after_s.to_be_bytes());
    out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(name.as_bytes());
    let doors = &code.doors[..code.doors.len().min(MAX_DOORS)];
    out.push(u8::try_from(doors.len()).unwrap_or(u8::MAX));
    for door in doors {
        out.extend_from_slice(door.peer.as_bytes());
        let addresses = &door.addresses[..door.addresses.len().min(MAX_DOOR_ADDRESSES)];
        out.push(u8::try_from(addresses.len()).unwrap_or(u8::MAX));
        for address in addresses {
            match address.ip().to_canonical() {
                IpAddr::V4(ip) => {
                    out.push(4);
                    out.extend_from_slice(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    out.push(6);
                    out.extend_from_slice(&ip.octets());
                }
            }
            out.extend_from_slice(&address.port().to_be_bytes());
        }
    }
    out
}

/// The first 4 bytes of SHA-256("pqvpn code" || version and fields).
fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut hash = Sha256::new();
    hash.update(b"pqvpn code");
    hash.update(bytes);
    let digest: [u8; 32] = hash.finalize().into();
    *digest.first_chunk().expect("a digest is longer than a checksum")
}

/// The value of a character, 0 to 31; what is not in the alphabet for looking too much like something else is mapped.
fn symbol(c: char) -> Option<u8> {
    let c = match c {
        '0' => 'o',
        '1' => 'l',
        '8' => 'b',
        other => other,
    };
    let at = ALPHABET.iter().position(|letter| char::from(*letter) == c)?;
    u8::try_from(at).ok()
}

/// The bytes before the checksum, if it is right and no loose bits are left at the end.
fn unchecked(symbols: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = bytes_of(symbols)?;
    let at = bytes.len().checked_sub(CHECKSUM_LEN)?;
    let check = bytes.split_off(at);
    (checksum(&bytes).as_slice() == check).then_some(bytes)
}

/// Takes symbols of 5 bits for bytes; none if whole bytes and zero bits do not come out.
fn bytes_of(symbols: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(symbols.len() * 5 / 8);
    let (mut held, mut bits) = (0_u16, 0);
    for symbol in symbols {
        held = held << 5 | u16::from(*symbol);
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            out.push(u8::try_from(held >> bits).ok()?);
            held &= (1 << bits) - 1;
        }
    }
    (bits < 5 && held == 0).then_some(out)
}

/// The one code at a distance of one substitution, or one swap of neighbours, that checks out and parses.
fn suggest(symbols: &[Option<u8>]) -> Option<String> {
    let unknown: Vec<usize> = (0..symbols.len()).filter(|at| symbols.get(*at) == Some(&None)).collect();
    let mut tried: Vec<u8> = symbols.iter().map(|symbol| symbol.unwrap_or(0)).collect();
    let mut found: Vec<Vec<u8>> = Vec::new();
    let places: Vec<usize> = if unknown.is_empty() { (0..symbols.len()).collect() } else { unknown };
    // Two characters that are none cannot be mended by one.
    if symbols.iter().filter(|symbol| symbol.is_none()).count() <= 1 {
        for at in places {
            let Some(was) = tried.get(at).copied() else { continue };
            for other in 0..32 {
                set(&mut tried, at, other);
                keep(&tried, &mut found);
            }
            set(&mut tried, at, was);
        }
    }
    if symbols.iter().all(Option::is_some) {
        for at in 1..tried.len() {
            tried.swap(at - 1, at);
            keep(&tried, &mut found);
            tried.swap(at - 1, at);
        }
    }
    match found.as_slice() {
        [only] => parse(only).map(|code| write(&code)),
        _ => None,
    }
}

fn set(symbols: &mut [u8], at: usize, to: u8) {
    if let Some(symbol) = symbols.get_mut(at) {
        *symbol = to;
    }
}

fn keep(symbols: &[u8], found: &mut Vec<Vec<u8>>) {
    if let Some(bytes) = unchecked(symbols).filter(|bytes| parse(bytes).is_some() && !found.contains(bytes)) {
        found.push(bytes);
    }
}

/// Whether the fields ask for more characters than there are.
fn is_short(symbols: &[Option<u8>]) -> bool {
    let known: Vec<u8> = symbols.iter().map(|symbol| symbol.unwrap_or(0)).collect();
    // A cut text ends anywhere: only whole bytes count here.
    let whole = known.len() * 5 / 8;
    let padded: Vec<u8> = known.iter().copied().chain(std::iter::repeat_n(0, 8)).collect();
    let mut bytes: Vec<u8> = padded.chunks_exact(8).filter_map(bytes_of).flatten().collect();
    bytes.truncate(whole);
    let mut reader = Reader { bytes: &bytes, short: false };
    match reader.code() {
        Some(_) => reader.bytes.len() < CHECKSUM_LEN,
        None => reader.short,
    }
}

fn parse(bytes: &[u8]) -> Option<Code> {
    let mut reader = Reader { bytes, short: false };
    let code = reader.code()?;
    // One code has one spelling.
    (reader.bytes.is_empty() && fields(&code) == bytes).then_some(code)
}

struct Reader<'a> {
    bytes: &'a [u8],
    /// Whether more was asked for than there was.
    short: bool,
}

impl Reader<'_> {
    fn code(&mut self) -> Option<Code> {
        if self.byte()? != VERSION {
            return None;
        }
        let network = NetworkId::from_bytes(self.take()?);
        let secret = InviteSecret::from_bytes(self.take()?);
        let not_after_s = u32::from_be_bytes(self.take()?);
        let len = usize::from(self.byte()?);
        let network_name = String::from_utf8(self.slice(len)?.to_vec()).ok()?;
        if len > MAX_CODE_NAME_LEN || !is_label(&network_name) {
            return None;
        }
        let count = usize::from(self.byte()?);
        if !(1..=MAX_DOORS).contains(&count) {
            return None;
        }
        let doors = (0..count).map(|_| self.door()).collect::<Option<_>>()?;
        Some(Code { network, network_name, secret, not_after_s, doors })
    }

    fn door(&mut self) -> Option<Door> {
        let peer = PeerId::from_bytes(self.take()?);
        let count = usize::from(self.byte()?);
        if count > MAX_DOOR_ADDRESSES {
            return None;
        }
        let addresses = (0..count).map(|_| self.address()).collect::<Option<_>>()?;
        Some(Door { peer, addresses })
    }

    fn address(&mut self) -> Option<SocketAddr> {
        let ip = match self.byte()? {
            4 => IpAddr::from(self.take::<4>()?),
            6 => IpAddr::from(self.take::<16>()?),
            _ => return None,
        };
        Some(SocketAddr::new(ip, u16::from_be_bytes(self.take()?)))
    }

    fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.slice(N)?.try_into().ok()
    }

    fn slice(&mut self, len: usize) -> Option<&[u8]> {
        let Some((head, rest)) = self.bytes.split_at_checked(len) else {
            self.short = true;
            return None;
        };
        self.bytes = rest;
        Some(head)
    }
}
