// SPDX-License-Identifier: MIT OR Apache-2.0
//! Points of the XOR space and their distances (Maymounkov & Mazières, "Kademlia", 2002).

use std::fmt;

use data_encoding::HEXLOWER;

/// A point of the 256-bit XOR space: a NodeID, a record key, or the target of a lookup.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Point([u8; 32]);

impl Point {
    /// Wraps 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes, most significant first.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The XOR distance between two points.
    #[must_use]
    pub fn distance(&self, other: &Self) -> Distance {
        let mut out = [0; 32];
        for (out, (a, b)) in out.iter_mut().zip(self.0.iter().zip(&other.0)) {
            *out = a ^ b;
        }
        Distance(out)
    }

    /// The point at `distance` from this one.
    #[must_use]
    pub fn at(&self, distance: &Distance) -> Self {
        Self(self.distance(&Self(distance.0)).0)
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Point({})", HEXLOWER.encode(&self.0[..4]))
    }
}

/// A XOR distance, ordered as a 256-bit integer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Distance([u8; 32]);

impl Distance {
    /// No distance.
    pub const ZERO: Self = Self([0; 32]);
    /// The largest distance.
    pub const MAX: Self = Self([0xff; 32]);

    /// Wraps 32 bytes, most significant first.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes, most significant first.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Leading zero bits, 0 to 256: two points at this distance share so long a prefix.
    #[must_use]
    pub fn leading_zeros(&self) -> u32 {
        let mut zeros = 0;
        for byte in self.0 {
            zeros += byte.leading_zeros();
            if byte != 0 {
                break;
            }
        }
        zeros
    }

    /// The distance as a share of the whole space, 0.0 to 1.0; 53 significant bits, exact enough down to 2^-256.
    #[must_use]
    pub fn fraction(&self) -> f64 {
        let mut value = 0.0;
        let mut weight = 1.0 / 256.0;
        for byte in self.0 {
            value += f64::from(byte) * weight;
            weight /= 256.0;
        }
        value
    }

    /// The distance that is `fraction` of the whole space; saturates at both ends.
    #[must_use]
    pub fn from_fraction(fraction: f64) -> Self {
        if fraction >= 1.0 {
            return Self::MAX;
        }
        let mut rest = if fraction.is_finite() { fraction.max(0.0) } else { 0.0 };
        let mut bytes = [0; 32];
        for byte in &mut bytes {
            rest *= 256.0;
            let digit = rest.floor();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 <= digit < 256")]
            let whole = digit as u8;
            *byte = whole;
            rest -= digit;
        }
        Self(bytes)
    }
}

impl fmt::Debug for Distance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Distance(2^-{})", self.leading_zeros())
    }
}

/// Which DHT a message belongs to: 32 bytes that all its nodes share.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkId([u8; 32]);

impl NetworkId {
    /// The open DHT, which everybody may use to be found.
    pub const OPEN: Self = Self(*b"pqvpn open dht v1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");

    /// Wraps 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NetworkId({})", HEXLOWER.encode(&self.0[..4]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_and_its_distance_agree() {
        for fraction in [0.5, 0.25, 0.003, 1e-9, 0.999_999] {
            let back = Distance::from_fraction(fraction).fraction();
            assert!((back - fraction).abs() < fraction * 1e-12, "{fraction} became {back}");
        }
        assert_eq!(Distance::from_fraction(2.0), Distance::MAX);
        assert_eq!(Distance::from_fraction(-1.0), Distance::ZERO);
        assert_eq!(Distance::from_fraction(f64::NAN), Distance::ZERO);
        assert_eq!(Distance::from_fraction(0.5).leading_zeros(), 0);
        assert_eq!(Distance::ZERO.leading_zeros(), 256);
    }

    #[test]
    fn distance_is_a_metric_and_undoes_itself() {
        let (a, b) = (Point::from_bytes([3; 32]), Point::from_bytes([5; 32]));
        assert_eq!(a.distance(&b), b.distance(&a));
        assert_eq!(a.distance(&a), Distance::ZERO);
        assert_eq!(a.at(&a.distance(&b)), b);
    }
}
