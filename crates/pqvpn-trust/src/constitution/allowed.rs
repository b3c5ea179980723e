// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clear words before anybody signs something without effect.

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::network::{Act, NewMember, Params, is_label};
use sha2::{Digest, Sha256};

use super::Constitution;
use crate::refusal::NotAllowed;
use crate::{MAX_ADMINS, MAX_MEMBERS};

impl Constitution {
    /// Says whether `signer` may do `act` now. An act of the quorum is allowed to each admin: it becomes a proposal.
    ///
    /// # Errors
    /// [`NotAllowed`], in words for the user.
    pub fn allowed(&self, signer: &PeerId, act: &Act) -> Result<(), NotAllowed> {
        let view = self.view();
        if let Act::Disable { secret } = act {
            let right = self.disable == Some(Sha256::digest(secret).into());
            return if right { Ok(()) } else { Err(NotAllowed::BadSecret) };
        }
        if view.disabled {
            return Err(NotAllowed::Disabled);
        }
        match act {
            Act::Rotate { old, .. } => self.allowed_for_itself(signer, &old.peer_id()),
            Act::Leave { key } => {
                let subject = key.peer_id();
                let ephemeral = view.members.get(&subject).is_some_and(|member| member.ephemeral_s.is_some());
                if view.is_admin(signer) && ephemeral { Ok(()) } else { self.allowed_for_itself(signer, &subject) }
            }
            _ if !view.is_admin(signer) => Err(NotAllowed::NotAdmin),
            Act::AddAdmin { key } => match () {
                () if view.is_admin(&key.peer_id()) => Err(NotAllowed::AlreadyAdmin),
                () if view.admins.len() >= MAX_ADMINS => Err(NotAllowed::TooManyAdmins),
                () => Ok(()),
            },
            Act::RemoveAdmin { peer } => self.allowed_to_remove(peer),
            Act::AddMember(new) => self.allowed_to_add(signer, new),
            Act::Revoke { peer, .. } => {
                if view.is_admin(peer) {
                    return self.allowed_to_remove(peer);
                }
                if view.members.contains_key(peer) { Ok(()) } else { Err(NotAllowed::NotAMember) }
            }
            Act::SetParams(params) => self.allowed_params(params),
            Act::Genesis(_) => Err(NotAllowed::Founded),
            Act::CancelInvite { .. } | Act::SetPolicy { .. } | Act::Checkpoint { .. } | Act::Disable { .. } => Ok(()),
            _ => Err(NotAllowed::Unknown),
        }
    }

    fn allowed_for_itself(&self, signer: &PeerId, subject: &PeerId) -> Result<(), NotAllowed> {
        if signer != subject {
            return Err(NotAllowed::NotYourself);
        }
        let known = self.view().members.contains_key(subject) || self.view().is_admin(subject);
        if known { Ok(()) } else { Err(NotAllowed::NotAMember) }
    }

    fn allowed_to_remove(&self, peer: &PeerId) -> Result<(), NotAllowed> {
        if !self.view().is_admin(peer) {
            return Err(NotAllowed::SubjectNotAdmin);
        }
        if self.view().admins.len() == 1 { Err(NotAllowed::LastAdmin) } else { Ok(()) }
    }

    fn allowed_params(&self, params: &Params) -> Result<(), NotAllowed> {
        let possible = (1..=self.view().admins.len()).contains(&usize::from(params.quorum));
        if possible { Ok(()) } else { Err(NotAllowed::BadQuorum) }
    }

    fn allowed_to_add(&self, signer: &PeerId, new: &NewMember) -> Result<(), NotAllowed> {
        let view = self.view();
        if !is_label(&new.name) {
            return Err(NotAllowed::BadName);
        }
        if *signer == new.peer && view.was_revoked.contains(signer) {
            return Err(NotAllowed::Revoked);
        }
        if !view.members.contains_key(&new.peer) && view.members.len() >= MAX_MEMBERS {
            return Err(NotAllowed::TooManyMembers);
        }
        let Some(usage) = &new.invite else { return Ok(()) };
        if view.cancelled.contains(&usage.serial) {
            return Err(NotAllowed::Cancelled);
        }
        let again = view.invited.contains(&(usage.serial, new.peer));
        if !again && view.uses_of(&usage.serial) >= usage.max_uses { Err(NotAllowed::UsedUp) } else { Ok(()) }
    }
}
