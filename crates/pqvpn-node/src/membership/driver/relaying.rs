// SPDX-License-Identifier: MIT OR Apache-2.0
//! Members that cannot reach each other, and the one that both have a link with.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_dataplane::way::ForwardStats;
use pqvpn_wire::network::{Channel, NetRequest, NetResponse, NetworkId, RelayOpened, RelayPair, RelayRefusal};
use tokio::sync::oneshot;

use super::{
    super::{
        error::RelayError,
        links::LinkId,
        network::Moment,
        relaying::{Planned, Refresh},
        report::{RelayPairReport, RelayReport},
        rpc::CallError,
    },
    Driver, TaskDone,
    gossip::MAX_TASKS,
};
use crate::{clock, entropy, netcheck::MemberLink, path::is_relayed};

/// Members asked at once whether they relay.
const MAX_ASKED: usize = 3;
/// How long the other end of a pair may take to say that it is there.
const OFFER_LIMIT: Duration = Duration::from_secs(3);
/// How long a relay may take, the other end included.
const OPEN_LIMIT: Duration = Duration::from_secs(4);

/// Where the address of a way goes.
pub(in crate::membership) type WayReply = oneshot::Sender<Result<SocketAddr, RelayError>>;

/// Somebody who may relay to a peer.
struct Chance {
    network: NetworkId,
    relay: PeerId,
    at: SocketAddr,
    takes: Channel,
    link: LinkId,
}

/// A relay has answered, or nobody has.
pub(in crate::membership) struct Relayed {
    peer: PeerId,
    /// Network, relay, where it is, and the channel it was told.
    by: Option<(NetworkId, PeerId, SocketAddr, Channel)>,
    opened: Result<RelayOpened, RelayError>,
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
        let chances = self.chances(&peer);
        if chances.is_empty() {
            let _gone = reply.send(Err(RelayError::NobodyLinked));
            return;
        }
        self.ask_for_way(peer, chances, Some(reply));
    }

    /// The members with a link that may have one with the peer too, the nearest first.
    fn chances(&mut self, peer: &PeerId) -> Vec<Chance> {
        let now_ms = clock::unix_millis();
        let theirs = self.shared_networks(now_ms, peer);
        let mut linked: Vec<(Duration, NetworkId, PeerId, SocketAddr, LinkId)> = Vec::new();
        for (relay, link) in self.links.one_each() {
            let Some(connection) = self.links.get(link).map(|link| &link.connection) else { continue };
            let at = connection.remote();
            let network = self.shared_networks(now_ms, &relay).into_iter().find(|id| theirs.contains(id));
            if let Some(network) = network.filter(|_| relay != *peer && !is_relayed(at)) {
                linked.push((connection.rtt(), network, relay, at, link));
            }
        }
        linked.sort_by_key(|(rtt, _, relay, ..)| (*rtt, *relay));
        linked.truncate(MAX_ASKED);
        let mut chances = Vec::new();
        for (_, network, relay, at, link) in linked {
            if let Ok(takes) = self.relaying.channel(&relay, peer, entropy::u64) {
                chances.push(Chance { network, relay, at, takes, link });
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
            .filter_map(|Chance { network, relay, at, takes, link }| {
                let using = self.links.get(link)?;
                let (connection, using) = (Arc::clone(&using.connection), using.usage.begin(clock::now()));
                let shared = Arc::clone(&self.shared);
                let request = NetRequest::RelayOpen(RelayPair { peer, channel: takes });
                let ask = async move {
                    let answer = shared.call(&*connection, &network, &request, OPEN_LIMIT).await;
                    drop(using);
                    ((network, relay, at, takes), answer)
                };
                Some(ask.boxed())
            })
            .collect();
        self.tasks.spawn(async move {
            let (by, opened) = first_open(asked).await;
            TaskDone::Relayed(Box::new(Relayed { peer, by, opened, reply }))
        });
    }

    pub(super) fn on_relayed(&mut self, relayed: Relayed) {
        let Relayed { peer, by, opened, reply } = relayed;
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
                tracing::debug!(peer = %peer.short(), %way, relay = ?self.relaying.via(*way), "a way by a relay")
            }
            Err(error) => tracing::debug!(peer = %peer.short(), %error, "no relay"),
        }
        self.share_ways();
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
        let Some(at) = at.filter(|at| !is_relayed(*at)) else { return refused(RelayRefusal::Declined) };
        let takes = match self.relaying.channel(&relay, &pair.peer, entropy::u64) {
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
                let at = Some(link.connection.remote()).filter(|at| !is_relayed(*at));
                Some(MemberLink {
                    peer,
                    name: self.called(&peer),
                    at,
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
        RelayReport { rate: self.relaying.rate(), pairs, refused: self.relaying.refused }
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
        let direct = |link: LinkId| self.links.get(link).is_some_and(|link| !is_relayed(link.connection.remote()));
        let planned = match other_link.filter(|link| direct(*link) && direct(asker_link)) {
            _ if !is_member || other == asker || other == self.shared.own => Err(RelayRefusal::NotAMember),
            None => Err(RelayRefusal::NotLinked),
            Some(_) if self.tasks.len() >= MAX_TASKS => Err(RelayRefusal::Full),
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
            drop(using);
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
            (!is_relayed(at)).then_some(at)
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
            self.ask_for_way(peer, vec![Chance { network, relay, at, takes, link }], None);
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

type Answered = ((NetworkId, PeerId, SocketAddr, Channel), Result<NetResponse, CallError>);

/// The first relay that agrees; without one, what the last of them said.
async fn first_open(
    mut asked: FuturesUnordered<futures_util::future::BoxFuture<'static, Answered>>,
) -> (Option<(NetworkId, PeerId, SocketAddr, Channel)>, Result<RelayOpened, RelayError>) {
    let mut said = RelayError::NobodyLinked;
    while let Some((by, answer)) = asked.next().await {
        match answer {
            Ok(NetResponse::RelayOpened(opened)) => return (Some(by), Ok(opened)),
            Ok(NetResponse::RelayRefused(refusal)) => said = RelayError::Refused(refusal),
            Ok(_) => said = RelayError::NoAnswer,
            Err(error) => {
                tracing::debug!(%error, "a member was asked to relay");
                said = RelayError::NoAnswer;
            }
        }
    }
    (None, Err(said))
}
