// SPDX-License-Identifier: MIT OR Apache-2.0
//! The key schedule of a session, from the two exporters of the link's TLS handshake (security.md 1.3, 1.4).

mod step;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use step::{Step, StepInputs};

use crate::aead::AeadId;
use crate::header::HeaderSecret;
use crate::kdf::{self, Label, Secret, Sid};
use crate::peer_id::PeerId;
use crate::ratchet::EpochChain;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// TLS exporter label of the data plane's input keying material.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-pqvpn data v1";
/// TLS exporter label of the transcript value `th_0`.
pub const TRANSCRIPT_LABEL: &[u8] = b"EXPORTER-pqvpn transcript v1";
/// How many bytes both exporters give.
pub const EXPORTER_LEN: usize = 64;

/// Who opened the link: the TLS client is the initiator. Fixed for the life of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Dialled the link; leads the odd ratchet steps.
    Initiator,
    /// Accepted the link; leads the even ratchet steps.
    Responder,
}

impl Role {
    /// The other side.
    #[must_use]
    pub const fn peer(self) -> Self {
        match self {
            Self::Initiator => Self::Responder,
            Self::Responder => Self::Initiator,
        }
    }

    /// The direction this side sends in.
    #[must_use]
    pub const fn sends(self) -> Direction {
        match self {
            Self::Initiator => Direction::InitiatorToResponder,
            Self::Responder => Direction::ResponderToInitiator,
        }
    }
}

/// Which way the packets of a chain travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Direction {
    /// `d = 0`.
    InitiatorToResponder = 0,
    /// `d = 1`.
    ResponderToInitiator = 1,
}
/// Context of both exporters: `PeerID(client) || PeerID(server) || aead_id`.
#[must_use]
pub fn exporter_context(client: &PeerId, server: &PeerId, aead: AeadId) -> Vec<u8> {
    [client.as_bytes().as_slice(), server.as_bytes(), &[aead as u8]].concat()
}

/// What the TLS exporter gave for [`EXPORTER_LABEL`]: the secret input of the schedule.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Exporter([u8; EXPORTER_LEN]);

/// What the TLS exporter gave for [`TRANSCRIPT_LABEL`] (`th_0`). Never logged.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Transcript([u8; EXPORTER_LEN]);

/// The resumption secret of an earlier session between the same two peers (`S_prev`).
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Psk([u8; 32]);

impl Exporter {
    /// Takes the exporter's bytes; erase your copy.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; EXPORTER_LEN]) -> Self {
        Self(bytes)
    }
}

impl Transcript {
    /// Takes the exporter's bytes; erase your copy.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; EXPORTER_LEN]) -> Self {
        Self(bytes)
    }
}

impl Psk {
    /// Takes 32 stored bytes; erase your copy.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, to be stored encrypted.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Everything derived from one handshake, before it is split between the packet paths and the ratchet.
///
/// Its life: derive, exchange and check the confirmations, then [`Self::into_parts`].
pub struct SessionSecrets {
    sid: Sid,
    th0: Transcript,
    root: Secret,
    session: Secret,
    confirm: [Secret; 2],
    headers: [HeaderSecret; 2],
}

/// The pieces of an established session, as seen by one side.
pub struct SessionParts {
    /// Keys of the packets this side sends, epoch 0.
    pub tx: EpochChain,
    /// Keys of the packets this side receives, epoch 0.
    pub rx: EpochChain,
    /// Header protection of the packets this side sends.
    pub tx_header: HeaderSecret,
    /// Header protection of the packets this side receives.
    pub rx_header: HeaderSecret,
    /// What the ratchet continues from.
    pub ratchet: RatchetSeed,
}

/// Root, session state and transcript of one epoch: what the ratchet steps on from (`RK_e`, `S_e`, `th_e`).
pub struct RatchetSeed {
    pub(crate) sid: Sid,
    pub(crate) epoch: u32,
    pub(crate) root: Secret,
    pub(crate) session: Secret,
    pub(crate) transcript: Transcript,
}

impl SessionSecrets {
    /// Runs the schedule. Both sides get the same secrets when exporter, transcript and psk agree; a lost psk is
    /// `None` on both sides (32 zero bytes in the schedule).
    #[must_use]
    pub fn derive(exporter: Exporter, th0: Transcript, psk: Option<&Psk>) -> Self {
        let sid = Sid::of(&th0.0);
        let psk = psk.map_or(&[0; 32], |psk| &psk.0);
        let prk = Secret::extract(&th0.0, &[&kdf::lp_len(EXPORTER_LEN), &exporter.0, &kdf::lp_len(32), psk]);
        let header = |d: Direction| HeaderSecret::new(prk.expand::<32>(&sid, Label::HeaderProtection, &[&[d as u8]]));
        Self {
            root: prk.expand_secret(&sid, Label::Root, &[&0_u32.to_be_bytes()]),
            session: prk.expand_secret(&sid, Label::Session, &[]),
            confirm: [Label::ConfirmInitiator, Label::ConfirmResponder]
                .map(|label| prk.expand_secret(&sid, label, &[])),
            headers: [header(Direction::InitiatorToResponder), header(Direction::ResponderToInitiator)],
            sid,
            th0,
        }
    }

    /// The public id of the session.
    #[must_use]
    pub const fn sid(&self) -> Sid {
        self.sid
    }

    /// The key confirmation that `role` sends: `HMAC(KC_role, th_0)[0..32]`.
    #[must_use]
    pub fn confirm_mac(&self, role: Role) -> [u8; 32] {
        let [initiator, responder] = &self.confirm;
        let key = match role {
            Role::Initiator => initiator,
            Role::Responder => responder,
        };
        kdf::mac(key.expose(), &[&self.th0.0])
    }

    /// Checks in constant time the confirmation that `role` sent.
    #[must_use]
    pub fn verify_confirm(&self, role: Role, mac: &[u8; 32]) -> bool {
        self.confirm_mac(role).ct_eq(mac).into()
    }

    /// Splits the secrets for the side `role`; the confirmation keys are erased.
    #[must_use]
    pub fn into_parts(self, role: Role) -> SessionParts {
        let [i2r, r2i] = self.headers;
        let (tx_header, rx_header) = match role {
            Role::Initiator => (i2r, r2i),
            Role::Responder => (r2i, i2r),
        };
        SessionParts {
            tx: EpochChain::start(&self.root, self.sid, role.sends(), 0),
            rx: EpochChain::start(&self.root, self.sid, role.peer().sends(), 0),
            tx_header,
            rx_header,
            ratchet: RatchetSeed {
                sid: self.sid,
                epoch: 0,
                root: self.root,
                session: self.session,
                transcript: self.th0,
            },
        }
    }
}
