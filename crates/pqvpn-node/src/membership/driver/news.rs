// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is new goes to every member there is a link with, in pieces; who waits for that is told how many took it.

use std::time::{Duration, Instant};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::network::{
    Bundle, NetRequest, NetworkId,
    message::{MAX_BUNDLE, MAX_BUNDLE_SMALL},
};

use super::{
    super::{
        links::LinkId,
        network::{Moment, News},
    },
    Call, Driver,
    gossip::CALL_LIMIT,
};
use crate::clock;

/// Bytes of statements and records in one push.
const MAX_PUSH: usize = 400 * 1024;

/// News that somebody waits for: how many have heard it.
pub(super) struct Campaign {
    left: usize,
    acked: usize,
    deadline: Instant,
    finish: Finish,
}

type Finish = Box<dyn FnOnce(&mut Driver, usize) + Send>;

/// A campaign that has not begun.
pub(super) struct ToCome {
    network: NetworkId,
    limit: Duration,
    finish: Finish,
}

impl Driver {
    /// Tells everybody we have a link with what is new.
    pub(super) fn tell_news(&mut self) {
        let ids: Vec<NetworkId> = self.networks.keys().copied().collect();
        for id in ids {
            let Some(network) = self.networks.get_mut(&id) else { continue };
            let News { bundle, from } = std::mem::take(&mut network.news);
            if bundle == Bundle::default() {
                continue;
            }
            self.push(id, bundle, from, None);
            self.answer_held(id);
        }
    }

    /// Pushes a bundle to all members we have a link with; gives how many calls that are.
    pub(super) fn push(
        &mut self,
        id: NetworkId,
        bundle: Bundle,
        except: Option<PeerId>,
        campaign: Option<u64>,
    ) -> usize {
        let now = Moment::now();
        let links = self.links.one_each();
        let Some(network) = self.networks.get(&id) else { return 0 };
        let to = links.into_iter().filter(|(peer, _)| Some(*peer) != except && network.is_member(now.unix_ms, peer));
        let to: Vec<LinkId> = to.map(|(_, link)| link).collect();
        let mut calls = 0;
        for part in parts(bundle) {
            for link in &to {
                let request = NetRequest::Push(Box::new(part.clone()));
                calls += usize::from(self.call(id, *link, request, Call::Push(campaign), CALL_LIMIT));
            }
        }
        calls
    }

    /// Pushes what is new at once and calls back when everybody has taken it, or time is over.
    pub(super) fn push_and_wait(
        &mut self,
        id: NetworkId,
        limit: Duration,
        finish: impl FnOnce(&mut Self, usize) + Send + 'static,
    ) {
        self.campaigns_to_come.push(ToCome { network: id, limit, finish: Box::new(finish) });
    }

    pub(super) fn start_campaigns(&mut self) {
        for ToCome { network: id, limit, finish } in std::mem::take(&mut self.campaigns_to_come) {
            let campaign = self.next_campaign;
            self.next_campaign += 1;
            let news = self.networks.get_mut(&id).map(|network| std::mem::take(&mut network.news)).unwrap_or_default();
            let left = self.push(id, news.bundle, None, Some(campaign));
            self.answer_held(id);
            if left == 0 {
                finish(self, 0);
                continue;
            }
            let deadline = clock::now() + limit;
            self.campaigns.insert(campaign, Campaign { left, acked: 0, deadline, finish });
        }
    }

    pub(super) fn acked(&mut self, campaign: u64, taken: bool) {
        let Some(running) = self.campaigns.get_mut(&campaign) else { return };
        running.left = running.left.saturating_sub(1);
        running.acked += usize::from(taken);
        if running.left == 0
            && let Some(Campaign { acked, finish, .. }) = self.campaigns.remove(&campaign)
        {
            finish(self, acked);
        }
    }

    /// Campaigns whose time is over.
    pub(super) fn expire_campaigns(&mut self, now: Instant) {
        let over: Vec<u64> =
            self.campaigns.iter().filter(|(_, running)| running.deadline <= now).map(|(id, _)| *id).collect();
        for id in over {
            if let Some(Campaign { acked, finish, .. }) = self.campaigns.remove(&id) {
                finish(self, acked);
            }
        }
    }

    pub(super) fn next_campaign_end(&self) -> Option<Instant> {
        self.campaigns.values().map(|running| running.deadline).min()
    }
}

/// A bundle in pieces that each fit into a message.
fn parts(bundle: Bundle) -> Vec<Bundle> {
    let mut parts = vec![Bundle::default()];
    let mut left = MAX_PUSH;
    let mut room = |parts: &mut Vec<Bundle>, length: usize, full: &dyn Fn(&Bundle) -> bool| {
        if length > left || parts.last().is_some_and(full) {
            parts.push(Bundle::default());
            left = MAX_PUSH;
        }
        left = left.saturating_sub(length);
    };
    for statement in bundle.statements {
        room(&mut parts, statement.encoded_len(), &|part| part.statements.len() >= MAX_BUNDLE);
        if let Some(part) = parts.last_mut() {
            part.statements.push(statement);
        }
    }
    for record in bundle.records {
        room(&mut parts, record.encoded_len(), &|part| part.records.len() >= MAX_BUNDLE);
        if let Some(part) = parts.last_mut() {
            part.records.push(record);
        }
    }
    for invite in bundle.invites {
        room(&mut parts, invite.encode().len(), &|part| part.invites.len() >= MAX_BUNDLE_SMALL);
        if let Some(part) = parts.last_mut() {
            part.invites.push(invite);
        }
    }
    for pending in bundle.pending {
        room(&mut parts, 16 * 1024, &|part| part.pending.len() >= MAX_BUNDLE_SMALL);
        if let Some(part) = parts.last_mut() {
            part.pending.push(pending);
        }
    }
    if let Some(part) = parts.first_mut() {
        part.covers = bundle.covers;
    }
    parts.retain(|part| *part != Bundle::default());
    parts
}
