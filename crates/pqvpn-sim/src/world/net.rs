// SPDX-License-Identifier: MIT OR Apache-2.0
//! The network between the nodes: how long a message takes, and whether it arrives at all.
//!
//! Messages travel on streams of links (QUIC): a lost packet is not a lost message but a late one; how late, [`Repair`]
//! says. A link that is not warm costs one round trip for its handshake first.

use std::time::Duration;

use rand::{RngExt, rngs::SmallRng};

/// How far apart nodes are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Latency {
    /// The same for every pair: one way.
    Constant(Duration),
    /// Nodes lie at random in a square; one way costs `base` and `across` times the distance (the diagonal is 1.41).
    Square {
        /// Between neighbours.
        base: Duration,
        /// Along one edge of the square.
        across: Duration,
    },
}

/// When a lost packet is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Repair {
    /// As QUIC does it: a packet that others of its message follow is missed after 9/8 RTT (RFC 9002 6.1.2), because
    /// their acknowledgements show the gap; the last one, and one lost again, after a probe timeout of 3 RTT, which
    /// doubles (6.2, with the variance of a fresh link).
    #[default]
    FastRetransmit,
    /// Every lost packet waits for the probe timeout: the worst that a link may do, worse than any that acknowledges.
    ProbeTimeoutOnly,
}

/// The settings of a network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NetConfig {
    /// One-way delays.
    pub latency: Latency,
    /// Each one-way delay is longer by up to this share, at random.
    pub jitter: f64,
    /// Probability that a packet is lost.
    pub loss: f64,
    /// When a lost packet is sent again.
    pub repair: Repair,
    /// What a responder needs to check, work and sign: 0.06 ms + 0.2 ms (dht.md, "Yardsticks") and the rest.
    pub service: Duration,
    /// What the evaluation of one proof of work takes (security.md 7.1).
    pub proof: Duration,
    /// How long an idle link stays warm.
    pub warm_for: Duration,
    /// Most warm links of a node.
    pub warm_links: usize,
}

impl Default for NetConfig {
    /// The Internet: 5 to 80 ms one way, no loss.
    fn default() -> Self {
        Self {
            latency: Latency::Square { base: Duration::from_millis(5), across: Duration::from_millis(50) },
            jitter: 0.1,
            loss: 0.0,
            repair: Repair::default(),
            service: Duration::from_micros(500),
            proof: Duration::from_micros(9500),
            warm_for: Duration::from_secs(180),
            warm_links: 64,
        }
    }
}

impl NetConfig {
    /// Constant one-way delay, no jitter.
    #[must_use]
    pub fn constant(one_way: Duration) -> Self {
        Self { latency: Latency::Constant(one_way), jitter: 0.0, ..Self::default() }
    }
}

/// Where a node is in the network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// Coordinates in the unit square.
    pub at: (f32, f32),
    /// Nodes of different groups do not reach each other.
    pub group: u8,
    /// Behind a NAT: reached only over links it opened itself.
    pub nat: bool,
}

/// The network's dice and rules.
#[derive(Debug)]
pub struct Net {
    /// Its settings; may be changed while the world runs.
    pub config: NetConfig,
    /// Whether groups are apart now.
    pub parted: bool,
    rng: SmallRng,
}

impl Net {
    /// A network with its own stream of dice.
    #[must_use]
    pub const fn new(config: NetConfig, rng: SmallRng) -> Self {
        Self { config, parted: false, rng }
    }

    /// A place at random, dialable, in group 0.
    pub fn place(&mut self) -> Place {
        Place { at: (self.rng.random(), self.rng.random()), group: 0, nat: false }
    }

    /// Whether messages pass between two places at all.
    #[must_use]
    pub const fn connected(&self, a: &Place, b: &Place) -> bool {
        !self.parted || a.group == b.group
    }

    /// One-way delay without jitter and loss.
    #[must_use]
    pub fn one_way(&self, a: &Place, b: &Place) -> Duration {
        match self.config.latency {
            Latency::Constant(delay) => delay,
            Latency::Square { base, across } => {
                let (x, y) = (a.at.0 - b.at.0, a.at.1 - b.at.1);
                base + across.mul_f32(x.hypot(y))
            }
        }
    }

    /// How long a message of `packets` packets takes one way.
    pub fn message(&mut self, a: &Place, b: &Place, packets: u32) -> Duration {
        let delay = self.one_way(a, b);
        let jittered = if self.config.jitter > 0.0 {
            delay.mul_f64(1.0 + self.rng.random_range(0.0..self.config.jitter))
        } else {
            delay
        };
        jittered + self.retransmission(delay * 2, packets)
    }

    /// How long a handshake takes: one round trip, 8 packets each way (a post-quantum handshake is about 20 kB).
    pub fn handshake(&mut self, a: &Place, b: &Place) -> Duration {
        self.message(a, b, 8) + self.message(b, a, 8)
    }

    /// The wait for the unluckiest packet.
    fn retransmission(&mut self, rtt: Duration, packets: u32) -> Duration {
        if self.config.loss <= 0.0 {
            return Duration::ZERO;
        }
        let fast = self.config.repair == Repair::FastRetransmit;
        (1..=packets).map(|number| self.repair(rtt, fast && number < packets)).max().unwrap_or_default()
    }

    /// How long a packet's losses delay it; `gap_shows`: a later packet's acknowledgement tells of the first one.
    fn repair(&mut self, rtt: Duration, gap_shows: bool) -> Duration {
        let (mut wait, mut timeout) = (Duration::ZERO, rtt * 3);
        for turn in 0..10 {
            if !self.rng.random_bool(self.config.loss.min(1.0)) {
                break;
            }
            if turn == 0 && gap_shows {
                wait += rtt * 9 / 8;
            } else {
                wait += timeout;
                timeout *= 2;
            }
        }
        wait
    }
}

/// The warm links of one node, least recently used first out.
#[derive(Debug, Clone, Default)]
pub struct Links(Vec<(u32, Duration)>);

impl Links {
    /// Whether the link to `peer` is warm.
    #[must_use]
    pub fn warm(&self, now: Duration, peer: u32, config: &NetConfig) -> bool {
        self.0.iter().any(|(known, used)| *known == peer && *used + config.warm_for >= now)
    }

    /// Notes that the link to `peer` is used now.
    pub fn touch(&mut self, now: Duration, peer: u32, config: &NetConfig) {
        if let Some(link) = self.0.iter_mut().find(|(known, _)| *known == peer) {
            link.1 = now;
        } else if self.0.len() < config.warm_links {
            self.0.push((peer, now));
        } else if let Some(oldest) = self.0.iter_mut().min_by_key(|(_, used)| *used) {
            *oldest = (peer, now);
        }
    }

    /// Forgets all links.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    const MS: Duration = Duration::from_millis(1);

    fn net(config: NetConfig) -> Net {
        Net::new(config, Seed(7).rng("net", 0))
    }

    #[test]
    fn a_constant_network_is_exact_and_a_square_one_within_bounds() {
        let mut constant = net(NetConfig::constant(50 * MS));
        let (a, b) = (constant.place(), constant.place());
        assert_eq!(constant.message(&a, &b, 4), 50 * MS);
        assert_eq!(constant.handshake(&a, &b), 100 * MS);
        let mut square = net(NetConfig::default());
        for _ in 0..100 {
            let (a, b) = (square.place(), square.place());
            let delay = square.message(&a, &b, 4);
            assert!(delay >= 5 * MS && delay < 84 * MS, "{delay:?}");
            assert_eq!(square.one_way(&a, &b), square.one_way(&b, &a));
        }
    }

    #[test]
    fn loss_delays_as_often_as_it_should() {
        let mut lossy = net(NetConfig { loss: 0.05, ..NetConfig::constant(10 * MS) });
        let (a, b) = (lossy.place(), lossy.place());
        let delays: Vec<Duration> = (0..20_000).map(|_| lossy.message(&a, &b, 1)).collect();
        let late = delays.iter().filter(|delay| **delay > 10 * MS).count();
        // 5 % of 20,000 with six standard deviations either way.
        assert!((1000 - 185..=1000 + 185).contains(&late), "{late}");
        // One loss of a last packet costs 3 RTT, two cost 3 + 6.
        assert!(delays.iter().all(|delay| [10, 70, 190, 430, 910].contains(&delay.as_millis())));
        let fastest = (0..20_000).map(|_| lossy.message(&a, &b, 5)).filter(|delay| *delay > 10 * MS).min();
        assert_eq!(fastest, Some(10 * MS + 20 * MS * 9 / 8), "one loss of another packet");
        lossy.config.repair = Repair::ProbeTimeoutOnly;
        let fastest = (0..20_000).map(|_| lossy.message(&a, &b, 5)).filter(|delay| *delay > 10 * MS).min();
        assert_eq!(fastest, Some(10 * MS + 3 * 20 * MS), "whichever packet it is");
    }

    #[test]
    fn groups_part_and_meet() {
        let mut net = net(NetConfig::default());
        let (a, mut b) = (net.place(), net.place());
        b.group = 1;
        assert!(net.connected(&a, &b));
        net.parted = true;
        assert!(!net.connected(&a, &b) && net.connected(&a, &a));
    }

    #[test]
    fn links_cool_down_and_the_oldest_goes_first() {
        let config = NetConfig { warm_links: 2, ..NetConfig::default() };
        let mut links = Links::default();
        links.touch(MS, 1, &config);
        links.touch(2 * MS, 2, &config);
        assert!(links.warm(3 * MS, 1, &config));
        links.touch(4 * MS, 3, &config);
        assert!(!links.warm(5 * MS, 1, &config) && links.warm(5 * MS, 2, &config));
        assert!(!links.warm(config.warm_for * 2, 3, &config));
    }
}
