// SPDX-License-Identifier: MIT OR Apache-2.0
//! A network as people see it.

use std::time::Duration;

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::network::{Act, Invite, Serial, SignedInvite, StatementId};

use super::{
    Moment, Network,
    names::{act_text, hex, is_prefix, name_of},
};
use crate::membership::{
    error::NetworkError,
    report::{
        ActReport, GossipReport, InviteReport, InviteState, LockReport, MemberReport, NetworkReport, PendingReport,
        ProposalReport, StatementReport,
    },
};

impl Network {
    /// The network itself.
    pub(in crate::membership) fn report(&self, now: Moment, gossip: GossipReport) -> NetworkReport {
        let view = self.constitution.view();
        let own = view.members.get(&self.own);
        let others = self.others(now.unix_ms);
        let is_online = |peer: &&PeerId| self.lives.is_online(now.mono, peer);
        let is_out = self.put_out_by(&self.own).is_some();
        NetworkReport {
            id: self.id,
            name: self.head.name.clone(),
            own_name: own.map_or_else(String::new, |own| own.name.clone()),
            addresses: self.addresses(&self.own, own),
            prefix_v6: self.prefix_v6(),
            pool: self.pool(),
            members: others.len() + 1,
            online: if is_out { 0 } else { others.iter().filter(is_online).count() + 1 },
            admin: view.is_admin(&self.own),
            state: self.standing(now),
            waiting: self.pending.values().filter(|pending| !pending.denied).count(),
            head: hex(&self.constitution.head()),
            disable_secret: None,
            health: self.health(now),
            gossip,
        }
    }

    /// Every member, this node first.
    pub(in crate::membership) fn member_reports(&self, now: Moment) -> Vec<MemberReport> {
        let view = self.constitution.view();
        // Nobody is there for who was put out.
        let is_out = self.put_out_by(&self.own).is_some();
        let live = view.live_members(|peer| {
            let mut presence = self.presence(now.unix_ms, peer);
            if *peer == self.own {
                presence.record_ms = Some(now.unix_ms);
            }
            presence
        });
        let mut reports: Vec<MemberReport> = live
            .map(|member| {
                let draft = self.records.get(&member.peer).map(|record| record.draft());
                let own = member.peer == self.own;
                let heard = self.heard.get(&member.peer);
                let head = heard.map(|heard| heard.head).or_else(|| draft.map(|draft| draft.head));
                MemberReport {
                    network: self.head.name.clone(),
                    peer: member.peer,
                    name: member.name.clone(),
                    addresses: self.addresses(&member.peer, Some(member)),
                    endpoints: self.endpoints(&member.peer),
                    online: !is_out && (own || self.lives.is_online(now.mono, &member.peer)),
                    own,
                    admin: view.is_admin(&member.peer),
                    tags: member.tags.clone(),
                    level_cap: member.level_cap,
                    ephemeral: member.ephemeral_s.is_some(),
                    added_ms: member.added_ms,
                    expires_ms: member.expires_ms,
                    seen_ms: draft.map(|draft| draft.issued_ms),
                    record_until_ms: draft.map(|draft| draft.not_after_ms),
                    head: if own { Some(self.constitution.head()) } else { head }.map(|head| hex(&head)),
                }
            })
            .collect();
        reports.sort_by(|a, b| (!a.own, &a.name).cmp(&(!b.own, &b.name)));
        reports
    }

    /// An invite; its code is only in the answer to its creation.
    pub(in crate::membership) fn invite_report(&self, now_ms: u64, signed: &SignedInvite) -> InviteReport {
        let invite = signed.invite();
        InviteReport {
            network: self.head.name.clone(),
            code: None,
            serial: invite.serial.to_string(),
            issuer: invite.issuer,
            not_after_ms: invite.not_after_ms,
            max_uses: invite.max_uses,
            uses: self.constitution.view().uses.get(&invite.serial).copied().unwrap_or(0),
            tags: invite.tags.clone(),
            ephemeral: invite.ephemeral_s.map(|seconds| Duration::from_secs(seconds.into())),
            preapproved: invite.preapproved,
            level_cap: invite.level_cap,
            state: self.invite_state(now_ms, invite),
        }
    }

    /// What has become of an invite.
    pub(super) fn invite_state(&self, now_ms: u64, invite: &Invite) -> InviteState {
        let view = self.constitution.view();
        let uses = view.uses.get(&invite.serial).copied().unwrap_or(0);
        if view.cancelled.contains(&invite.serial) {
            InviteState::Cancelled
        } else if uses >= invite.max_uses {
            InviteState::UsedUp
        } else if now_ms >= invite.not_after_ms {
            InviteState::Expired
        } else {
            InviteState::Open
        }
    }

    /// The open invite a text means.
    ///
    /// # Errors
    /// None, or several.
    pub(in crate::membership) fn find_invite(&self, now_ms: u64, text: &str) -> Result<Serial, NetworkError> {
        let open = |invite: &&SignedInvite| self.invite_report(now_ms, invite).state == InviteState::Open;
        let fits = |invite: &&SignedInvite| is_prefix(text, &invite.serial().to_string());
        let fitting: Vec<Serial> = self.invites.values().filter(fits).filter(open).map(SignedInvite::serial).collect();
        match fitting.as_slice() {
            [serial] => Ok(*serial),
            _ => Err(NetworkError::NoSuchInvite { network: self.head.name.clone(), serial: text.to_owned() }),
        }
    }

    /// Who waits for an admin's word.
    pub(in crate::membership) fn pending_reports(&self) -> Vec<PendingReport> {
        let waiting = self.pending.iter().filter(|(_, pending)| !pending.denied);
        let mut reports: Vec<PendingReport> = waiting.filter_map(|(peer, _)| self.pending_report(peer)).collect();
        reports.sort_by_key(|report| report.since_ms);
        reports
    }

    pub(in crate::membership) fn pending_report(&self, peer: &PeerId) -> Option<PendingReport> {
        let pending = self.pending.get(peer)?;
        let tags = self.invites.get(&pending.serial).map(|invite| invite.invite().tags.clone());
        Some(PendingReport {
            network: self.head.name.clone(),
            peer: *peer,
            name: pending.name.clone(),
            serial: pending.serial.to_string(),
            since_ms: pending.asked_ms,
            tags: tags.unwrap_or_default(),
        })
    }

    /// Who of those that wait a text means.
    ///
    /// # Errors
    /// Nobody, or several.
    pub(in crate::membership) fn find_pending(&self, who: &str) -> Result<PeerId, NetworkError> {
        let who = who.strip_suffix(&format!(".{}", self.head.name)).unwrap_or(who);
        let waiting = || self.pending.iter().filter(|(_, pending)| !pending.denied);
        // Who asks chooses its name: one like the beginning of another's PeerID must not stand in for that other.
        let is_meant = |peer: &PeerId, name: &str| name == who || is_prefix(who, &peer.to_string());
        let fitting: Vec<PeerId> =
            waiting().filter(|(peer, pending)| is_meant(peer, &pending.name)).map(|(peer, _)| *peer).collect();
        match fitting.as_slice() {
            [] => Err(NetworkError::NobodyWaits { network: self.head.name.clone(), who: who.to_owned() }),
            [peer] => Ok(*peer),
            several => Err(NetworkError::AmbiguousMember {
                who: who.to_owned(),
                which: several.iter().map(PeerId::short).collect::<Vec<_>>().join(", "),
            }),
        }
    }

    /// How the constitution stands.
    pub(in crate::membership) fn lock_report(&self, now: Moment) -> LockReport {
        let view = self.constitution.view();
        let genesis = self.constitution.log(usize::MAX).last().map(|entry| entry.statement.clone());
        let can_disable = genesis
            .is_some_and(|genesis| matches!(&genesis.body().act, Act::Genesis(genesis) if genesis.disable.is_some()));
        let records: usize = self.records.values().map(|record| record.encoded_len()).sum();
        let invites: usize = self.invites.values().map(|invite| invite.encode().len()).sum();
        LockReport {
            network: self.head.name.clone(),
            id: self.id,
            admins: view.admins.keys().map(|peer| (*peer, name_of(view, peer))).collect(),
            quorum: u8::try_from(view.quorum()).unwrap_or(u8::MAX),
            statements: self.constitution.len(),
            head: hex(&self.constitution.head()),
            head_age: self.head_age(now.mono),
            proposals: self.proposal_reports(),
            disk_bytes: (self.constitution.bytes() + records + invites) as u64,
            admin: self.am_admin(),
            can_disable,
            disabled: view.disabled,
        }
    }

    fn proposal_reports(&self) -> Vec<ProposalReport> {
        let view = self.constitution.view();
        let report = |proposal: pqvpn_trust::Proposal, contests| ProposalReport {
            id: proposal.statement.id().to_string(),
            what: act_text(view, &proposal.statement.body().act),
            have: proposal.have,
            need: proposal.need,
            signers: proposal.statement.signers().map(|peer| name_of(view, peer)).collect(),
            contests,
        };
        let proposals = self.constitution.proposals().into_iter().map(|proposal| report(proposal, false));
        let answers = self.constitution.answers(&self.own).into_iter().map(|answer| report(answer, true));
        proposals.chain(answers).collect()
    }

    /// What a text means of that which lacks signatures, and whether this node was an admin on its path only.
    ///
    /// # Errors
    /// None, or several.
    pub(in crate::membership) fn find_proposal(&self, text: &str) -> Result<(StatementId, bool), NetworkError> {
        // Whoever floods the network with proposals shows people its newest and hides nothing from who names an id.
        let proposals = self.constitution.open(|_| true).map(|proposal| (proposal.statement.id(), false));
        let answers = self.constitution.open_answers(&self.own).map(|answer| (answer.statement.id(), true));
        let fits = |(id, _): &(StatementId, bool)| is_prefix(text, &id.to_string());
        let fitting: Vec<(StatementId, bool)> = proposals.chain(answers).filter(fits).collect();
        match fitting.as_slice() {
            [one] => Ok(*one),
            _ => Err(NetworkError::NoSuchProposal { network: self.head.name.clone(), id: text.to_owned() }),
        }
    }

    /// The newest statements, newest first.
    pub(in crate::membership) fn log_reports(&self, limit: usize) -> Vec<StatementReport> {
        let view = self.constitution.view();
        let entries = self.constitution.log(limit).into_iter();
        entries
            .map(|entry| {
                let body = entry.statement.body();
                let what = act_text(view, &body.act);
                let is_wrong =
                    matches!(body.act, Act::Checkpoint { .. }) && !self.constitution.seals_truly(&entry.statement.id());
                let standing = match entry.effective {
                    true => "",
                    false if is_wrong => " (not in force: not what is held here)",
                    false => " (not in force)",
                };
                StatementReport {
                    id: entry.statement.id().to_string(),
                    seq: body.seq,
                    at_ms: body.at_ms,
                    act: body.act.name(),
                    what: format!("{what}{standing}"),
                    signers: entry.statement.signers().map(|peer| name_of(view, peer)).collect(),
                }
            })
            .collect()
    }

    /// What came of an act.
    pub(in crate::membership) fn act_report(&self, id: &StatementId, pushed_to: usize) -> ActReport {
        let view = self.constitution.view();
        let statement = self.constitution.get(id);
        let signers = statement.as_ref().map_or(0, |statement| statement.signers().len());
        let proposal = self.constitution.as_proposal(id);
        // A removal that nobody is bound by, proposal or not: it contests others, and does not win yet.
        let contests = statement.as_ref().is_some_and(|statement| {
            view.void.contains(id) && matches!(statement.body().act, Act::RemoveAdmin { .. } | Act::Revoke { .. })
        });
        let lacking = match proposal {
            Some(proposal) => Some((proposal.have, proposal.need)),
            None => contests.then(|| self.constitution.tally(id)).flatten(),
        };
        let (have, need) = lacking.unwrap_or((signers, signers));
        ActReport {
            network: self.head.name.clone(),
            id: id.to_string(),
            what: statement.map(|statement| act_text(view, &statement.body().act)).unwrap_or_default(),
            in_force: lacking.is_none(),
            have,
            need,
            pushed_to,
        }
    }
}
