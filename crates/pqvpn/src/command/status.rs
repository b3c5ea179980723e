// SPDX-License-Identifier: MIT OR Apache-2.0
//! `status`: the node and one row per peer; what is not proven is not shown as working.

use std::time::Duration;

use pqvpn_api::model::{Health, HealthLevel, Network, NodeState, Path, Peer, PeerState, SUITE, Status};

use super::ping::kind;
use crate::{
    cli::StatusArgs,
    context::Context,
    failure::Failure,
    output::{Output, Tone, age, bytes, counted, printable, table},
};

/// Time between two frames of `--watch`.
const FRAME: Duration = Duration::from_secs(1);

pub(crate) async fn run(context: &Context, args: &StatusArgs) -> Result<(), Failure> {
    let client = context.client()?;
    loop {
        let status = client.status().await?;
        if args.watch {
            context.output.next_frame();
        }
        let read = context.output.frame(&status, |output| render(output, &status));
        if !args.watch || read.is_err() {
            return Ok(());
        }
        tokio::time::sleep(FRAME).await;
    }
}

fn render(output: &Output, status: &Status) -> String {
    let mut text = head(output, status);
    for network in &status.networks {
        text.push_str(&network_line(output, network));
    }
    if status.peers.is_empty() {
        text.push_str(match status.networks.first() {
            // Whoever is out, or has switched it off, has nobody to invite.
            Some(_) if !status.networks.iter().any(|network| network.enabled) => "",
            Some(_) if status.networks.len() > 1 => {
                "nobody else is here yet\nInvite somebody: pqvpn invite -n NETWORK\n"
            }
            Some(_) => "nobody else is here yet\nInvite somebody: pqvpn invite\n",
            None if is_waiting(status) => "no peers until an admin lets this node in\n",
            None => "no peers; `pqvpn net create NAME` makes a network, `pqvpn join CODE` joins one\n",
        });
    } else {
        let columns =
            ["PEER", "ADDRESS", "STATE", "PATH", "RTT", "LOSS", "MTU", "CIPHER", "EPOCH", "REKEY", "SENT", "RECEIVED"];
        let mut rows = vec![columns.map(|name| (Tone::Dim, name.to_owned())).to_vec()];
        // With one network a name is enough.
        let several = status.networks.len() > 1;
        rows.extend(status.peers.iter().map(|peer| row(peer, several)));
        text.push_str(&table(output, &rows));
    }
    text.push_str(&foot(output, status));
    text.push_str(&confinement(output, status));
    text
}

/// Whether this node waits for an admin of a network.
pub(super) fn is_waiting(status: &Status) -> bool {
    status.health.iter().any(|item| item.code == "join-waiting")
}

fn head(output: &Output, status: &Status) -> String {
    let (tone, state) = match status.state {
        NodeState::Up => (Tone::Good, "up"),
        NodeState::Starting => (Tone::Warn, "starting"),
        NodeState::Down => (Tone::Bad, "down"),
    };
    let mut parts = vec![printable(&status.name), output.tone(tone, state)];
    parts.extend(status.addresses.iter().map(ToString::to_string));
    parts.extend(status.interface.as_deref().map(printable));
    parts.push(format!("suite {SUITE}"));
    let listen: Vec<String> = status.listen.iter().map(ToString::to_string).collect();
    let id = output.tone(Tone::Dim, &format!("id {}  listening on {}", status.peer_id, listen.join(" ")));
    format!("{}\n{id}\n", parts.join("  "))
}

/// What the daemon could not take away from itself on this system; nothing where it could.
fn confinement(output: &Output, status: &Status) -> String {
    let missing = status.confinement.as_ref().map_or(&[][..], |confinement| &confinement.missing);
    let line = |what: &String| output.tone(Tone::Dim, &format!("# not confined: {}", printable(what))) + "\n";
    missing.iter().map(line).collect()
}

/// One line per network, like `net home  7 members, 5 online  you: laptop`.
fn network_line(output: &Output, network: &Network) -> String {
    let (tone, state) = match (network.enabled, network.ready) {
        (true, true) => (Tone::Good, ""),
        (true, false) => (Tone::Warn, "  waits for news of the others"),
        (false, _) => (Tone::Dim, "  carries no traffic"),
    };
    format!(
        "net {}  {}, {} online  you: {}{}\n",
        output.tone(tone, &printable(&network.name)),
        counted(network.members as usize, "member"),
        network.online,
        printable(&network.own_name),
        output.tone(tone, state)
    )
}

/// What a peer is called, with its network where that is needed to tell it apart.
fn called(peer: &Peer, several: bool) -> String {
    match peer.networks.first() {
        Some(in_network) if several && !peer.pinned => format!("{}.{}", in_network.name, in_network.network),
        Some(_) | None => peer.name.clone(),
    }
}

fn row(peer: &Peer, several: bool) -> Vec<(Tone, String)> {
    let plain = |text: String| (Tone::Plain, text);
    let none = || "-".to_owned();
    let path = peer.path.as_ref();
    let session = peer.session.as_ref();
    // The IPv4 address is the one people type; the IPv6 one is in `peers`.
    let address = peer.addresses.iter().find(|address| address.is_ipv4()).or(peer.addresses.first());
    vec![
        plain(printable(&called(peer, several))),
        plain(address.map_or_else(none, ToString::to_string)),
        state(peer),
        plain(path.map_or_else(none, path_text)),
        plain(path.and_then(|path| path.rtt_ms).map_or_else(none, |rtt| format!("{rtt:.1}ms"))),
        plain(path.map_or_else(none, |path| format!("{:.0}%", path.loss * 100.0))),
        plain(path.map_or_else(none, |path| path.mtu.to_string())),
        plain(session.map_or_else(none, |session| session.aead.clone())),
        plain(session.map_or_else(none, |session| format!("{}.{}", session.epoch, session.phase))),
        plain(session.map_or_else(none, |session| age(session.rekey_age_s))),
        plain(bytes(peer.tx_bytes)),
        plain(bytes(peer.rx_bytes)),
    ]
}

/// The state with the age of its proof.
pub(super) fn state(peer: &Peer) -> (Tone, String) {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an age is neither negative nor huge")]
    let proof = peer.verified_age_s.map(|seconds| age(seconds as u64));
    match (peer.state, proof) {
        (PeerState::Verified, Some(proof)) => (Tone::Good, format!("verified {proof} ago")),
        // Without its age there is no proof.
        (PeerState::Verified, None) | (PeerState::Stale, None) => (Tone::Warn, "stale".into()),
        (PeerState::Stale, Some(proof)) => (Tone::Warn, format!("stale, verified {proof} ago")),
        (PeerState::Connecting, _) => (Tone::Warn, "connecting".into()),
        (PeerState::Idle, _) => (Tone::Dim, "idle".into()),
        (PeerState::Refused, _) => (Tone::Bad, "refused".into()),
    }
}

fn path_text(path: &Path) -> String {
    match &path.via {
        Some(via) => format!("{} {} ({})", kind(path.kind), printable(via), printable(&path.why)),
        None if matches!(path.carrier.as_str(), "" | "udp") => format!("{} {}", kind(path.kind), path.remote),
        None => format!("{} {} by {}", kind(path.kind), path.remote, printable(&path.carrier)),
    }
}

fn foot(output: &Output, status: &Status) -> String {
    let mut text = String::new();
    for peer in &status.peers {
        if let Some(error) = &peer.last_error {
            text.push_str(&output.tone(Tone::Warn, &format!("# {}: {}", printable(&peer.name), printable(error))));
            text.push('\n');
        }
    }
    let drops: Vec<String> = status
        .drops
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect();
    if !drops.is_empty() {
        text.push_str(&format!("# dropped: {}\n", drops.join(" · ")));
    }
    text.extend(status.health.iter().map(|item| health_line(output, item)));
    text
}

/// One line per finding, like `# warn key-expiry: ...`.
pub(super) fn health_line(output: &Output, item: &Health) -> String {
    let (tone, level) = match item.level {
        HealthLevel::Info => (Tone::Plain, "info"),
        HealthLevel::Warn => (Tone::Warn, "warn"),
        HealthLevel::Error => (Tone::Bad, "error"),
    };
    output.tone(tone, &format!("# {level} {}: {}", item.code, printable(&item.text))) + "\n"
}
