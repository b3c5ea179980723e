// SPDX-License-Identifier: MIT OR Apache-2.0
//! The router of this network is asked to let the UDP port through, and kept to it.
//!
//! One task does the asking: nobody waits for it, and a router that says nothing costs nothing but a candidate. What the
//! router names as its outside is where peers may try, no more: whoever answers there has to prove its identity.

mod ask;
mod keeper;

use std::{
    future::pending,
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
    sync::Arc,
    time::{Duration, Instant},
};

use pqvpn_dht::address::{Class, class_of};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{sleep_until, timeout},
};

use self::{
    ask::{AskError, Granted, ask},
    keeper::{Action, Keeper},
};
use crate::{
    clock,
    host::{self, Gateway},
    netcheck::{MappingReport, MappingState},
};

/// Orders that may wait; each is repeated by its cause or the last of its kind.
const QUEUE: usize = 8;
/// How long a node that stops waits until the router has forgotten its port.
const FAREWELL: Duration = Duration::from_secs(2);

/// What is known of the port mapping, for whoever tells addresses to others; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Mapped(watch::Receiver<Arc<Known>>);

/// What the task knows.
#[derive(Debug, Default)]
struct Known {
    report: MappingReport,
    since: Option<Instant>,
}

/// The task, from outside.
#[derive(Debug)]
pub(crate) struct Portmap {
    orders: Option<mpsc::Sender<Order>>,
    mapped: Mapped,
}

#[derive(Debug)]
enum Order {
    Want(bool),
    Nudge,
    Stop(oneshot::Sender<()>),
}

/// What the mapping is for.
#[derive(Debug)]
pub(crate) struct Setup {
    /// Whether the configuration wants one.
    pub(crate) wanted: bool,
    pub(crate) listen: Vec<SocketAddr>,
    /// Our own interface: a default route there is none of the underlay.
    pub(crate) interface: Option<String>,
}

impl Mapped {
    /// No router that forwards anything.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self(watch::channel(Arc::default()).1)
    }

    /// What there is to report.
    pub(crate) fn report(&self, now: Instant) -> MappingReport {
        let known = self.0.borrow();
        MappingReport { age: known.since.map(|at| now.saturating_duration_since(at)), ..known.report.clone() }
    }

    /// Where peers may try to reach this node.
    pub(crate) fn external(&self) -> Option<SocketAddr> {
        self.0.borrow().report.external
    }

    /// The same, if it may be told to everybody. `seen`: where members see this node. An outside address that none of
    /// them sees, while they see another one, may be anybody's.
    pub(crate) fn published(&self, seen: &[SocketAddr]) -> Option<SocketAddr> {
        let known = self.0.borrow();
        known.report.external.filter(|at| known.report.public && !contradicted(at.ip(), seen))
    }

    /// Waits until something else is known; for ever, if nothing ever will be.
    pub(crate) async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            pending::<()>().await;
        }
    }
}

/// Whether members see this node at public IPv4 addresses, and never at this one.
fn contradicted(outside: IpAddr, seen: &[SocketAddr]) -> bool {
    let mut public = seen.iter().map(SocketAddr::ip).filter(|ip| ip.is_ipv4() && class_of(*ip) == Class::Public);
    public.next().is_some_and(|first| first != outside && public.all(|ip| ip != outside))
}

impl Portmap {
    /// Starts the task, if there is anything for it to do.
    pub(crate) fn start(setup: &Setup) -> Self {
        let state = if setup.wanted { MappingState::NotNeeded } else { MappingState::Off };
        let known = Known { report: MappingReport { state, ..MappingReport::default() }, since: None };
        let (tell, mapped) = watch::channel(Arc::new(known));
        let Some(port) = mappable(&setup.listen).filter(|_| setup.wanted) else {
            return Self { orders: None, mapped: Mapped(mapped) };
        };
        let (orders, inbox) = mpsc::channel(QUEUE);
        let keeper = Keeper::new(clock::now());
        let interface = setup.interface.clone();
        let task = Task { port, interface, keeper, held: None, lies: 0, tell, work: JoinSet::new() };
        tokio::spawn(task.run(inbox));
        Self { orders: Some(orders), mapped: Mapped(mapped) }
    }

    /// What is known.
    pub(crate) const fn mapped(&self) -> &Mapped {
        &self.mapped
    }

    /// The node goes up or down.
    pub(crate) fn want(&self, wanted: bool) {
        self.order(Order::Want(wanted));
    }

    /// The network may have changed.
    pub(crate) fn nudge(&self) {
        self.order(Order::Nudge);
    }

    /// Gives the port back and ends the task; waits for the router a moment.
    pub(crate) async fn stop(self) {
        let (done, stopped) = oneshot::channel();
        self.order(Order::Stop(done));
        drop(self.orders);
        let _too_slow = timeout(FAREWELL, stopped).await;
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders
            && orders.try_send(order).is_err()
        {
            tracing::debug!("the port mapping is too busy to be told");
        }
    }
}

/// The port worth mapping: the first IPv4 socket that others could reach.
fn mappable(listen: &[SocketAddr]) -> Option<NonZeroU16> {
    listen.iter().filter(|at| at.is_ipv4() && !at.ip().is_loopback()).find_map(|at| NonZeroU16::new(at.port()))
}

/// Whether a host has to ask its router: with a public address of its own nobody translates.
fn is_translated(gateway: Gateway) -> bool {
    class_of(gateway.own.into()) != Class::Public
}

struct Task {
    port: NonZeroU16,
    interface: Option<String>,
    keeper: Keeper,
    held: Option<(Gateway, Granted)>,
    lies: u64,
    tell: watch::Sender<Arc<Known>>,
    work: JoinSet<Done>,
}

/// What was going on beside the task.
enum Done {
    Looked(Option<Gateway>),
    Asked { gateway: Gateway, granted: Option<Box<Granted>>, wrong: Vec<AskError> },
    GivenBack,
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::Receiver<Order>) {
        loop {
            self.keeper.handle_timeout(clock::now());
            self.act();
            let deadline = self.keeper.poll_timeout();
            tokio::select! {
                order = inbox.recv() => match order {
                    Some(Order::Want(wanted)) => self.want(wanted),
                    Some(Order::Nudge) => self.keeper.nudge(clock::now()),
                    Some(Order::Stop(done)) => return self.stop(Some(done)).await,
                    None => return self.stop(None).await,
                },
                Some(done) = self.work.join_next(), if !self.work.is_empty() => {
                    if let Ok(done) = done {
                        self.on_done(done);
                    }
                }
                () = wait_until(deadline) => {}
            }
        }
    }

    fn want(&mut self, wanted: bool) {
        self.keeper.want(clock::now(), wanted);
        self.act();
        if !wanted {
            self.say(MappingState::Paused, None, None);
        }
    }

    /// Does what the machine asks for.
    fn act(&mut self) {
        while let Some(action) = self.keeper.poll_action() {
            match action {
                Action::Look => {
                    let interface = self.interface.clone();
                    self.work.spawn(async move {
                        let found = host::default_gateway(interface.as_deref()).await;
                        let found = found.inspect_err(|error| tracing::debug!(%error, "the default route is unknown"));
                        Done::Looked(found.ok().flatten())
                    });
                }
                Action::Ask(gateway) => {
                    if self.held.is_none() {
                        self.say(MappingState::Asking, Some(gateway), None);
                    }
                    let (port, before) = (self.port, self.held.clone().map(|(_, granted)| granted));
                    self.work.spawn(async move {
                        let mut wrong = Vec::new();
                        let granted = ask(gateway, port, before, &mut wrong).await.map(Box::new);
                        Done::Asked { gateway, granted, wrong }
                    });
                }
                Action::GiveBack => self.give_back(),
                Action::Lost => {
                    tracing::info!("the port mapping is gone");
                    self.held = None;
                }
            }
        }
    }

    fn give_back(&mut self) {
        if let Some((gateway, granted)) = self.held.take() {
            self.work.spawn(async move {
                granted.give_back(gateway).await;
                Done::GivenBack
            });
        }
    }

    fn on_done(&mut self, done: Done) {
        let now = clock::now();
        match done {
            Done::GivenBack => {}
            Done::Looked(gateway) => {
                let asked = gateway.filter(|gateway| is_translated(*gateway));
                self.keeper.on_gateway(now, asked);
                self.act();
                if asked.is_none() && self.keeper.is_wanted() {
                    let state = if gateway.is_some() { MappingState::NotNeeded } else { MappingState::NoRouter };
                    self.say(state, gateway, None);
                }
            }
            Done::Asked { gateway, granted, wrong } => self.on_asked(now, gateway, granted, &wrong),
        }
    }

    fn on_asked(&mut self, now: Instant, gateway: Gateway, granted: Option<Box<Granted>>, wrong: &[AskError]) {
        for error in wrong {
            tracing::debug!(%error, router = %gateway.router, "no port mapping this way");
        }
        let lies = wrong.iter().filter(|error| matches!(error, AskError::Lied { .. } | AskError::Stranger(_)));
        self.lies += lies.count() as u64;
        match granted {
            Some(granted) => self.on_granted(now, gateway, *granted),
            None => {
                self.keeper.on_failed(now, gateway);
                self.act();
                if !self.keeper.has_mapping() && self.keeper.is_wanted() {
                    self.say(MappingState::Refused, Some(gateway), Some(why_refused(wrong)));
                }
            }
        }
    }

    fn on_granted(&mut self, now: Instant, gateway: Gateway, granted: Granted) {
        if !self.keeper.on_mapped(now, gateway, granted.lifetime) {
            self.work.spawn(async move {
                granted.give_back(gateway).await;
                Done::GivenBack
            });
            return;
        }
        if self.tell.borrow().report.external != Some(granted.external) {
            tracing::info!(external = %granted.external, protocol = granted.protocol().name(), "port mapped");
        }
        let report = MappingReport {
            state: MappingState::Mapped,
            router: Some(gateway.router.into()),
            protocol: Some(granted.protocol()),
            external: Some(granted.external),
            public: granted.public,
            lifetime: Some(granted.lifetime),
            age: None,
            lies: self.lies,
            why: None,
        };
        self.held = Some((gateway, granted));
        self.tell.send_replace(Arc::new(Known { report, since: Some(now) }));
    }

    /// Reports that there is no mapping.
    fn say(&self, state: MappingState, gateway: Option<Gateway>, why: Option<String>) {
        let router = gateway.map(|gateway| IpAddr::V4(gateway.router));
        let report = MappingReport { state, router, why, lies: self.lies, ..MappingReport::default() };
        self.tell.send_if_modified(|known| {
            let news = known.report != report;
            if news {
                *known = Arc::new(Known { report, since: Some(clock::now()) });
            }
            news
        });
    }

    async fn stop(mut self, done: Option<oneshot::Sender<()>>) {
        self.work.abort_all();
        if let Some((gateway, granted)) = self.held.take() {
            granted.give_back(gateway).await;
        }
        if let Some(done) = done {
            let _nobody_waits = done.send(());
        }
    }
}

/// What people are told of a router that forwards nothing.
fn why_refused(wrong: &[AskError]) -> String {
    let lie = wrong.iter().find(|error| matches!(error, AskError::Lied { .. }));
    let silent = || "the router speaks neither PCP nor NAT-PMP nor UPnP, or they are switched off".to_owned();
    lie.map_or_else(silent, AskError::to_string)
}

async fn wait_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => sleep_until(at.into()).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().expect("an address")).collect()
    }

    fn mapped(external: &str, public: bool) -> Mapped {
        let external = Some(external.parse().expect("an address"));
        let report = MappingReport { state: MappingState::Mapped, external, public, ..MappingReport::default() };
        Mapped(watch::channel(Arc::new(Known { report, since: None })).1)
    }

    #[test]
    fn a_private_outside_is_a_candidate_and_not_published() {
        let private = mapped("100.64.7.2:41641", false);
        assert!(private.external().is_some());
        assert_eq!(private.published(&[]), None);
    }

    #[test]
    fn an_outside_that_no_member_sees_is_not_published() {
        let mapped = mapped("20.1.0.1:41641", true);
        assert_eq!(mapped.published(&[]), mapped.external());
        assert_eq!(mapped.published(&all(&["20.1.0.1:5555", "20.9.9.9:1"])), mapped.external());
        // Who is on the same wire, and who comes by IPv6, sees no outside.
        assert_eq!(mapped.published(&all(&["192.168.1.10:41641", "[2600::1]:41641"])), mapped.external());
        assert_eq!(mapped.published(&all(&["20.9.9.9:1"])), None);
        assert_eq!(mapped.published(&all(&["20.9.9.9:1", "20.9.9.8:1"])), None);
        assert!(mapped.external().is_some());
    }

    #[test]
    fn only_a_port_that_others_could_reach_is_mapped() {
        assert_eq!(mappable(&all(&["127.0.0.1:5"])), None);
        assert_eq!(mappable(&all(&["[::]:5"])), None);
        assert_eq!(mappable(&all(&["[::]:5", "0.0.0.0:6"])), NonZeroU16::new(6));
        let gateway = |own: [u8; 4]| Gateway { router: [20, 1, 1, 1].into(), own: own.into() };
        assert!(is_translated(gateway([192, 168, 1, 10])) && is_translated(gateway([100, 64, 7, 2])));
        assert!(!is_translated(gateway([20, 1, 1, 2])));
    }

    #[tokio::test]
    async fn without_a_task_nothing_changes_and_stopping_is_no_wait() {
        let setup = Setup { wanted: false, listen: all(&["0.0.0.0:5"]), interface: None };
        let portmap = Portmap::start(&setup);
        assert_eq!(portmap.mapped().report(clock::now()).state, MappingState::Off);
        let mut mapped = portmap.mapped().clone();
        portmap.stop().await;
        assert!(timeout(Duration::from_millis(20), mapped.changed()).await.is_err());
    }
}
