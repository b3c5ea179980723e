// SPDX-License-Identifier: MIT OR Apache-2.0
//! What went wrong with a network, as a stable code, and what to try then.

use pqvpn_node::membership::NetworkError;

use crate::error::Code;

/// Where a code comes from.
const NEW_CODE: &str = "ask for a new code: `pqvpn invite`, on the machine of an admin";

pub(super) fn code_and_hint(error: &NetworkError) -> (Code, &'static str) {
    use NetworkError as E;
    match error {
        E::NoNetwork => (Code::NoNetwork, "`pqvpn net create NAME` or `pqvpn join CODE`"),
        E::UnknownNetwork(_) => (Code::UnknownNetwork, "`pqvpn net list` shows the networks"),
        E::AmbiguousNetwork(..) => (Code::WhichNetwork, "give more digits of the network's id"),
        E::WhichNetwork(_) => (Code::WhichNetwork, "say which with `--network NAME`"),
        E::NetworkNameTaken(_) => (Code::NetworkNameTaken, "choose another name"),
        E::BadName(_) => (Code::BadRequest, "a name is like `home` or `nas-2`"),
        E::BadPool { .. } => (Code::BadRequest, "leave `--pool` out, and a free range is chosen"),
        E::NoPool => (Code::Host, "name a range that is free with `--pool`, like `--pool 10.77.0.0/16`"),
        E::TooManyNetworks(_) => (Code::Full, "`pqvpn net leave NAME` makes room"),
        E::BadOption(_) => (Code::BadRequest, "`--help` after the verb shows what can be said"),
        E::NotACode | E::CodeTruncated | E::CodeChecksum { .. } => (Code::BadCode, "copy the whole code once more"),
        E::CodeVersion(_) => (Code::BadCode, "install a newer pqvpn, then join again"),
        E::CodeMalformed => (Code::BadCode, NEW_CODE),
        E::AlreadyMember(..) => (Code::AlreadyMember, "`pqvpn members` shows who else is there"),
        E::AlreadyJoining(_) => (Code::AlreadyMember, "`pqvpn net list` shows how far it is"),
        E::UnknownInvite { .. } => (Code::UnknownInvite, NEW_CODE),
        E::InviteExpired { .. } => (Code::InviteExpired, NEW_CODE),
        E::InviteUsedUp { .. } => (Code::InviteUsedUp, NEW_CODE),
        E::InviteCancelled { .. } => (Code::InviteCancelled, NEW_CODE),
        E::BadProof { .. } | E::ForeignNetwork(_) => (Code::BadProof, NEW_CODE),
        E::NameTaken { .. } => (Code::NameTaken, "join with another `--name NAME`; the code still works"),
        E::ClockSkew { .. } => (Code::ClockSkew, "set the clock (`timedatectl set-ntp true`), then join again"),
        E::Revoked { .. } => {
            (Code::Revoked, "`pqvpn keys rotate` gives this node another key; then join with a new code")
        }
        E::MembershipEnded { .. } => (Code::Denied, "an admin can let it in again: join with a new code"),
        E::Denied { .. } => (Code::Denied, "talk to an admin; a new code asks again"),
        E::Full { .. } => (Code::Full, "an admin can make room with `pqvpn revoke`"),
        E::Disabled { .. } => (Code::NetworkDisabled, "`pqvpn net create NAME` makes another one"),
        E::Busy { .. } => (Code::Busy, "try again in a minute"),
        E::NobodyAnswers { .. } => {
            (Code::NoAnswer, "is the inviting machine on, and its UDP port reachable from here? then join again")
        }
        E::NotAdmin { .. } => (Code::NotAdmin, "ask one of them, or to be made one (`pqvpn lock add`)"),
        E::QuorumLost { .. } => (Code::QuorumLost, "members go on talking; a new network can have new admins"),
        E::NotAllowed { .. } => (Code::NotAllowed, "`pqvpn lock status` shows the rules"),
        E::LastAdmin { .. } => (Code::NotAllowed, "`pqvpn lock add MEMBER`, or `pqvpn lock disable SECRET`"),
        E::UnknownMember { .. } => (Code::UnknownMember, "`pqvpn members` lists them"),
        E::AmbiguousMember { .. } => (Code::AmbiguousMember, "give more digits of the PeerID"),
        E::NobodyWaits { .. } => (Code::UnknownMember, "`pqvpn approve` shows who waits"),
        E::TooManyInvites { .. } => (Code::Full, "`pqvpn invite cancel SERIAL` makes room"),
        E::NoSuchInvite { .. } => (Code::NotFound, "`pqvpn invite list` shows them"),
        E::NoSuchProposal { .. } => (Code::NotFound, "`pqvpn lock status` shows them"),
        E::NoSuchStatement { .. } => (Code::NotFound, "give more digits, or look at `pqvpn lock log`"),
        E::NoAddress { .. } => (
            Code::NoAddress,
            "connect this machine to a network, or set `node.listen` to an address others reach, then invite again",
        ),
        E::WrongDisableSecret { .. } => (Code::NotAllowed, "it was shown when the network was made"),
        E::Store(_) => (Code::Host, "free some space, or check the state directory"),
        E::Off(_) | E::Internal(_) | _ => (Code::Failed, "the daemon's log says more"),
    }
}
