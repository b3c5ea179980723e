// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who may join: judged from the constitution, the invite and the proof, without doing anything yet.

use pqvpn_crypto::{
    identity::{Identity, PublicIdentity},
    peer_id::PeerId,
    proofs::schnorr::JoinContext,
};
use pqvpn_trust::NotAllowed;
use pqvpn_wire::network::{
    Act, Invite, InviteUse, JoinRefusal, JoinRequest, MAX_MEMBERS, NewMember, PendingJoin, is_label,
};

use super::{Network, records::MAX_SKEW_MS};
use crate::{entropy, membership::error::NetworkError};

/// What is known of a join besides what it says.
#[derive(Debug, Clone, Copy)]
pub(in crate::membership) struct JoinFacts<'a> {
    pub(in crate::membership) now_ms: u64,
    /// The key at the other end of the link.
    pub(in crate::membership) key: &'a PublicIdentity,
    /// Keying material of the link.
    pub(in crate::membership) exporter: &'a [u8; 32],
}

/// What a join comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::membership) enum Judged {
    /// Nothing is said about this network.
    Unknown,
    Refused(JoinRefusal),
    /// Only an admin can do it.
    Elsewhere,
    /// It is a member already.
    Member,
    /// An admin has to say so first.
    Wait,
    /// It is to be added.
    Add(Box<NewMember>),
}

impl Network {
    /// Judges a join.
    pub(in crate::membership) fn judge_join(&self, facts: JoinFacts<'_>, request: &JoinRequest) -> Judged {
        // Whoever does not know of an invite of this network is told nothing of the network.
        let Some(signed) = self.invites.get(&request.serial) else { return Judged::Unknown };
        let (invite, joiner) = (signed.invite(), facts.key.peer_id());
        // What is left of an admin that is none any more counts for nothing, also before it is cleared away.
        if !self.constitution.view().is_admin(&invite.issuer) {
            return Judged::Unknown;
        }
        let context =
            JoinContext::new(self.id.as_bytes(), request.serial.as_bytes(), &self.own, &joiner, facts.exporter);
        if request.key != *facts.key || request.verify(&invite.point, &context).is_err() {
            return Judged::Refused(JoinRefusal::BadProof);
        }
        match self.refuse(facts.now_ms, &joiner, request, invite) {
            Ok(judged) => judged,
            Err(refusal) => Judged::Refused(refusal),
        }
    }

    fn refuse(
        &self,
        now_ms: u64,
        joiner: &PeerId,
        request: &JoinRequest,
        invite: &Invite,
    ) -> Result<Judged, JoinRefusal> {
        let view = self.constitution.view();
        if view.disabled {
            return Err(JoinRefusal::Disabled);
        }
        if view.revoked.contains_key(joiner) {
            return Err(JoinRefusal::Revoked);
        }
        if self.is_member(now_ms, joiner) {
            return Ok(Judged::Member);
        }
        if now_ms.abs_diff(request.sent_ms) > MAX_SKEW_MS {
            return Err(JoinRefusal::ClockSkew { now_ms });
        }
        if view.cancelled.contains(&invite.serial) {
            return Err(JoinRefusal::Cancelled);
        }
        if now_ms >= invite.not_after_ms {
            return Err(JoinRefusal::Expired { now_ms });
        }
        if view.uses.get(&invite.serial).copied().unwrap_or(0) >= invite.max_uses {
            return Err(JoinRefusal::UsedUp);
        }
        let pending = self.pending.get(joiner).filter(|pending| pending.serial == request.serial);
        if pending.is_some_and(|pending| pending.denied) {
            return Err(JoinRefusal::Denied);
        }
        if !is_label(&request.name) {
            return Err(JoinRefusal::BadName);
        }
        let holder = view.by_name(&request.name).filter(|holder| holder.peer != *joiner);
        if holder.is_some_and(|holder| holder.is_live(&self.presence(now_ms, &holder.peer))) {
            return Err(JoinRefusal::NameTaken { suggestion: view.free_name(&request.name) });
        }
        if view.members.len() >= MAX_MEMBERS {
            return Err(JoinRefusal::Full);
        }
        if !self.am_admin() {
            return Ok(Judged::Elsewhere);
        }
        if view.params.approval && !invite.preapproved {
            return Ok(Judged::Wait);
        }
        Ok(Judged::Add(Box::new(new_member(now_ms, *joiner, request.name.clone(), invite))))
    }

    /// Puts a judged join into the queue and vouches for it; `None` where there is no room.
    pub(in crate::membership) fn queue_join(
        &mut self,
        identity: &Identity,
        now_ms: u64,
        request: &JoinRequest,
    ) -> Option<PendingJoin> {
        let peer = request.key.peer_id();
        let held = self.pending.get(&peer);
        if let Some(held) = held.filter(|held| held.serial == request.serial && held.name == request.name) {
            return Some(held.clone());
        }
        // After what it replaces, whatever the clock of who wrote that: others keep the later one.
        let asked_ms = held.map_or(now_ms, |held| now_ms.max(held.asked_ms.saturating_add(1)));
        let asked = (request.serial, request.key.clone(), request.name.clone());
        let vouched = PendingJoin::vouch(identity, &self.id, (entropy::bytes(), asked_ms), asked, false);
        let pending = vouched.inspect_err(|error| tracing::warn!(%error, "a join cannot be vouched for")).ok()?;
        self.keep_pending(pending.clone()).then_some(pending)
    }

    /// Says no to a waiting join.
    ///
    /// # Errors
    /// It cannot be signed.
    pub(in crate::membership) fn deny(
        &mut self,
        identity: &Identity,
        peer: &PeerId,
    ) -> Result<PendingJoin, NetworkError> {
        let Some(held) = self.pending.get(peer) else {
            return Err(NetworkError::NobodyWaits { network: self.head.name.clone(), who: peer.short() });
        };
        let asked = (held.serial, held.key.clone(), held.name.clone());
        let denied = PendingJoin::vouch(identity, &self.id, (held.ticket, held.asked_ms), asked, true)
            .map_err(|error| NetworkError::Internal(error.to_string()))?;
        self.keep_pending(denied.clone());
        Ok(denied)
    }

    /// The act that lets a waiting join in. Its invite may have ended while it waited.
    ///
    /// # Errors
    /// The invite is gone or used up.
    pub(in crate::membership) fn approval(&self, now_ms: u64, peer: &PeerId) -> Result<Act, NetworkError> {
        let network = || self.head.name.clone();
        let nobody = || NetworkError::NobodyWaits { network: network(), who: peer.short() };
        let pending = self.pending.get(peer).ok_or_else(nobody)?;
        let signed = self.invites.get(&pending.serial);
        let signed = signed.ok_or_else(|| NetworkError::UnknownInvite { network: network() })?;
        let member = new_member(now_ms, *peer, pending.name.clone(), signed.invite());
        Ok(Act::AddMember(member))
    }

    /// A refusal of the constitution, for people.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest speaks for itself")]
    pub(in crate::membership) fn not_allowed(&self, why: &NotAllowed) -> NetworkError {
        let network = self.head.name.clone();
        match why {
            NotAllowed::NotAdmin => NetworkError::NotAdmin { network, admins: self.admin_names() },
            NotAllowed::Disabled => NetworkError::Disabled { network },
            NotAllowed::UsedUp => NetworkError::InviteUsedUp { network },
            NotAllowed::Cancelled => NetworkError::InviteCancelled { network },
            NotAllowed::TooManyMembers => NetworkError::Full { network },
            NotAllowed::LastAdmin => NetworkError::LastAdmin { network },
            NotAllowed::BadSecret => NetworkError::WrongDisableSecret { network },
            other => NetworkError::NotAllowed { network, why: other.to_string() },
        }
    }
}

fn new_member(now_ms: u64, peer: PeerId, name: String, invite: &Invite) -> NewMember {
    NewMember {
        peer,
        name,
        tags: invite.tags.clone(),
        level_cap: invite.level_cap,
        expires_ms: invite.member_expires_s.map(|seconds| now_ms.saturating_add(u64::from(seconds) * 1000)),
        ephemeral_s: invite.ephemeral_s,
        invite: Some(InviteUse { serial: invite.serial, max_uses: invite.max_uses }),
    }
}

/// What a refusal means to whoever wanted to join, in words.
pub(in crate::membership) fn refusal_error(
    refusal: JoinRefusal,
    network: String,
    name: &str,
    now_ms: u64,
    not_after_ms: u64,
) -> NetworkError {
    match refusal {
        JoinRefusal::UnknownInvite => NetworkError::UnknownInvite { network },
        JoinRefusal::Expired { now_ms } => {
            NetworkError::InviteExpired { network, ago_s: now_ms.saturating_sub(not_after_ms) / 1000 }
        }
        JoinRefusal::UsedUp => NetworkError::InviteUsedUp { network },
        JoinRefusal::Cancelled => NetworkError::InviteCancelled { network },
        JoinRefusal::BadProof => NetworkError::BadProof { network },
        JoinRefusal::BadName => NetworkError::BadName(name.to_owned()),
        JoinRefusal::NameTaken { suggestion } => NetworkError::NameTaken { network, name: name.to_owned(), suggestion },
        JoinRefusal::ClockSkew { now_ms: theirs } => {
            NetworkError::ClockSkew { off_s: now_ms.abs_diff(theirs) / 1000, ahead: now_ms > theirs }
        }
        JoinRefusal::Revoked => NetworkError::Revoked { network },
        JoinRefusal::Denied => NetworkError::Denied { network },
        JoinRefusal::Full => NetworkError::Full { network },
        JoinRefusal::Disabled => NetworkError::Disabled { network },
        JoinRefusal::Busy => NetworkError::Busy { network },
        other => NetworkError::Internal(other.to_string()),
    }
}
