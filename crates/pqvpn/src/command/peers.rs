// SPDX-License-Identifier: MIT OR Apache-2.0
//! `peers`: each peer in full, a block of lines per peer.

use pqvpn_api::model::Peer;

use super::{ping::kind, status::state};
use crate::{
    context::Context,
    failure::Failure,
    output::{Output, age, bytes, printable},
};

pub(crate) async fn run(context: &Context) -> Result<(), Failure> {
    let peers = context.client()?.peers().await?;
    context.output.result(&peers, |output| {
        if peers.peers.is_empty() {
            return "no peers; `pqvpn net create NAME` makes a network, `pqvpn join CODE` joins one".into();
        }
        peers.peers.iter().map(|peer| block(output, peer)).collect::<Vec<_>>().join("\n")
    });
    Ok(())
}

fn block(output: &Output, peer: &Peer) -> String {
    let (tone, state) = state(peer);
    let addresses: Vec<String> = peer.addresses.iter().map(ToString::to_string).collect();
    let mut lines = vec![
        format!("{}: {}", printable(&peer.name), output.tone(tone, &state)),
        format!("  id: {}", peer.peer_id),
        format!("  addresses: {}", addresses.join(" ")),
    ];
    for known in &peer.networks {
        lines.push(format!("  in {}: {}", printable(&known.network), printable(&known.name)));
    }
    if let Some(path) = &peer.path {
        let rtt = path.rtt_ms.map_or_else(|| "unknown".into(), |rtt| format!("{rtt:.3} ms"));
        lines.push(format!("  path: {} {} ({})", kind(path.kind), path.remote, printable(&path.why)));
        let jitter = path.jitter_ms.map_or_else(String::new, |jitter| format!(" +- {jitter:.3}"));
        lines.push(format!("  rtt {rtt}{jitter}, loss {:.1}%, mtu {}", path.loss * 100.0, path.mtu));
        let (tx, rx) = (path.tx_rate / 1000.0, path.rx_rate / 1000.0);
        lines.push(format!("  sending {tx:.1} kB/s, receiving {rx:.1} kB/s"));
    }
    if let Some(session) = &peer.session {
        lines.push(format!("  suite: {} with {}", session.suite, session.aead));
        let rekey = age(session.rekey_age_s);
        lines.push(format!("  keys: epoch {} phase {}, rekeyed {rekey} ago", session.epoch, session.phase));
    }
    let (sent, received) = (bytes(peer.tx_bytes), bytes(peer.rx_bytes));
    lines.push(format!("  sent {sent} in {} packets, received {received} in {}", peer.tx_packets, peer.rx_packets));
    if let Some(error) = &peer.last_error {
        lines.push(format!("  last error: {}", printable(error)));
    }
    lines.join("\n") + "\n"
}
