// SPDX-License-Identifier: MIT OR Apache-2.0
//! What members tell each other: who is dialled, what is compared, pulled and pushed.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::{
    control::CloseReason,
    network::{Act, Bundle, Door, NetRequest, NetResponse, NetworkId, StatementId, SyncState, message::MAX_IDS},
};

use super::{
    super::{
        links::LinkId,
        network::{Lacks, Moment, Network, Onward},
        overlay,
        rpc::{CallError, count},
    },
    Call, Driver, TaskDone,
};
use crate::{clock, entropy, path::is_relayed};

/// Calls under way at once.
pub(super) const MAX_TASKS: usize = 512;
/// And so many more that tell who was put out: members that do not answer must not keep that from the others.
const URGENT_TASKS: usize = 256;
/// How long a member may take to answer.
pub(super) const CALL_LIMIT: Duration = Duration::from_secs(5);
/// How long a page may take.
const PULL_LIMIT: Duration = Duration::from_secs(20);
/// Pages of one pull: more than a full constitution and all records.
const MAX_PAGES: u32 = 2048;
/// Whoever has just joined asks again so soon where it is not known yet.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// And for so long.
const NEWCOMER: Duration = Duration::from_secs(30);

/// Members that send us on to admins make us dial: so many at once, and one more each time this passes.
const SENT_ON_BURST: u32 = 4;
const SENT_ON_PERIOD: Duration = Duration::from_secs(30);

/// A pull under way.
#[derive(Debug)]
pub(super) struct Pulling {
    theirs: SyncState,
    lacks: Lacks,
    page: u64,
    pages: u32,
    /// Statements that were asked for by name.
    asked: BTreeSet<StatementId>,
    onward: Onward,
    /// A page brought something.
    news: bool,
}

impl Driver {
    // ---- links -------------------------------------------------------------------------------------------------

    /// The networks that this node and a peer are members of.
    pub(super) fn shared_networks(&self, now_ms: u64, peer: &PeerId) -> Vec<NetworkId> {
        let shared = self.networks.values();
        let shared = shared.filter(|network| network.is_enabled(now_ms) && network.is_member(now_ms, peer));
        shared.map(|network| network.id).collect()
    }

    /// Says something on the links that are ours to keep alive.
    pub(super) fn speak(&mut self, now: Moment, wanted: &BTreeSet<PeerId>) {
        let due: Vec<(LinkId, PeerId)> = self
            .links
            .iter()
            .filter(|(_, link)| link.is_outbound() && link.speak_at <= now.mono)
            .map(|(id, link)| (id, link.connection.peer()))
            .collect();
        for (link, peer) in due {
            if let Some(link) = self.links.get_mut(link) {
                link.speak_at = overlay::keepalive(now.mono, entropy::u64());
            }
            if wanted.contains(&peer) {
                for id in self.shared_networks(now.unix_ms, &peer) {
                    self.beat(now.mono, id, link);
                }
            }
        }
    }

    /// A link has ended; `broken`: neither end closed it because it was of no use any more.
    pub(super) fn on_ended(&mut self, link: LinkId, broken: bool) {
        if let Some(peer) = self.links.remove(link).filter(|_| broken) {
            self.lost(peer);
        }
    }

    /// A member does not answer any more: without another link it is not online.
    pub(super) fn lost(&mut self, peer: PeerId) {
        if self.links.one_each().contains_key(&peer) {
            return;
        }
        let now = clock::now();
        for network in
            self.networks.values_mut().filter(|network| network.constitution.view().members.contains_key(&peer))
        {
            network.lives.missed(now, peer);
            network.dirty = true;
        }
    }

    // ---- asking ---------------------------------------------------------------------------------------------------

    pub(super) fn call(
        &mut self,
        id: NetworkId,
        link: LinkId,
        request: NetRequest,
        call: Call,
        limit: Duration,
    ) -> bool {
        let Some(using) = self.links.get(link) else { return false };
        let room = if is_urgent(&request) { MAX_TASKS + URGENT_TASKS } else { MAX_TASKS };
        if self.tasks.len() >= room {
            count(&self.shared.counts.busy);
            return false;
        }
        let (connection, using) = (Arc::clone(&using.connection), using.usage.begin(clock::now()));
        let (shared, peer) = (Arc::clone(&self.shared), connection.peer());
        self.tasks.spawn(async move {
            let answer = shared.call(&*connection, &id, &request, limit).await;
            drop(using);
            TaskDone::Called { network: id, peer, link, call, answer }
        });
        true
    }

    /// Says that we still hold the same, which keeps the link alive; now and then all is compared.
    fn beat(&mut self, now: Instant, id: NetworkId, link: LinkId) {
        let enough = self.links.get(link).is_some_and(|link| link.may_beat(&id, now));
        let Some(network) = self.networks.get(&id).filter(|_| enough) else { return self.sync(id, link) };
        let (head, beat) = network.beat(now, self.sight(link));
        self.call(id, link, NetRequest::Beat(beat), Call::Beat(head), CALL_LIMIT);
    }

    /// Compares what both hold. What another link of the same peer waits for does not count: that one may be dead.
    pub(super) fn sync(&mut self, id: NetworkId, link: LinkId) {
        let at = self.sight(link);
        let Some(network) = self.networks.get(&id) else { return };
        if !self.syncing.insert((id, link)) {
            return;
        }
        let mut state = network.state_at(Moment::now());
        state.observed = at;
        if !self.call(id, link, NetRequest::Sync(state), Call::Sync, CALL_LIMIT) {
            self.syncing.remove(&(id, link));
        }
    }

    pub(super) fn pull(&mut self, id: NetworkId, peer: PeerId, link: LinkId, theirs: SyncState, lacks: Lacks) {
        let deaf =
            self.networks.get_mut(&id).is_some_and(|network| lacks.any() && network.is_deaf_to(clock::now(), &peer));
        if deaf || !lacks.any() || self.pulling.contains_key(&(id, link)) {
            return;
        }
        let onward = if lacks.statements { Onward::default() } else { Onward::beside(&theirs.tips) };
        let asked = BTreeSet::new();
        self.pulling.insert((id, link), Pulling { theirs, lacks, page: 0, pages: 0, asked, onward, news: false });
        self.next_page(id, peer, link);
    }

    fn next_page(&mut self, id: NetworkId, peer: PeerId, link: LinkId) {
        let Some(pulling) = self.pulling.get_mut(&(id, link)) else { return };
        let Some(network) = self.networks.get_mut(&id) else { return };
        if pulling.lacks.signers {
            network.merged.insert(peer, clock::now());
        }
        let state = network.pull_on(pulling.lacks, pulling.page, &pulling.onward);
        pulling.asked.extend(&state.want);
        let request = NetRequest::Sync(SyncState { sent_ms: clock::unix_millis(), ..state });
        if !self.call(id, link, request, Call::Pull, PULL_LIMIT) {
            self.pulling.remove(&(id, link));
        }
    }

    pub(super) fn on_called(
        &mut self,
        id: NetworkId,
        peer: PeerId,
        link: LinkId,
        call: &Call,
        answer: Result<NetResponse, CallError>,
    ) {
        match call {
            Call::Sync => drop(self.syncing.remove(&(id, link))),
            Call::Push(campaign) => {
                if let Some(campaign) = campaign {
                    self.acked(*campaign, matches!(answer, Ok(NetResponse::Done)));
                }
            }
            Call::Farewell => return self.on_parted(link),
            Call::Pull | Call::Prove | Call::Beat(_) | Call::Introduce | Call::Greet => {}
        }
        let response = match answer {
            Ok(response) => response,
            Err(error) => {
                tracing::debug!(peer = %peer.short(), ?call, %error, "a member does not answer");
                self.pulling.remove(&(id, link));
                // Another request of ours may have been too much for it; only a link that is dead is given up.
                if !matches!(error, CallError::Wire(_) | CallError::TooLong(_)) {
                    self.links.close(link, CloseReason::Idle);
                    self.lost(peer);
                }
                return;
            }
        };
        let now = Moment::now();
        match (call, response) {
            (Call::Sync, NetResponse::State(theirs)) => {
                if let Some(link) = self.links.get_mut(link) {
                    link.note_told(id, now.mono);
                }
                self.compare(now, id, peer, link, theirs);
            }
            (Call::Beat(head), NetResponse::Beat(theirs)) => {
                self.note_sight(now, peer, link, theirs.observed);
                if let Some(network) = self.networks.get_mut(&id) {
                    network.hear_same(now, peer, *head, &theirs.alive);
                }
            }
            (Call::Beat(_), NetResponse::State(_)) => self.sync(id, link),
            (Call::Pull, NetResponse::Bundle(bundle)) => self.on_page(now, id, peer, link, *bundle),
            (Call::Pull, NetResponse::Elsewhere { admins }) => self.ask_admins(now, id, (peer, link), admins),
            (_, NetResponse::NotAMember) => {
                self.pulling.remove(&(id, link));
                // A word, not a proof.
                if let Some(network) = self.networks.get_mut(&id) {
                    network.counters.unproven += 1;
                }
            }
            (_, NetResponse::PutOut(proof)) => {
                self.pulling.remove(&(id, link));
                self.on_put_out(now, id, (peer, link), matches!(call, Call::Prove), *proof);
            }
            (Call::Introduce, NetResponse::Done) => self.sync(id, link),
            (Call::Introduce | Call::Greet, _) => {}
            (_, NetResponse::UnknownNetwork) => {
                self.pulling.remove(&(id, link));
                self.introduce(now.mono, id, peer, link);
                let newcomer = self.networks.get(&id).is_some_and(|network| now.mono < network.started + NEWCOMER);
                if let Some(link) = self.links.get_mut(link).filter(|_| newcomer) {
                    link.speak_at = now.mono + ASK_AGAIN;
                }
            }
            (Call::Pull, _) => drop(self.pulling.remove(&(id, link))),
            // Whatever else is answered does not end a pull on the same link.
            _ => {}
        }
    }

    /// A member says that we were put out. What it sends is looked at like everything else; if it proves that, the
    /// constitution says so from now on, and if not, nothing has changed.
    ///
    /// `marked`: it was asked with waymarks. Who has a tip that the other lacks is told from the beginning without them.
    fn on_put_out(&mut self, now: Moment, id: NetworkId, from: (PeerId, LinkId), marked: bool, proof: Bundle) {
        let (peer, link) = from;
        let Some(network) = self.networks.get_mut(&id) else { return };
        if network.is_deaf_to(now.mono, &peer) {
            return;
        }
        let more = proof.more;
        let proof = Bundle { statements: proof.statements, ..Bundle::default() };
        let absorbed = network.absorb(now.unix_ms, Some(peer), proof);
        network.note_events(now.unix_ms, &absorbed.events);
        if network.put_out_by(&self.shared.own).is_some() {
            return;
        }
        if !more || !absorbed.news && marked {
            network.counters.unproven += 1;
            return;
        }
        let state = network.pull(Lacks { statements: true, ..Lacks::default() }, 0);
        self.call(id, link, NetRequest::Sync(state), Call::Prove, PULL_LIMIT);
    }

    /// The member has shed signatures that we need; admins have them.
    fn ask_admins(&mut self, now: Moment, id: NetworkId, (peer, link): (PeerId, LinkId), admins: Vec<Door>) {
        self.pulling.remove(&(id, link));
        let links = self.links.one_each();
        let Some(network) = self.networks.get_mut(&id) else { return };
        // An admin sends nobody on: two that did would send us round for ever.
        if network.constitution.view().is_admin(&peer) || !network.sent_on.take(now.mono, SENT_ON_BURST, SENT_ON_PERIOD)
        {
            return;
        }
        let mut ask = Vec::new();
        for Door { peer: admin, addresses } in admins {
            if admin != self.shared.own && network.is_member(now.unix_ms, &admin) {
                network.hint(admin, addresses);
                ask.push(admin);
            }
        }
        for admin in ask {
            match links.get(&admin) {
                Some(link) => self.sync(id, *link),
                None => self.dial(admin),
            }
        }
    }

    /// Where a link's other end is seen, which the address of a way does not say; who comes to UDP port 443 comes from the
    /// socket that everything of theirs leaves by.
    pub(super) fn sight(&self, link: LinkId) -> Option<SocketAddr> {
        self.carriers.sight(self.links.get(link)?.connection.remote())
    }

    /// A member says where it sees us.
    pub(super) fn note_sight(&self, now: Moment, peer: PeerId, link: LinkId, observed: Option<SocketAddr>) {
        // Who sees us at port 443 does not see the socket that others see.
        let remote = self.links.get(link).map(|link| link.connection.remote()).filter(|at| !is_relayed(*at));
        if let Some(at) = remote {
            self.carriers.on_udp(now.mono, at);
        }
        if let Some((at, sees)) = remote.zip(observed) {
            self.reflexive.note(now.mono, peer, at, sees);
        }
    }

    /// Both have said what they hold.
    pub(super) fn compare(&mut self, now: Moment, id: NetworkId, peer: PeerId, link: LinkId, theirs: SyncState) {
        self.note_sight(now, peer, link, theirs.observed);
        let Some(network) = self.networks.get_mut(&id) else { return };
        network.hear(now, peer, &theirs);
        let mut lacks = network.lacks(now.mono, &peer, &theirs);
        lacks.statements &= !network.rests.rests(now.mono, &peer, (theirs.head, network.constitution.head()));
        self.pull(id, peer, link, theirs, lacks);
    }

    fn on_page(&mut self, now: Moment, id: NetworkId, peer: PeerId, link: LinkId, bundle: Bundle) {
        let (more, invites) = (bundle.more, bundle.invites.len() as u64);
        let Some(network) = self.networks.get_mut(&id) else { return };
        if network.is_deaf_to(now.mono, &peer) {
            self.pulling.remove(&(id, link));
            return;
        }
        let sent: Vec<StatementId> = bundle.statements.iter().map(|statement| statement.id()).collect();
        let absorbed = network.absorb(now.unix_ms, Some(peer), bundle);
        network.note_events(now.unix_ms, &absorbed.events);
        let Some(pulling) = self.pulling.get_mut(&(id, link)) else { return };
        pulling.page += invites;
        pulling.pages += 1;
        pulling.news |= absorbed.news;
        let progress = pulling.onward.note(&network.constitution, &sent, absorbed.news || invites > 0);
        // What there is no room for, not even to wait, comes again and again, and what stands on it, for which there would be,
        // after it: that is asked for from its end.
        if more && !progress && pulling.lacks.statements {
            network.miss(&pulling.theirs.tips);
        }
        // What came may stand on something else that we lack.
        let unasked = pulling.asked.len() < MAX_IDS && !network.missing.is_subset(&pulling.asked);
        if (more && progress || unasked) && pulling.pages < MAX_PAGES {
            return self.next_page(id, peer, link);
        }
        // It was asked for them and has no more to say: whoever holds what stands on them will name them again.
        network.missing.clear();
        if let Some(pulling) = self.pulling.remove(&(id, link))
            && let Some(network) = self.networks.get_mut(&id)
            && network.is_member(now.unix_ms, &peer)
        {
            if network.knows_all(&pulling.theirs) {
                network.note_agreed(now, peer);
            } else if pulling.lacks.statements && !pulling.news {
                network.rests.note(now.mono, peer, (pulling.theirs.head, network.constitution.head()));
            }
            if pulling.news {
                network.rests.end(&peer);
            }
            // Whoever was introduced and is a member by what it brought is talked to like all.
            if !network.heard.contains_key(&peer) {
                self.sync(id, link);
            }
        }
    }

    // ---- answering ------------------------------------------------------------------------------------------------

    /// Answers a member.
    pub(super) fn serve_member(
        &mut self,
        now: Moment,
        id: NetworkId,
        from: PeerId,
        link: LinkId,
        request: NetRequest,
    ) -> NetResponse {
        let sight = self.sight(link);
        let Some(network) = self.networks.get_mut(&id) else { return NetResponse::UnknownNetwork };
        match request {
            NetRequest::Sync(theirs) if theirs.cursor.is_some() => bundle_or_admins(network, &theirs),
            NetRequest::Sync(theirs) => {
                let mut state = network.state_at(now);
                state.observed = sight;
                self.compare(now, id, from, link, theirs);
                NetResponse::State(state)
            }
            NetRequest::Pull { ids } => {
                let wanted = SyncState { tips: network.constitution.tips(), want: ids, ..SyncState::default() };
                bundle_or_admins(network, &wanted)
            }
            NetRequest::Push(_) if network.is_deaf_to(now.mono, &from) => NetResponse::Done,
            NetRequest::Push(bundle) => {
                let absorbed = network.absorb(now.unix_ms, Some(from), *bundle);
                network.note_events(now.unix_ms, &absorbed.events);
                let incomplete = !network.missing.is_empty();
                if incomplete {
                    let lacks = Lacks { statements: true, ..Lacks::default() };
                    self.pull(id, from, link, SyncState::default(), lacks);
                }
                NetResponse::Done
            }
            NetRequest::Ping => NetResponse::Done,
            NetRequest::RelayOffer(pair) => self.take_offer(id, from, link, pair),
            NetRequest::Beat(theirs) => {
                self.note_sight(now, from, link, theirs.observed);
                let Some(network) = self.networks.get_mut(&id) else { return NetResponse::UnknownNetwork };
                let (head, ours) = network.beat(now.mono, sight);
                if ours.digest == theirs.digest {
                    network.hear_same(now, from, head, &theirs.alive);
                    return NetResponse::Beat(ours);
                }
                // Whoever asked now compares all.
                NetResponse::State(network.state_at(now))
            }
            NetRequest::Join(_) | NetRequest::RelayOpen(_) | NetRequest::Introduce { .. } | _ => {
                NetResponse::UnknownNetwork
            }
        }
    }
}

/// What a member lacks, or who can tell it where signatures of it were shed here.
pub(super) fn bundle_or_admins(network: &Network, theirs: &SyncState) -> NetResponse {
    let elsewhere = || NetResponse::Elsewhere { admins: network.doors(&[]) };
    network.answer(theirs).map_or_else(elsewhere, |bundle| NetResponse::Bundle(Box::new(bundle)))
}

/// Whether a message takes rights away.
fn is_urgent(request: &NetRequest) -> bool {
    let takes_away = |act: &Act| matches!(act, Act::Revoke { .. } | Act::RemoveAdmin { .. } | Act::Disable { .. });
    let NetRequest::Push(bundle) = request else { return false };
    bundle.statements.iter().any(|statement| takes_away(&statement.body().act))
}

#[cfg(test)]
mod tests {
    use pqvpn_wire::network::{Statement, StatementBody};

    use super::*;

    fn push(act: Act) -> NetRequest {
        let parents = vec![StatementId::from_bytes([1; 32])];
        let body = StatementBody { network: NetworkId::from_bytes([1; 32]), seq: 1, parents, at_ms: 0, act };
        let statements = vec![Arc::new(Statement::draft(body).unwrap())];
        NetRequest::Push(Box::new(Bundle { statements, ..Bundle::default() }))
    }

    #[test]
    fn only_what_takes_rights_away_finds_the_reserved_room() {
        let peer = PeerId::from_bytes([2; 32]);
        assert!(is_urgent(&push(Act::Revoke { peer, reason: String::new() })));
        assert!(is_urgent(&push(Act::RemoveAdmin { peer })));
        assert!(!is_urgent(&push(Act::Checkpoint { seal: [0; 32] })));
        assert!(!is_urgent(&NetRequest::Push(Box::default())) && !is_urgent(&NetRequest::Ping));
    }
}
