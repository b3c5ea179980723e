// SPDX-License-Identifier: MIT OR Apache-2.0
//! A real router daemon, asked by real nodes: who is behind it is reached directly where nobody could be otherwise.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod lab_support;

fn run(protocol: &str) -> Option<(Option<i32>, serde_json::Value)> {
    lab_support::run(&["portmap", "--protocol", protocol], &["/usr/sbin/miniupnpd"])
}

fn a_mapped_port_is_a_direct_path(protocol: &str) {
    let Some((code, report)) = run(protocol) else { return };
    assert_eq!(code, Some(0), "{report}");
    let row = &report["rows"][0];
    assert_eq!((&row["asked_by"], &row["left_open"]), (&protocol.into(), &0.into()), "{report}");
    for figure in ["mapped_s", "direct_from_inside_s", "direct_from_outside_s"] {
        assert!(row[figure].as_f64().is_some(), "{figure}: {report}");
    }
}

#[test]
fn by_pcp() {
    a_mapped_port_is_a_direct_path("PCP");
}

#[test]
fn by_nat_pmp() {
    a_mapped_port_is_a_direct_path("NAT-PMP");
}

#[test]
fn by_upnp() {
    a_mapped_port_is_a_direct_path("UPnP");
}
