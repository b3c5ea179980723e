// SPDX-License-Identifier: MIT OR Apache-2.0
//! The books of relaying: pairs of members this node forwards between, and its own ways through other members.
//!
//! Both are soft: who asked asks again while it needs them, and what nobody asks for ends.

use std::{
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_dataplane::way::{Forward, ForwardLimit, ForwardStats, Way, WayError, WayId};
use pqvpn_wire::network::{Channel, NetworkId, RELAY_LASTS_S, RelayRefusal};

use crate::carrier::by_member;
pub(crate) use forwarder::Forwarder;

mod forwarder;

/// How long pairs and ways last when nobody asks again.
pub(super) const LASTS: Duration = Duration::from_secs(RELAY_LASTS_S);
/// How often a way that is in use is asked for again.
const REFRESH: Duration = Duration::from_secs(45);
/// A way counts as in use for so long after the node said so.
const HELD: Duration = Duration::from_secs(75);
/// Pairs at once, in all and for one asking member.
const MAX_PAIRS: usize = 1024;
const MAX_PAIRS_EACH: usize = 64;
/// Offers under way that one asker may have caused, as many as its link has streams: each waits for somebody who may be silent.
const MAX_OFFERS_EACH: usize = 16;
/// Ways at once, in all and through one relay.
const MAX_WAYS: usize = 1024;
const MAX_WAYS_EACH: usize = 512;
/// What two members are introduced with: a handshake of 20 kB each way and what it takes to find a direct way.
const INTRODUCTION: (u64, u64) = (24 * 1024, 192 * 1024);
/// All introductions that one member asks for, and all together.
const INTRODUCTIONS_EACH: (u64, u64) = (256 * 1024, 1024 * 1024);
const INTRODUCTIONS: (u64, u64) = (1024 * 1024, 4 * 1024 * 1024);
/// How long a channel that was named to a relay is the one for its pair, whoever asks first: longer than an answer takes.
const NAMED: Duration = Duration::from_secs(10);

/// How much this node forwards for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Willing {
    /// Only what introduces two members to each other.
    #[default]
    Introductions,
    /// Their traffic as well, all together so many bytes a second.
    Bulk {
        /// Bytes a second.
        rate: u64,
    },
}

/// Two members this node forwards between.
#[derive(Debug)]
struct Pair {
    network: NetworkId,
    asker: End,
    other: End,
    until: Instant,
    limit: Arc<ForwardLimit>,
}

/// One end of a pair.
#[derive(Debug, Clone, Copy)]
struct End {
    peer: PeerId,
    at: SocketAddr,
    /// What it writes on what it sends us.
    sends: Channel,
    /// What it wants to see on what we send it.
    takes: Channel,
}

/// A way of ours through another member.
#[derive(Debug, Clone, Copy)]
struct OwnWay {
    id: WayId,
    network: NetworkId,
    relay: PeerId,
    relay_at: SocketAddr,
    peer: PeerId,
    takes: Channel,
    sends: Channel,
    /// Whether we asked for it; then it is ours to keep it.
    ours: bool,
    until: Instant,
    refresh_at: Instant,
    held_until: Instant,
}

/// A way to be asked for again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refresh {
    pub(super) network: NetworkId,
    pub(super) relay: PeerId,
    pub(super) peer: PeerId,
    pub(super) channel: Channel,
}

/// What a relay agreed to with one end, before the other end has said yes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Planned {
    pub(super) network: NetworkId,
    pub(super) asker: PeerId,
    pub(super) asker_takes: Channel,
    pub(super) other: PeerId,
    /// What the asker shall write.
    pub(super) asker_sends: Channel,
    /// What the other end shall write.
    pub(super) other_sends: Channel,
}

/// All pairs and ways.
pub(super) struct Relaying {
    forwarder: Arc<dyn Forwarder>,
    willing: Willing,
    shared: Arc<ForwardLimit>,
    introductions: Arc<ForwardLimit>,
    askers: BTreeMap<PeerId, Weak<ForwardLimit>>,
    /// Of each asker; who makes an offer holds a part.
    offers: BTreeMap<PeerId, Arc<()>>,
    pairs: Vec<Pair>,
    ways: Vec<OwnWay>,
    /// Channels named to relays of which no way has come yet, and until when.
    named: BTreeMap<(PeerId, PeerId), (Channel, Instant)>,
    /// What relays said they forward for a pair, in bytes a second.
    told: BTreeMap<PeerId, (u64, Instant)>,
    /// Requests refused because somebody asked for too much.
    pub(super) refused: u64,
    /// What went through pairs that have ended.
    ended: ForwardStats,
}

impl Relaying {
    pub(super) fn new(forwarder: Arc<dyn Forwarder>, willing: Willing) -> Self {
        let [shared, introductions] = limits(willing);
        Self {
            forwarder,
            willing,
            shared,
            introductions,
            askers: BTreeMap::new(),
            offers: BTreeMap::new(),
            pairs: Vec::new(),
            ways: Vec::new(),
            named: BTreeMap::new(),
            told: BTreeMap::new(),
            refused: 0,
            ended: ForwardStats::default(),
        }
    }

    /// Bytes a second that are forwarded for a pair, 0 for introductions only.
    pub(super) const fn rate(&self) -> u64 {
        match self.willing {
            Willing::Introductions => 0,
            Willing::Bulk { rate } => rate,
        }
    }

    // ---- being a relay --------------------------------------------------------------------------------------------

    /// An offer in the name of an asker is under way for as long as this is kept.
    ///
    /// # Errors
    /// [`RelayRefusal::Full`].
    pub(super) fn begin_offer(&mut self, asker: PeerId) -> Result<Arc<()>, RelayRefusal> {
        self.offers.retain(|_, offers| Arc::strong_count(offers) > 1);
        let offers = self.offers.entry(asker).or_default();
        if Arc::strong_count(offers) > MAX_OFFERS_EACH {
            self.refused += 1;
            return Err(RelayRefusal::Full);
        }
        Ok(Arc::clone(offers))
    }

    /// Plans a pair: the one there is goes on with its channels. `random` makes new ones.
    ///
    /// # Errors
    /// [`RelayRefusal::Full`].
    pub(super) fn plan(
        &mut self,
        network: NetworkId,
        asker: PeerId,
        asker_takes: Channel,
        other: PeerId,
        mut random: impl FnMut() -> u64,
    ) -> Result<Planned, RelayRefusal> {
        let same = |pair: &&Pair| pair.network == network && pair.asker.peer == asker && pair.other.peer == other;
        if let Some(pair) = self.pairs.iter().find(same) {
            let (asker_sends, other_sends) = (pair.asker.sends, pair.other.sends);
            return Ok(Planned { network, asker, asker_takes, other, asker_sends, other_sends });
        }
        let each = self.pairs.iter().filter(|pair| pair.asker.peer == asker).count();
        if self.pairs.len() >= MAX_PAIRS || each >= MAX_PAIRS_EACH {
            self.refused += 1;
            return Err(RelayRefusal::Full);
        }
        let mut draw = || loop {
            if let Some(channel) = Channel::new(random()) {
                break channel;
            }
        };
        Ok(Planned { network, asker, asker_takes, other, asker_sends: draw(), other_sends: draw() })
    }

    /// Both ends have said yes: forwards from now, `asker_at` and `other_at` being where their links are.
    ///
    /// # Errors
    /// [`RelayRefusal::Full`] where the data plane has no room.
    pub(super) fn open(
        &mut self,
        now: Instant,
        plan: Planned,
        other_takes: Channel,
        asker_at: SocketAddr,
        other_at: SocketAddr,
    ) -> Result<(), RelayRefusal> {
        let same =
            |pair: &Pair| (pair.network, pair.asker.peer, pair.other.peer) == (plan.network, plan.asker, plan.other);
        let known = self.pairs.iter().find(|pair| same(pair)).map(|pair| Arc::clone(&pair.limit));
        let limit = known.unwrap_or_else(|| self.limit(plan.asker));
        let pair = Pair {
            network: plan.network,
            asker: End { peer: plan.asker, at: asker_at, sends: plan.asker_sends, takes: plan.asker_takes },
            other: End { peer: plan.other, at: other_at, sends: plan.other_sends, takes: other_takes },
            until: now + LASTS,
            limit,
        };
        if let Err(error) = self.forward(&pair) {
            tracing::debug!(%error, "not relayed");
            self.unforward(&pair);
            self.pairs.retain(|pair| !same(pair));
            return Err(RelayRefusal::Full);
        }
        // Two requests for one new pair get channels of their own; only the last ones are kept.
        let channels = [pair.asker.sends, pair.other.sends];
        let old: Vec<Pair> = self.pairs.extract_if(.., |pair| same(pair)).collect();
        for channel in old.iter().flat_map(|old| [old.asker.sends, old.other.sends]) {
            if !channels.contains(&channel) {
                self.end_forward(channel);
            }
        }
        self.pairs.push(pair);
        Ok(())
    }

    /// Follows ends whose links have moved; `at` says where a member's link is, if there is one.
    pub(super) fn follow(&mut self, at: impl Fn(&PeerId) -> Option<SocketAddr>) {
        let mut moved = Vec::new();
        for (position, pair) in self.pairs.iter_mut().enumerate() {
            for end in [&mut pair.asker, &mut pair.other] {
                if let Some(now_at) = at(&end.peer).filter(|now_at| *now_at != end.at) {
                    end.at = now_at;
                    moved.push(position);
                }
            }
        }
        for position in moved {
            if let Some(Err(error)) = self.pairs.get(position).map(|pair| self.forward(pair)) {
                tracing::debug!(%error, "a relayed member moved to where it cannot be reached");
            }
        }
    }

    fn forward(&self, pair: &Pair) -> Result<(), WayError> {
        for (from, to) in [(&pair.asker, &pair.other), (&pair.other, &pair.asker)] {
            let limit = Arc::clone(&pair.limit);
            let forward = Forward { from: from.at, to: to.at, out_channel: to.takes.get(), limit };
            self.forwarder.set_forward(from.sends.get(), forward)?;
        }
        Ok(())
    }

    fn unforward(&mut self, pair: &Pair) {
        self.end_forward(pair.asker.sends);
        self.end_forward(pair.other.sends);
    }

    fn end_forward(&mut self, channel: Channel) {
        add(&mut self.ended, self.forwarder.forward_stats(channel.get()));
        self.forwarder.remove_forward(channel.get());
    }

    /// What went through all pairs since the start.
    pub(super) fn total(&self) -> ForwardStats {
        let mut sum = self.ended;
        self.pairs().for_each(|(.., stats)| add(&mut sum, Some(stats)));
        sum
    }

    /// Whose links carry what is relayed: both ends of pairs, and the relays of ways that are in use.
    pub(super) fn partners(&self, now: Instant) -> Vec<PeerId> {
        let ends = self.pairs.iter().flat_map(|pair| [pair.asker.peer, pair.other.peer]);
        let ways = self.ways.iter().filter(|way| !way.ours || now < way.held_until);
        ends.chain(ways.map(|way| way.relay)).collect()
    }

    /// Forwards more or less from now on, for the pairs there are as well.
    pub(super) fn set_willing(&mut self, willing: Willing) {
        if self.willing == willing {
            return;
        }
        (self.willing, [self.shared, self.introductions]) = (willing, limits(willing));
        self.askers.clear();
        let askers: Vec<PeerId> = self.pairs.iter().map(|pair| pair.asker.peer).collect();
        let limits: Vec<Arc<ForwardLimit>> = askers.into_iter().map(|asker| self.limit(asker)).collect();
        for (pair, limit) in self.pairs.iter_mut().zip(limits) {
            pair.limit = limit;
        }
        for pair in &self.pairs {
            if let Err(error) = self.forward(pair) {
                tracing::debug!(%error, "a pair keeps the limit it had");
            }
        }
    }

    /// What a pair that begins now counts against.
    fn limit(&mut self, asker: PeerId) -> Arc<ForwardLimit> {
        self.askers.retain(|_, limit| limit.strong_count() > 0);
        let of_asker = self.askers.get(&asker).and_then(Weak::upgrade).unwrap_or_else(|| {
            let (rate, burst) = introductions_each(self.willing);
            Arc::new(ForwardLimit::new(rate, burst).within(Arc::clone(&self.introductions)))
        });
        self.askers.insert(asker, Arc::downgrade(&of_asker));
        let introduction = |rate| ForwardLimit::new(rate, INTRODUCTION.1).within(of_asker);
        Arc::new(match self.willing {
            // Slowly refilled: who goes on talking lives on what is for all, and leaves the rest to who comes new.
            Willing::Bulk { rate } => introduction(1024.min(rate / 1000)).and_then(Arc::clone(&self.shared)),
            Willing::Introductions => introduction(INTRODUCTION.0),
        })
    }

    /// The pairs this node forwards between: network, both ends, and what went through in both directions.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (NetworkId, [PeerId; 2], ForwardStats)> {
        self.pairs.iter().map(|pair| {
            let mut sum = ForwardStats::default();
            for channel in [pair.asker.sends, pair.other.sends] {
                add(&mut sum, self.forwarder.forward_stats(channel.get()));
            }
            (pair.network, [pair.asker.peer, pair.other.peer], sum)
        })
    }

    // ---- ways of ours ---------------------------------------------------------------------------------------------

    /// The channel of the way that there is, or that was named of late: both ends may ask one relay for each other at
    /// once, and a way takes what comes on one channel. Else a new one.
    ///
    /// # Errors
    /// [`RelayRefusal::Full`].
    pub(super) fn channel(
        &mut self,
        now: Instant,
        relay: &PeerId,
        peer: &PeerId,
        mut random: impl FnMut() -> u64,
    ) -> Result<Channel, RelayRefusal> {
        if let Some(way) = self.ways.iter().find(|way| way.relay == *relay && way.peer == *peer) {
            return Ok(way.takes);
        }
        self.named.retain(|_, (_, until)| now < *until);
        if let Some((channel, _)) = self.named.get(&(*relay, *peer)) {
            return Ok(*channel);
        }
        let each = self.ways.iter().filter(|way| way.relay == *relay).count();
        if self.ways.len() >= MAX_WAYS || self.named.len() >= MAX_WAYS || each >= MAX_WAYS_EACH {
            self.refused += 1;
            return Err(RelayRefusal::Full);
        }
        loop {
            let Some(channel) = Channel::new(random()) else { continue };
            let is_taken = self.ways.iter().any(|way| way.takes == channel);
            if !is_taken && !self.named.values().any(|(named, _)| *named == channel) {
                self.named.insert((*relay, *peer), (channel, now + NAMED));
                return Ok(channel);
            }
        }
    }

    /// A relay, which is at `relay_at`, has agreed: the address of the way from now.
    ///
    /// # Errors
    /// [`WayError`] of the data plane.
    #[expect(clippy::too_many_arguments, reason = "called in two places, each value named there")]
    pub(super) fn set_way(
        &mut self,
        now: Instant,
        (network, relay, peer): (NetworkId, PeerId, PeerId),
        relay_at: SocketAddr,
        takes: Channel,
        sends: Channel,
        ours: bool,
        random: u64,
    ) -> Result<SocketAddr, WayError> {
        let known = self.ways.iter().position(|way| way.relay == relay && way.peer == peer);
        let before = known.and_then(|at| self.ways.get(at).copied());
        let id = before.map_or(WayId(by_member(random)), |way| way.id);
        let way = Way::Relay { relay: relay_at, out_channel: sends.get(), in_channel: takes.get() };
        self.forwarder.set_way(id, way)?;
        self.named.remove(&(relay, peer));
        let way = OwnWay {
            id,
            network,
            relay,
            relay_at,
            peer,
            takes,
            sends,
            ours: ours || before.is_some_and(|way| way.ours),
            until: now + LASTS,
            refresh_at: now + REFRESH,
            // Only who uses a way holds it: asking for it again does not.
            held_until: before.map_or(now + HELD, |way| way.held_until),
        };
        match known.and_then(|at| self.ways.get_mut(at)) {
            Some(slot) => *slot = way,
            None => self.ways.push(way),
        }
        Ok(id.address())
    }

    /// Follows relays that are reached at another address, or by another carrier, than before.
    pub(super) fn follow_relays(&mut self, at: impl Fn(&PeerId) -> Option<SocketAddr>) {
        for way in &mut self.ways {
            let Some(now_at) = at(&way.relay).filter(|now_at| *now_at != way.relay_at) else { continue };
            let moved = Way::Relay { relay: now_at, out_channel: way.sends.get(), in_channel: way.takes.get() };
            match self.forwarder.set_way(way.id, moved) {
                Ok(()) => way.relay_at = now_at,
                Err(error) => tracing::debug!(%error, "a relay moved to where it cannot be reached"),
            }
        }
    }

    /// A relay said how much it forwards for a pair.
    pub(super) fn note_rate(&mut self, now: Instant, relay: PeerId, rate: u64) {
        if self.told.len() >= MAX_WAYS && !self.told.contains_key(&relay) {
            self.told.clear();
        }
        self.told.insert(relay, (rate, now));
    }

    /// What it said, and how long ago.
    pub(super) fn rate_of(&self, now: Instant, relay: &PeerId) -> Option<(u64, Duration)> {
        self.told.get(relay).map(|(rate, at)| (*rate, now.saturating_duration_since(*at)))
    }

    /// The node uses a way.
    pub(super) fn hold(&mut self, now: Instant, used: &HashSet<SocketAddr>) {
        for way in self.ways.iter_mut().filter(|way| used.contains(&way.id.address())) {
            way.held_until = now + HELD;
        }
    }

    /// Ends what nobody asked for any more; gives what has to be asked for again. `is_member`: what is forwarded between
    /// members, and what goes through them, ends when one is none any more.
    pub(super) fn keep_up(&mut self, now: Instant, is_member: impl Fn(&NetworkId, &PeerId) -> bool) -> Vec<Refresh> {
        let both =
            |pair: &Pair| is_member(&pair.network, &pair.asker.peer) && is_member(&pair.network, &pair.other.peer);
        let over: Vec<Pair> = self.pairs.extract_if(.., |pair| pair.until <= now || !both(pair)).collect();
        for pair in over {
            self.unforward(&pair);
        }
        let forwarder = Arc::clone(&self.forwarder);
        self.ways.retain(|way| {
            let lasts = now < way.until && is_member(&way.network, &way.relay) && is_member(&way.network, &way.peer);
            if !lasts {
                forwarder.remove_way(way.id);
            }
            lasts
        });
        let due = self.ways.iter_mut().filter(|way| way.ours && way.refresh_at <= now && now < way.held_until);
        due.map(|way| {
            way.refresh_at = now + REFRESH;
            Refresh { network: way.network, relay: way.relay, peer: way.peer, channel: way.takes }
        })
        .collect()
    }

    /// When [`Self::keep_up`] wants to run next.
    pub(super) fn next(&self) -> Option<Instant> {
        let ways = self.ways.iter().map(|way| {
            let refresh = Some(way.refresh_at).filter(|at| way.ours && *at < way.held_until);
            refresh.map_or(way.until, |at| at.min(way.until))
        });
        self.pairs.iter().map(|pair| pair.until).chain(ways).min()
    }

    /// Through whom a way goes.
    pub(super) fn via(&self, at: SocketAddr) -> Option<PeerId> {
        self.ways.iter().find(|way| way.id.address() == at).map(|way| way.relay)
    }

    /// Every way with its relay.
    pub(super) fn all_ways(&self) -> BTreeMap<SocketAddr, (PeerId, SocketAddr)> {
        self.ways.iter().map(|way| (way.id.address(), (way.relay, way.relay_at))).collect()
    }
}

fn add(sum: &mut ForwardStats, stats: Option<ForwardStats>) {
    let stats = stats.unwrap_or_default();
    sum.packets += stats.packets;
    sum.bytes += stats.bytes;
    sum.dropped += stats.dropped;
    sum.last = sum.last.max(stats.last);
}

/// What all bulk traffic counts against, a quarter of a second at full rate at once, and all introductions. Of a rate a
/// tenth is theirs: whoever fills the rest keeps nobody from meeting.
fn limits(willing: Willing) -> [Arc<ForwardLimit>; 2] {
    let limit = |(rate, burst)| Arc::new(ForwardLimit::new(rate, burst));
    match willing {
        Willing::Introductions => [limit((0, 64 * 1024)), limit(INTRODUCTIONS)],
        Willing::Bulk { rate } => {
            let introductions = INTRODUCTIONS.0.min(rate / 10);
            let (bulk, burst) = (rate - introductions, INTRODUCTIONS.1.min(introductions.saturating_mul(4)));
            [limit((bulk, (bulk / 4).max(64 * 1024))), limit((introductions, burst.max(64 * 1024)))]
        }
    }
}

/// What the introductions that one member asks for count against: a part of all.
fn introductions_each(willing: Willing) -> (u64, u64) {
    let (rate, burst) = INTRODUCTIONS_EACH;
    match willing {
        Willing::Introductions => INTRODUCTIONS_EACH,
        Willing::Bulk { rate: all } => (rate.min(all / 40), burst.min(all / 10).max(64 * 1024)),
    }
}

#[cfg(test)]
pub(super) mod tests;
