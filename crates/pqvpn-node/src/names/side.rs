// SPDX-License-Identifier: MIT OR Apache-2.0
//! The names' side of a running node: what is answered where, and what the host was told.

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use pqvpn_crypto::peer_id::PeerId;

use super::{
    DnsHost, DnsReport, NameTable, Names,
    host::{LOOPBACK_SERVER, Places, Wanted, Way},
    serve::Server,
    teller::Teller,
};
use crate::{
    config::DnsMode,
    membership::NetworkView,
    overlay::Mesh,
    snapshot::{HealthItem, HealthLevel},
};

/// Everything about names in a running node; owned by the state task.
pub(crate) struct DnsSide {
    mode: DnsMode,
    names: Arc<Names>,
    servers: Vec<Server>,
    /// None: the host is not ours to change, and has no addresses to answer on.
    host: Option<Host>,
}

struct Host {
    interface: String,
    places: Places,
    teller: Teller,
}

impl DnsSide {
    /// Needs a runtime. `interface`: the TUN device, none if the host is not ours to change. What a killed daemon left in
    /// the host's resolver is taken back, whatever the mode is now.
    pub(crate) fn new(mode: DnsMode, interface: Option<String>, state_dir: PathBuf) -> Self {
        Self::on(Places::of_this_host(), mode, interface, state_dir)
    }

    pub(super) fn on(places: Places, mode: DnsMode, interface: Option<String>, state_dir: PathBuf) -> Self {
        let host = interface.map(|interface| {
            let teller = Teller::start(places.clone(), state_dir, mode);
            Host { interface, places, teller }
        });
        Self { mode, names: Names::new(NameTable::default()), servers: Vec::new(), host }
    }

    /// Makes names, servers and host equal to what the networks say; does not wait for the host.
    pub(crate) async fn follow(&mut self, views: &[NetworkView], mesh: &Mesh, own: PeerId) {
        let Some(host) = self.host.as_ref().filter(|_| self.mode != DnsMode::Off) else { return };
        let table = NameTable::of(views, mesh, own);
        if table.is_empty() {
            self.undo().await;
            return;
        }
        let addresses = mesh.own.clone();
        let zones = table.zones();
        host.teller.tell(Wanted { interface: host.interface.clone(), servers: addresses.clone(), zones });
        let local = (host.places.way(self.mode) == Way::ResolvConf).then_some(LOOPBACK_SERVER);
        self.names.replace(table, addresses.clone());
        self.listen_on(addresses.into_iter().chain(local).collect());
    }

    /// Answers nothing any more and leaves the host as it was.
    pub(crate) async fn undo(&mut self) {
        if let Some(host) = &mut self.host {
            host.teller.undo().await;
        }
        self.servers.clear();
        self.names.replace(NameTable::default(), Vec::new());
    }

    /// For `dns status`.
    pub(crate) fn report(&self) -> DnsReport {
        let table = self.names.table();
        let told = self.host.as_ref().map(|host| host.teller.told()).unwrap_or_default();
        let without = if self.servers.is_empty() { DnsHost::Nothing } else { DnsHost::Untouched };
        DnsReport {
            mode: self.mode,
            host: told.host.unwrap_or(without),
            servers: self.servers.iter().map(Server::report).collect(),
            names: table.names(),
            ambiguous: table.ambiguous().to_vec(),
            queries: self.names.counts(),
            trouble: told.trouble,
        }
    }

    /// What an operator should know.
    pub(crate) fn health(&self) -> Vec<HealthItem> {
        let report = self.report();
        let mut items = Vec::new();
        let mut warn = |code, text| items.push(HealthItem { level: HealthLevel::Warn, code, text });
        if let Some(trouble) = report.trouble {
            warn("dns-host", format!("this host may not find the names of the networks: {trouble}"));
        }
        let silent = report.servers.into_iter().find_map(|server| Some((server.address, server.error?)));
        if let Some((address, error)) = silent {
            warn("dns-server", format!("names of the networks are not answered on {address}: {error}"));
        }
        for name in report.ambiguous {
            let text =
                format!("several networks are called {name}: `pqvpn dns status` shows the names of their members");
            warn("dns-ambiguous", text);
        }
        items
    }

    fn listen_on(&mut self, addresses: Vec<IpAddr>) {
        self.servers.retain(|server| addresses.contains(&server.address()));
        for address in addresses {
            if !self.servers.iter().any(|server| server.address() == address) {
                self.servers.push(Server::start(Arc::clone(&self.names), address));
            }
        }
    }
}
