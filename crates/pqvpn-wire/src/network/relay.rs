// SPDX-License-Identifier: MIT OR Apache-2.0
//! What members say to each other so that one of them forwards datagrams between two others.
//!
//! ```text
//!  A --RelayOpen{to: B, channel: a}--> R --RelayOffer{from: A, channel: rb}--> B
//!  A <--RelayOpened{channel: ra}------ R <--RelayOpened{channel: b}----------- B
//! ```
//! From now R sends what A sends it on `ra` to B on `b`, and what B sends it on `rb` to A on `a`. Who receives on a
//! channel has chosen it. The same pair said again keeps the channels alive; unsaid they end after [`RELAY_LASTS_S`].

use ciborium::Value;
use pqvpn_crypto::peer_id::PeerId;
use thiserror::Error;

use super::act::peer_from;
use crate::cbor;

/// How long a relayed way lasts when nobody asks for it again, in seconds.
pub const RELAY_LASTS_S: u64 = 180;

/// Names one direction of a relayed way at whoever receives on it: 56 bits, random, never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel(u64);

impl Channel {
    /// Makes a channel of the low 56 bits; `None` if they are 0.
    #[must_use]
    pub const fn new(bits: u64) -> Option<Self> {
        match bits & 0x00ff_ffff_ffff_ffff {
            0 => None,
            bits => Some(Self(bits)),
        }
    }

    /// The 56 bits.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    fn to_value(self) -> Value {
        self.0.into()
    }

    fn from_value(value: &Value) -> Option<Self> {
        let bits: u64 = cbor::integer(value)?;
        Self::new(bits).filter(|channel| channel.0 == bits)
    }
}

/// Asks to forward to `peer`, or says that `peer` asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayPair {
    /// Who is at the other end.
    pub peer: PeerId,
    /// What the relay writes in front of datagrams for whoever asks ([`super::NetRequest::RelayOpen`]), or what whoever is
    /// told shall write in front of its own ([`super::NetRequest::RelayOffer`]).
    pub channel: Channel,
}

/// Says that a channel is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayOpened {
    /// What whoever asked shall write in front of its datagrams.
    pub channel: Channel,
    /// Bytes a second that the relay forwards for the pair; 0: only what it takes to introduce two members.
    pub rate: u64,
}

/// Why a member does not forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RelayRefusal {
    /// It forwards for nobody.
    #[error("it does not relay")]
    Off,
    /// It has no link with the other end.
    #[error("it has no link with that member")]
    NotLinked,
    /// The other end is no member.
    #[error("that is no member")]
    NotAMember,
    /// It forwards for as many as it may.
    #[error("it relays for as many as it may")]
    Full,
    /// The other end did not take it.
    #[error("that member did not take it")]
    Declined,
}

impl RelayPair {
    pub(super) fn to_values(self) -> [Value; 2] {
        [cbor::bytes(self.peer.as_bytes()), self.channel.to_value()]
    }

    pub(super) fn from_values(fields: Vec<Value>) -> Option<Self> {
        let [peer, channel] = <[Value; 2]>::try_from(fields).ok()?;
        Some(Self { peer: peer_from(peer)?, channel: Channel::from_value(&channel)? })
    }
}

impl RelayOpened {
    pub(super) fn to_values(self) -> [Value; 2] {
        [self.channel.to_value(), self.rate.into()]
    }

    pub(super) fn from_values(fields: Vec<Value>) -> Option<Self> {
        let [channel, rate] = <[Value; 2]>::try_from(fields).ok()?;
        Some(Self { channel: Channel::from_value(&channel)?, rate: cbor::integer(&rate)? })
    }
}

impl RelayRefusal {
    const ALL: [Self; 5] = [Self::Off, Self::NotLinked, Self::NotAMember, Self::Full, Self::Declined];

    pub(super) fn to_value(self) -> Value {
        let number = Self::ALL.iter().position(|refusal| *refusal == self).map_or(0, |at| at + 1);
        u64::try_from(number).unwrap_or_default().into()
    }

    pub(super) fn from_value(value: &Value) -> Option<Self> {
        let number: usize = cbor::integer(value)?;
        Self::ALL.get(number.checked_sub(1)?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{
        NetRequest, NetResponse, NetworkId, decode_request, decode_response, encode_request, encode_response,
    };

    const NETWORK: NetworkId = NetworkId::from_bytes([9; 32]);

    fn channel(bits: u64) -> Channel {
        Channel::new(bits).unwrap()
    }

    #[test]
    fn a_channel_has_56_bits_and_is_never_zero() {
        assert_eq!(Channel::new(0), None);
        assert_eq!(Channel::new(0xff00_0000_0000_0000), None);
        assert_eq!(channel(u64::MAX).get(), 0x00ff_ffff_ffff_ffff);
        assert_eq!(Channel::from_value(&u64::MAX.into()), None, "one channel, one encoding");
    }

    #[test]
    fn messages_survive_their_codec() {
        let pair = RelayPair { peer: PeerId::from_bytes([7; 32]), channel: channel(1 << 55) };
        for request in [NetRequest::RelayOpen(pair), NetRequest::RelayOffer(pair)] {
            let bytes = encode_request(&NETWORK, &request).unwrap();
            assert_eq!(decode_request(&bytes), Ok((NETWORK, request)));
        }
        let opened = NetResponse::RelayOpened(RelayOpened { channel: channel(3), rate: 1 << 40 });
        for response in RelayRefusal::ALL.map(NetResponse::RelayRefused).into_iter().chain([opened]) {
            let bytes = encode_response(&NETWORK, &response).unwrap();
            assert_eq!(decode_response(&bytes), Ok((NETWORK, response)));
        }
    }
}
