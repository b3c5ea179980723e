// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a handshake was refused: one typed reason, carried through rustls errors and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::{CertificateError, Error, InvalidMessage, OtherError, PeerIncompatible, PeerMisbehaved};

use crate::identity::SignatureError;

/// The reason this side gave for not completing a handshake.
///
/// A refusing side sends only a TLS alert, so the other side sees [`Refusal::RefusedByPeer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Nobody we know: admission has no entry for this PeerID.
    #[error("unknown peer")]
    UnknownPeer,
    /// Known, but not let in (revoked, blocked, not allowed on this side).
    #[error("peer is not admitted")]
    NotAdmitted,
    /// We dialled one peer and another one answered.
    #[error("another peer answered than the one dialled")]
    WrongPeerId,
    /// The peer has no raw public key to show, or shows none.
    #[error("anonymous peer")]
    AnonymousPeer,
    /// The peer's key is not the one encoding of a composite key.
    #[error("malformed public key")]
    MalformedKey,
    /// The Ed25519 half of the handshake signature is wrong.
    #[error("bad Ed25519 half of the signature")]
    BadEd25519Half,
    /// The ML-DSA-87 half of the handshake signature is wrong.
    #[error("bad ML-DSA-87 half of the signature")]
    BadMlDsaHalf,
    /// Both halves of the handshake signature are wrong.
    #[error("bad signature, both halves")]
    BadBothHalves,
    /// The Ed25519 half of the handshake signature is missing.
    #[error("missing Ed25519 half of the signature")]
    MissingEd25519Half,
    /// The ML-DSA-87 half of the handshake signature is missing.
    #[error("missing ML-DSA-87 half of the signature")]
    MissingMlDsaHalf,
    /// The signature has neither one half nor two.
    #[error("malformed signature")]
    MalformedSignature,
    /// A signature scheme other than the composite one, or none in common.
    #[error("no common signature scheme")]
    NoCommonSignatureScheme,
    /// The peer does not do X25519MLKEM1024.
    #[error("no common key exchange group")]
    NoCommonGroup,
    /// The peer does not do the link's cipher suite.
    #[error("no common cipher suite")]
    NoCommonSuite,
    /// A key share of wrong length, a non-reduced ML-KEM key, or a low-order X25519 point.
    #[error("invalid key share")]
    InvalidKeyShare,
    /// The peer does not speak TLS 1.3.
    #[error("no common TLS version")]
    NoCommonVersion,
    /// The peer does not speak this protocol.
    #[error("no common application protocol")]
    NoCommonProtocol,
    /// The compressed certificate is not the hash of the key we hold.
    #[error("compressed key does not match the key we hold")]
    UnknownCompressedKey,
    /// The peer refused us and said so with an alert.
    #[error("refused by the peer")]
    RefusedByPeer,
    /// Bytes that are no TLS handshake, or one that breaks its rules.
    #[error("malformed handshake")]
    MalformedHandshake,
}

impl Refusal {
    /// Every reason, in declaration order.
    pub const ALL: [Self; 20] = [
        Self::UnknownPeer,
        Self::NotAdmitted,
        Self::WrongPeerId,
        Self::AnonymousPeer,
        Self::MalformedKey,
        Self::BadEd25519Half,
        Self::BadMlDsaHalf,
        Self::BadBothHalves,
        Self::MissingEd25519Half,
        Self::MissingMlDsaHalf,
        Self::MalformedSignature,
        Self::NoCommonSignatureScheme,
        Self::NoCommonGroup,
        Self::NoCommonSuite,
        Self::InvalidKeyShare,
        Self::NoCommonVersion,
        Self::NoCommonProtocol,
        Self::UnknownCompressedKey,
        Self::RefusedByPeer,
        Self::MalformedHandshake,
    ];

    /// Returns a stable snake-case name for counters and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnknownPeer => "unknown_peer",
            Self::NotAdmitted => "not_admitted",
            Self::WrongPeerId => "wrong_peer_id",
            Self::AnonymousPeer => "anonymous_peer",
            Self::MalformedKey => "malformed_key",
            Self::BadEd25519Half => "bad_ed25519_half",
            Self::BadMlDsaHalf => "bad_mldsa_half",
            Self::BadBothHalves => "bad_both_halves",
            Self::MissingEd25519Half => "missing_ed25519_half",
            Self::MissingMlDsaHalf => "missing_mldsa_half",
            Self::MalformedSignature => "malformed_signature",
            Self::NoCommonSignatureScheme => "no_common_signature_scheme",
            Self::NoCommonGroup => "no_common_group",
            Self::NoCommonSuite => "no_common_suite",
            Self::InvalidKeyShare => "invalid_key_share",
            Self::NoCommonVersion => "no_common_version",
            Self::NoCommonProtocol => "no_common_protocol",
            Self::UnknownCompressedKey => "unknown_compressed_key",
            Self::RefusedByPeer => "refused_by_peer",
            Self::MalformedHandshake => "malformed_handshake",
        }
    }

    /// Reads the reason out of a failed handshake; `None` for our own failures (entropy, misuse).
    ///
    /// QUIC back ends keep the `rustls::Error` inside their transport error; it downcasts from there.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest are failures of ours")]
    pub fn of(error: &Error) -> Option<Self> {
        match error {
            Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) | Error::Other(OtherError(inner)) => {
                inner.downcast_ref::<Self>().copied()
            }
            Error::InvalidCertificate(_) => Some(Self::MalformedKey),
            Error::NoCertificatesPresented => Some(Self::AnonymousPeer),
            Error::NoApplicationProtocol => Some(Self::NoCommonProtocol),
            Error::AlertReceived(_) => Some(Self::RefusedByPeer),
            Error::PeerIncompatible(why) => Some(Self::of_incompatible(why)),
            Error::PeerMisbehaved(why) => Some(Self::of_misbehaved(why)),
            Error::InvalidMessage(why) => Some(Self::of_message(why)),
            Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::InvalidEncryptedClientHello(_)
            | Error::PeerSentOversizedRecord
            | Error::DecryptError => Some(Self::MalformedHandshake),
            _ => None,
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "rustls' enum; the rest have no reason of their own")]
    fn of_incompatible(why: &PeerIncompatible) -> Self {
        match why {
            PeerIncompatible::NoKxGroupsInCommon
            | PeerIncompatible::KeyShareExtensionRequired
            | PeerIncompatible::NamedGroupsExtensionRequired => Self::NoCommonGroup,
            PeerIncompatible::NoCipherSuitesInCommon => Self::NoCommonSuite,
            PeerIncompatible::NoSignatureSchemesInCommon
            | PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon
            | PeerIncompatible::SignatureAlgorithmsExtensionRequired => Self::NoCommonSignatureScheme,
            PeerIncompatible::IncorrectCertificateTypeExtension
            | PeerIncompatible::UnsolicitedCertificateTypeExtension => Self::AnonymousPeer,
            PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls13RequiredForQuic => Self::NoCommonVersion,
            _ => Self::MalformedHandshake,
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "rustls' enum; the rest have no reason of their own")]
    fn of_misbehaved(why: &PeerMisbehaved) -> Self {
        match why {
            PeerMisbehaved::InvalidKeyShare => Self::InvalidKeyShare,
            PeerMisbehaved::WrongGroupForKeyShare
            | PeerMisbehaved::SelectedUnofferedKxGroup
            | PeerMisbehaved::IllegalHelloRetryRequestWithUnofferedNamedGroup
            | PeerMisbehaved::IllegalHelloRetryRequestWithOfferedGroup => Self::NoCommonGroup,
            PeerMisbehaved::SelectedUnofferedCipherSuite
            | PeerMisbehaved::IllegalHelloRetryRequestWithUnofferedCipherSuite => Self::NoCommonSuite,
            PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme | PeerMisbehaved::SignedKxWithWrongAlgorithm => {
                Self::NoCommonSignatureScheme
            }
            PeerMisbehaved::SelectedUnofferedApplicationProtocol => Self::NoCommonProtocol,
            PeerMisbehaved::InvalidCertCompression => Self::UnknownCompressedKey,
            _ => Self::MalformedHandshake,
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "rustls' enum; the rest have no reason of their own")]
    fn of_message(why: &InvalidMessage) -> Self {
        match why {
            InvalidMessage::MissingKeyExchange => Self::NoCommonGroup,
            InvalidMessage::NoSignatureSchemes => Self::NoCommonSignatureScheme,
            _ => Self::MalformedHandshake,
        }
    }
}

impl From<Refusal> for Error {
    /// The alert becomes `certificate_unknown` for every reason: the peer is not told which check it failed.
    fn from(refusal: Refusal) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refusal))))
    }
}

impl From<SignatureError> for Refusal {
    fn from(error: SignatureError) -> Self {
        match error {
            SignatureError::MissingEd25519Half => Self::MissingEd25519Half,
            SignatureError::MissingMlDsaHalf => Self::MissingMlDsaHalf,
            SignatureError::Length => Self::MalformedSignature,
            SignatureError::BadEd25519Half => Self::BadEd25519Half,
            SignatureError::BadMlDsaHalf => Self::BadMlDsaHalf,
            SignatureError::BadBothHalves => Self::BadBothHalves,
        }
    }
}

/// One counter per [`Refusal`], shared by all handshakes of a node.
#[derive(Debug, Default)]
pub struct RefusalCounts([AtomicU64; Refusal::ALL.len()]);

impl RefusalCounts {
    /// Counts the reason of a failed handshake, if it is one, and returns it.
    pub fn record(&self, error: &Error) -> Option<Refusal> {
        let refusal = Refusal::of(error)?;
        self.add(refusal);
        Some(refusal)
    }

    /// Counts one refusal.
    pub fn add(&self, refusal: Refusal) {
        self.0[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how often a reason was counted.
    pub fn get(&self, refusal: Refusal) -> u64 {
        self.0[refusal as usize].load(Ordering::Relaxed)
    }

    /// Returns every reason that was counted at least once.
    pub fn snapshot(&self) -> Vec<(Refusal, u64)> {
        Refusal::ALL.into_iter().map(|refusal| (refusal, self.get(refusal))).filter(|(_, n)| *n > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter_and_name() {
        let counts = RefusalCounts::default();
        let mut names = std::collections::BTreeSet::new();
        for (i, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, i);
            assert!(names.insert(refusal.name()));
            counts.add(refusal);
        }
        assert!(counts.snapshot().iter().all(|(_, n)| *n == 1));
        assert_eq!(counts.snapshot().len(), Refusal::ALL.len());
    }

    #[test]
    fn a_reason_survives_the_way_through_a_tls_error() {
        let counts = RefusalCounts::default();
        for refusal in Refusal::ALL {
            assert_eq!(counts.record(&Error::from(refusal)), Some(refusal));
            assert_eq!(counts.get(refusal), 1);
        }
    }

    #[test]
    fn our_own_failures_are_not_refusals() {
        assert_eq!(Refusal::of(&Error::FailedToGetRandomBytes), None);
        assert_eq!(Refusal::of(&Error::General("x".into())), None);
    }
}
