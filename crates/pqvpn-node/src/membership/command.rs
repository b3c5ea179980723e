// SPDX-License-Identifier: MIT OR Apache-2.0
//! What networks can be told or asked by people.

use std::{fmt, time::Duration};

use tokio::sync::oneshot;

use super::{error::NetworkError, report::*};

/// Where an answer goes.
pub type Reply<T> = oneshot::Sender<Result<T, NetworkError>>;

/// One order of a person; the answer comes through its last part. `Debug` says only which: codes and secrets are not for
/// logs.
#[non_exhaustive]
pub enum NetworkCommand {
    /// Make a network with this node as its first member and admin.
    NetCreate(CreateNetwork, Reply<NetworkReport>),
    /// List the networks of this node.
    NetList(oneshot::Sender<Vec<NetworkReport>>),
    /// Leave a network and forget it.
    NetLeave(NetRef, Reply<NetworkReport>),
    /// Switch a network on or off.
    NetEnable(NetRef, bool, Reply<NetworkReport>),
    /// Make an invite.
    InviteCreate(NetRef, InviteOptions, Reply<InviteReport>),
    /// List the invites.
    InviteList(NetRef, Reply<Vec<InviteReport>>),
    /// Take an invite back, by its serial or a prefix of it.
    InviteCancel(NetRef, String, Reply<ActReport>),
    /// Join the network of a code, under a name if one is given; the last is how long the answer may take.
    Join(String, Option<String>, Duration, Reply<JoinReport>),
    /// List who waits for an admin's word.
    JoinRequests(NetRef, Reply<Vec<PendingReport>>),
    /// Let somebody in who waits, by name or PeerID.
    Approve(NetRef, String, Reply<ApproveReport>),
    /// Turn somebody away who waits.
    Deny(NetRef, String, Reply<PendingReport>),
    /// List the members.
    Members(NetRef, Reply<Vec<MemberReport>>),
    /// Revoke a member, by name, PeerID or address, and say why.
    Revoke(NetRef, String, String, Reply<RevokeReport>),
    /// How the constitution stands.
    LockStatus(NetRef, Reply<LockReport>),
    /// The newest statements, newest first, at most so many.
    LockLog(NetRef, usize, Reply<Vec<StatementReport>>),
    /// Sign a proposal, by its id or a prefix of it.
    LockSign(NetRef, String, Reply<ActReport>),
    /// Sign beside these statements (ids or prefixes of them) that an admin may sign no more: the one named, else the one
    /// who signed them.
    LockContest(NetRef, Vec<String>, Option<String>, Reply<ActReport>),
    /// Make a member an admin.
    AdminAdd(NetRef, String, Reply<ActReport>),
    /// Take an admin's right to sign away.
    AdminRemove(NetRef, String, Reply<ActReport>),
    /// Disable the network for good, by the secret (hex) shown when it was made.
    LockDisable(NetRef, String, Reply<ActReport>),
}

impl NetworkCommand {
    /// Answers an order that changes something with an error; gives back one that only asks.
    pub(super) fn refuse(self, why: &NetworkError) -> Option<Self> {
        let why = why.clone();
        match self {
            asks @ (Self::NetList(_)
            | Self::InviteList(..)
            | Self::JoinRequests(..)
            | Self::Members(..)
            | Self::LockStatus(..)
            | Self::LockLog(..)) => return Some(asks),
            Self::NetCreate(_, reply) | Self::NetLeave(_, reply) | Self::NetEnable(_, _, reply) => {
                drop(reply.send(Err(why)));
            }
            Self::InviteCreate(_, _, reply) => drop(reply.send(Err(why))),
            Self::Join(_, _, _, reply) => drop(reply.send(Err(why))),
            Self::Approve(_, _, reply) => drop(reply.send(Err(why))),
            Self::Deny(_, _, reply) => drop(reply.send(Err(why))),
            Self::Revoke(_, _, _, reply) => drop(reply.send(Err(why))),
            Self::InviteCancel(_, _, reply)
            | Self::LockSign(_, _, reply)
            | Self::LockContest(_, _, _, reply)
            | Self::AdminAdd(_, _, reply)
            | Self::AdminRemove(_, _, reply)
            | Self::LockDisable(_, _, reply) => drop(reply.send(Err(why))),
        }
        None
    }
}

impl fmt::Debug for NetworkCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NetCreate(..) => "NetCreate",
            Self::NetList(..) => "NetList",
            Self::NetLeave(..) => "NetLeave",
            Self::NetEnable(..) => "NetEnable",
            Self::InviteCreate(..) => "InviteCreate",
            Self::InviteList(..) => "InviteList",
            Self::InviteCancel(..) => "InviteCancel",
            Self::Join(..) => "Join",
            Self::JoinRequests(..) => "JoinRequests",
            Self::Approve(..) => "Approve",
            Self::Deny(..) => "Deny",
            Self::Members(..) => "Members",
            Self::Revoke(..) => "Revoke",
            Self::LockStatus(..) => "LockStatus",
            Self::LockLog(..) => "LockLog",
            Self::LockSign(..) => "LockSign",
            Self::LockContest(..) => "LockContest",
            Self::AdminAdd(..) => "AdminAdd",
            Self::AdminRemove(..) => "AdminRemove",
            Self::LockDisable(..) => "LockDisable",
        })
    }
}
