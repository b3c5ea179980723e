// SPDX-License-Identifier: MIT OR Apache-2.0
//! What has to be done from time to time, and when next.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::{
    control::CloseReason,
    network::{Act, MAX_ENDPOINTS, NetworkId},
};
use tokio::time::timeout;

use super::{
    super::{
        nearby::Nearby,
        network::{GRACE, Moment, Network},
        report::{GossipReport, NetRef, NetworkReport, NetworkState},
        store::Change,
    },
    Driver, Inputs,
    dialing::EXPECTED,
};
use crate::{
    clock,
    dht::{NewDoor, dialable, realm},
    snapshot::{HealthItem, HealthLevel},
};

/// How often the addresses of this host are looked at.
const LOOK: Duration = Duration::from_secs(30);
/// Nothing wakes this task more often than so.
const REST: Duration = Duration::from_millis(20);
/// Nor so, while the store takes nothing.
const REFUSED_REST: Duration = Duration::from_millis(500);
/// Another admin heard within this time does what one admin has to do.
const DUTY: Duration = Duration::from_secs(60);
/// How long a node that stops waits until others have heard that it leaves.
const GOODBYE: Duration = Duration::from_secs(1);

impl Driver {
    /// Does what is due.
    pub(super) fn keep_up(&mut self, now: Moment, wanted: &BTreeSet<PeerId>) {
        if now.mono >= self.endpoints_at + LOOK {
            self.find_endpoints();
        }
        // What cannot be written down is not signed.
        if self.refusing.is_none() {
            self.renew_records(now);
        }
        self.watch_time(now);
        if self.refusing.is_none() {
            self.do_duties(now);
            self.draw_covers(now);
        }
        self.ask_again(now.mono);
        self.dial_wanted(now, wanted);
        self.speak(now, wanted);
        self.say_where(now);
        self.seek(now);
        self.keep_relaying(now);
        self.give_up_ways(now.mono);
        self.look_for_udp(now.mono);
    }

    /// When something is due next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let now = Moment::now();
        let mut next = vec![self.links.next_idle(now.mono), self.next_campaign_end(), self.next_held()];
        if self.untold {
            next.push(Some(now.mono + REST * 5));
        }
        if !self.paused && !self.retired {
            next.push(self.next_ask());
            next.push(self.relaying.next());
            next.push(self.carriers.next_look());
            next.extend(self.ways_wanted.iter().map(|wanted| Some(wanted.until)));
            next.push(self.next_in_dht(now));
            if !self.networks.is_empty() {
                next.push(Some(self.endpoints_at + LOOK));
            }
            next.extend(self.links.iter().filter(|(_, link)| link.is_outbound()).map(|(_, link)| Some(link.speak_at)));
            next.extend(self.networks.values().map(|network| self.network_deadline(now, network)));
        }
        next.push(self.next_save());
        // What is due and left undone meanwhile wakes nobody.
        let rest = if self.refusing.is_some() { REFUSED_REST } else { REST };
        next.into_iter().flatten().min().map(|at| at.max(now.mono + rest))
    }

    fn network_deadline(&self, now: Moment, network: &Network) -> Option<Instant> {
        let at = |ms: u64| now.mono + Duration::from_millis(ms.saturating_sub(now.unix_ms));
        if !network.is_enabled(now.unix_ms) {
            return network.next_change.map(at);
        }
        let side = 1 + network.ring(now.unix_ms).len();
        let grace = (!network.was_ready).then_some(network.started + GRACE);
        let expected = Some(network.started + EXPECTED).filter(|at| *at > now.mono);
        let due = at(network.own_record_due(now.unix_ms, &self.endpoints));
        let others: BTreeSet<PeerId> = network.others(now.unix_ms).into_iter().collect();
        let links = self.links.one_each();
        let counts = |peer: &PeerId| others.contains(peer) && !links.contains_key(peer) && !self.dialing.contains(peer);
        let reach = network.reach.next(side, counts);
        [Some(due), grace, expected, network.next_change.map(at), reach, network.lives.next(), network.cover_due()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Says anew what we have to say of ourselves: before it runs out, and when it has changed.
    fn renew_records(&mut self, now: Moment) {
        let identity = Arc::clone(&self.shared.identity);
        for network in self.networks.values_mut() {
            let due = network.own_record_due(now.unix_ms, &self.endpoints) <= now.unix_ms;
            if due && network.is_enabled(now.unix_ms) {
                network.renew(&identity, now.unix_ms, &self.endpoints, false);
            }
        }
    }

    /// Notes what changes by time alone.
    fn watch_time(&mut self, now: Moment) {
        for network in self.networks.values_mut() {
            network.note_awake(now.unix_ms);
            if network.dirty || network.next_change.is_some_and(|at| at <= now.unix_ms) {
                network.next_change = network.next_change_ms(now.unix_ms);
                network.dirty = true;
            }
            network.dirty |= network.lives.expire(now.mono);
            let ready = network.is_ready(now);
            if ready != network.was_ready {
                network.was_ready = ready;
                network.dirty = true;
            }
        }
    }

    /// What one admin has to do for all: names of silent ephemeral members are freed, and checkpoints made.
    fn do_duties(&mut self, now: Moment) {
        let identity = Arc::clone(&self.shared.identity);
        for network in self.networks.values_mut() {
            if !network.dirty || !network.is_enabled(now.unix_ms) {
                continue;
            }
            network.co_sign_checkpoints(&identity);
            if !network.is_on_duty(now.mono) {
                continue;
            }
            for act in network.duties(now.unix_ms) {
                let what = act.name();
                if let Err(error) = network.act(&identity, now.unix_ms, act) {
                    tracing::debug!(%error, what, "a duty is not done");
                }
            }
        }
    }

    /// Where somebody was put out and nobody has given a cover, the admin on duty does.
    fn draw_covers(&mut self, now: Moment) {
        let identity = Arc::clone(&self.shared.identity);
        for network in self.networks.values_mut() {
            network.look_at_covers(now.mono);
            if network.cover_due().is_none_or(|at| at > now.mono) {
                continue;
            }
            if network.is_on_duty(now.mono) {
                network.cover(&identity, now, false);
            } else {
                network.postpone_cover(now.mono);
            }
        }
    }

    // ---- where we are ---------------------------------------------------------------------------------------------

    /// Finds out where others can dial this node.
    pub(super) fn find_endpoints(&mut self) {
        self.endpoints_at = clock::now();
        let overlay = self.overlay.get();
        // What the router forwards is open to everybody who knows it.
        let mapped = self.mapped.published(&self.reflexive.addresses(self.endpoints_at));
        let mut endpoints: Vec<SocketAddr> = mapped.into_iter().collect();
        endpoints.extend(dialable(&self.listen, realm(&self.listen, true), &overlay));
        // Addresses of our networks are no way to reach them.
        let inside = |ip: IpAddr| {
            self.networks.values().any(|network| match ip {
                IpAddr::V4(v4) => network.addresses_of_own().contains(&IpAddr::V4(v4)),
                IpAddr::V6(v6) => network.prefix_v6().contains(&v6),
            })
        };
        endpoints.retain(|at| !inside(at.ip()));
        endpoints.truncate(MAX_ENDPOINTS);
        self.endpoints = endpoints;
    }

    /// The host's network has changed: our links are heard from the new place at once, and members may be in reach now.
    pub(super) fn on_network_change(&mut self) {
        self.find_endpoints();
        let now = clock::now();
        let outbound: Vec<_> = self.links.iter().filter(|(_, link)| link.is_outbound()).map(|(id, _)| id).collect();
        for id in outbound {
            if let Some(link) = self.links.get_mut(id) {
                link.speak_at = now;
            }
        }
        for network in self.networks.values_mut() {
            network.reach.forgive_all();
            network.dirty = true;
        }
    }

    // ---- where others are -----------------------------------------------------------------------------------------

    /// The local network tells of a node.
    pub(super) fn on_found(&mut self, door: &NewDoor) {
        let addresses: Vec<SocketAddr> = door.endpoints.iter().filter_map(|endpoint| endpoint.parse().ok()).collect();
        // For joins: a door of a code may have moved.
        let mut nearby = Nearby::clone(&self.shared.nearby.load());
        nearby.note(door.peer, addresses.clone());
        self.shared.nearby.store(Arc::new(nearby));
        for network in self.networks.values_mut() {
            if network.hint(door.peer, addresses.clone()) {
                tracing::debug!(peer = %door.peer.short(), ?addresses, "a member on the local network");
            }
        }
    }

    // ---- joins that wait ------------------------------------------------------------------------------------------

    pub(super) fn waiting_reports(&self) -> Vec<NetworkReport> {
        let waiting =
            self.joining.iter().filter(|(id, joining)| joining.is_waiting() && !self.networks.contains_key(id));
        waiting.map(|(id, joining)| waiting_report(*id, joining.network(), joining.name())).collect()
    }

    /// Gives a waiting join up, if one is meant.
    pub(super) fn forget_waiting(&mut self, which: &NetRef) -> Option<NetworkReport> {
        let waiting = self.waiting_reports();
        let fits = |report: &&NetworkReport| match which.0.as_deref() {
            Some(text) => report.name == text,
            None => waiting.len() == 1 && self.networks.is_empty(),
        };
        let report = waiting.iter().find(fits)?.clone();
        self.forget_join(&report.id);
        self.store_later(Change::Forget(report.id));
        self.touch_members();
        Some(report)
    }

    // ---- the end --------------------------------------------------------------------------------------------------

    /// Changes of what is no network in use; on disk with the next round.
    pub(super) fn store_later(&mut self, change: Change) {
        self.unsaved.push(change);
    }

    pub(super) fn say_standing(&mut self, code: &'static str, text: String) {
        self.standing.retain(|item| item.code != code);
        self.standing.push(HealthItem { level: HealthLevel::Warn, code, text });
        self.untold = true;
    }

    /// Leaves where a node that stops leaves, writes everything down, closes every link.
    pub(super) async fn stop(&mut self, inputs: &mut Inputs) {
        let now = Moment::now();
        let ephemeral: Vec<NetworkId> = self
            .networks
            .values()
            .filter(|network| network.is_enabled(now.unix_ms) && network.am_ephemeral())
            .map(|network| network.id)
            .collect();
        if !self.paused && !ephemeral.is_empty() && self.refusing.is_none() {
            for id in &ephemeral {
                self.say_goodbye(now, *id);
                self.push_and_wait(*id, GOODBYE, |_, _| {});
            }
            self.flush().await;
            let heard = async {
                while !self.campaigns.is_empty() {
                    crate::select! {
                        Some(event) = inputs.events.recv() => self.on_event(event),
                        Some(done) = self.tasks.join_next() => if let Ok(done) = done { self.on_task(done) },
                        else => return,
                    }
                }
            };
            let _too_slow = timeout(GOODBYE, heard).await;
            for id in ephemeral {
                self.forget(id);
            }
        }
        self.save_now();
        self.flush().await;
        self.links.close_all(CloseReason::Shutdown);
        self.tasks.abort_all();
    }
}

impl Network {
    /// Whether this node is the admin that acts for all: no admin with a lower PeerID was heard of late.
    fn is_on_duty(&self, now: Instant) -> bool {
        let view = self.constitution.view();
        let heard =
            |peer: &PeerId| self.heard.get(peer).is_some_and(|heard| now.saturating_duration_since(heard.at) < DUTY);
        view.is_admin(&self.own) && !view.admins.keys().any(|peer| *peer < self.own && heard(peer))
    }

    pub(in crate::membership) fn duties(&self, now_ms: u64) -> Vec<Act> {
        let view = self.constitution.view();
        // Whoever was away itself has heard nobody: that is nobody's silence.
        let is_silent = |peer: &PeerId| {
            let member = view.members.get(peer).filter(|_| *peer != self.own);
            let silence = member.and_then(|member| Some((member, member.ephemeral_s?)));
            silence.is_some_and(|(member, silence_s)| {
                let presence = self.presence(now_ms, peer);
                !member.is_live(&presence) && (presence.left || self.has_listened_for(now_ms, silence_s))
            })
        };
        let gone = self.records.values().filter(|record| is_silent(&record.peer()));
        let mut acts: Vec<Act> = gone.map(|record| Act::Leave { key: record.key().clone() }).collect();
        if acts.is_empty() && self.constitution.checkpoint_due(&self.own, now_ms) && !self.checkpoint_waits() {
            // What it seals is found when it is drafted.
            acts.push(Act::Checkpoint { seal: [0; 32] });
        }
        acts
    }

    fn am_ephemeral(&self) -> bool {
        self.constitution.view().members.get(&self.own).is_some_and(|member| member.ephemeral_s.is_some())
    }

    fn addresses_of_own(&self) -> Vec<IpAddr> {
        self.addresses(&self.own, self.constitution.view().members.get(&self.own))
    }
}

fn waiting_report(id: NetworkId, name: &str, own_name: &str) -> NetworkReport {
    NetworkReport {
        id,
        name: name.to_owned(),
        own_name: own_name.to_owned(),
        addresses: Vec::new(),
        prefix_v6: ipnet::Ipv6Net::default(),
        pool: ipnet::Ipv4Net::default(),
        members: 0,
        online: 0,
        admin: false,
        state: NetworkState::Waiting,
        waiting: 0,
        head: String::new(),
        disable_secret: None,
        health: Vec::new(),
        gossip: GossipReport::default(),
    }
}
