// SPDX-License-Identifier: MIT OR Apache-2.0
//! The exporter of real daemons: what it says is what `status` says, and it says it to nobody it should not.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
};

use ipnet::{IpNet, Ipv4Net};
use pqvpn_api::model::{PeerState, Status};

use crate::rig::{LIMIT, Node, Outer, Pair, poll, usable};

/// Where scrapers ask by default (F143).
const AT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9001);

/// Samples by name and labels.
type Samples = BTreeMap<(String, BTreeMap<String, String>), f64>;

#[test]
fn what_is_scraped_is_what_status_says() {
    if !usable() {
        return;
    }
    let mut pair = Pair::new(Outer::V4);
    let peers = [pair.b.as_peer(Some(Outer::V4.endpoint(&pair.host_b)))];
    pair.a.configure(&peers, &format!("[metrics]\nlisten = \"{AT}\"\n"));
    pair.b.start();
    pair.a.start_up();
    let (a, b) = (&pair.a, &pair.b);
    a.meet(b);
    let refused = b.namespace.run(|| TcpStream::connect_timeout(&AT, LIMIT).map(drop)).unwrap();
    assert!(refused.is_err(), "off unless it is set");

    a.rekey(b).unwrap();
    a.wait("a step", || (a.peer(b).counts.rekeys > 0).then_some(()));
    // The other end moves: its packets come from elsewhere, and the path follows.
    let (old, new) = (pair.host_b.ipv4, Ipv4Addr::new(203, 0, 113, 77));
    pair.host_b.interface.remove_address(IpNet::V4(Ipv4Net::new_assert(old, 24))).unwrap();
    pair.host_b.interface.add_address(IpNet::V4(Ipv4Net::new_assert(new, 24))).unwrap();
    a.wait("the move", || {
        let _answered = b.ping(a);
        (a.peer(b).counts.path_changes > 0).then_some(())
    });
    a.meet(b);

    poll("the figures of status", || {
        let status = a.status();
        let scraped = samples(&scrape(a, AT, "127.0.0.1:9001"));
        let met = status.peers.iter().any(|peer| peer.session.is_some());
        (met && expected(&status).iter().all(|(key, value)| scraped.get(key) == Some(value))).then_some(())
    });
    let counts = a.peer(b).counts;
    assert!(counts.sessions >= 1 && counts.rekeys >= 1 && counts.path_changes >= 1, "{counts:?}");

    let names = |text: &str| samples(text).into_keys().map(|(name, _)| name).collect::<Vec<_>>();
    let printed = a.cli(&["metrics"]);
    assert!(printed.status.success(), "{}", printed.stderr);
    assert_eq!(names(&printed.stdout), names(&scrape(a, AT, "localhost")), "the command shows what is scraped");
    let json: pqvpn_api::model::Metrics = serde_json::from_str(&a.cli(&["metrics", "--json"]).stdout).unwrap();
    assert_eq!(json.schema, 1);

    refusals(a);
    a.ask(async |client| client.disconnect(&b.id).await).unwrap();
    poll("the end of the peer's figures", || {
        let scraped = samples(&scrape(a, AT, "[::1]"));
        let of_peer = scraped.keys().filter(|(_, labels)| labels.get("peer_id") == Some(&b.id)).count();
        (of_peer == 0 || a.peer(b).session.is_some()).then_some(())
    });
}

/// What is not asked rightly is not answered, and costs nobody else anything.
fn refusals(node: &Node) {
    let code = |request: &str| {
        let answer = exchange(node, AT, request);
        assert!(!answer.contains("pqvpn_peer"), "{answer}");
        answer.split(' ').nth(1).unwrap_or("none").to_owned()
    };
    assert_eq!(code("GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n"), "421");
    assert_eq!(code("GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n"), "404");
    assert_eq!(code("POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"), "405");
    // One that says no more holds nothing up, and is cut off.
    assert_eq!(code("GET /metrics HTTP/1.1\r\nHost: loc"), "none");
}

#[test]
fn an_overlay_address_is_scraped_through_the_tunnel_by_name() {
    if !usable() {
        return;
    }
    let mut pair = Pair::new(Outer::V4);
    let at = SocketAddr::new(pair.b.v4.into(), 9001);
    let peers = [pair.a.as_peer(Some(Outer::V4.endpoint(&pair.host_a)))];
    pair.b.configure(&peers, &format!("[metrics]\nlisten = \"{at}\"\n"));
    let checked = pair.b.cli(&["config", "check"]);
    assert!(format!("{}{}", checked.stdout, checked.stderr).contains("can read the metrics"), "{checked:?}");
    pair.b.start();
    pair.a.start_up();
    pair.a.meet(&pair.b);
    let scraped = samples(&scrape(&pair.a, at, "b.home.pqvpn:9001"));
    let own = BTreeMap::from([("peer_id".to_owned(), pair.a.id.clone()), ("name".to_owned(), "a".to_owned())]);
    let received = scraped.get(&("pqvpn_peer_receive_bytes_total".to_owned(), own));
    assert!(received.is_some_and(|bytes| *bytes > 0.0), "{scraped:?}");
}

/// What a scrape has to say of a node in this state.
fn expected(status: &Status) -> Samples {
    let mut all = Samples::new();
    let mut tell = |name: &str, labels: &[(&str, &str)], value: f64| {
        let labels = labels.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        all.insert((name.to_owned(), labels), value);
    };
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    let count = |count: u64| count as f64;
    for peer in status.peers.iter().filter(|peer| peer.session.is_some()) {
        let labels = [("peer_id", peer.peer_id.as_str()), ("name", peer.name.as_str())];
        let (path, session) = (peer.path.as_ref().unwrap(), peer.session.as_ref().unwrap());
        let milli = |ms: Option<f64>| ms.map(|ms| (ms * 1000.0).round() / 1_000_000.0);
        for (name, value) in [
            ("pqvpn_path_rtt_seconds", milli(path.rtt_ms)),
            ("pqvpn_path_jitter_seconds", milli(path.jitter_ms)),
            ("pqvpn_path_loss_ratio", Some(path.loss)),
            ("pqvpn_path_mtu_bytes", Some(f64::from(path.mtu))),
            ("pqvpn_session_epoch", Some(f64::from(session.epoch))),
            ("pqvpn_session_handshake_seconds", milli(Some(session.handshake_ms))),
            ("pqvpn_peer_verified", Some(f64::from(peer.state == PeerState::Verified))),
            ("pqvpn_peer_transmit_bytes_total", Some(count(peer.tx_bytes))),
            ("pqvpn_peer_receive_bytes_total", Some(count(peer.rx_bytes))),
            ("pqvpn_peer_transmit_packets_total", Some(count(peer.tx_packets))),
            ("pqvpn_peer_receive_packets_total", Some(count(peer.rx_packets))),
            ("pqvpn_peer_sessions_total", Some(count(peer.counts.sessions))),
            ("pqvpn_peer_rekeys_total", Some(count(peer.counts.rekeys))),
            ("pqvpn_peer_path_changes_total", Some(count(peer.counts.path_changes))),
            ("pqvpn_peer_failovers_total", Some(count(peer.counts.failovers))),
        ] {
            if let Some(value) = value {
                tell(name, &labels, value);
            }
        }
    }
    for (reason, dropped) in &status.drops {
        tell("pqvpn_dropped_packets_total", &[("reason", reason)], count(*dropped));
    }
    tell("pqvpn_link_dials_total", &[], count(status.links.dialed));
    tell("pqvpn_link_accepts_total", &[], count(status.links.accepted));
    tell("pqvpn_node_up", &[], 1.0);
    all
}

/// A scrape from within the node's namespace.
fn scrape(from: &Node, at: SocketAddr, host: &str) -> String {
    let answer = exchange(from, at, &format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    body.to_owned()
}

/// Sends a request and reads until the other end closes.
fn exchange(from: &Node, at: SocketAddr, request: &str) -> String {
    let request = request.to_owned();
    let exchanged = from.namespace.run(move || {
        let mut stream = TcpStream::connect_timeout(&at, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    });
    exchanged.unwrap().unwrap()
}

/// Reads the text format as strictly as it is defined.
fn samples(text: &str) -> Samples {
    let (mut all, mut typed) = (Samples::new(), String::new());
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(matches!(kind, "counter" | "gauge"), "{line}");
            name.clone_into(&mut typed);
            continue;
        }
        if line.starts_with("# HELP ") {
            continue;
        }
        let (key, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = match key.split_once('{') {
            Some((name, labels)) => (name, pairs(labels.strip_suffix('}').unwrap())),
            None => (key, BTreeMap::new()),
        };
        assert_eq!(name, typed, "each family begins with its type");
        let before = all.insert((name.to_owned(), labels), value.parse().unwrap());
        assert!(before.is_none(), "twice: {line}");
    }
    all
}

/// Labels of names that need no escape.
fn pairs(labels: &str) -> BTreeMap<String, String> {
    let one = |pair: &str| {
        let (name, text) = pair.split_once('=').unwrap();
        (name.to_owned(), text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap().to_owned())
    };
    labels.split(',').map(one).collect()
}
