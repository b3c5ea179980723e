// SPDX-License-Identifier: MIT OR Apache-2.0
//! When the router is asked, when again, and when not any more.
//!
//! A pure state machine: time, the gateway and what the router said are arguments.

use std::time::{Duration, Instant};

use crate::host::Gateway;

/// How often the default route is looked at.
const LOOK: Duration = Duration::from_secs(30);
/// Pauses after a router said no, or nothing.
const AGAIN: [Duration; 5] = [
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(120),
    Duration::from_secs(600),
    Duration::from_secs(1800),
];
/// A router that remembers for less is not asked more often for it; one that claims more may have been restarted since.
const LIFETIME: std::ops::RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(7200);

/// What the owner of the machine shall do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Look up the default gateway.
    Look,
    /// Ask this router for a mapping, or for the one there is again.
    Ask(Gateway),
    /// Give the mapping back.
    GiveBack,
    /// The mapping is no more: it ran out, or its router is not ours any more.
    Lost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing to ask, or nobody.
    Idle,
    /// The router is being asked; until when the present mapping lasts.
    Asking { lasts: Option<Instant> },
    /// There is a mapping.
    Held { renew_at: Instant, lasts: Instant },
    /// The router said no.
    Waiting { until: Instant },
}

/// The mapping of one port.
#[derive(Debug)]
pub(super) struct Keeper {
    wanted: bool,
    gateway: Option<Gateway>,
    phase: Phase,
    failed: usize,
    look_at: Instant,
    /// Whether the router may have forgotten the mapping there is.
    doubted: bool,
    actions: Vec<Action>,
}

impl Keeper {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            wanted: true,
            gateway: None,
            phase: Phase::Idle,
            failed: 0,
            look_at: now,
            doubted: false,
            actions: Vec::new(),
        }
    }

    /// The node goes up or down.
    pub(super) fn want(&mut self, now: Instant, wanted: bool) {
        if self.wanted == wanted {
            return;
        }
        self.wanted = wanted;
        if wanted {
            self.look_at = now;
        } else {
            if self.has_mapping() {
                self.actions.push(Action::GiveBack);
            }
            (self.phase, self.gateway, self.failed) = (Phase::Idle, None, 0);
        }
    }

    /// The network may have changed. A mapping is asked for again once it is known whose it would be.
    pub(super) fn nudge(&mut self, now: Instant) {
        (self.look_at, self.doubted) = (now, true);
        if let Phase::Waiting { .. } = self.phase {
            (self.phase, self.failed) = (Phase::Waiting { until: now }, 0);
        }
    }

    /// What the default gateway is now.
    pub(super) fn on_gateway(&mut self, now: Instant, gateway: Option<Gateway>) {
        self.look_at = now + LOOK;
        let doubted = std::mem::take(&mut self.doubted);
        if !self.wanted {
            return;
        }
        if self.gateway == gateway {
            if let Phase::Held { renew_at, .. } = &mut self.phase
                && doubted
            {
                *renew_at = now;
            }
            return;
        }
        if self.has_mapping() {
            // Whoever has that address now need not be the router that made the mapping.
            self.actions.push(Action::Lost);
        }
        self.gateway = gateway;
        self.failed = 0;
        self.phase = Phase::Idle;
        self.ask(None);
    }

    /// The router forwards, and remembers it for so long. Whether that is of use: else it is given back, or belongs to a
    /// network we are not in any more.
    pub(super) fn on_mapped(&mut self, now: Instant, by: Gateway, lifetime: Duration) -> bool {
        if self.gateway != Some(by) {
            return false;
        }
        let lifetime = lifetime.clamp(*LIFETIME.start(), *LIFETIME.end());
        self.failed = 0;
        self.phase = Phase::Held { renew_at: now + lifetime / 2, lasts: now + lifetime };
        true
    }

    /// The router did not.
    pub(super) fn on_failed(&mut self, now: Instant, by: Gateway) {
        let Phase::Asking { lasts } = self.phase else { return };
        if self.gateway != Some(by) {
            return;
        }
        let pause = AGAIN[self.failed.min(AGAIN.len() - 1)];
        self.failed += 1;
        self.phase = match lasts.filter(|lasts| now < *lasts) {
            Some(lasts) => Phase::Held { renew_at: (now + pause).min(lasts), lasts },
            None => {
                if lasts.is_some() {
                    self.actions.push(Action::Lost);
                }
                Phase::Waiting { until: now + pause }
            }
        };
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if !self.wanted {
            return;
        }
        if self.look_at <= now {
            self.look_at = now + LOOK;
            self.actions.push(Action::Look);
        }
        match self.phase {
            Phase::Held { renew_at, lasts } if renew_at <= now => self.ask(Some(lasts)),
            Phase::Waiting { until } if until <= now => self.ask(None),
            Phase::Idle | Phase::Asking { .. } | Phase::Held { .. } | Phase::Waiting { .. } => {}
        }
    }

    /// When [`Self::handle_timeout`] wants to run next.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Held { renew_at, .. } => Some(renew_at),
            Phase::Waiting { until } => Some(until),
            Phase::Idle | Phase::Asking { .. } => None,
        };
        [Some(self.look_at), phase].into_iter().flatten().min().filter(|_| self.wanted)
    }

    /// Takes the next thing to do.
    pub(super) fn poll_action(&mut self) -> Option<Action> {
        (!self.actions.is_empty()).then(|| self.actions.remove(0))
    }

    /// Whether the node wants a mapping.
    pub(super) const fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Whether there is a mapping that lasts, also while it is asked for again.
    pub(super) const fn has_mapping(&self) -> bool {
        matches!(self.phase, Phase::Held { .. } | Phase::Asking { lasts: Some(_) })
    }

    fn ask(&mut self, lasts: Option<Instant>) {
        if let Some(gateway) = self.gateway {
            self.phase = Phase::Asking { lasts };
            self.actions.push(Action::Ask(gateway));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn gateway(last: u8) -> Gateway {
        Gateway { router: Ipv4Addr::new(192, 168, last, 1), own: Ipv4Addr::new(192, 168, last, 10) }
    }

    fn actions(keeper: &mut Keeper) -> Vec<Action> {
        std::iter::from_fn(|| keeper.poll_action()).collect()
    }

    /// Lets time pass to the next deadline.
    fn step(keeper: &mut Keeper, now: &mut Instant) -> Vec<Action> {
        *now = (*now).max(keeper.poll_timeout().expect("something is due"));
        keeper.handle_timeout(*now);
        actions(keeper)
    }

    fn mapped(now: Instant, lifetime: Duration) -> Keeper {
        let mut keeper = Keeper::new(now);
        keeper.handle_timeout(now);
        keeper.on_gateway(now, Some(gateway(1)));
        assert_eq!(actions(&mut keeper), [Action::Look, Action::Ask(gateway(1))]);
        assert!(keeper.on_mapped(now, gateway(1), lifetime));
        keeper
    }

    #[test]
    fn a_mapping_is_asked_for_again_at_half_of_its_life() {
        let start = Instant::now();
        let (mut keeper, mut now) = (mapped(start, Duration::from_secs(1200)), start);
        let asked = loop {
            let due = step(&mut keeper, &mut now);
            keeper.on_gateway(now, Some(gateway(1)));
            if due.contains(&Action::Ask(gateway(1))) {
                break now;
            }
            assert_eq!(due, [Action::Look]);
        };
        assert_eq!(asked, start + Duration::from_secs(600));
    }

    #[test]
    fn a_router_that_says_no_is_asked_less_and_less_often() {
        let mut now = Instant::now();
        let mut keeper = Keeper::new(now);
        keeper.on_gateway(now, Some(gateway(1)));
        actions(&mut keeper);
        let (mut asked, start) = (0, now);
        keeper.on_failed(now, gateway(1));
        while now < start + Duration::from_secs(24 * 3600) {
            for action in step(&mut keeper, &mut now) {
                match action {
                    Action::Ask(_) => {
                        asked += 1;
                        keeper.on_failed(now, gateway(1));
                    }
                    Action::Look => keeper.on_gateway(now, Some(gateway(1))),
                    Action::GiveBack | Action::Lost => panic!("there was no mapping"),
                }
            }
        }
        assert!((48..=56).contains(&asked), "{asked} questions in a day");
    }

    #[test]
    fn a_mapping_that_is_not_renewed_is_lost_when_it_ends_and_not_before() {
        let start = Instant::now();
        let (mut keeper, mut now) = (mapped(start, Duration::from_secs(600)), start);
        let mut lost = None;
        while lost.is_none() {
            for action in step(&mut keeper, &mut now) {
                match action {
                    Action::Ask(_) => keeper.on_failed(now, gateway(1)),
                    Action::Look => keeper.on_gateway(now, Some(gateway(1))),
                    Action::Lost => lost = Some(now),
                    Action::GiveBack => panic!("nobody wanted that"),
                }
            }
            lost = lost.or_else(|| actions(&mut keeper).contains(&Action::Lost).then_some(now));
        }
        assert_eq!(lost, Some(start + Duration::from_secs(600)));
    }

    #[test]
    fn another_router_is_asked_at_once_and_the_old_mapping_is_no_more() {
        let now = Instant::now();
        let mut keeper = mapped(now, Duration::from_secs(600));
        keeper.on_gateway(now, Some(gateway(1)));
        assert_eq!(actions(&mut keeper), []);
        keeper.on_gateway(now, Some(gateway(2)));
        assert_eq!(actions(&mut keeper), [Action::Lost, Action::Ask(gateway(2))]);
        // The answer of the router of before counts for nothing.
        keeper.on_failed(now, gateway(1));
        assert!(!keeper.on_mapped(now, gateway(1), Duration::from_secs(600)));
        assert!(!keeper.has_mapping());
        assert!(keeper.on_mapped(now, gateway(2), Duration::from_secs(600)));
    }

    #[test]
    fn a_mapping_is_asked_for_again_when_the_network_has_changed() {
        let now = Instant::now();
        let mut keeper = mapped(now, Duration::from_secs(7200));
        let later = now + Duration::from_secs(5);
        keeper.nudge(later);
        keeper.handle_timeout(later);
        assert_eq!(actions(&mut keeper), [Action::Look], "first whether it is the same router");
        keeper.on_gateway(later, Some(gateway(1)));
        assert!(keeper.has_mapping() && keeper.poll_timeout() == Some(later));
        keeper.handle_timeout(later);
        assert_eq!(actions(&mut keeper), [Action::Ask(gateway(1))], "it may have forgotten, or we are elsewhere");
        assert!(keeper.on_mapped(later, gateway(1), Duration::from_secs(7200)));
        keeper.on_gateway(later, Some(gateway(1)));
        keeper.handle_timeout(later);
        assert_eq!(actions(&mut keeper), [], "once");
        keeper.nudge(later);
        keeper.handle_timeout(later);
        keeper.on_gateway(later, Some(gateway(2)));
        assert_eq!(actions(&mut keeper), [Action::Look, Action::Lost, Action::Ask(gateway(2))]);
    }

    #[test]
    fn a_node_that_goes_down_gives_the_mapping_back_and_asks_for_nothing() {
        let now = Instant::now();
        let mut keeper = mapped(now, Duration::from_secs(600));
        keeper.want(now, false);
        assert_eq!(actions(&mut keeper), [Action::GiveBack]);
        assert_eq!(keeper.poll_timeout(), None);
        // An answer that was under way is of no use any more.
        assert!(!keeper.on_mapped(now, gateway(1), Duration::from_secs(600)));
        assert_eq!(keeper.poll_timeout(), None);
        keeper.want(now, true);
        keeper.handle_timeout(now);
        assert_eq!(actions(&mut keeper), [Action::Look]);
    }

    #[test]
    fn a_router_cannot_make_this_node_ask_all_the_time() {
        let now = Instant::now();
        let keeper = mapped(now, Duration::ZERO);
        assert_eq!(keeper.poll_timeout(), Some(now + Duration::from_secs(30)));
        let keeper = mapped(now, Duration::from_secs(u64::from(u32::MAX)));
        let Phase::Held { lasts, .. } = keeper.phase else { panic!("held") };
        assert_eq!(lasts, now + *LIFETIME.end());
    }
}
