// SPDX-License-Identifier: MIT OR Apache-2.0
//! What runs out, said in time: memberships, invites, and the certainty that what we hold is what is in force.

use pqvpn_trust::Member;
use pqvpn_wire::network::SignedInvite;

use super::{Moment, Network};
use crate::{
    membership::report::InviteState,
    snapshot::{HealthItem, HealthLevel},
};

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// Warnings before a membership of ours ends, in days.
const WARN_DAYS: [(u64, HealthLevel); 3] = [(1, HealthLevel::Error), (7, HealthLevel::Warn), (30, HealthLevel::Info)];
/// The membership of another, or an invite of ours, is our business less.
const OTHERS: [(u64, HealthLevel); 3] = [(1, HealthLevel::Warn), (7, HealthLevel::Info), (30, HealthLevel::Info)];
/// An admin that was not heard for so long may never sign again, in ms.
const SILENT_ADMIN_MS: u64 = 7 * DAY_MS;
/// Members and invites named in one warning.
const MAX_NAMED: usize = 5;

impl Network {
    /// What runs out, or may have.
    pub(super) fn warnings(&self, now: Moment) -> Vec<HealthItem> {
        let mut items = Vec::new();
        items.extend(self.own_end(now.unix_ms));
        items.extend(self.others_ends(now.unix_ms));
        items.extend(self.invites_ends(now.unix_ms));
        items.extend(self.head_age_warning(now));
        items.extend(self.quorum_warning(now.unix_ms));
        items
    }

    /// When a warning begins or ends by time alone, ms since 1970.
    pub(super) fn next_warning_ms(&self, now_ms: u64) -> Option<u64> {
        let ends = self.constitution.view().members.values().filter_map(|member| member.expires_ms);
        let ends = ends.chain(self.open_invites(now_ms).map(|invite| invite.invite().not_after_ms));
        let halves = self.open_invites(now_ms).filter_map(|invite| {
            let made = self.made.get(&invite.serial())?;
            Some(made.midpoint(invite.invite().not_after_ms).saturating_add(1))
        });
        let begins = ends.flat_map(|end| {
            let before = WARN_DAYS.map(|(days, _)| end.saturating_sub(days * DAY_MS));
            before.into_iter().chain([end])
        });
        let head = self.newest_word_ms().map(|word| word.saturating_add(self.max_head_age_ms()).saturating_add(1));
        begins.chain(halves).chain(head).filter(|at| *at > now_ms).min()
    }

    fn own_end(&self, now_ms: u64) -> Option<HealthItem> {
        let member = self.constitution.view().members.get(&self.own)?;
        let (left, level) = ending(member.expires_ms?, now_ms, &WARN_DAYS)?;
        let text = format!(
            "the membership of this node in {} ends in {}; after that it comes back with a new invite",
            self.head.name,
            amount(left)
        );
        Some(HealthItem { level, code: "membership-expires", text })
    }

    /// Admins are told of all, so that whoever is to stay is invited anew in time.
    fn others_ends(&self, now_ms: u64) -> Option<HealthItem> {
        if !self.am_admin() {
            return None;
        }
        let members = self.constitution.view().members.values().filter(|member| member.peer != self.own);
        let of = |member: &Member| {
            let (left, level) = ending(member.expires_ms?, now_ms, &OTHERS)?;
            Some((left, level, member.name.clone()))
        };
        let (level, named) = nearest(members.filter_map(of).collect())?;
        let text = format!("{}: the membership ends of {named}", self.head.name);
        Some(HealthItem { level, code: "members-expire", text })
    }

    /// Only of invites for several: of one for a single machine its person knows.
    fn invites_ends(&self, now_ms: u64) -> Option<HealthItem> {
        let ours = self.open_invites(now_ms).map(SignedInvite::invite);
        let ours = ours.filter(|invite| invite.issuer == self.own && invite.max_uses > 1);
        let of = |invite: &pqvpn_wire::network::Invite| {
            let (left, _) = ending(invite.not_after_ms, now_ms, &OTHERS)?;
            // Of one that was made for a day nobody needs to hear on that day, not before half of it is over.
            let life = self.made.get(&invite.serial).map(|made| invite.not_after_ms.saturating_sub(*made));
            let is_old = life.is_none_or(|life| left <= life / 2);
            is_old.then_some(())?;
            Some((left, HealthLevel::Info, invite.serial.short()))
        };
        let (level, named) = nearest(ours.filter_map(of).collect())?;
        let text = format!("{}: the time is running out of invite {named}", self.head.name);
        Some(HealthItem { level, code: "invites-expire", text })
    }

    fn open_invites(&self, now_ms: u64) -> impl Iterator<Item = &SignedInvite> {
        self.invites.values().filter(move |invite| self.invite_report(now_ms, invite).state == InviteState::Open)
    }

    /// Nobody has confirmed for too long that what we hold is what is in force.
    fn head_age_warning(&self, now: Moment) -> Option<HealthItem> {
        let limit_ms = self.max_head_age_ms();
        if self.others(now.unix_ms).is_empty() || !self.is_ready(now) {
            return None;
        }
        let since_start = now.mono.saturating_duration_since(self.started);
        let ours = self.head_age(now.mono).unwrap_or(since_start).as_millis();
        // Before the start somebody was heard of last when the newest record that came was made.
        let before = self.synced.is_none().then(|| self.newest_record_ms()).flatten();
        let kept = before.map_or(0, |made| u128::from(now.unix_ms.saturating_sub(made)));
        let age_ms = u64::try_from(ours.max(kept)).unwrap_or(u64::MAX);
        (age_ms > limit_ms).then(|| {
            let (name, hours) = (&self.head.name, age_ms / HOUR_MS);
            let text = format!("{name}: no other member was heard for {hours} h; a revocation may have been missed");
            HealthItem { level: HealthLevel::Warn, code: "head-old", text }
        })
    }

    /// Acts of the quorum cannot be done, or may never be again.
    fn quorum_warning(&self, now_ms: u64) -> Option<HealthItem> {
        let view = self.constitution.view();
        let (wanted, name) = (usize::from(view.params.quorum), &self.head.name);
        let warn = |text| Some(HealthItem { level: HealthLevel::Warn, code: "quorum-lost", text });
        if view.admins.len() < wanted {
            let admins =
                if view.admins.len() == 1 { "one admin".to_owned() } else { format!("{} admins", view.admins.len()) };
            return warn(format!(
                "{name} has {admins}, and {wanted} are meant to sign together: until there are more, all that are there have \
                 to; `pqvpn lock add MEMBER`"
            ));
        }
        if wanted < 2 || !view.is_admin(&self.own) {
            return None;
        }
        let is_silent = |peer: &&pqvpn_crypto::peer_id::PeerId| {
            let made = self.records.get(*peer).map(|record| record.draft().issued_ms);
            **peer != self.own && made.is_none_or(|made| now_ms.saturating_sub(made) > SILENT_ADMIN_MS)
        };
        let silent = view.admins.keys().filter(is_silent).count();
        (view.admins.len() - silent < wanted).then(|| {
            let text = format!(
                "{name}: {wanted} of {} admins must sign together, and {silent} of them {} not been heard for a week; if they \
                 are gone for good, only a new network has new admins (`pqvpn net create`). Members go on as before",
                view.admins.len(),
                if silent == 1 { "has" } else { "have" }
            );
            HealthItem { level: HealthLevel::Warn, code: "quorum-lost", text }
        })
    }

    fn max_head_age_ms(&self) -> u64 {
        u64::from(self.constitution.view().params.max_head_age_s) * 1000
    }

    /// When the newest record of another member was made, ms since 1970.
    fn newest_record_ms(&self) -> Option<u64> {
        let others = self.records.values().filter(|record| record.peer() != self.own);
        others.map(|record| record.draft().issued_ms).max()
    }

    /// When somebody was heard of last, ms since 1970.
    fn newest_word_ms(&self) -> Option<u64> {
        let said = self.synced.map(|synced| {
            let since_start = synced.saturating_duration_since(self.started).as_millis();
            self.started_ms.saturating_add(u64::try_from(since_start).unwrap_or(u64::MAX))
        });
        said.or_else(|| self.newest_record_ms())
    }
}

/// What is left until an end in one of these windows.
fn ending(end_ms: u64, now_ms: u64, windows: &[(u64, HealthLevel)]) -> Option<(u64, HealthLevel)> {
    let left = end_ms.checked_sub(now_ms).filter(|left| *left > 0)?;
    let (_, level) = windows.iter().find(|(days, _)| left <= days * DAY_MS)?;
    Some((left, *level))
}

/// The level of that which ends first, and all of them in words, the nearest first.
fn nearest(mut ends: Vec<(u64, HealthLevel, String)>) -> Option<(HealthLevel, String)> {
    ends.sort_by(|a, b| (a.0, &a.2).cmp(&(b.0, &b.2)));
    let level = ends.first()?.1;
    let named: Vec<String> =
        ends.iter().take(MAX_NAMED).map(|(left, _, name)| format!("{name} (in {})", amount(*left))).collect();
    let more = ends.len().saturating_sub(MAX_NAMED);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    Some((level, named.join(", ") + &rest))
}

/// A span of ms in one unit.
fn amount(left: u64) -> String {
    if left >= 2 * DAY_MS {
        format!("{} days", left / DAY_MS)
    } else if left >= 2 * HOUR_MS {
        format!("{} h", left / HOUR_MS)
    } else {
        format!("{} min", left / 60_000)
    }
}
