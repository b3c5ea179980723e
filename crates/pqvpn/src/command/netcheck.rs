// SPDX-License-Identifier: MIT OR Apache-2.0
//! `netcheck`: what this network allows, how that was learnt, and what would help.

use pqvpn_api::model::{Finding, NetCheck, PortMapping};

use crate::{
    context::Context,
    failure::Failure,
    output::{Output, Tone, age, printable, table},
};

pub(crate) async fn run(context: &Context) -> Result<(), Failure> {
    let check = context.client()?.netcheck().await?;
    context.output.result(&check, |output| render(output, &check));
    Ok(())
}

type Row = Vec<(Tone, String)>;

fn render(output: &Output, check: &NetCheck) -> String {
    let mut rows = vec![finding("UDP", &check.udp, udp(&check.udp))];
    rows.extend(check.tcp443.as_ref().map(|tcp| finding("TCP 443", tcp, tcp443(tcp))));
    for outside in &check.outside {
        let learnt = format!("{} of the members see it", outside.seen_by);
        rows.push(row("outside", (Tone::Plain, outside.address.to_string()), &learnt, Some(outside.age_s)));
    }
    rows.push(finding("NAT", &check.nat, nat(&check.nat)));
    rows.push(finding("filtering", &check.filtering, filtering(&check.filtering)));
    rows.push(port_mapping(&check.port_mapping));
    rows.push(finding("IPv6", &check.ipv6, ipv6(&check.ipv6)));
    let mtu = check.inner_mtu.map_or_else(|| "not known".to_owned(), |mtu| format!("{mtu} bytes inside"));
    rows.push(finding("MTU", &check.mtu, (Tone::Plain, mtu)));
    for relay in &check.relays {
        let willing = match relay.bulk {
            Some(true) => "forwards traffic",
            Some(false) => "introduces members, forwards no traffic",
            None => "was not asked yet",
        };
        let value = (Tone::Plain, format!("{}  {:.1} ms", printable(&relay.name), relay.rtt_ms));
        rows.push(row("relay", value, &format!("linked at {}; {willing}", relay.address), Some(relay.age_s)));
    }
    if check.relays.is_empty() {
        rows.push(row("relay", (Tone::Warn, "none".to_owned()), "no member is linked directly", None));
    }
    let mut text = table(output, &rows);
    for hint in &check.hints {
        text.push_str(&output.tone(Tone::Warn, &format!("# {}", printable(hint))));
        text.push('\n');
    }
    text
}

fn row(name: &str, value: (Tone, String), learnt: &str, age_s: Option<u64>) -> Row {
    let when = age_s.map_or_else(|| "-".to_owned(), |seconds| format!("{} ago", age(seconds)));
    vec![(Tone::Dim, name.to_owned()), value, (Tone::Plain, when), (Tone::Plain, printable(learnt))]
}

fn finding(name: &str, finding: &Finding, value: (Tone, String)) -> Row {
    row(name, value, &finding.learnt, finding.age_s)
}

/// A stable word in words for people; one that this program does not know is shown as it is.
fn said(finding: &Finding, words: &[(&str, Tone, &str)]) -> (Tone, String) {
    let known = words.iter().find(|(value, ..)| *value == finding.value);
    known.map_or_else(|| (Tone::Plain, printable(&finding.value)), |(_, tone, text)| (*tone, (*text).to_owned()))
}

fn udp(udp: &Finding) -> (Tone, String) {
    said(
        udp,
        &[
            ("yes", Tone::Good, "works"),
            ("no", Tone::Warn, "does not get through"),
            ("unknown", Tone::Warn, "not known"),
        ],
    )
}

fn tcp443(tcp: &Finding) -> (Tone, String) {
    said(tcp, &[("yes", Tone::Good, "works"), ("unknown", Tone::Plain, "not known")])
}

fn nat(nat: &Finding) -> (Tone, String) {
    said(
        nat,
        &[
            ("none", Tone::Good, "none"),
            ("same", Tone::Good, "one port for everybody"),
            ("varies", Tone::Warn, "another port for each peer"),
            ("unknown", Tone::Plain, "not known"),
        ],
    )
}

fn filtering(filtering: &Finding) -> (Tone, String) {
    said(filtering, &[("open", Tone::Good, "lets others in"), ("unknown", Tone::Plain, "not known")])
}

fn ipv6(ipv6: &Finding) -> (Tone, String) {
    said(
        ipv6,
        &[("yes", Tone::Good, "works"), ("address-only", Tone::Plain, "has an address"), ("no", Tone::Plain, "no")],
    )
}

fn port_mapping(mapping: &PortMapping) -> Row {
    let router = mapping.router.map_or_else(|| "the router".to_owned(), |router| router.to_string());
    let (value, learnt) = match (mapping.state.as_str(), &mapping.protocol, mapping.external) {
        ("mapped", Some(protocol), Some(external)) => {
            let keeps = mapping.lifetime_s.map_or_else(String::new, |lifetime| format!(", for {}", age(lifetime)));
            let private = if mapping.public { "" } else { ", a private address" };
            let learnt = format!("{router} forwards it{keeps}, asked by {protocol}{private}");
            ((if mapping.public { Tone::Good } else { Tone::Warn }, external.to_string()), learnt)
        }
        ("off", ..) => ((Tone::Dim, "off".to_owned()), "node.port_mapping is false".to_owned()),
        ("paused", ..) => ((Tone::Dim, "off".to_owned()), "the node is down".to_owned()),
        ("not-needed", ..) => {
            ((Tone::Plain, "not needed".to_owned()), "this host is behind no router that translates".to_owned())
        }
        ("no-router", ..) => ((Tone::Plain, "none".to_owned()), "there is no default route with a router".to_owned()),
        ("asking", ..) => ((Tone::Plain, "not yet".to_owned()), format!("{router} is being asked")),
        _ => ((Tone::Warn, "none".to_owned()), mapping.why.clone().unwrap_or_else(|| format!("{router} refused"))),
    };
    row("port mapping", value, &learnt, mapping.age_s)
}
