// SPDX-License-Identifier: MIT OR Apache-2.0
//! A network namespace for one test: a thread of its own, two interfaces, and a dump to compare.

use std::{future::Future, io::Write as _, path::Path};

use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use nix::sched::{CloneFlags, unshare};
use rtnetlink::{
    Handle, IpVersion, LinkUnspec, LinkVeth,
    packet_route::{
        AddressFamily,
        address::AddressAttribute,
        link::{AfSpecInet6, AfSpecUnspec, LinkAttribute, LinkFlags},
        route::{RouteAttribute, RouteFlags, RouteMessage},
    },
};

/// The interface that plays the TUN device.
pub(crate) const TUN: &str = "pqvpn0";
/// The interface that plays the LAN.
pub(crate) const LAN: &str = "lan0";

/// Table of the host's own addresses.
const LOCAL_TABLE: u8 = 255;

/// The inside of the namespace.
pub(crate) struct Net {
    pub(crate) handle: Handle,
    pub(crate) state: tempfile::TempDir,
}

/// Runs `test` in a namespace where `pqvpn0` is down and `lan0` is up with 192.168.7.2/24.
pub(crate) fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce(Net) -> F + Send) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    std::thread::scope(|scope| {
        let body = || {
            if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
                return skip(&format!("this needs a network namespace of its own: {error}"));
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            runtime.block_on(async {
                let (connection, handle, _) = rtnetlink::new_connection().expect("netlink");
                tokio::spawn(connection);
                let net = Net { handle, state: tempfile::tempdir().expect("dir") };
                net.add_pair(TUN, "far0").await;
                net.add_pair(LAN, "far1").await;
                net.up("lo").await;
                net.up(LAN).await;
                net.up("far1").await;
                net.address(LAN, "192.168.7.2/24").await;
                test(net).await;
            });
        };
        if let Err(panic) = std::thread::Builder::new().name(name).spawn_scoped(scope, body).expect("thread").join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Says, past the capture of the test harness, that a test did not run.
pub(crate) fn skip(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "SKIP: {test}: {why}");
}

impl Net {
    pub(crate) fn state(&self) -> &Path {
        self.state.path()
    }

    pub(crate) async fn add_pair(&self, name: &str, other: &str) {
        self.handle.link().add(LinkVeth::new(name, other).build()).execute().await.expect("veth");
    }

    pub(crate) async fn index(&self, name: &str) -> Option<u32> {
        let mut links = self.handle.link().get().match_name(name).execute();
        links.try_next().await.ok().flatten().map(|link| link.header.index)
    }

    pub(crate) async fn up(&self, name: &str) {
        let index = self.index(name).await.expect("interface");
        self.handle.link().change(LinkUnspec::new_with_index(index).up().build()).execute().await.expect("up");
    }

    pub(crate) async fn delete(&self, name: &str) {
        let index = self.index(name).await.expect("interface");
        self.handle.link().del(index).execute().await.expect("delete");
    }

    pub(crate) async fn address(&self, name: &str, net: &str) {
        let (index, net) = (self.index(name).await.expect("interface"), net.parse::<IpNet>().expect("prefix"));
        self.handle.address().add(index, net.addr(), net.prefix_len()).execute().await.expect("address");
    }

    /// Everything that can be compared: interfaces, addresses, rules and the routes of all tables, without counters.
    pub(crate) async fn dump(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let links: Vec<_> = self.handle.link().get().execute().try_collect().await.expect("links");
        for link in links {
            let keep =
                |attribute: &&LinkAttribute| matches!(attribute, LinkAttribute::IfName(_) | LinkAttribute::Mtu(_));
            let kept: Vec<_> = link.attributes.iter().filter(keep).collect();
            let up = link.header.flags.contains(LinkFlags::Up);
            let link_local = link.attributes.iter().find_map(address_generation);
            lines.push(format!("link {} up={up} {kept:?} {link_local:?}", link.header.index));
        }
        let addresses: Vec<_> = self.handle.address().get().execute().try_collect().await.expect("addresses");
        for mut address in addresses {
            address.attributes.retain(|attribute| !matches!(attribute, AddressAttribute::CacheInfo(_)));
            lines.push(format!("{address:?}"));
        }
        for version in [IpVersion::V4, IpVersion::V6] {
            let rules: Vec<_> = self.handle.rule().get(version).execute().try_collect().await.expect("rules");
            lines.extend(rules.iter().map(|rule| format!("{rule:?}")));
        }
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            let routes: Vec<_> = self.handle.route().get(request).execute().try_collect().await.expect("routes");
            for mut route in routes {
                // The kernel adds the local entries of an IPv6 address on its own time; the address itself is compared.
                if family == AddressFamily::Inet6 && route.header.table == LOCAL_TABLE {
                    continue;
                }
                // Whether the carrier is up shows here a moment later.
                route.header.flags = RouteFlags::empty();
                route.attributes.retain(|attribute| !matches!(attribute, RouteAttribute::CacheInfo(_)));
                lines.push(format!("{route:?}"));
            }
        }
        lines.sort();
        // Link-local addresses of the other interfaces, likewise.
        lines.retain(|line| !line.contains("fe80"));
        lines
    }
}

fn address_generation(attribute: &LinkAttribute) -> Option<String> {
    let LinkAttribute::AfSpecUnspec(families) = attribute else {
        return None;
    };
    families.iter().find_map(|family| {
        let AfSpecUnspec::Inet6(attributes) = family else {
            return None;
        };
        let mode = attributes.iter().find(|attribute| matches!(attribute, AfSpecInet6::AddrGenMode(_)));
        mode.map(|mode| format!("{mode:?}"))
    })
}
