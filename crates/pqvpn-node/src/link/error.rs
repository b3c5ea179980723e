// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a link failed: whose fault, and what exactly, from our own TLS errors and from the peer's alerts.

use pqvpn_crypto::tls::Refusal;
use pqvpn_wire::control::CloseReason;
use rustls::{CertificateError, InvalidMessage, PeerIncompatible, PeerMisbehaved};
use thiserror::Error;

/// Longest text of the peer's that an error keeps, in bytes.
const MAX_PEER_TEXT: usize = 128;

/// QUIC transport error CONNECTION_REFUSED (RFC 9000 §20.1).
const CONNECTION_REFUSED: u64 = 0x02;

/// QUIC transport error APPLICATION_ERROR (RFC 9000 §20.1).
const APPLICATION_ERROR: u64 = 0x0c;

/// QUIC transport errors that carry a TLS alert in their low byte (RFC 9001 §4.8).
const CRYPTO_ERRORS: std::ops::Range<u64> = 0x0100..0x0200;

/// Why a link could not be made, or ended.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LinkError {
    /// We refused the peer: wrong identity, not admitted, no common group, ...
    #[error("refused the peer: {0}")]
    RefusedByUs(Refusal),
    /// The peer refused us; it says no more than an alert does.
    #[error("refused by the peer: {0}")]
    RefusedByPeer(PeerReason),
    /// No answer in time, or silence for longer than the idle timeout.
    #[error("timed out")]
    TimedOut,
    /// The peer closed the link with a code of the application.
    #[error("{}", closed(*code, reason))]
    Closed {
        /// The peer's code.
        code: u64,
        /// The peer's words, printable and cut to 128 bytes.
        reason: String,
    },
    /// We closed the link, or its endpoint.
    #[error("closed")]
    ClosedByUs,
    /// The peer does not know the link any more: it has restarted.
    #[error("reset by the peer")]
    Reset,
    /// The peer broke the QUIC protocol (`by_peer` false), or says that we did (`by_peer` true).
    #[error("{}", broken(*code, reason, *by_peer))]
    Protocol {
        /// The QUIC transport error code (RFC 9000 §20.1).
        code: u64,
        /// What went wrong, printable and cut to 128 bytes.
        reason: String,
        /// Whether the peer ended the link.
        by_peer: bool,
    },
    /// We could not even try: bad configuration, unusable address, no resources.
    #[error("{0}")]
    Local(String),
}

impl LinkError {
    /// A transport error of ours; `tls` is the TLS error behind it where the QUIC stack keeps it.
    pub(super) fn from_our_transport(code: u64, text: &str, tls: Option<&rustls::Error>) -> Self {
        if alert_of(code).is_none() {
            return Self::Protocol { code, reason: printable(text), by_peer: false };
        }
        let refusal = tls.and_then(Refusal::of).or_else(|| refusal_from_text(text));
        Self::RefusedByUs(refusal.unwrap_or(Refusal::MalformedHandshake))
    }

    /// A transport error the peer reported, in the QUIC stack's terms.
    pub(super) fn from_their_transport(code: u64, text: &[u8]) -> Self {
        match alert_of(code) {
            Some(alert) => Self::RefusedByPeer(PeerReason::from_alert(alert)),
            None if code == CONNECTION_REFUSED => Self::RefusedByPeer(PeerReason::Busy),
            None => Self::Protocol { code, reason: printable(&String::from_utf8_lossy(text)), by_peer: true },
        }
    }

    /// An application close by the peer.
    pub(super) fn from_their_close(code: u64, text: &[u8]) -> Self {
        Self::Closed { code, reason: printable(&String::from_utf8_lossy(text)) }
    }

    /// The entry of the refusal counters this error belongs to.
    pub(super) fn counted_as(&self) -> Option<Refusal> {
        match self {
            Self::RefusedByUs(refusal) => Some(*refusal),
            Self::RefusedByPeer(_) => Some(Refusal::RefusedByPeer),
            Self::TimedOut
            | Self::Closed { .. }
            | Self::ClosedByUs
            | Self::Reset
            | Self::Protocol { .. }
            | Self::Local(_) => None,
        }
    }
}

const GOING: &str = "the peer is going away";

/// A link the peer closed, in words.
fn closed(code: u64, reason: &str) -> String {
    match CloseReason::from_code(code) {
        Some(CloseReason::Shutdown) => GOING.to_owned(),
        Some(_) | None => with_reason(format!("closed by the peer (code {code:#x})"), reason),
    }
}

/// A QUIC error in words.
fn broken(code: u64, reason: &str, by_peer: bool) -> String {
    // Before the handshake has ended nothing tells more of why an application closes, and ours does so when it stops.
    if by_peer && code == APPLICATION_ERROR {
        return GOING.to_owned();
    }
    with_reason(format!("QUIC error {code:#x}"), reason)
}

fn with_reason(what: String, reason: &str) -> String {
    if reason.is_empty() { what } else { format!("{what}: {reason}") }
}

/// What the peer tells about its refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PeerReason {
    /// It does not accept who we are: not admitted, not the peer it dialled, or a wrong signature. It does not say which.
    #[error("it does not accept our identity")]
    NotAccepted,
    /// It wants an identity and we showed none.
    #[error("it wants an identity")]
    NoIdentity,
    /// No common key exchange group, cipher suite or signature scheme.
    #[error("no common algorithm")]
    NoCommonAlgorithm,
    /// No common application protocol or QUIC version: not a PQVPN node, or one of another age.
    #[error("no common protocol version")]
    NoCommonProtocol,
    /// It has no room for another link now.
    #[error("it is too busy")]
    Busy,
    /// Any other TLS alert (RFC 8446 §6.2).
    #[error("TLS alert {0}")]
    Alert(u8),
}

impl PeerReason {
    /// Reads a TLS alert (RFC 8446 §6.2); identity checks all send `certificate_unknown`.
    fn from_alert(alert: u8) -> Self {
        match alert {
            40 => Self::NoCommonAlgorithm,
            42..=46 | 48 | 49 | 51 => Self::NotAccepted,
            70 | 120 => Self::NoCommonProtocol,
            116 => Self::NoIdentity,
            other => Self::Alert(other),
        }
    }
}

/// Recognises a TLS error of our own by its text, for the QUIC stack that keeps nothing else of it.
fn refusal_from_text(text: &str) -> Option<Refusal> {
    let plain: [rustls::Error; 14] = [
        rustls::Error::NoCertificatesPresented,
        rustls::Error::NoApplicationProtocol,
        CertificateError::BadEncoding.into(),
        InvalidMessage::MissingKeyExchange.into(),
        PeerIncompatible::IncorrectCertificateTypeExtension.into(),
        PeerIncompatible::KeyShareExtensionRequired.into(),
        PeerIncompatible::NamedGroupsExtensionRequired.into(),
        PeerIncompatible::NoCipherSuitesInCommon.into(),
        PeerIncompatible::NoKxGroupsInCommon.into(),
        PeerIncompatible::NoSignatureSchemesInCommon.into(),
        PeerIncompatible::UnsolicitedCertificateTypeExtension.into(),
        PeerMisbehaved::InvalidCertCompression.into(),
        PeerMisbehaved::InvalidKeyShare.into(),
        PeerMisbehaved::SelectedUnofferedKxGroup.into(),
    ];
    let carried = Refusal::ALL.into_iter().map(rustls::Error::from);
    carried.chain(plain).find(|error| error.to_string() == text).as_ref().and_then(Refusal::of)
}

/// The TLS alert in a QUIC transport error code, if it is a crypto error.
fn alert_of(code: u64) -> Option<u8> {
    CRYPTO_ERRORS.contains(&code).then(|| code.to_le_bytes()[0])
}

/// Text that is safe to show: no control characters, bounded length.
fn printable(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        if shown.len() + c.len_utf8() > MAX_PEER_TEXT {
            break;
        }
        shown.push(c);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_of_ours_is_recognised_with_and_without_its_tls_error() {
        for refusal in Refusal::ALL {
            let tls = rustls::Error::from(refusal);
            let (text, expected) = (tls.to_string(), LinkError::RefusedByUs(refusal));
            assert_eq!(LinkError::from_our_transport(0x12e, &text, Some(&tls)), expected);
            assert_eq!(LinkError::from_our_transport(0x12e, &text, None), expected);
        }
    }

    #[test]
    fn our_own_tls_errors_are_told_apart_though_their_alerts_are_equal() {
        let group = rustls::Error::from(PeerIncompatible::NoKxGroupsInCommon).to_string();
        let suite = rustls::Error::from(PeerIncompatible::NoCipherSuitesInCommon).to_string();
        let ours = |text| LinkError::from_our_transport(0x128, text, None);
        assert_eq!(ours(&group), LinkError::RefusedByUs(Refusal::NoCommonGroup));
        assert_eq!(ours(&suite), LinkError::RefusedByUs(Refusal::NoCommonSuite));
        assert_eq!(ours("what?"), LinkError::RefusedByUs(Refusal::MalformedHandshake));
    }

    #[test]
    fn an_alert_of_the_peer_is_typed_whatever_text_it_sends_along() {
        let lie = rustls::Error::from(Refusal::NoCommonGroup).to_string();
        let error = LinkError::from_their_transport(0x12e, lie.as_bytes());
        assert_eq!(error, LinkError::RefusedByPeer(PeerReason::NotAccepted));
        let error = LinkError::from_their_transport(0x128, lie.as_bytes());
        assert_eq!(error, LinkError::RefusedByPeer(PeerReason::NoCommonAlgorithm));
    }

    #[test]
    fn the_peers_words_are_cut_and_cleaned() {
        let LinkError::Closed { reason, .. } =
            LinkError::from_their_close(7, format!("a\x1b[2J\n{}", "é".repeat(500)).as_bytes())
        else {
            panic!("a close is a close");
        };
        assert!(reason.starts_with("a[2Jé") && reason.len() <= MAX_PEER_TEXT);
    }

    #[test]
    fn a_peer_that_stops_is_going_away_and_no_reason_leaves_no_colon() {
        let shutdown = u64::from(CloseReason::Shutdown.code());
        for error in [LinkError::from_their_transport(0x0c, b""), LinkError::from_their_close(shutdown, b"x")] {
            assert_eq!(error.to_string(), "the peer is going away");
        }
        assert_eq!(LinkError::from_their_close(7, b"").to_string(), "closed by the peer (code 0x7)");
        assert_eq!(LinkError::from_their_close(77, b"x").to_string(), "closed by the peer (code 0x4d): x");
        assert_eq!(LinkError::from_their_transport(0x0a, b"").to_string(), "QUIC error 0xa");
        assert_eq!(LinkError::from_our_transport(0x0c, "y", None).to_string(), "QUIC error 0xc: y");
    }

    #[test]
    fn codes_that_are_no_alert_stay_protocol_errors() {
        let error = LinkError::from_their_transport(0x0a, b"bad frame");
        assert_eq!(error, LinkError::Protocol { code: 0x0a, reason: "bad frame".into(), by_peer: true });
        assert_eq!(LinkError::from_their_transport(2, b""), LinkError::RefusedByPeer(PeerReason::Busy));
    }
}
