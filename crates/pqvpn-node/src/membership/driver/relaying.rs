// SPDX-License-Identifier: MIT OR Apache-2.0
//! Members that cannot reach each other, and the one that both have a link with.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{
    FutureExt as _, StreamExt as _,
    future::{BoxFuture, Either, select},
    stream::FuturesUnordered,
};
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_dataplane::way::ForwardStats;
use pqvpn_dht::address::{Class, class};
use pqvpn_wire::control::CloseReason;
use pqvpn_wire::network::{Channel, NetRequest, NetResponse, NetworkId, RelayOpened, RelayPair, RelayRefusal};
use tokio::sync::oneshot;

use super::{
    super::{
        error::RelayError,
        links::LinkId,
        network::Moment,
        relaying::{Planned, Refresh},
        report::{RelayPairReport, RelayReport, RelayTotal},
        rpc::CallError,
    },
    Driver, TaskDone,
    dialing::DIAL_LIMIT,
    gossip::MAX_TASKS,
};
use crate::{carrier::is_by_member, clock, entropy, netcheck::MemberLink, path::is_relayed};

/// Members of whom it is remembered how often nobody relayed to them.
const MAX_MISSED: usize = 256;
/// Ways that wait for a link at once.
const MAX_WANTED: usize = 256;
/// Members asked at once whether they relay.
const MAX_ASKED: usize = 3;
/// How long the other end of a pair may take to say that it is there.
const OFFER_LIMIT: Duration = Duration::from_secs(3);
/// How long a relay may take, the other end included.
const OPEN_LIMIT: Duration = Duration::from_secs(4);
/// How long a member may take to say that it is there at all.
const THERE_LIMIT: Duration = Duration::from_millis(1200);

/// Where the address of a way goes.
pub(in crate::membership) type WayReply = oneshot::Sender<Result<SocketAddr, RelayError>>;

/// Somebody who may relay to a peer.
struct Chance {
    network: NetworkId,
    relay: PeerId,
    at: SocketAddr,
    takes: Channel,
    link: LinkId,
    /// Whether the peer keeps a link with it.
    is_home: bool,
}

/// A way that waits for a link with somebody who may relay.
pub(in crate::membership) struct WantedWay {
    peer: PeerId,
    homes: BTreeSet<PeerId>,
    pub(super) until: Instant,
    reply: WayReply,
}

/// A relay has answered, or nobody has.
pub(in crate::membership) struct Relayed {
    peer: PeerId,
    /// Network, relay, where it is, and the channel it was told.
    by: Option<(NetworkId, PeerId, SocketAddr, Channel)>,
    opened: Result<RelayOpened, RelayError>,
    /// Links at whose other end nobody answered.
    dead: Vec<LinkId>,
    /// `None`: nobody waits, an open way is asked for again.
    reply: Option<WayReply>,
}

/// The other end of a pair has answered this node, which is to relay.
pub(in crate::membership) struct Offered {
    plan: Planned,
    asker_link: LinkId,
    other_link: LinkId,
    accepted: Result<RelayOpened, RelayRefusal>,
    answer: oneshot::Sender<NetResponse>,
}

impl Driver {
    // ---- who wants a way ------------------------------------------------------------------------------------------

    /// Looks for somebody who relays to a peer.
    pub(super) fn find_relay(&mut self, peer: PeerId, reply: WayReply) {
        let now = clock::now();
        let chances = self.chances(&peer);
        let homes = self.unlinked_homes(&peer);
        let is_home_linked = chances.iter().any(|chance| chance.is_home);
        if is_home_linked || homes.is_empty() {
            // Should those that are linked not be there any more, the next to ask finds these.
            homes.into_iter().for_each(|home| self.dial(home));
            return self.ask_now(peer, chances, reply);
        }
        // A link with who surely has one with the peer is worth the wait for it.
        for late in self.ways_wanted.drain((MAX_WANTED - 1).min(self.ways_wanted.len())..) {
            let _gone = late.reply.send(Err(RelayError::Busy));
        }
        self.ways_wanted.push(WantedWay {
            peer,
            homes: homes.iter().copied().collect(),
            until: now + DIAL_LIMIT,
            reply,
        });
        for home in homes {
            self.dial(home);
        }
        self.give_up_ways(now);
    }

    fn ask_now(&mut self, peer: PeerId, chances: Vec<Chance>, reply: WayReply) {
        if chances.is_empty() {
            self.note_miss(peer);
            let _gone = reply.send(Err(RelayError::NobodyLinked));
            return;
        }
        self.ask_for_way(peer, chances, Some(reply));
    }

    /// A dial of `home` has ended, one way or the other: who waited for it asks now, or waits for the other one.
    pub(super) fn ask_again_for_ways(&mut self, home: PeerId) {
        let linked = self.links.one_each().contains_key(&home);
        for wanted in &mut self.ways_wanted {
            if wanted.homes.remove(&home) && linked {
                wanted.homes.clear();
            }
        }
        self.give_up_ways(clock::now());
    }

    /// Asks for ways that wait for nobody any more.
    pub(super) fn give_up_ways(&mut self, now: Instant) {
        let dialing = &self.dialing;
        let over = |wanted: &mut WantedWay| {
            wanted.homes.retain(|home| dialing.contains(home));
            wanted.homes.is_empty() || wanted.until <= now
        };
        let over: Vec<WantedWay> = self.ways_wanted.extract_if(.., over).collect();
        for WantedWay { peer, reply, .. } in over {
            let chances = self.chances(&peer);
            self.ask_now(peer, chances, reply);
        }
    }

    /// Those that a peer behind a router keeps links with, or this node should, and it has none with. One that did not
    /// answer of late is tried all the same: it may be the only one that is left.
    fn unlinked_homes(&self, peer: &PeerId) -> Vec<PeerId> {
        let links = self.links.one_each();
        let networks = self.shared_networks(clock::unix_millis(), peer);
        let networks = networks.iter().filter_map(|id| self.networks.get(id));
        let own = (!self.is_open()).then_some(&self.shared.own);
        let misses = self.misses(peer);
        let homes = networks.flat_map(|network| {
            let ours = own.map(|own| network.homes_to_dial(own, 0)).unwrap_or_default();
            network.homes_to_dial(peer, misses).into_iter().chain(ours)
        });
        let homes: BTreeSet<PeerId> =
            homes.filter(|home| *home != self.shared.own && !links.contains_key(home)).collect();
        homes.into_iter().collect()
    }

    fn misses(&self, peer: &PeerId) -> u32 {
        self.missed.get(peer).copied().unwrap_or(0)
    }

    /// Nobody relays to a peer: the next to ask are further along the ring.
    fn note_miss(&mut self, peer: PeerId) {
        if self.missed.len() >= MAX_MISSED && !self.missed.contains_key(&peer) {
            self.missed.clear();
        }
        let misses = self.missed.entry(peer).or_insert(0);
        *misses = misses.wrapping_add(1);
    }

    /// Whether others can dial this node from anywhere.
    pub(super) fn is_open(&self) -> bool {
        self.endpoints.iter().any(|at| class(at) == Class::Public)
    }

    /// The members with a link that may have one with the peer too, the nearest first.
    fn chances(&mut self, peer: &PeerId) -> Vec<Chance> {
        let (now, now_ms) = (clock::now(), clock::unix_millis());
        let theirs = self.shared_networks(now_ms, peer);
        let mut linked: Vec<(Duration, NetworkId, PeerId, SocketAddr, LinkId)> = Vec::new();
        for (relay, link) in self.links.one_each() {
            let Some(connection) = self.links.get(link).map(|link| &link.connection) else { continue };
            let at = connection.remote();
            let network = self.shared_networks(now_ms, &relay).into_iter().find(|id| theirs.contains(id));
            if let Some(network) = network.filter(|_| relay != *peer && !is_by_member(at)) {
                linked.push((connection.rtt(), network, relay, at, link));
            }
        }
        let misses = self.misses(peer);
        let networks = theirs.iter().filter_map(|id| self.networks.get(id));
        let homes: BTreeSet<PeerId> = networks.flat_map(|network| network.homes_after(peer, misses)).collect();
        linked.sort_by_key(|(rtt, _, relay, ..)| (!homes.contains(relay), *rtt, *relay));
        linked.truncate(MAX_ASKED);
        let mut chances = Vec::new();
        for (_, network, relay, at, link) in linked {
            if let Ok(takes) = self.relaying.channel(now, &relay, peer, entropy::u64) {
                chances.push(Chance { network, relay, at, takes, link, is_home: homes.contains(&relay) });
            }
        }
        chances
    }

    fn ask_for_way(&mut self, peer: PeerId, chances: Vec<Chance>, reply: Option<WayReply>) {
        if self.tasks.len() >= MAX_TASKS {
            if let Some(reply) = reply {
                let _gone = reply.send(Err(RelayError::Busy));
            }
            return;
        }
        let asked: FuturesUnordered<_> = chances
            .into_iter()
            .filter_map(|Chance { network, relay, at, takes, link, .. }| {
                let using = self.links.get(link)?;
                let (connection, using) = (Arc::clone(&using.connection), using.usage.begin(clock::now()));
                let shared = Arc::clone(&self.shared);
                let request = NetRequest::RelayOpen(RelayPair { peer, channel: takes });
                // A slow line is not a dead one.
                let there_limit = THERE_LIMIT.max(connection.rtt() * 4);
                let ask = async move {
                    let open = shared.call(&*connection, &network, &request, OPEN_LIMIT);
                    let there = shared.call(&*connection, &network, &NetRequest::Ping, there_limit);
                    let answer = match select(pin!(open), pin!(there)).await {
                        Either::Left((answer, _)) => answer,
                        // It is there; what takes so long is the other end.
                        Either::Right((Ok(_), open)) => match open.await {
                            Err(CallError::Timeout) => Ok(NetResponse::RelayRefused(RelayRefusal::Declined)),
                            answer => answer,
                        },
                        Either::Right((Err(error), _)) => Err(error),
                    };
                    drop(using);
                    ((network, relay, at, takes), link, answer)
                };
                Some(ask.boxed())
            })
            .collect();
        self.tasks.spawn(async move {
            let (by, opened, dead) = first_open(asked).await;
            TaskDone::Relayed(Box::new(Relayed { peer, by, opened, dead, reply }))
        });
    }

    pub(super) fn on_relayed(&mut self, relayed: Relayed) {
        let Relayed { peer, by, opened, dead, reply } = relayed;
        for link in dead {
            let Some(gone) = self.links.get(link).map(|link| link.connection.peer()) else { continue };
            self.links.close(link, CloseReason::Idle);
            self.lost(gone);
        }
        let now = clock::now();
        let way = match (opened, by) {
            (Ok(opened), Some((network, relay, at, takes))) => {
                self.relaying.note_rate(now, relay, opened.rate);
                let whose = (network, relay, peer);
                let set = self.relaying.set_way(now, whose, at, takes, opened.channel, true, entropy::u64());
                set.map_err(|error| RelayError::Local(error.to_string()))
            }
            (Ok(_), None) => Err(RelayError::NobodyLinked),
            (Err(error), _) => Err(error),
        };
        match &way {
            Ok(way) => {
                self.missed.remove(&peer);
                tracing::debug!(peer = %peer.short(), %way, relay = ?self.relaying.via(*way), "a way by a relay")
            }
            Err(error) => {
                self.note_miss(peer);
                tracing::debug!(peer = %peer.short(), %error, "no relay");
            }
        }
        self.share_ways();
        if let (Ok(way), true) = (&way, reply.is_some()) {
            self.relaying.hold(now, &[*way].into());
        }
        if let Some(reply) = reply {
            let _gone = reply.send(way);
        }
    }

    /// Somebody relays to us.
    pub(super) fn take_offer(
        &mut self,
        network: NetworkId,
        relay: PeerId,
        link: LinkId,
        pair: RelayPair,
    ) -> NetResponse {
        let refused = |refusal| NetResponse::RelayRefused(refusal);
        let now = Moment::now();
        let is_member = self.networks.get(&network).is_some_and(|network| network.is_member(now.unix_ms, &pair.peer));
        if !is_member || pair.peer == self.shared.own || pair.peer == relay {
            return refused(RelayRefusal::NotAMember);
        }
        let at = self.links.get(link).map(|link| link.connection.remote());
        let Some(at) = at.filter(|at| !is_by_member(*at)) else { return refused(RelayRefusal::Declined) };
        let takes = match self.relaying.channel(now.mono, &relay, &pair.peer, entropy::u64) {
            Ok(takes) => takes,
            Err(refusal) => return refused(refusal),
        };
        let whose = (network, relay, pair.peer);
        let set = self.relaying.set_way(now.mono, whose, at, takes, pair.channel, false, entropy::u64());
        self.share_ways();
        match set {
            Ok(_) => NetResponse::RelayOpened(RelayOpened { channel: takes, rate: 0 }),
            Err(error) => {
                tracing::debug!(%error, "an offered way is not taken");
                refused(RelayRefusal::Declined)
            }
        }
    }

    /// The members there are links with, the nearest first.
    pub(super) fn member_links(&self, now: Instant) -> Vec<MemberLink> {
        let mut links: Vec<MemberLink> = self
            .links
            .one_each()
            .into_iter()
            .filter_map(|(peer, id)| {
                let link = self.links.get(id)?;
                let remote = link.connection.remote();
                let place = self.carriers.place(remote).map_or(remote, |place| place.at);
                let at = Some(place).filter(|at| !is_relayed(*at));
                Some(MemberLink {
                    peer,
                    name: self.called(&peer),
                    at,
                    carrier: self.carriers.rung(remote).name(),
                    inbound: !link.is_outbound(),
                    rtt: link.connection.rtt(),
                    idle: now.saturating_duration_since(link.usage.last()),
                    forwards: self.relaying.rate_of(now, &peer),
                })
            })
            .collect();
        links.sort_by_key(|link| (link.at.is_none(), link.rtt));
        links
    }

    /// What people call a member.
    fn called(&self, peer: &PeerId) -> String {
        let known = self.networks.values().find_map(|network| network.constitution.view().members.get(peer));
        known.map_or_else(|| peer.short(), |member| member.name.clone())
    }

    /// What this node forwards for others.
    pub(super) fn relay_report(&self) -> RelayReport {
        let pair = |(network, ends, stats): (NetworkId, [PeerId; 2], ForwardStats)| RelayPairReport {
            network: self.networks.get(&network).map(|network| network.head.name.clone()).unwrap_or_default(),
            ends: ends.map(|end| (end, self.called(&end))),
            packets: stats.packets,
            bytes: stats.bytes,
            dropped: stats.dropped,
        };
        let pairs = self.relaying.pairs().map(pair).collect();
        let (rate, refused) = (self.relaying.rate(), self.relaying.refused);
        let ForwardStats { packets, bytes, dropped, .. } = self.relaying.total();
        let total = RelayTotal { packets, bytes, dropped };
        RelayReport { rate, pairs, total, refused, listen: Vec::new(), visitors: [0; 3] }
    }

    // ---- being a relay --------------------------------------------------------------------------------------------

    /// A member wants us to relay.
    pub(super) fn on_relay_open(
        &mut self,
        network: NetworkId,
        asker: PeerId,
        asker_link: LinkId,
        pair: RelayPair,
        answer: oneshot::Sender<NetResponse>,
    ) {
        let now_ms = clock::unix_millis();
        let other = pair.peer;
        let is_member = self.networks.get(&network).is_some_and(|network| network.is_member(now_ms, &other));
        let other_link = self.links.one_each().get(&other).copied();
        let direct = |link: LinkId| self.links.get(link).is_some_and(|link| !is_by_member(link.connection.remote()));
        let offering = self.relaying.begin_offer(asker);
        let planned = match other_link.filter(|link| direct(*link) && direct(asker_link)) {
            _ if !is_member || other == asker || other == self.shared.own => Err(RelayRefusal::NotAMember),
            None => Err(RelayRefusal::NotLinked),
            Some(_) if self.tasks.len() >= MAX_TASKS || offering.is_err() => Err(RelayRefusal::Full),
            Some(link) => self
                .relaying
                .plan(network, asker, pair.channel, other, entropy::u64)
                .and_then(|plan| Ok((plan, self.links.get(link).ok_or(RelayRefusal::NotLinked)?, link))),
        };
        let (plan, link, other_link) = match planned {
            Ok(planned) => planned,
            Err(refusal) => {
                let _gone = answer.send(NetResponse::RelayRefused(refusal));
                return;
            }
        };
        let (connection, using) = (Arc::clone(&link.connection), link.usage.begin(clock::now()));
        let shared = Arc::clone(&self.shared);
        let offer = NetRequest::RelayOffer(RelayPair { peer: asker, channel: plan.other_sends });
        self.tasks.spawn(async move {
            let accepted = match shared.call(&*connection, &network, &offer, OFFER_LIMIT).await {
                Ok(NetResponse::RelayOpened(opened)) => Ok(opened),
                Ok(NetResponse::RelayRefused(refusal)) => Err(refusal),
                Ok(_) | Err(_) => Err(RelayRefusal::Declined),
            };
            drop((using, offering));
            TaskDone::Offered(Box::new(Offered { plan, asker_link, other_link, accepted, answer }))
        });
    }

    pub(super) fn on_offered(&mut self, offered: Offered) {
        let Offered { plan, asker_link, other_link, accepted, answer } = offered;
        let at = |link: LinkId| self.links.get(link).map(|link| link.connection.remote());
        let ends = at(asker_link).zip(at(other_link));
        let opened = accepted.and_then(|accepted| {
            let (asker_at, other_at) = ends.ok_or(RelayRefusal::NotLinked)?;
            self.relaying.open(clock::now(), plan, accepted.channel, asker_at, other_at)?;
            Ok(RelayOpened { channel: plan.asker_sends, rate: self.relaying.rate() })
        });
        let _gone = answer.send(opened.map_or_else(NetResponse::RelayRefused, NetResponse::RelayOpened));
    }

    // ---- from time to time ----------------------------------------------------------------------------------------

    /// Ends what is over, asks again for what is in use, follows who has moved.
    pub(super) fn keep_relaying(&mut self, now: Moment) {
        let (links, networks) = (&self.links, &self.networks);
        let each = links.one_each();
        self.relaying.follow(|peer| {
            let at = links.get(*each.get(peer)?)?.connection.remote();
            (!is_by_member(at)).then_some(at)
        });
        self.relaying.follow_relays(|relay| {
            let at = links.get(*each.get(relay)?)?.connection.remote();
            (!is_by_member(at)).then_some(at)
        });
        let own = self.shared.own;
        let is_member = |network: &NetworkId, peer: &PeerId| {
            *peer == own || networks.get(network).is_some_and(|network| network.is_member(now.unix_ms, peer))
        };
        let due = self.relaying.keep_up(now.mono, is_member);
        for Refresh { network, relay, peer, channel: takes } in due {
            // Without a link with the relay the way ends by itself, and the node looks for another.
            let Some(link) = each.get(&relay).copied() else { continue };
            let Some(at) = self.links.get(link).map(|link| link.connection.remote()) else { continue };
            self.ask_for_way(peer, vec![Chance { network, relay, at, takes, link, is_home: true }], None);
        }
        self.share_ways();
    }

    fn share_ways(&self) {
        let ways = self.relaying.all_ways();
        if **self.shared.ways.load() != ways {
            self.shared.ways.store(Arc::new(ways));
        }
    }
}

type By = (NetworkId, PeerId, SocketAddr, Channel);
type Answered = (By, LinkId, Result<NetResponse, CallError>);

/// The first relay that agrees; without one, what the last of them said.
async fn first_open(
    mut asked: FuturesUnordered<BoxFuture<'static, Answered>>,
) -> (Option<By>, Result<RelayOpened, RelayError>, Vec<LinkId>) {
    let (mut said, mut dead) = (RelayError::NobodyLinked, Vec::new());
    while let Some((by, link, answer)) = asked.next().await {
        match answer {
            Ok(NetResponse::RelayOpened(opened)) => return (Some(by), Ok(opened), dead),
            Ok(NetResponse::RelayRefused(refusal)) => said = RelayError::Refused(refusal),
            Ok(_) => said = RelayError::NoAnswer,
            Err(error) => {
                tracing::debug!(%error, "a member was asked to relay");
                said = RelayError::NoAnswer;
                dead.extend(matches!(error, CallError::Timeout | CallError::Link(_)).then_some(link));
            }
        }
    }
    (None, Err(said), dead)
}
