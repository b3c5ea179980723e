// SPDX-License-Identifier: MIT OR Apache-2.0
//! Joins, from both sides: those of others that this node judges, and our own.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use pqvpn_crypto::{identity::PublicIdentity, peer_id::PeerId};
use pqvpn_wire::network::{
    Act, Bundle, Code, JoinRefusal, JoinRequest, NetResponse, NetworkId, NewMember, SyncState, is_label, label_of,
};
use tokio::{sync::oneshot, task::AbortHandle};

use super::{
    super::{
        command::Reply,
        error::NetworkError,
        join::{self, JoinDone, Member, Wish},
        links::LinkId,
        network::{JoinFacts, Judged, Moment, Network},
        report::JoinReport,
        rpc::count,
        store::{Change, Head, WaitingJoin},
    },
    Driver, TaskDone,
    gossip::bundle_or_admins,
};
use crate::clock;

/// Networks of one node: the data plane tells so many apart.
pub(super) const MAX_NETWORKS: usize = 63;
/// Joins that may hold their stream open at once.
const MAX_HELD: usize = 64;
/// How long a join is held until its joiner is told to ask again.
const HOLD: Duration = Duration::from_secs(8);
/// A joiner is told that it is in when other admins have heard so, or this time is over: of two who let different nodes
/// in with one use at once, both then know who was second.
const SETTLE: Duration = Duration::from_millis(700);
/// How long one round of a waiting join may take.
const ROUND: Duration = Duration::from_secs(45);
/// Pause between two rounds of a waiting join that found nobody.
const PAUSE: Duration = Duration::from_secs(5);
/// Joins accepted per network: as many at once, and one more each time this passes.
const JOIN_BURST: u32 = 32;
const JOIN_PERIOD: Duration = Duration::from_millis(100);
/// Code of the health item that says what became of a join that waited.
const JOIN_FAILED: &str = "join-failed";

/// A join of ours.
pub(super) struct Joining {
    wish: Wish,
    reply: Option<Reply<JoinReport>>,
    /// When to ask again; `None` while asking.
    again: Option<Instant>,
    /// The task that asks, or asked last.
    task: Option<AbortHandle>,
    /// What waited until this one took its place, and does so again if this one comes to nothing.
    before: Option<Wish>,
}

/// A join of another that waits here with its stream open.
pub(super) struct Held {
    network: NetworkId,
    peer: PeerId,
    answer: oneshot::Sender<NetResponse>,
    until: Instant,
    ticket: [u8; 16],
}

impl Joining {
    pub(super) fn is_waiting(&self) -> bool {
        self.wish.waiting
    }

    /// What waited before does not come back.
    pub(super) fn forget_before(&mut self) {
        self.before = None;
    }

    pub(super) fn network(&self) -> &str {
        &self.wish.code.network_name
    }

    pub(super) fn name(&self) -> &str {
        &self.wish.name
    }
}

impl Driver {
    // ---- joins of others ------------------------------------------------------------------------------------------

    /// Somebody wants to join.
    #[expect(clippy::too_many_arguments, reason = "what a request is made of, called once")]
    pub(super) fn on_join(
        &mut self,
        now: Moment,
        link: LinkId,
        (from, _remote): (PeerId, SocketAddr),
        id: NetworkId,
        (key, exporter): (&PublicIdentity, &[u8; 32]),
        request: JoinRequest,
        answer: oneshot::Sender<NetResponse>,
    ) {
        let facts = JoinFacts { now_ms: now.unix_ms, key, exporter };
        let paused = self.paused;
        let judged = match self.networks.get_mut(&id) {
            Some(network) if !paused && network.head.enabled && network.am_member(now.unix_ms) => {
                // Nor is anybody let in while that cannot be written down.
                if self.refusing.is_some() || !network.joins.take(now.mono, JOIN_BURST, JOIN_PERIOD) {
                    // Silence says nothing of the network to whom nothing may be said, and an honest joiner asks again.
                    return count(&self.shared.counts.hurried);
                }
                network.judge_join(facts, &request)
            }
            _ => Judged::Unknown,
        };
        if matches!(judged, Judged::Unknown) {
            count(&self.shared.counts.strangers);
        }
        let response = match judged {
            Judged::Unknown => NetResponse::UnknownNetwork,
            Judged::Refused(refusal) => self.refuse_join(id, refusal),
            Judged::Elsewhere => {
                let admins = self.networks.get(&id).map(|network| network.doors(&[])).unwrap_or_default();
                NetResponse::Elsewhere { admins }
            }
            Judged::Member => self.joined(id),
            Judged::Wait => return self.queue(now, id, from, &request, answer),
            Judged::Add(member) => return self.add(now, id, *member, answer),
        };
        tracing::debug!(peer = %from.short(), ?link, "a join was answered");
        let _link_gone = answer.send(response);
    }

    fn refuse_join(&mut self, id: NetworkId, refusal: JoinRefusal) -> NetResponse {
        if let Some(network) = self.networks.get_mut(&id) {
            network.counters.refused_joins += 1;
            tracing::info!(network = %network.head.name, %refusal, "a join was refused");
        }
        NetResponse::Refused(refusal)
    }

    /// The first page for a new member.
    fn joined(&self, id: NetworkId) -> NetResponse {
        let Some(network) = self.networks.get(&id) else { return NetResponse::UnknownNetwork };
        let nothing = SyncState { held: Some(Vec::new()), invites: [1; 32], ..SyncState::default() };
        let answer = bundle_or_admins(network, &nothing);
        if let NetResponse::Bundle(bundle) = answer { NetResponse::Joined(bundle) } else { answer }
    }

    fn queue(
        &mut self,
        now: Moment,
        id: NetworkId,
        peer: PeerId,
        request: &JoinRequest,
        answer: oneshot::Sender<NetResponse>,
    ) {
        let identity = Arc::clone(&self.shared.identity);
        let is_held = self.is_held(&id, &peer);
        let Some(network) = self.networks.get_mut(&id) else { return };
        let asks_again = network
            .pending
            .get(&peer)
            .is_some_and(|pending| !pending.denied && pending.serial == request.serial && pending.name == request.name);
        // Whoever asks beside an answer that is held has begun anew.
        let waits = asks_again && !is_held;
        let Some(pending) = network.queue_join(&identity, now.unix_ms, request) else {
            let response = self.refuse_join(id, JoinRefusal::Busy);
            drop(answer.send(response));
            return;
        };
        let ticket = pending.ticket;
        // The first answer comes at once, so that the person learns of it; later ones when there is something to say.
        self.held.retain(|held| (held.network, held.peer) != (id, peer));
        if !waits || self.held.len() >= MAX_HELD {
            drop(answer.send(NetResponse::Pending { ticket }));
            return;
        }
        self.held.push(Held { network: id, peer, answer, until: now.mono + HOLD, ticket });
    }

    fn add(&mut self, now: Moment, id: NetworkId, member: NewMember, answer: oneshot::Sender<NetResponse>) {
        let identity = Arc::clone(&self.shared.identity);
        let Some(network) = self.networks.get_mut(&id) else { return };
        let (peer, name) = (member.peer, member.name.clone());
        if let Err(error) = network.act(&identity, now.unix_ms, Act::AddMember(member)) {
            let refusal = if matches!(error, NetworkError::InviteUsedUp { .. }) {
                JoinRefusal::UsedUp
            } else if matches!(error, NetworkError::Full { .. }) {
                JoinRefusal::Full
            } else {
                JoinRefusal::Busy
            };
            tracing::warn!(%error, "a join cannot be signed");
            let response = self.refuse_join(id, refusal);
            drop(answer.send(response));
            return;
        }
        tracing::info!(network = %network.head.name, %name, peer = %peer.short(), "a member joined");
        network.prune(now.unix_ms);
        self.settle_join(id, peer, answer);
    }

    /// Tells a new member that it is in, once the others have heard so and nobody was before it.
    fn settle_join(&mut self, id: NetworkId, peer: PeerId, answer: oneshot::Sender<NetResponse>) {
        let others = self.networks.get(&id).map_or(0, |network| network.constitution.view().admins.len());
        let limit = if others > 1 { SETTLE } else { Duration::ZERO };
        self.push_and_wait(id, limit, move |driver, _heard| {
            let now_ms = clock::unix_millis();
            let is_in = driver.networks.get(&id).is_some_and(|network| network.is_member(now_ms, &peer));
            let response = if is_in { driver.joined(id) } else { driver.refuse_join(id, JoinRefusal::UsedUp) };
            let _link_gone = answer.send(response);
        });
    }

    /// Answers joins that waited, where an admin has decided.
    pub(super) fn answer_held(&mut self, id: NetworkId) {
        let Some(network) = self.networks.get(&id) else { return };
        let (now_ms, disabled) = (clock::unix_millis(), network.constitution.view().disabled);
        let decided = |held: &Held| {
            held.network == id
                && (network.is_member(now_ms, &held.peer)
                    || disabled
                    || network.pending.get(&held.peer).is_none_or(|pending| pending.denied))
        };
        let (answered, waiting): (Vec<Held>, Vec<Held>) = std::mem::take(&mut self.held).into_iter().partition(decided);
        self.held = waiting;
        for Held { network: id, peer, answer, .. } in answered {
            let is_in = self.networks.get(&id).is_some_and(|network| network.is_member(now_ms, &peer));
            let response = if is_in { self.joined(id) } else { self.refuse_join(id, JoinRefusal::Denied) };
            let _link_gone = answer.send(response);
        }
    }

    /// Whether a waiting join is held open here.
    pub(super) fn is_held(&self, id: &NetworkId, peer: &PeerId) -> bool {
        self.held.iter().any(|held| held.network == *id && held.peer == *peer)
    }

    /// Sends joiners away that were held for long enough; they ask again.
    pub(super) fn expire_held(&mut self, now: Instant) {
        let (over, waiting): (Vec<Held>, Vec<Held>) =
            std::mem::take(&mut self.held).into_iter().partition(|held| held.until <= now);
        self.held = waiting;
        for Held { answer, ticket, .. } in over {
            let _link_gone = answer.send(NetResponse::Pending { ticket });
        }
    }

    pub(super) fn next_held(&self) -> Option<Instant> {
        self.held.iter().map(|held| held.until).min()
    }

    // ---- our own --------------------------------------------------------------------------------------------------

    /// A person wants this node to join.
    pub(super) fn join(&mut self, text: &str, name: Option<String>, limit: Duration, reply: Reply<JoinReport>) {
        match self.begin_join(text, name, limit) {
            Ok(wish) => {
                let id = wish.code.network;
                let task = Some(self.start_join(id, wish.clone()));
                let before = self.joining.remove(&id);
                // Two that ask for one node drive each other away, for as long as no admin decides.
                before.as_ref().and_then(|before| before.task.as_ref()).inspect(|task| task.abort());
                let before = before.map(|before| before.wish);
                self.joining.insert(id, Joining { wish, reply: Some(reply), again: None, task, before });
                self.touch_members();
            }
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    /// The name this node asks for where none was given. One in letters that a label does not have says nothing.
    pub(super) fn own_label(&self) -> String {
        let label = label_of(&self.name);
        if is_label(&label) { label } else { format!("node-{}", self.shared.own.short()) }
    }

    fn begin_join(&self, text: &str, name: Option<String>, limit: Duration) -> Result<Wish, NetworkError> {
        let code: Code = text.parse()?;
        if let Some(name) = name.as_ref().filter(|name| !is_label(name)) {
            return Err(NetworkError::BadName(name.clone()));
        }
        if let Some(why) = self.unread.get(&code.network) {
            return Err(NetworkError::Unread(why.clone()));
        }
        if let Some(network) = self.networks.get(&code.network) {
            let now_ms = clock::unix_millis();
            let view = network.constitution.view();
            if network.am_member(now_ms) {
                let own = view.members.get(&self.shared.own).map(|own| own.name.clone()).unwrap_or_default();
                return Err(NetworkError::AlreadyMember(network.head.name.clone(), own));
            }
        }
        if self.joining.get(&code.network).is_some_and(|joining| joining.reply.is_some()) {
            return Err(NetworkError::AlreadyJoining(code.network_name));
        }
        if !self.has_room_for(Some(&code.network)) {
            return Err(NetworkError::TooManyNetworks(MAX_NETWORKS));
        }
        let chosen = name.is_some();
        let name = name.unwrap_or_else(|| self.own_label());
        Ok(Wish { code, name, chosen, waiting: false, deadline: clock::now() + limit })
    }

    /// Goes on with a join that waited for an admin when the node stopped.
    pub(super) fn resume_join(&mut self, id: NetworkId, head: Head) {
        let Some(WaitingJoin { code, name }) = head.waiting else { return };
        let Ok(code) = code.parse::<Code>() else { return };
        let wish = Wish { code, name, chosen: false, waiting: true, deadline: clock::now() + ROUND };
        self.wait_with(id, wish);
    }

    fn wait_with(&mut self, id: NetworkId, wish: Wish) {
        let again = Some(clock::now());
        self.joining.insert(id, Joining { wish, reply: None, again, task: None, before: None });
    }

    fn start_join(&mut self, id: NetworkId, wish: Wish) -> AbortHandle {
        let shared = Arc::clone(&self.shared);
        self.tasks
            .spawn(async move { TaskDone::Joined { network: id, done: Box::new(join::join(shared, wish).await) } })
    }

    /// Gives a join up.
    pub(super) fn forget_join(&mut self, id: &NetworkId) {
        self.joining.remove(id).and_then(|joining| joining.task).inspect(AbortHandle::abort);
    }

    /// Asks again where a join waits.
    pub(super) fn ask_again(&mut self, now: Instant) {
        let due = |joining: &&mut Joining| joining.again.is_some_and(|at| at <= now);
        let mut again = Vec::new();
        for joining in self.joining.values_mut().filter(due) {
            joining.again = None;
            joining.wish.deadline = now + ROUND;
            again.push(joining.wish.clone());
        }
        for wish in again {
            let id = wish.code.network;
            let task = self.start_join(id, wish);
            if let Some(joining) = self.joining.get_mut(&id) {
                joining.task = Some(task);
            }
        }
    }

    pub(super) fn next_ask(&self) -> Option<Instant> {
        self.joining.values().filter_map(|joining| joining.again).min()
    }

    pub(super) fn on_joined(&mut self, id: NetworkId, done: JoinDone) {
        let Some(mut joining) = self.joining.remove(&id) else { return };
        match done {
            JoinDone::Member(member) => {
                let report = self.enter(*member);
                match &report {
                    Ok(_) => self.standing.retain(|item| item.code != JOIN_FAILED),
                    Err(error) if joining.wish.waiting => self.say_standing(JOIN_FAILED, error.to_string()),
                    Err(_) => {}
                }
                self.touch_members();
                if let Some(reply) = joining.reply {
                    self.answer_later(reply, report);
                }
            }
            JoinDone::Waiting => self.wait_for_admin(id, joining),
            JoinDone::Failed(error) => {
                tracing::info!(%error, "not joined");
                let goes_on = matches!(error, NetworkError::NobodyAnswers { .. } | NetworkError::Busy { .. });
                if joining.wish.waiting && goes_on {
                    joining.again = Some(clock::now() + PAUSE);
                    self.joining.insert(id, joining);
                    return;
                }
                if joining.wish.waiting {
                    self.wait_no_more(id);
                    self.say_standing(JOIN_FAILED, error.to_string());
                }
                if let Some(before) = joining.before {
                    self.wait_with(id, before);
                }
                if let Some(reply) = joining.reply {
                    drop(reply.send(Err(error)));
                }
                self.touch_members();
            }
        }
    }

    fn wait_for_admin(&mut self, id: NetworkId, mut joining: Joining) {
        let (name, code) = (joining.wish.name.clone(), &joining.wish.code);
        let network = self.networks.get(&id).map_or_else(|| code.network_name.clone(), |held| held.head.name.clone());
        if let Some(reply) = joining.reply.take() {
            let report = JoinReport {
                id,
                network: network.clone(),
                name: name.clone(),
                addresses: Vec::new(),
                members: 0,
                waiting_for_approval: true,
            };
            self.answer_later(reply, Ok(report));
        }
        joining.before = None;
        if !joining.wish.waiting {
            joining.wish.waiting = true;
            let waiting = Some(WaitingJoin { code: joining.wish.code.to_string(), name });
            if let Some(held) = self.networks.get_mut(&id) {
                held.head.waiting = waiting;
                held.keep_head();
            } else {
                let since_ms = clock::unix_millis();
                self.store_later(Change::Head(id, Head { name: network, enabled: true, seq: 0, waiting, since_ms }));
            }
        }
        joining.again = Some(clock::now());
        self.joining.insert(id, joining);
        self.untold = true;
    }

    /// Nobody lets us in: of a network that we were in before all stays but the wish.
    fn wait_no_more(&mut self, id: NetworkId) {
        match self.networks.get_mut(&id) {
            Some(held) => {
                held.head.waiting = None;
                held.keep_head();
            }
            None => self.store_later(Change::Forget(id)),
        }
    }

    /// This node is a member now, unless what it held of the network before says otherwise: nothing that was held is
    /// forgotten because somebody who lets us in does not say it.
    ///
    /// # Errors
    /// By all that is known it is no member.
    pub(super) fn enter(&mut self, member: Member) -> Result<JoinReport, NetworkError> {
        let Member { mut constitution, records, invites, covers, link, name } = member;
        let now = Moment::now();
        let id = constitution.id();
        let (mut seq, mut seen) = (0, BTreeMap::new());
        if let Some(mut before) = self.networks.remove(&id) {
            (seq, seen) = (before.head.seq, std::mem::take(&mut before.seen));
            constitution = before.united_with(&constitution);
        }
        let view = constitution.view();
        // Never before a network that is here already, whatever the clock was when that was joined.
        let newest = self.networks.values().map(|network| network.head.since_ms).max().unwrap_or(0);
        let since_ms = now.unix_ms.max(newest.saturating_add(1));
        let head = Head { name: self.free_network_name(&view.name), enabled: true, seq, waiting: None, since_ms };
        let mut network = Network::new(self.shared.own, constitution, head, now);
        network.seen = seen;
        network.keep_head();
        network.keep_all();
        // What the network says of itself is no news to it.
        network.absorb(now.unix_ms, None, Bundle { records, invites, covers, ..Bundle::default() });
        network.news = super::super::network::News::default();
        network.note_synced(now.mono);
        network.reached_at(now.unix_ms, link.peer(), link.remote());
        network.lives.heard(now.mono, link.peer());
        self.shared.counts.add_network(id);
        let own = network.constitution.view().members.get(&self.shared.own);
        let over = own.map(|own| own.expired(now.unix_ms));
        let report = JoinReport {
            id,
            network: network.head.name.clone(),
            name: own.map_or(name, |own| own.name.clone()),
            addresses: network.addresses(&self.shared.own, own),
            members: network.others(now.unix_ms).len() + 1,
            waiting_for_approval: false,
        };
        self.networks.insert(id, network);
        // The door is a neighbour from now on, at least until the ring is known.
        let _full = self.adopt_dialed(link);
        if over != Some(false) {
            tracing::warn!(network = %report.network, "let in, and no member by all that is known");
            let network = report.network;
            return Err(if over.is_some() {
                NetworkError::MembershipEnded { network }
            } else {
                NetworkError::Revoked { network }
            });
        }
        tracing::info!(network = %report.network, name = %report.name, members = report.members, "joined");
        Ok(report)
    }

    pub(super) fn touch_members(&mut self) {
        self.share_members(Moment::now());
        self.touch();
        self.untold = true;
    }
}
