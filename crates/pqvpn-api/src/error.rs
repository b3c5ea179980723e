// SPDX-License-Identifier: MIT OR Apache-2.0
//! The typed error body of the control API, and what it means as HTTP status and as exit code.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What went wrong, why, and what to try: one line each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Error)]
#[error("{what}: {why}")]
pub struct ApiError {
    /// Stable code for scripts.
    pub code: Code,
    /// What did not happen.
    pub what: String,
    /// Why it did not.
    pub why: String,
    /// What to try next.
    #[serde(rename = "try")]
    pub hint: String,
}

/// Stable reason of an [`ApiError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Code {
    /// No daemon answers at the socket, or it is stopping.
    NoDaemon,
    /// No peer has that name.
    UnknownPeer,
    /// The name fits several peers.
    AmbiguousPeer,
    /// The peer did not answer in time.
    NoAnswer,
    /// The peer, or this node, refused the link.
    Refused,
    /// The node is down.
    NodeDown,
    /// There is no session with the peer.
    NoSession,
    /// The DHT is switched off.
    DhtOff,
    /// No other node of the DHT is known.
    DhtAlone,
    /// The node is in no network.
    NoNetwork,
    /// The node is in no network of that name.
    UnknownNetwork,
    /// The name fits several networks, or none was given and there are several.
    WhichNetwork,
    /// The node is in a network of that name already.
    NetworkNameTaken,
    /// The text is no code of an invite, or was mistyped.
    BadCode,
    /// The network does not know the invite.
    UnknownInvite,
    /// The time of the invite is over.
    InviteExpired,
    /// All uses of the invite are gone.
    InviteUsedUp,
    /// An admin took the invite back.
    InviteCancelled,
    /// The network does not believe that this node has the code, or is another network.
    BadProof,
    /// Somebody in the network has that name.
    NameTaken,
    /// The node is in that network already, or joining it.
    AlreadyMember,
    /// The clock of this machine is wrong.
    ClockSkew,
    /// The network has revoked this node.
    Revoked,
    /// An admin has turned this node away.
    Denied,
    /// The network, or this node, has no room for another.
    Full,
    /// The network was ended for everybody.
    NetworkDisabled,
    /// Only an admin may do that.
    NotAdmin,
    /// Fewer admins are left than must sign.
    QuorumLost,
    /// The rules of the network do not allow it.
    NotAllowed,
    /// Nobody in the network, or waiting for it, has that name.
    UnknownMember,
    /// The name fits several members.
    AmbiguousMember,
    /// No address of this node is known that others could reach.
    NoAddress,
    /// Too much of the kind is under way.
    Busy,
    /// The keystore takes a passphrase, and none or a wrong one was given.
    Passphrase,
    /// The daemon keeps its key in memory only.
    EphemeralKey,
    /// The setting is unknown or its value wrong.
    BadSetting,
    /// The operating system refused a change.
    Host,
    /// The caller may not control this daemon.
    Forbidden,
    /// The request is malformed or too large.
    BadRequest,
    /// There is no such resource.
    NotFound,
    /// Anything else that failed.
    Failed,
    /// A code this version does not know.
    #[serde(other)]
    Other,
}

impl Code {
    /// Exit code of the command line for this reason (`cli.md`, Global).
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::NoDaemon => 3,
            Self::Refused
            | Self::Forbidden
            | Self::UnknownInvite
            | Self::InviteExpired
            | Self::InviteUsedUp
            | Self::InviteCancelled
            | Self::BadProof
            | Self::Revoked
            | Self::Denied
            | Self::NetworkDisabled
            | Self::NotAdmin
            | Self::QuorumLost
            | Self::Passphrase
            | Self::EphemeralKey
            | Self::NotAllowed => 4,
            Self::BadSetting | Self::BadRequest | Self::BadCode => 2,
            Self::UnknownPeer
            | Self::AmbiguousPeer
            | Self::NoAnswer
            | Self::NodeDown
            | Self::NoSession
            | Self::DhtOff
            | Self::DhtAlone
            | Self::NoNetwork
            | Self::UnknownNetwork
            | Self::WhichNetwork
            | Self::NetworkNameTaken
            | Self::NameTaken
            | Self::AlreadyMember
            | Self::ClockSkew
            | Self::Full
            | Self::UnknownMember
            | Self::AmbiguousMember
            | Self::NoAddress
            | Self::Busy
            | Self::Host
            | Self::NotFound
            | Self::Failed
            | Self::Other => 1,
        }
    }

    /// HTTP status of an answer with this reason (RFC 9110 section 15).
    #[must_use]
    pub const fn http_status(self) -> u16 {
        match self {
            Self::BadSetting | Self::BadRequest | Self::BadCode => 400,
            Self::Forbidden
            | Self::Refused
            | Self::UnknownInvite
            | Self::InviteExpired
            | Self::InviteUsedUp
            | Self::InviteCancelled
            | Self::BadProof
            | Self::Revoked
            | Self::Denied
            | Self::NetworkDisabled
            | Self::NotAdmin
            | Self::QuorumLost
            | Self::Passphrase
            | Self::EphemeralKey
            | Self::NotAllowed => 403,
            Self::UnknownPeer | Self::NotFound | Self::UnknownNetwork | Self::UnknownMember => 404,
            Self::AmbiguousPeer
            | Self::NodeDown
            | Self::NoSession
            | Self::DhtOff
            | Self::DhtAlone
            | Self::NoNetwork
            | Self::WhichNetwork
            | Self::NetworkNameTaken
            | Self::NameTaken
            | Self::AlreadyMember
            | Self::ClockSkew
            | Self::Full
            | Self::NoAddress
            | Self::AmbiguousMember => 409,
            Self::Busy => 429,
            Self::Host | Self::Failed | Self::Other => 500,
            Self::NoDaemon => 503,
            Self::NoAnswer => 504,
        }
    }
}

impl ApiError {
    /// Builds an error from its code and its three lines.
    pub fn new(code: Code, what: impl Into<String>, why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, what: what.into(), why: why.into(), hint: hint.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_uses_the_key_try() {
        let error = ApiError::new(Code::NoAnswer, "no ping", "silence", "try later");
        let json = serde_json::to_value(&error).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"code": "no-answer", "what": "no ping", "why": "silence", "try": "try later"})
        );
    }

    #[test]
    fn unknown_codes_of_a_newer_daemon_still_parse() {
        let error: ApiError =
            serde_json::from_str(r#"{"code":"quota-exceeded","what":"a","why":"b","try":"c"}"#).unwrap();
        assert_eq!(error.code, Code::Other);
        assert_eq!(error.code.exit_code(), 1);
    }

    #[test]
    fn exit_codes_follow_the_contract() {
        assert_eq!(Code::Failed.exit_code(), 1);
        assert_eq!(Code::BadSetting.exit_code(), 2);
        assert_eq!(Code::NoDaemon.exit_code(), 3);
        assert_eq!(Code::Forbidden.exit_code(), 4);
        assert_eq!(Code::BadCode.exit_code(), 2);
        assert_eq!(Code::InviteExpired.exit_code(), 4);
        assert_eq!(Code::NameTaken.exit_code(), 1);
    }
}
