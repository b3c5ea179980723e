// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a member lives, in the open DHT, for members only (security.md 7.1): under a throwaway identity that the
//! network's secret, the PeerID and the week give, sealed with a key of the same origin.
//!
//! Whoever lacks the secret can neither compute where the record lies nor tell whose it is, nor that two of them belong
//! together; after a week it lies elsewhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use aws_lc_rs::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey},
    hkdf::{HKDF_SHA512, KeyType, Salt},
};
use data_encoding::HEXLOWER;
use pqvpn_crypto::{
    identity::{Identity, IdentitySeed},
    peer_id::PeerId,
};
use pqvpn_wire::network::{MAX_ENDPOINTS, NetworkId};
use zeroize::Zeroizing;

use crate::entropy;

/// Length of the nonce before the sealed bytes.
const NONCE: usize = 12;

/// What a member's place in the DHT follows from.
pub(super) struct Blind {
    secret: Zeroizing<[u8; 32]>,
    network: NetworkId,
}

/// Bytes HKDF is asked for.
struct Len(usize);

impl KeyType for Len {
    fn len(&self) -> usize {
        self.0
    }
}

impl Blind {
    /// `secret`: the genesis' one.
    pub(super) fn new(secret: &[u8; 32], network: NetworkId) -> Self {
        Self { secret: Zeroizing::new(*secret), network }
    }

    fn derive<const N: usize>(&self, what: &[u8], peer: &PeerId, week: u32) -> Zeroizing<[u8; N]> {
        let mut out = Zeroizing::new([0; N]);
        let key = Salt::new(HKDF_SHA512, self.network.as_bytes()).extract(&self.secret[..]);
        let week = week.to_be_bytes();
        let info = [b"pqvpn blind ".as_slice(), what, peer.as_bytes(), &week];
        key.expand(&info, Len(N)).and_then(|okm| okm.fill(&mut out[..])).expect("HKDF gives so few bytes");
        out
    }

    /// The identity that owns the record of a member in a week.
    pub(super) fn owner(&self, peer: &PeerId, week: u32) -> Option<Identity> {
        Identity::from_seed(&IdentitySeed::from_bytes(&self.derive::<64>(b"owner", peer, week))).ok()
    }

    /// The name of the record; it says nothing either.
    pub(super) fn name(&self, peer: &PeerId, week: u32) -> String {
        HEXLOWER.encode(&self.derive::<16>(b"name", peer, week)[..])
    }

    /// Seals endpoints for members.
    pub(super) fn seal(&self, peer: &PeerId, week: u32, endpoints: &[SocketAddr]) -> Option<Vec<u8>> {
        let nonce: [u8; NONCE] = entropy::bytes();
        let mut bytes = encode(endpoints);
        let key = self.key(peer, week)?;
        key.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(self.network.as_bytes()),
            &mut bytes,
        )
        .ok()?;
        Some([nonce.as_slice(), &bytes].concat())
    }

    /// Opens what a member sealed.
    pub(super) fn open(&self, peer: &PeerId, week: u32, sealed: &[u8]) -> Option<Vec<SocketAddr>> {
        let (nonce, bytes) = sealed.split_first_chunk::<NONCE>()?;
        let mut bytes = bytes.to_vec();
        let key = self.key(peer, week)?;
        let aad = Aad::from(self.network.as_bytes());
        decode(key.open_in_place(Nonce::assume_unique_for_key(*nonce), aad, &mut bytes).ok()?)
    }

    fn key(&self, peer: &PeerId, week: u32) -> Option<LessSafeKey> {
        let key = self.derive::<32>(b"key", peer, week);
        UnboundKey::new(&CHACHA20_POLY1305, &key[..]).ok().map(LessSafeKey::new)
    }
}

/// Each address: 4 or 6, its bytes, its port.
fn encode(endpoints: &[SocketAddr]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for at in endpoints.iter().take(MAX_ENDPOINTS) {
        match at.ip() {
            IpAddr::V4(v4) => {
                bytes.push(4);
                bytes.extend(v4.octets());
            }
            IpAddr::V6(v6) => {
                bytes.push(6);
                bytes.extend(v6.octets());
            }
        }
        bytes.extend(at.port().to_be_bytes());
    }
    bytes
}

fn decode(mut bytes: &[u8]) -> Option<Vec<SocketAddr>> {
    let mut endpoints = Vec::new();
    while let Some((family, rest)) = bytes.split_first() {
        let (ip, rest): (IpAddr, &[u8]) = match family {
            4 => rest.split_first_chunk::<4>().map(|(octets, rest)| (Ipv4Addr::from(*octets).into(), rest))?,
            6 => rest.split_first_chunk::<16>().map(|(octets, rest)| (Ipv6Addr::from(*octets).into(), rest))?,
            _ => return None,
        };
        let (port, rest) = rest.split_first_chunk::<2>()?;
        endpoints.push(SocketAddr::new(ip, u16::from_be_bytes(*port)));
        bytes = rest;
    }
    (endpoints.len() <= MAX_ENDPOINTS).then_some(endpoints)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: PeerId = PeerId::from_bytes([3; 32]);
    const NETWORK: NetworkId = NetworkId::from_bytes([4; 32]);

    fn endpoints() -> Vec<SocketAddr> {
        ["1.2.3.4:5", "[2600::1]:6"].iter().map(|at| at.parse().unwrap()).collect()
    }

    #[test]
    fn members_find_and_open_what_a_member_sealed() {
        let (ours, theirs) = (Blind::new(&[1; 32], NETWORK), Blind::new(&[1; 32], NETWORK));
        let sealed = ours.seal(&PEER, 7, &endpoints()).unwrap();
        assert!(sealed.len() < 100, "no room is needed: {}", sealed.len());
        assert_eq!(theirs.open(&PEER, 7, &sealed), Some(endpoints()));
        assert_eq!(ours.owner(&PEER, 7).unwrap().peer_id(), theirs.owner(&PEER, 7).unwrap().peer_id());
        assert_eq!(ours.name(&PEER, 7), theirs.name(&PEER, 7));
        let full: Vec<SocketAddr> = vec!["[2600::1]:6".parse().unwrap(); 8];
        assert!(ours.seal(&PEER, 7, &full).unwrap().len() <= pqvpn_wire::dht::record::MAX_VALUE_LEN);
    }

    #[test]
    fn nothing_is_the_same_in_another_week_of_another_peer_or_without_the_secret() {
        let ours = Blind::new(&[1; 32], NETWORK);
        let owner = |blind: &Blind, peer: &PeerId, week| blind.owner(peer, week).unwrap().peer_id();
        let sealed = ours.seal(&PEER, 7, &endpoints()).unwrap();
        let other = PeerId::from_bytes([9; 32]);
        let elsewhere = NetworkId::from_bytes([5; 32]);
        for (blind, peer, week) in [
            (&ours, PEER, 8),
            (&ours, other, 7),
            (&Blind::new(&[2; 32], NETWORK), PEER, 7),
            (&Blind::new(&[1; 32], elsewhere), PEER, 7),
        ] {
            assert_ne!(owner(&ours, &PEER, 7), owner(blind, &peer, week));
            assert_ne!(ours.name(&PEER, 7), blind.name(&peer, week));
            assert_eq!(blind.open(&peer, week, &sealed), None);
        }
        let mut forged = sealed.clone();
        *forged.last_mut().unwrap() ^= 1;
        assert_eq!(ours.open(&PEER, 7, &forged), None);
        assert_eq!(ours.open(&PEER, 7, &sealed[..5]), None);
        assert_ne!(owner(&ours, &PEER, 7), PEER, "the record does not name the member");
    }
}
