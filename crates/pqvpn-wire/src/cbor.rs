// SPDX-License-Identifier: MIT OR Apache-2.0
//! Deterministic CBOR (RFC 8949 §4.2.1) as every message uses it: arrays of integers, byte strings, null, bool.
//!
//! One message has one encoding: whoever decodes compares the re-encoding with what came in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ciborium::Value;

/// Encodes a value; integers and lengths in their shortest form.
pub(crate) fn encode(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    ciborium::into_writer(value, &mut out).expect("writing into a Vec does not fail");
    out
}

/// Decodes the first value, nested at most `depth` deep. Trailing bytes show when the value is encoded again.
pub(crate) fn decode(bytes: &[u8], depth: usize) -> Option<Value> {
    ciborium::de::from_reader_with_recursion_limit(bytes, depth).ok()
}

/// Takes an array of exactly `N` values apart.
pub(crate) fn array<const N: usize>(value: Value) -> Option<[Value; N]> {
    value.into_array().ok()?.try_into().ok()
}

/// Takes an array of exactly `N` values apart, straight from its bytes.
pub(crate) fn array_from<const N: usize>(bytes: &[u8], depth: usize) -> Option<[Value; N]> {
    array(decode(bytes, depth)?)
}

/// Reads a list of at most `most` elements.
pub(crate) fn list<T>(value: Value, most: usize, read: impl Fn(Value) -> Option<T>) -> Option<Vec<T>> {
    let values = value.into_array().ok().filter(|values| values.len() <= most)?;
    values.into_iter().map(read).collect()
}

/// Writes a byte string.
pub(crate) fn bytes(bytes: &[u8]) -> Value {
    Value::Bytes(bytes.to_vec())
}

/// Reads a byte string of exactly `N` bytes.
pub(crate) fn fixed<const N: usize>(value: Value) -> Option<[u8; N]> {
    value.into_bytes().ok()?.try_into().ok()
}

/// Reads an integer that fits `T`.
pub(crate) fn integer<T: TryFrom<i128>>(value: &Value) -> Option<T> {
    T::try_from(i128::from(value.as_integer()?)).ok()
}

/// Writes null, or the value.
pub(crate) fn option<T>(value: Option<T>, write: impl Fn(T) -> Value) -> Value {
    value.map_or(Value::Null, write)
}

/// Reads null, or a value.
pub(crate) fn optional<T>(value: Value, read: impl Fn(Value) -> Option<T>) -> Option<Option<T>> {
    if value.is_null() { Some(None) } else { read(value).map(Some) }
}

/// Writes an address: 4 or 16 bytes, then the port. An IPv4-mapped IPv6 address is written as IPv4.
pub(crate) fn address(address: &SocketAddr) -> Value {
    let mut out = match address.ip().to_canonical() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    out.extend_from_slice(&address.port().to_be_bytes());
    Value::Bytes(out)
}

/// Reads an address. An IPv4-mapped one is refused: it would be a second spelling of an IPv4 address.
pub(crate) fn address_from(value: Value) -> Option<SocketAddr> {
    let bytes = value.into_bytes().ok()?;
    let (ip, port) = bytes.split_last_chunk::<2>()?;
    let ip = match ip.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(ip).ok()?)),
        16 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(ip).ok()?)),
        _ => return None,
    };
    (ip.to_canonical() == ip).then(|| SocketAddr::new(ip, u16::from_be_bytes(*port)))
}

/// Length of a byte string of `len` bytes with its head.
pub(crate) const fn bytes_len(len: usize) -> usize {
    let head = match len {
        0..=23 => 1,
        24..=0xff => 2,
        0x100..=0xffff => 3,
        _ => 5,
    };
    head + len
}
