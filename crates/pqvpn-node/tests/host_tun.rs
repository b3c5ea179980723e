// SPDX-License-Identifier: MIT OR Apache-2.0
//! The same on a TUN device of the kernel: it is quiet, and clean again when the node that had it is gone.

#[path = "../src/host/tests/netns.rs"]
mod netns;

use ipnet::IpNet;
use netns::{Net, in_namespace, skip};
use pqvpn_dataplane::KernelTun;
use pqvpn_node::host::{HostChange, Plan, Recovered, recover};

/// Another name than the one the namespace has already.
const DEVICE: &str = "mesh0";

fn plan() -> Plan {
    let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("prefix")).collect::<Vec<IpNet>>();
    Plan {
        interface: DEVICE.to_owned(),
        owns_device: false,
        mtu: 1420,
        addresses: nets(&["fd12:3456:789a::7/128", "10.100.3.7/32"]),
        routes: nets(&["fd12:3456:789a::/48", "10.100.0.0/16"]).into_iter().map(Into::into).collect(),
    }
}

fn open() -> Option<KernelTun> {
    KernelTun::open(DEVICE, 1).inspect_err(|error| skip(&format!("no TUN device: {error}"))).ok()
}

/// Everything the host knows about the device.
async fn about_device(net: &Net, index: u32) -> String {
    let lines = net.dump().await;
    let about = |line: &&String| {
        line.contains(&format!("index: {index} ")) || line.contains(&format!("Oif({index})")) || line.contains(DEVICE)
    };
    lines.iter().filter(about).cloned().collect::<Vec<_>>().join("\n")
}

#[test]
fn a_tun_is_set_up_and_cleared_again() {
    in_namespace(async |net| {
        let Some(device) = open() else { return };
        let before = net.dump().await;
        let change = HostChange::apply(net.state(), &plan()).await.expect("applied");
        let during = about_device(&net, device.index()).await;
        for needle in ["up=true", "Mtu(1420)", "AddrGenMode(None)", "fd12:3456:789a::7", "10.100.3.7", "Other(174)"] {
            assert!(during.contains(needle), "{needle} is not in\n{during}");
        }
        change.undo().await.expect("undone");
        assert_eq!(net.dump().await, before);
        drop(device);
    });
}

#[test]
fn a_tun_that_went_with_its_node_leaves_only_the_journal_to_clear() {
    in_namespace(async |net| {
        let before = net.dump().await;
        let Some(device) = open() else { return };
        std::mem::forget(HostChange::apply(net.state(), &plan()).await.expect("applied"));
        drop(device);
        assert_eq!(net.dump().await, before, "the kernel removes all that hung on the device");
        assert_eq!(recover(net.state()).await.expect("recovered").undone, Vec::<String>::new());
        assert_eq!(recover(net.state()).await.expect("recovered"), Recovered::default());
    });
}

#[test]
fn a_tun_deleted_by_somebody_else_leaves_nothing_to_undo() {
    in_namespace(async |net| {
        let before = net.dump().await;
        let Some(device) = open() else { return };
        let change = HostChange::apply(net.state(), &plan()).await.expect("applied");
        net.delete(DEVICE).await;
        change.undo().await.expect("undone");
        assert_eq!(net.dump().await, before);
        drop(device);
    });
}
