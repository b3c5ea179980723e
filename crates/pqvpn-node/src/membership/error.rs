// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can go wrong with networks, in words for people.

use std::time::Duration;

use ipnet::Ipv4Net;
use pqvpn_wire::network::{CodeError, RelayRefusal};
use thiserror::Error;

/// Why something of a network was not done. The node keeps what it had.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// The node is in no network.
    #[error("this node is in no network; `pqvpn net create NAME` makes one, `pqvpn join CODE` joins one")]
    NoNetwork,
    /// No network of this node fits.
    #[error("no network is called {0:?}; `pqvpn net list` shows those there are")]
    UnknownNetwork(String),
    /// Several networks fit.
    #[error("{0:?} fits more than one network: {1}")]
    AmbiguousNetwork(String, String),
    /// Several networks and none was named.
    #[error("this node is in several networks ({0}); say which with --network")]
    WhichNetwork(String),
    /// The node is in a network of this name already.
    #[error("this node is in a network called {0:?} already; choose another name")]
    NetworkNameTaken(String),
    /// The name cannot be a network's or member's.
    #[error("{0:?} cannot be a name: 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends")]
    BadName(String),
    /// The pool is not usable.
    #[error("{pool} cannot be the network's IPv4 addresses: {why}")]
    BadPool {
        /// The pool asked for.
        pool: Ipv4Net,
        /// What is wrong with it.
        why: String,
    },
    /// Every pool that would be chosen is routed by this host already.
    #[error("every IPv4 range that could be chosen is in use on this host; name one with --pool")]
    NoPool,
    /// Too many networks.
    #[error("a node can be in at most {0} networks")]
    TooManyNetworks(usize),
    /// The network is in the store, in a form that this version does not read.
    #[error("this network is kept from before, and this version cannot read it ({0}); start the version that can")]
    Unread(String),
    /// A number or text of the request is out of bounds.
    #[error("{0}")]
    BadOption(String),

    /// The text is not a code.
    #[error("this is not an invite code: a code begins with \"pqvpn1-\"")]
    NotACode,
    /// The code is of a newer version.
    #[error("this code is of version {0}, which this pqvpn does not know; update it")]
    CodeVersion(u8),
    /// The code was mistyped.
    #[error("the code is mistyped: its check digits do not fit{}", match suggestion {
        Some(code) => format!("; did you mean {code}"),
        None => "; compare it with the original".to_owned(),
    })]
    CodeChecksum {
        /// The one code that differs in one digit, or in two swapped ones, and checks out.
        suggestion: Option<String>,
    },
    /// The code is not whole.
    #[error("the code is not whole: its end is missing")]
    CodeTruncated,
    /// The code checks out but says nothing that can be.
    #[error("the code is damaged or was made by a faulty program; ask for a new one")]
    CodeMalformed,
    /// The node is a member already.
    #[error("this node is in the network {0:?} already, under the name {1:?}")]
    AlreadyMember(String, String),
    /// A join to the same network is under way.
    #[error("this node is joining {0:?} already")]
    AlreadyJoining(String),

    /// The issuer's nodes do not know the invite.
    #[error("{network} does not know this invite; ask for a new code")]
    UnknownInvite {
        /// The network.
        network: String,
    },
    /// The invite's time is over.
    #[error("the invite to {network} expired {}; ask for a new code", ago(*ago_s))]
    InviteExpired {
        /// The network.
        network: String,
        /// How long ago, in seconds, by the clock of whoever said so.
        ago_s: u64,
    },
    /// All uses of the invite are gone.
    #[error("the invite to {network} is used up; ask for a new code")]
    InviteUsedUp {
        /// The network.
        network: String,
    },
    /// An admin took the invite back.
    #[error("the invite to {network} was cancelled; ask for a new code")]
    InviteCancelled {
        /// The network.
        network: String,
    },
    /// What we sent does not prove that we have the code.
    #[error("{network} did not accept the proof that we hold the code; it may be of another network or forged")]
    BadProof {
        /// The network.
        network: String,
    },
    /// The name is a member's.
    #[error("the name {name:?} is taken in {network}; try --name {suggestion}")]
    NameTaken {
        /// The network.
        network: String,
        /// The name asked for.
        name: String,
        /// One that is free.
        suggestion: String,
    },
    /// Our clock and the network's differ.
    #[error("this machine's clock is {} {} the network's; set it right and join again", amount(*off_s), if *ahead { "ahead of" } else { "behind" })]
    ClockSkew {
        /// By how much, in seconds.
        off_s: u64,
        /// Whether ours is ahead.
        ahead: bool,
    },
    /// This identity was revoked.
    #[error("{network} has revoked this node; it can come back only under another key")]
    Revoked {
        /// The network.
        network: String,
    },
    /// The membership of this node is over by its own terms.
    #[error("the membership of this node in {network} has ended")]
    MembershipEnded {
        /// The network.
        network: String,
    },
    /// An admin said no.
    #[error("an admin of {network} has denied the request to join")]
    Denied {
        /// The network.
        network: String,
    },
    /// No room for another member.
    #[error("{network} is full")]
    Full {
        /// The network.
        network: String,
    },
    /// The network was disabled for good.
    #[error("{network} has been disabled for good")]
    Disabled {
        /// The network.
        network: String,
    },
    /// Too many join at once.
    #[error("too many nodes are joining {network} right now; try again in a minute")]
    Busy {
        /// The network.
        network: String,
    },
    /// Nobody who could let us in answered.
    #[error("no member of {network} that could let this node in answered within {} s: {why}", waited.as_secs())]
    NobodyAnswers {
        /// The network.
        network: String,
        /// How long it was waited for.
        waited: Duration,
        /// What is known of the cause.
        why: String,
    },
    /// What the other side sent as the network is not what the code says.
    #[error("what answered is not the network of the code: {0}")]
    ForeignNetwork(String),

    /// This node may not sign.
    #[error("this node is no admin of {network}; admins: {admins}")]
    NotAdmin {
        /// The network.
        network: String,
        /// Who is.
        admins: String,
    },
    /// Fewer admins are left than must sign.
    #[error("{network} has lost its quorum: {need} admins must sign, {have} are left")]
    QuorumLost {
        /// The network.
        network: String,
        /// Admins left.
        have: usize,
        /// Signatures needed.
        need: usize,
    },
    /// The constitution does not allow the act.
    #[error("the constitution of {network} does not allow it: {why}")]
    NotAllowed {
        /// The network.
        network: String,
        /// Why.
        why: String,
    },
    /// No such member.
    #[error("{network} has no member called {who:?}")]
    UnknownMember {
        /// The network.
        network: String,
        /// Who was asked for.
        who: String,
    },
    /// Several fit.
    #[error("{who:?} fits more than one: {which}")]
    AmbiguousMember {
        /// Who was asked for.
        who: String,
        /// Who fits.
        which: String,
    },
    /// Nobody who waits fits.
    #[error("nobody called {who:?} waits to join {network}")]
    NobodyWaits {
        /// The network.
        network: String,
        /// Who was asked for.
        who: String,
    },
    /// No such invite.
    #[error("{network} has no open invite {serial:?}")]
    NoSuchInvite {
        /// The network.
        network: String,
        /// The serial asked for.
        serial: String,
    },
    /// So many invites can be used that another one is not kept.
    #[error(
        "{network} keeps {most} invites, and all it has can be used and end later; cancel some, or make one that lasts longer"
    )]
    TooManyInvites {
        /// The network.
        network: String,
        /// How many are kept.
        most: usize,
    },
    /// No such proposal.
    #[error("{network} has no proposal {id:?}; `pqvpn lock status` shows those there are")]
    NoSuchProposal {
        /// The network.
        network: String,
        /// The id asked for.
        id: String,
    },
    /// No such statement, or several fit.
    #[error("{network} has no single statement {id:?}; `pqvpn lock log` shows them")]
    NoSuchStatement {
        /// The network.
        network: String,
        /// The id asked for.
        id: String,
    },
    /// No admin that could let somebody in has an address.
    #[error("no address is known at which another machine could reach an admin of {network}: {why}")]
    NoAddress {
        /// The network.
        network: String,
        /// What is known of the cause.
        why: String,
    },
    /// The secret is not the network's.
    #[error("this is not the secret that disables {network}")]
    WrongDisableSecret {
        /// The network.
        network: String,
    },
    /// Without this node too few admins would be left for the members that stay.
    #[error("without this node {network} would have too few admins; make another one first (`pqvpn lock add`)")]
    LastAdmin {
        /// The network.
        network: String,
    },
    /// The store of networks failed.
    #[error("the networks could not be stored: {0}")]
    Store(String),
    /// Networks do not run in this daemon.
    #[error("networks do not run in this daemon: {0}")]
    Off(String),
    /// Something that should not be; the log has more.
    #[error("internal: {0}")]
    Internal(String),
}

impl From<CodeError> for NetworkError {
    fn from(error: CodeError) -> Self {
        match error {
            CodeError::NotACode => Self::NotACode,
            CodeError::Version(version) => Self::CodeVersion(version),
            CodeError::Checksum { suggestion } => Self::CodeChecksum { suggestion },
            CodeError::Truncated => Self::CodeTruncated,
            CodeError::Malformed | _ => Self::CodeMalformed,
        }
    }
}

fn amount(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", (seconds + 30) / 60),
        7200..=172_799 => format!("{} h", (seconds + 1800) / 3600),
        _ => format!("{} days", (seconds + 43_200) / 86_400),
    }
}

fn ago(seconds: u64) -> String {
    format!("{} ago", amount(seconds))
}

/// Why there is no way to a peer through another member.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum RelayError {
    /// No member with which this node has a link is in a network with the peer.
    #[error("no other member can be asked to relay")]
    NobodyLinked,
    /// Those asked said no.
    #[error("nobody relays to it: {0}")]
    Refused(RelayRefusal),
    /// Those asked did not answer.
    #[error("who was asked to relay does not answer")]
    NoAnswer,
    /// This node has too much to do.
    #[error("this node is too busy to ask for a relay")]
    Busy,
    /// The data plane did not take it.
    #[error("a way by a relay cannot be used: {0}")]
    Local(String),
    /// The node stops.
    #[error("the node stops")]
    Stopped,
}
