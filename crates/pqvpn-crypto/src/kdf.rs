// SPDX-License-Identifier: MIT OR Apache-2.0
//! Key derivation of the data plane: HKDF-SHA-512 with one closed list of labels (security.md 1.4).
//!
//! `LP(x) = u16(len x) || x`, integers are big endian, and every expansion of a session is bound to its id:
//! `info = "pqvpn/1 " || u8(len label) || label || SID || LP(context)`.

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha512};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// First bytes of every info string and hash input: the version of the schedule.
const PREFIX: &[u8] = b"pqvpn/1 ";

/// Every label of the key schedule; no other string reaches HKDF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Label {
    /// `RK_e`: root of an epoch.
    Root,
    /// `S_e`: state of the resumption-secret chain.
    Session,
    /// `HP[d]`: header protection.
    HeaderProtection,
    /// `KC_i`: key confirmation by the handshake initiator.
    ConfirmInitiator,
    /// `KC_r`: key confirmation by the handshake responder.
    ConfirmResponder,
    /// `CK[d,e,0]`: first chain key of an epoch.
    ChainStart,
    /// `DK[d,e,p]`: AEAD key.
    DataKey,
    /// `CK[d,e,p+1]`: next chain key.
    Chain,
    /// `KC`: confirmation key of a ratchet step.
    Confirm,
    /// Contribution of a ratchet step to `S_{e+1}`.
    Symmetric,
    /// `K_ctrl`: MAC key for control messages.
    Control,
    /// `S_prev'`: psk of the next handshake.
    Resume,
}

impl Label {
    /// The label's bytes.
    #[must_use]
    pub const fn as_bytes(self) -> &'static [u8] {
        match self {
            Self::Root => b"root",
            Self::Session => b"session",
            Self::HeaderProtection => b"hp",
            Self::ConfirmInitiator => b"confirm i",
            Self::ConfirmResponder => b"confirm r",
            Self::ChainStart => b"chain 0",
            Self::DataKey => b"data key",
            Self::Chain => b"chain",
            Self::Confirm => b"confirm",
            Self::Symmetric => b"sym",
            Self::Control => b"ctrl mac",
            Self::Resume => b"resume",
        }
    }
}

/// The id of a session (`SID`): public, different for every handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sid([u8; 32]);

impl Sid {
    /// `H("pqvpn/1 sid" || th_0)[0..32]`.
    pub(crate) fn of(th0: &[u8; 64]) -> Self {
        let hash = hash(b"sid", &[th0]);
        let mut sid = [0; 32];
        sid.copy_from_slice(&hash[..32]);
        Self(sid)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A 64-byte secret of the schedule: root, chain, session state or extracted key. Erased on drop.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct Secret([u8; 64]);

impl Secret {
    /// `HKDF-Extract(salt, parts concatenated)`.
    pub(crate) fn extract(salt: &[u8; 64], parts: &[&[u8]]) -> Self {
        let mut extract = hkdf::HkdfExtract::<Sha512>::new(Some(salt));
        for part in parts {
            extract.input_ikm(part);
        }
        let (mut prk, _) = extract.finalize();
        let mut out = [0; 64];
        out.copy_from_slice(&prk);
        prk.as_mut_slice().zeroize();
        Self(out)
    }

    /// `HKDF-Expand(self, L(label, context), N)`, `N <= 64`. The context is given in parts.
    pub(crate) fn expand<const N: usize>(&self, sid: &Sid, label: Label, context: &[&[u8]]) -> Zeroizing<[u8; N]> {
        let name = label.as_bytes();
        let mut joined = [0; 16];
        let mut used = 0;
        for part in context {
            joined[used..used + part.len()].copy_from_slice(part);
            used += part.len();
        }
        let lengths = ([name.len() as u8], lp_len(used));
        let info = [PREFIX, &lengths.0, name, &sid.0, &lengths.1, &joined[..used]];
        let mut out = Zeroizing::new([0; N]);
        Hkdf::<Sha512>::from_prk(&self.0)
            .expect("64 bytes are a full SHA-512 key")
            .expand_multi_info(&info, &mut out[..])
            .expect("64 bytes are one HKDF block");
        out
    }

    /// Same as [`Self::expand`] for another 64-byte secret.
    pub(crate) fn expand_secret(&self, sid: &Sid, label: Label, context: &[&[u8]]) -> Self {
        Self(*self.expand::<64>(sid, label, context))
    }

    /// The bytes, for use as salt or MAC key.
    pub(crate) const fn expose(&self) -> &[u8; 64] {
        &self.0
    }
}

/// `u16` length prefix of `LP`.
pub(crate) const fn lp_len(len: usize) -> [u8; 2] {
    (len as u16).to_be_bytes()
}

/// `SHA-512("pqvpn/1 " || name || parts)`.
pub(crate) fn hash(name: &[u8], parts: &[&[u8]]) -> [u8; 64] {
    let mut hash = Sha512::new();
    hash.update(PREFIX);
    hash.update(name);
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

/// `HMAC-SHA-512(key, parts concatenated)[0..32]`.
pub(crate) fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut hmac = Hmac::<Sha512>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        hmac.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(&hmac.finalize().into_bytes()[..32]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABELS: [Label; 12] = [
        Label::Root,
        Label::Session,
        Label::HeaderProtection,
        Label::ConfirmInitiator,
        Label::ConfirmResponder,
        Label::ChainStart,
        Label::DataKey,
        Label::Chain,
        Label::Confirm,
        Label::Symmetric,
        Label::Control,
        Label::Resume,
    ];

    #[test]
    fn every_label_and_session_gives_another_key() {
        let secret = Secret([1; 64]);
        let sids = [Sid::of(&[1; 64]), Sid::of(&[2; 64])];
        let key = |sid, label| *secret.expand::<32>(sid, label, &[]);
        let keys: std::collections::HashSet<_> =
            sids.iter().flat_map(|sid| LABELS.map(|label| key(sid, label))).collect();
        assert_eq!(keys.len(), 2 * LABELS.len());
    }

    #[test]
    fn the_length_prefix_keeps_contexts_apart() {
        let (secret, sid) = (Secret([1; 64]), Sid::of(&[1; 64]));
        let key = |context: &[&[u8]]| *secret.expand::<32>(&sid, Label::Root, context);
        assert_ne!(key(&[]), key(&[&[0]]));
        assert_ne!(key(&[&[0]]), key(&[&[0, 0]]));
        assert_eq!(key(&[&[1], &[2]]), key(&[&[1, 2]]), "parts are only a way to write one context");
    }

    #[test]
    fn expansion_and_mac_equal_hand_computed_ones() {
        // One HKDF block is HMAC(prk, info || 0x01).
        let (secret, sid) = (Secret([3; 64]), Sid::of(&[4; 64]));
        let info = [b"pqvpn/1 \x02hp", &sid.0[..], &[0, 1, 1], &[1]].concat();
        let block = mac(&[3; 64], &[&info]);
        assert_eq!(*secret.expand::<32>(&sid, Label::HeaderProtection, &[&[1]]), block);
    }
}
