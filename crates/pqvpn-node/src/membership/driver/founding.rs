// SPDX-License-Identifier: MIT OR Apache-2.0
//! Networks are made, left, and switched on and off.

use std::sync::Arc;

use aws_lc_rs::digest;
use ipnet::Ipv4Net;
use pqvpn_packet::addr::ipv4_candidate;
use pqvpn_trust::{CompositeVerifier, Constitution};
use pqvpn_wire::network::{Act, Genesis, NetworkId, Params, Statement, StatementBody, act::is_pool, is_label};

use super::{
    super::{
        command::Reply,
        error::NetworkError,
        network::{Moment, Network, hex},
        report::{CreateNetwork, NetRef, NetworkReport, NetworkState},
        store::{Change, Head},
    },
    Driver, TaskDone,
    joins::MAX_NETWORKS,
    orders::HEARD,
};
use crate::entropy;

/// Prefix lengths an IPv4 pool may have: room for two members, and no more than the address rule spreads over.
const POOL_PREFIXES: std::ops::RangeInclusive<u8> = 16..=30;

/// A network being made: its pool is being chosen.
pub(in crate::membership) struct Creating {
    create: CreateNetwork,
    reply: Reply<NetworkReport>,
}

impl Driver {
    pub(super) fn begin_create(&mut self, create: CreateNetwork, reply: Reply<NetworkReport>) {
        if let Err(error) = self.check_create(&create) {
            return drop(reply.send(Err(error)));
        }
        let create = Box::new(Creating { create, reply });
        if let Some(pool) = create.create.pool {
            return self.create(*create, Some(pool));
        }
        self.choose_pool(create);
    }

    fn choose_pool(&mut self, create: Box<Creating>) {
        let choosing = (self.pools)(self.networks.values().map(Network::pool).collect());
        self.tasks.spawn(async move { TaskDone::Pool { create, pool: choosing.await } });
    }

    fn check_create(&self, create: &CreateNetwork) -> Result<(), NetworkError> {
        let names = [Some(&create.name), create.member_name.as_ref()];
        if let Some(bad) = names.into_iter().flatten().find(|name| !is_label(name)) {
            return Err(NetworkError::BadName(bad.clone()));
        }
        if self.networks.values().any(|network| network.head.name == create.name) {
            return Err(NetworkError::NetworkNameTaken(create.name.clone()));
        }
        if !self.has_room_for(None) {
            return Err(NetworkError::TooManyNetworks(MAX_NETWORKS));
        }
        if usize::from(create.quorum) > pqvpn_wire::network::MAX_ADMINS {
            return Err(NetworkError::BadOption("a network has at most 16 admins, so the quorum is at most 16".into()));
        }
        let Some(pool) = create.pool else { return Ok(()) };
        let bad = |why: String| Err(NetworkError::BadPool { pool, why });
        if pool != pool.trunc() {
            return bad(format!("it is the address of a host; did you mean {}", pool.trunc()));
        }
        if !POOL_PREFIXES.contains(&pool.prefix_len()) {
            return bad("its prefix must be /16 to /30".to_owned());
        }
        if !is_pool(pool) {
            return bad("use one in 10.0.0.0/8, 100.64.0.0/10, 172.16.0.0/12 or 192.168.0.0/16".to_owned());
        }
        match self.crossing(pool) {
            Some(network) => bad(format!("the network {} uses {}", network.head.name, network.pool())),
            None => Ok(()),
        }
    }

    /// Whether there is room for a network; one that is held or asked for has its place already.
    pub(super) fn has_room_for(&self, network: Option<&NetworkId>) -> bool {
        let has_place = |id: &NetworkId| self.networks.contains_key(id) || self.joining.contains_key(id);
        let asked_for = self.joining.keys().filter(|id| !self.networks.contains_key(*id)).count();
        network.is_some_and(has_place) || self.networks.len() + asked_for < MAX_NETWORKS
    }

    /// A network's name that no other network here has.
    pub(super) fn free_network_name(&self, name: &str) -> String {
        let taken = |name: &str| self.networks.values().any(|network| network.head.name == name);
        if !taken(name) {
            return name.to_owned();
        }
        let numbered = (2_u32..).map(|number| format!("{name}-{number}"));
        numbered.into_iter().find(|name| !taken(name)).unwrap_or_else(|| name.to_owned())
    }

    /// The network whose pool shares addresses with this one.
    fn crossing(&self, pool: Ipv4Net) -> Option<&Network> {
        self.networks.values().find(|network| {
            let other = network.pool();
            other.contains(&pool) || pool.contains(&other)
        })
    }

    pub(super) fn create(&mut self, creating: Creating, pool: Option<Ipv4Net>) {
        // Several are made at a time: what was free when it was chosen may belong to another by now.
        if creating.create.pool.is_none() && pool.is_some_and(|pool| self.crossing(pool).is_some()) {
            return self.choose_pool(Box::new(creating));
        }
        let Creating { create, reply } = creating;
        let made = pool.ok_or(NetworkError::NoPool).and_then(|pool| self.found(&create, pool));
        self.answer_later(reply, made);
    }

    fn found(&mut self, create: &CreateNetwork, pool: Ipv4Net) -> Result<NetworkReport, NetworkError> {
        // Something else may have been made or joined while the pool was chosen.
        self.check_create(create)?;
        if let Some(refusal) = self.refusal() {
            return Err(refusal);
        }
        let now = Moment::now();
        let internal = |error: &dyn std::fmt::Display| NetworkError::Internal(error.to_string());
        let identity = Arc::clone(&self.shared.identity);
        let disable: [u8; 32] = entropy::bytes();
        let mut disable_hash = [0; 32];
        disable_hash.copy_from_slice(digest::digest(&digest::SHA256, &disable).as_ref());
        let genesis = Genesis {
            name: create.name.clone(),
            founder: identity.public().clone(),
            founder_name: create.member_name.clone().unwrap_or_else(|| self.own_label()),
            secret: entropy::bytes(),
            params: Params {
                quorum: create.quorum.max(1),
                ipv4_pool: pool,
                approval: create.approval,
                ..Params::default()
            },
            disable: Some(disable_hash),
        };
        let body = StatementBody {
            network: NetworkId::from_bytes([0; 32]),
            seq: 0,
            parents: Vec::new(),
            at_ms: now.unix_ms,
            act: Act::Genesis(Box::new(genesis)),
        };
        let mut statement = Statement::draft(body).map_err(|error| internal(&error))?;
        statement.sign(&identity).map_err(|error| internal(&error))?;
        let constitution =
            Constitution::found(statement, &CompositeVerifier, ipv4_candidate).map_err(|refusal| internal(&refusal))?;
        let id = constitution.id();
        let head = Head { name: create.name.clone(), enabled: true, seq: 0, waiting: None, since_ms: now.unix_ms };
        let mut network = Network::new(self.shared.own, constitution, head, now);
        network.keep_head();
        network.keep_all();
        network.note_synced(now.mono);
        network.renew(&identity, now.unix_ms, &self.endpoints, false);
        network.news = super::super::network::News::default();
        self.shared.counts.add_network(id);
        let mut report = self.report(now, &network);
        report.disable_secret = Some(hex(&disable));
        tracing::info!(network = %network.head.name, id = %hex(&id.as_bytes()[..4]), %pool, "a network was made");
        self.networks.insert(id, network);
        self.touch_members();
        Ok(report)
    }

    pub(super) fn leave(&mut self, now: Moment, which: &NetRef, reply: Reply<NetworkReport>) {
        if let Some(report) = self.forget_waiting(which) {
            return drop(reply.send(Ok(report)));
        }
        let id = match self.find_id(which) {
            Ok(id) => id,
            Err(error) => return drop(reply.send(Err(error))),
        };
        let Some(network) = self.networks.get(&id) else { return };
        let report = self.report(now, network);
        let others = !network.others(now.unix_ms).is_empty();
        if network.is_too_few_without_me(now.unix_ms, false) && !network.constitution.view().disabled {
            return drop(reply.send(Err(NetworkError::LastAdmin { network: network.head.name.clone() })));
        }
        let gone = report.state == NetworkState::Up || report.state == NetworkState::Syncing;
        if others && gone {
            self.say_goodbye(now, id);
        }
        self.push_and_wait(id, HEARD, move |driver, _heard| {
            driver.forget(id);
            driver.answer_later(reply, Ok(report));
        });
    }

    /// Leaves a network in its constitution, and in our record for whoever hears that first.
    pub(super) fn say_goodbye(&mut self, now: Moment, id: NetworkId) {
        let identity = Arc::clone(&self.shared.identity);
        let Some(network) = self.networks.get_mut(&id) else { return };
        let key = identity.public().clone();
        if let Err(error) = network.act(&identity, now.unix_ms, Act::Leave { key }) {
            tracing::debug!(%error, "leaving is not said in the constitution");
        }
        network.renew(&identity, now.unix_ms, &[], true);
    }

    pub(super) fn forget(&mut self, id: NetworkId) {
        self.networks.remove(&id);
        match self.joining.get_mut(&id) {
            Some(joining) if joining.is_waiting() => self.forget_join(&id),
            Some(joining) => joining.forget_before(),
            None => {}
        }
        self.unsay(&id);
        self.shared.counts.drop_network(&id);
        self.store_later(Change::Forget(id));
        self.touch_members();
    }

    pub(super) fn enable(&mut self, now: Moment, which: &NetRef, enabled: bool) -> Result<NetworkReport, NetworkError> {
        let id = self.find_id(which)?;
        let network = self.networks.get_mut(&id).ok_or(NetworkError::NoNetwork)?;
        if network.head.enabled != enabled {
            network.head.enabled = enabled;
            network.keep_head();
            network.begin_anew(now.mono);
        }
        self.touch_members();
        let network = self.networks.get(&id).ok_or(NetworkError::NoNetwork)?;
        Ok(self.report(now, network))
    }
}
