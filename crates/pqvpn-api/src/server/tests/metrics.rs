// SPDX-License-Identifier: MIT OR Apache-2.0
//! The figures: those of `status`, under the names `docs/metrics.md` lists, and of nobody who is gone.

use std::collections::BTreeMap;

use pqvpn_node::{
    handle::DhtCommand,
    membership::{RelayReport, RelayTotal},
};

use super::{dht::a_report, *};
use crate::{
    model::{MetricKind, Metrics},
    server::metrics::MOST_PEERS,
};

/// Every part of the node answers.
pub(super) fn answer_all(snapshot: impl Fn() -> snapshot::Snapshot) -> impl Fn(Command) {
    move |command| {
        #[expect(clippy::wildcard_enum_match_arm, reason = "what is not expected here fails the test")]
        match command {
            Command::Snapshot(reply) => drop(reply.send(snapshot())),
            Command::Dht(DhtCommand::Status(reply)) => drop(reply.send(a_report())),
            Command::Relaying(reply) => drop(reply.send(Some(a_relay()))),
            other => panic!("{other:?}"),
        }
    }
}

fn a_relay() -> RelayReport {
    let total = RelayTotal { packets: 7, bytes: 9000, dropped: 2 };
    RelayReport { rate: 1000, pairs: vec![], total, refused: 1, listen: vec![], visitors: [4, 5, 6] }
}

async fn metrics_of(answer: impl FnMut(Command) + Send + 'static) -> Metrics {
    let daemon = Daemon::start(answer);
    let (code, metrics) = daemon.get("/v1/metrics").await;
    assert_eq!(code, 200, "{metrics}");
    serde_json::from_value(metrics).unwrap()
}

async fn lines_of(answer: impl FnMut(Command) + Send + 'static) -> Vec<String> {
    let text = metrics_of(answer).await.to_text();
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

#[tokio::test]
async fn figures_of_a_peer_are_those_of_status_in_base_units() {
    let lines = lines_of(answer_all(a_snapshot)).await;
    let peer = format!("name=\"nas\",peer_id=\"{}\"", "09".repeat(32));
    let expected = [
        ("pqvpn_path_rtt_seconds", "0.0112"),
        ("pqvpn_path_jitter_seconds", "0.0004"),
        ("pqvpn_path_loss_ratio", "0"),
        ("pqvpn_path_transmit_bytes_per_second", "1000"),
        ("pqvpn_path_receive_bytes_per_second", "20"),
        ("pqvpn_path_mtu_bytes", "1420"),
        ("pqvpn_session_epoch", "3"),
        ("pqvpn_session_phase", "2"),
        ("pqvpn_session_rekey_age_seconds", "41"),
        ("pqvpn_session_handshake_seconds", "0.006"),
        ("pqvpn_peer_verified", "1"),
        ("pqvpn_peer_verified_age_seconds", "2.1"),
        ("pqvpn_peer_transmit_bytes_total", "1"),
        ("pqvpn_peer_receive_bytes_total", "2"),
        ("pqvpn_peer_transmit_packets_total", "3"),
        ("pqvpn_peer_receive_packets_total", "4"),
        ("pqvpn_peer_sessions_total", "2"),
        ("pqvpn_peer_dial_failures_total", "1"),
        ("pqvpn_peer_rekeys_total", "5"),
        ("pqvpn_peer_path_changes_total", "4"),
        ("pqvpn_peer_failovers_total", "3"),
        ("pqvpn_peer_mtu_holes_total", "1"),
    ];
    let expected: BTreeSet<String> = expected.iter().map(|(name, value)| format!("{name}{{{peer}}} {value}")).collect();
    let found: BTreeSet<String> = lines.iter().filter(|line| line.contains(&format!("{{{peer}}}"))).cloned().collect();
    assert_eq!(found, expected);
    let way = format!("pqvpn_path_info{{carrier=\"udp\",cipher=\"AES-256-GCM\",kind=\"direct\",{peer}}} 1");
    assert!(lines.contains(&way), "{lines:#?}");
}

#[tokio::test]
async fn figures_of_node_networks_dht_and_relay_are_there() {
    let lines = lines_of(answer_all(a_snapshot)).await;
    for line in [
        "pqvpn_node_up 1",
        "pqvpn_uptime_seconds 9",
        "pqvpn_peers{state=\"verified\"} 1",
        "pqvpn_peers{state=\"idle\"} 0",
        "pqvpn_peers_omitted 0",
        "pqvpn_dropped_packets_total{reason=\"replay\"} 3",
        "pqvpn_dropped_packets_total{reason=\"spoof\"} 0",
        "pqvpn_health_items{level=\"warn\"} 1",
        "pqvpn_lost_events_total 0",
        "pqvpn_port_mapped 0",
        "pqvpn_links_open 0",
        "pqvpn_link_refusals_total 0",
        "pqvpn_network_members{network=\"home\"} 7",
        "pqvpn_network_members_online{network=\"home\"} 5",
        "pqvpn_dht_joined 1",
        "pqvpn_dht_contacts 143",
        "pqvpn_dht_lookups_total 9",
        "pqvpn_dht_lookups_running 1",
        "pqvpn_dht_answers_total 9",
        "pqvpn_dht_rule_hits_total{rule=\"forged-record\"} 2",
        "pqvpn_relay_enabled 1",
        "pqvpn_relay_limit_bytes_per_second 1000",
        "pqvpn_relay_forwarded_bytes_total 9000",
        "pqvpn_relay_forwarded_packets_total 7",
        "pqvpn_relay_dropped_packets_total 2",
        "pqvpn_relay_refused_requests_total 1",
        "pqvpn_relay_visitors_total{result=\"broken\"} 5",
        "pqvpn_collect_success{part=\"dht\"} 1",
    ] {
        assert!(lines.iter().any(|found| found == line), "{line}\n{lines:#?}");
    }
}

#[tokio::test]
async fn families_follow_the_rules_and_the_list_of_the_documentation() {
    let metrics = metrics_of(answer_all(a_snapshot)).await;
    let listed = include_str!("../../../../../docs/metrics.md");
    let mut names = BTreeSet::new();
    for family in &metrics.families {
        let name = &family.name;
        assert!(names.insert(name.clone()), "{name} twice");
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'), "{name}");
        assert!(name.starts_with("pqvpn_") || name.starts_with("process_"), "{name}");
        assert_eq!(family.kind == MetricKind::Counter, name.ends_with("_total"), "{name}");
        assert!(family.help.ends_with('.') && !family.samples.is_empty(), "{name}");
        let labels: BTreeSet<_> = family.samples.iter().map(|sample| &sample.labels).collect();
        assert_eq!(labels.len(), family.samples.len(), "{name}: a set of labels twice");
        assert!(listed.contains(&format!("`{name}`")), "docs/metrics.md does not list {name}");
    }
    let documented = listed.split('`').filter(|word| word.starts_with("pqvpn_") || word.starts_with("process_"));
    for name in documented {
        assert!(names.contains(name), "docs/metrics.md lists {name}");
    }
}

#[tokio::test]
async fn no_address_and_no_word_of_a_person_is_told() {
    let text = metrics_of(answer_all(a_snapshot)).await.to_text();
    for private in ["203.0.113", "10.100.", "fd00:", "41641", "41999", "pinned endpoint", "soon"] {
        assert!(!text.contains(private), "{private}\n{text}");
    }
}

#[tokio::test]
async fn a_peer_without_a_session_has_no_figures() {
    let gone = || {
        let peer = snapshot::PeerSnapshot { session: None, path: None, state: snapshot::PeerState::Idle, ..a_peer() };
        snapshot::Snapshot { peers: vec![peer], ..a_snapshot() }
    };
    let lines = lines_of(answer_all(gone)).await;
    assert!(lines.contains(&"pqvpn_peers{state=\"idle\"} 1".to_owned()));
    assert!(!lines.iter().any(|line| line.contains("name=\"nas\"")), "{lines:#?}");
}

#[tokio::test]
async fn peers_with_figures_are_bounded_and_the_rest_is_counted() {
    let crowd = || {
        let one = |number: u16| {
            let mut id = [0; 32];
            id[..2].copy_from_slice(&number.to_be_bytes());
            snapshot::PeerSnapshot { peer_id: PeerId::from_bytes(id), ..a_peer() }
        };
        let all = u16::try_from(MOST_PEERS + 7).unwrap();
        // In another order than they are shown.
        snapshot::Snapshot { peers: (0..all).rev().map(one).collect(), ..a_snapshot() }
    };
    let lines = lines_of(answer_all(crowd)).await;
    let shown = |name: &str| lines.iter().filter(|line| line.starts_with(name)).count();
    assert_eq!(shown("pqvpn_path_rtt_seconds{"), MOST_PEERS);
    assert_eq!(shown("pqvpn_path_info{"), MOST_PEERS);
    assert!(lines.contains(&"pqvpn_peers_omitted 7".to_owned()));
    let last = format!("peer_id=\"{:04x}{}\"", MOST_PEERS + 6, "00".repeat(30));
    assert!(!lines.iter().any(|line| line.contains(&last)), "always the same are left out");
}

#[tokio::test]
async fn a_figure_that_is_not_known_is_not_told() {
    let fresh = || {
        let path = a_peer().path.map(|path| snapshot::PathSnapshot { rtt: None, loss: f64::NAN, ..path });
        snapshot::Snapshot { peers: vec![snapshot::PeerSnapshot { path, ..a_peer() }], ..a_snapshot() }
    };
    let metrics = metrics_of(answer_all(fresh)).await;
    let values: BTreeMap<_, _> = metrics.families.iter().map(|family| (family.name.as_str(), family)).collect();
    assert!(!values.contains_key("pqvpn_path_rtt_seconds") && !values.contains_key("pqvpn_path_loss_ratio"));
    assert!(values.contains_key("pqvpn_path_mtu_bytes"));
}

#[tokio::test]
async fn a_part_that_does_not_answer_is_left_out_and_that_is_told() {
    let lines = lines_of(|command| {
        if let Command::Snapshot(reply) = command {
            let _ = reply.send(a_snapshot());
        }
    })
    .await;
    for line in ["pqvpn_collect_success{part=\"dht\"} 0", "pqvpn_collect_success{part=\"relay\"} 0", "pqvpn_node_up 1"]
    {
        assert!(lines.contains(&line.to_owned()), "{line}");
    }
    assert!(!lines.iter().any(|line| line.starts_with("pqvpn_dht_") || line.starts_with("pqvpn_relay_")));
}
