// SPDX-License-Identifier: MIT OR Apache-2.0
//! Store tokens: who wants to store must have asked here before, as the same peer and from the same subnet.

use std::{fmt, net::IpAddr, time::Duration};

use hmac::{Hmac, KeyInit, Mac};
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::Token;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::{Now, address::Subnet};

/// A token made in one period is valid until the end of the next.
const PERIOD: Duration = Duration::from_secs(600);

/// HMAC-SHA-256 under this node's secret, first 16 bytes: nothing has to be remembered of what was given out.
pub(super) struct Tokens(Hmac<Sha256>);

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens(..)")
    }
}

impl Tokens {
    pub(super) fn new(secret: &[u8; 32]) -> Self {
        let mut block = [0; 64];
        for (out, byte) in block.iter_mut().zip(secret) {
            *out = *byte;
        }
        Self(Hmac::new(&block.into()))
    }

    pub(super) fn make(&self, now: Now, peer: &PeerId, from: IpAddr) -> Token {
        self.of_period(period(now), peer, from)
    }

    pub(super) fn check(&self, now: Now, peer: &PeerId, from: IpAddr, token: &Token) -> bool {
        let current = period(now);
        let valid = self.of_period(current, peer, from).0.ct_eq(&token.0);
        let Some(last) = current.checked_sub(1) else { return valid.into() };
        (valid | self.of_period(last, peer, from).0.ct_eq(&token.0)).into()
    }

    fn of_period(&self, period: u64, peer: &PeerId, from: IpAddr) -> Token {
        let mut mac = self.0.clone();
        mac.update(b"pqvpn dht token");
        mac.update(&period.to_be_bytes());
        mac.update(peer.as_bytes());
        mac.update(&Subnet::billed(from).to_bytes());
        let mut token = [0; 16];
        for (out, byte) in token.iter_mut().zip(mac.finalize().into_bytes()) {
            *out = byte;
        }
        Token(token)
    }
}

fn period(now: Now) -> u64 {
    now.mono.as_secs() / PERIOD.as_secs()
}
