// SPDX-License-Identifier: MIT OR Apache-2.0
//! From a fresh link to a session: hello, answer, confirmation.
//!
//! ```text
//!   dialer                                  listener
//!   Hello(aeads, indices, psk_id) ------->
//!                                           derive, install (receive only)
//!          <------- HelloAck(aead, indices, psk_used, mac_r)
//!   derive, check mac_r, install (both ways)
//!   Confirm(mac_i) ---------------------->  check mac_i, may send
//! ```
//! One struct per state, consumed by value: a message in the wrong order has nowhere to go. The listener sends no data
//! before the dialer proved that it holds the keys.

use aws_lc_rs::hmac;
use pqvpn_crypto::{
    aead::AeadId,
    schedule::{Exporter, Psk, Role, SessionParts, SessionSecrets, Transcript},
};
use pqvpn_wire::control::{Confirm, Hello, HelloAck};
use thiserror::Error;

/// Smallest inner MTU a peer may ask for (RFC 791: every host takes 576).
const MIN_INNER_MTU: u16 = 576;

/// What this node brings into a negotiation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// AEADs it can use with this peer, best first; never empty.
    pub aeads: Vec<AeadId>,
    /// Receiver indices the peer shall use towards it.
    pub indices: Vec<u32>,
    /// Largest inner packet it takes.
    pub inner_mtu: u16,
}

/// A session both ends hold the keys of, as this side sees it.
pub struct Negotiated {
    /// Keys and ratchet seed.
    pub parts: SessionParts,
    /// The AEAD of the data plane.
    pub aead: AeadId,
    /// Our receiver indices.
    pub local_indices: Vec<u32>,
    /// The peer's receiver indices.
    pub remote_indices: Vec<u32>,
    /// Largest inner packet both ends take.
    pub inner_mtu: u16,
    /// Whether an earlier session's secret was mixed in.
    pub psk_used: bool,
    /// Whether one end remembered an earlier session and the other did not (security.md 1.8, "continuity lost").
    pub continuity_lost: bool,
}

/// Why a negotiation failed; the peer's fault, except [`Self::Export`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NegotiationError {
    /// No AEAD in common.
    #[error("no AEAD in common")]
    NoCommonAead,
    /// The answer chose what was not offered.
    #[error("the peer chose an AEAD or a secret that was not offered")]
    NotOffered,
    /// The peer's key confirmation is wrong: it does not hold the same keys.
    #[error("the peer's key confirmation is wrong")]
    BadConfirmation,
    /// The peer asks for an MTU no link has.
    #[error("the peer asks for an inner MTU of {0} bytes")]
    Mtu(u16),
    /// The link gave no keying material.
    #[error("the link gave no keying material")]
    Export,
}

/// Gets exporter and transcript of the link for the chosen AEAD.
pub type Export<'a> = &'a dyn Fn(AeadId) -> Option<(Exporter, Transcript)>;

/// Dialer, hello sent.
pub struct HelloSent {
    local: Local,
    psk: Option<Psk>,
}

impl HelloSent {
    /// Opens the negotiation.
    #[must_use]
    pub fn start(local: Local, psk: Option<Psk>) -> (Self, Hello) {
        let hello = Hello {
            aeads: local.aeads.iter().map(|&aead| aead as u8).collect(),
            indices: local.indices.clone(),
            psk_id: psk.as_ref().map(psk_id),
            inner_mtu: local.inner_mtu,
        };
        (Self { local, psk }, hello)
    }

    /// Takes the listener's answer.
    ///
    /// # Errors
    /// The answer does not fit the offer, or its key confirmation is wrong.
    pub fn on_ack(self, ack: &HelloAck, export: Export<'_>) -> Result<(Negotiated, Confirm), NegotiationError> {
        let offered = AeadId::from_u8(ack.aead).filter(|aead| self.local.aeads.contains(aead));
        let aead = offered.ok_or(NegotiationError::NotOffered)?;
        if ack.psk_used && self.psk.is_none() {
            return Err(NegotiationError::NotOffered);
        }
        let inner_mtu = common_mtu(self.local.inner_mtu, ack.inner_mtu)?;
        let (exporter, transcript) = export(aead).ok_or(NegotiationError::Export)?;
        let psk = self.psk.as_ref().filter(|_| ack.psk_used);
        let secrets = SessionSecrets::derive(exporter, transcript, psk);
        if !secrets.verify_confirm(Role::Responder, &ack.mac) {
            return Err(NegotiationError::BadConfirmation);
        }
        let confirm = Confirm { mac: secrets.confirm_mac(Role::Initiator) };
        let negotiated = Negotiated {
            parts: secrets.into_parts(Role::Initiator),
            aead,
            local_indices: self.local.indices,
            remote_indices: ack.indices.clone(),
            inner_mtu,
            psk_used: ack.psk_used,
            continuity_lost: self.psk.is_some() && !ack.psk_used,
        };
        Ok((negotiated, confirm))
    }
}

/// Listener, answer sent: waits for the dialer's confirmation.
pub struct AckSent {
    expected: Expected,
}

/// The confirmation the dialer must send, compared in constant time.
struct Expected([u8; 32]);

impl AckSent {
    /// Takes a hello and answers it. `known` are the secrets kept from earlier sessions with this peer, newest first.
    ///
    /// # Errors
    /// The offer fits nothing this node can do.
    pub fn on_hello(
        hello: &Hello,
        local: Local,
        known: &[Psk],
        export: Export<'_>,
    ) -> Result<(Self, Negotiated, HelloAck), NegotiationError> {
        // The listener's order decides: both ends list hardware AES first only when they have it.
        let aead = local.aeads.iter().copied().find(|&aead| hello.aeads.contains(&(aead as u8)));
        let aead = aead.ok_or(NegotiationError::NoCommonAead)?;
        let inner_mtu = common_mtu(local.inner_mtu, hello.inner_mtu)?;
        let psk = hello.psk_id.and_then(|id| known.iter().find(|psk| psk_id(psk) == id));
        let (exporter, transcript) = export(aead).ok_or(NegotiationError::Export)?;
        let secrets = SessionSecrets::derive(exporter, transcript, psk);
        let ack = HelloAck {
            aead: aead as u8,
            indices: local.indices.clone(),
            psk_used: psk.is_some(),
            inner_mtu: local.inner_mtu,
            mac: secrets.confirm_mac(Role::Responder),
        };
        let expected = Expected(secrets.confirm_mac(Role::Initiator));
        let negotiated = Negotiated {
            psk_used: ack.psk_used,
            continuity_lost: !ack.psk_used && (hello.psk_id.is_some() || !known.is_empty()),
            parts: secrets.into_parts(Role::Responder),
            aead,
            local_indices: local.indices,
            remote_indices: hello.indices.clone(),
            inner_mtu,
        };
        Ok((Self { expected }, negotiated, ack))
    }

    /// Checks the dialer's confirmation.
    ///
    /// # Errors
    /// The confirmation is wrong.
    pub fn on_confirm(self, confirm: &Confirm) -> Result<(), NegotiationError> {
        let Expected(expected) = self.expected;
        aws_lc_rs::constant_time::verify_slices_are_equal(&expected, &confirm.mac)
            .map_err(|_unequal| NegotiationError::BadConfirmation)
    }
}

/// A public name for a secret: lets two ends find out whether they hold the same one.
fn psk_id(psk: &Psk) -> [u8; 16] {
    let key = hmac::Key::new(hmac::HMAC_SHA512, psk.expose());
    let tag = hmac::sign(&key, b"pqvpn/1 psk id");
    let mut id = [0; 16];
    id.copy_from_slice(&tag.as_ref()[..16]);
    id
}

fn common_mtu(ours: u16, theirs: u16) -> Result<u16, NegotiationError> {
    if theirs < MIN_INNER_MTU { Err(NegotiationError::Mtu(theirs)) } else { Ok(ours.min(theirs)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHACHA: AeadId = AeadId::ChaCha20Poly1305;
    const AES: AeadId = AeadId::Aes256Gcm;

    fn local(aeads: &[AeadId], first_index: u32) -> Local {
        Local { aeads: aeads.to_vec(), indices: vec![first_index, first_index + 1], inner_mtu: 1420 }
    }

    /// The same link on both sides: the secrets depend on the AEAD as the exporter's context does.
    fn link(aead: AeadId) -> Option<(Exporter, Transcript)> {
        Some((Exporter::from_bytes([aead as u8; 64]), Transcript::from_bytes([0x55; 64])))
    }

    fn other_link(_aead: AeadId) -> Option<(Exporter, Transcript)> {
        Some((Exporter::from_bytes([9; 64]), Transcript::from_bytes([0x55; 64])))
    }

    fn run(dialer: Local, psk: Option<Psk>, listener: Local, known: &[Psk]) -> (Negotiated, Negotiated) {
        let (sent, hello) = HelloSent::start(dialer, psk);
        let (waiting, there, ack) = AckSent::on_hello(&hello, listener, known, &link).expect("answered");
        let (here, confirm) = sent.on_ack(&ack, &link).expect("accepted");
        waiting.on_confirm(&confirm).expect("confirmed");
        (here, there)
    }

    #[test]
    fn both_ends_reach_the_same_session() {
        let (here, there) = run(local(&[AES, CHACHA], 10), None, local(&[AES, CHACHA], 20), &[]);
        assert_eq!(here.parts.tx.sid(), there.parts.rx.sid());
        assert_eq!((here.aead, there.aead), (AES, AES));
        assert_eq!(here.remote_indices, there.local_indices);
        assert_eq!(there.remote_indices, here.local_indices);
        assert!(!here.psk_used && !here.continuity_lost && !there.continuity_lost);
    }

    #[test]
    fn aes_needs_both_ends() {
        let (here, there) = run(local(&[CHACHA], 10), None, local(&[AES, CHACHA], 20), &[]);
        assert_eq!((here.aead, there.aead), (CHACHA, CHACHA));
        let (_, hello) = HelloSent::start(local(&[AES], 1), None);
        let refused = AckSent::on_hello(&hello, local(&[CHACHA], 2), &[], &link);
        assert_eq!(refused.err(), Some(NegotiationError::NoCommonAead));
    }

    #[test]
    fn a_shared_secret_of_an_earlier_session_is_used_and_a_lost_one_is_noticed() {
        let psk = |byte| Psk::from_bytes([byte; 32]);
        let (here, there) = run(local(&[CHACHA], 1), Some(psk(7)), local(&[CHACHA], 5), &[psk(8), psk(7)]);
        assert!(here.psk_used && there.psk_used && !here.continuity_lost && !there.continuity_lost);
        let (here, there) = run(local(&[CHACHA], 1), Some(psk(7)), local(&[CHACHA], 5), &[psk(9)]);
        assert!(!here.psk_used && here.continuity_lost && there.continuity_lost);
        let (here, there) = run(local(&[CHACHA], 1), None, local(&[CHACHA], 5), &[psk(9)]);
        assert!(!here.continuity_lost && there.continuity_lost);
    }

    #[test]
    fn a_man_between_two_links_is_found_by_both() {
        let (sent, hello) = HelloSent::start(local(&[CHACHA], 1), None);
        let (waiting, _, ack) = AckSent::on_hello(&hello, local(&[CHACHA], 5), &[], &other_link).expect("answered");
        assert_eq!(sent.on_ack(&ack, &link).err(), Some(NegotiationError::BadConfirmation));
        let forged = Confirm { mac: ack.mac };
        assert_eq!(waiting.on_confirm(&forged), Err(NegotiationError::BadConfirmation), "reflected confirmation");
    }

    #[test]
    fn an_answer_outside_the_offer_is_refused() {
        let answer = |change: &dyn Fn(&mut HelloAck)| {
            let (sent, hello) = HelloSent::start(local(&[CHACHA], 1), None);
            let (_, _, mut ack) = AckSent::on_hello(&hello, local(&[CHACHA], 5), &[], &link).expect("answered");
            change(&mut ack);
            sent.on_ack(&ack, &link).err()
        };
        assert_eq!(answer(&|ack| ack.aead = AES as u8), Some(NegotiationError::NotOffered));
        assert_eq!(answer(&|ack| ack.aead = 99), Some(NegotiationError::NotOffered));
        assert_eq!(answer(&|ack| ack.psk_used = true), Some(NegotiationError::NotOffered));
        assert_eq!(answer(&|ack| ack.inner_mtu = 100), Some(NegotiationError::Mtu(100)));
        assert_eq!(answer(&|_| {}), None);
    }
}
