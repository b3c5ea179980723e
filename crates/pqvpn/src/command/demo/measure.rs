// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the demo measures, each by the means a user has: pings, status, a TCP transfer.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use pqvpn_api::model::Peer;
use serde::Serialize;
use tokio::task::spawn_blocking;

use super::mesh::{Mesh, Node};

/// How long one ping may take; the first one makes the handshake.
const PING_WITHIN: Duration = Duration::from_secs(20);
/// Pings whose median is the round-trip time.
const PINGS: usize = 20;
/// How long the transfer runs.
const TRANSFER: Duration = Duration::from_secs(3);
/// How long a forced ratchet step may take.
const STEP_WITHIN: Duration = Duration::from_secs(10);

/// One peer, as the first node sees it.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) peer: String,
    pub(super) address: IpAddr,
    pub(super) handshake_ms: f64,
    /// Median of twenty round trips inside the tunnel.
    pub(super) rtt_ms: f64,
    /// One TCP stream through the kernel interfaces; measured with the first peer only.
    pub(super) throughput_gbit_s: Option<f64>,
    pub(super) suite: String,
    pub(super) aead: String,
    pub(super) epoch: u32,
    pub(super) state: String,
}

/// Measures the first node against each other one. Also gives the time from starting the daemons to the first answer.
pub(super) async fn all(mesh: &Mesh) -> Result<(f64, Vec<Row>)> {
    let (first, others) = mesh.nodes.split_first().context("a mesh has nodes")?;
    let mut start_to_ping_ms = None;
    let mut rows = Vec::new();
    for other in others {
        ping(first, other).await?;
        start_to_ping_ms.get_or_insert_with(|| mesh.started.elapsed().as_secs_f64() * 1e3);
        let mut samples = Vec::with_capacity(PINGS);
        for _ in 0..PINGS {
            samples.push(ping(first, other).await?);
        }
        samples.sort_by(f64::total_cmp);
        let throughput = if rows.is_empty() { Some(transfer(first, other).await?) } else { None };
        let peer = after_a_ratchet_step(first, other).await?;
        let session = peer.session.context("the session is gone")?;
        rows.push(Row {
            peer: other.name.clone(),
            address: other.address,
            handshake_ms: session.handshake_ms,
            rtt_ms: samples[PINGS / 2],
            throughput_gbit_s: throughput.map(super::round),
            suite: session.suite,
            aead: session.aead,
            epoch: session.epoch,
            state: serde_json::to_value(peer.state)?.as_str().unwrap_or_default().to_owned(),
        });
    }
    Ok((start_to_ping_ms.unwrap_or(f64::NAN), rows))
}

async fn ping(from: &Node, to: &Node) -> Result<f64> {
    let reply = from.client.ping(&to.name, PING_WITHIN).await;
    Ok(reply.with_context(|| format!("{} does not reach {}", from.name, to.name))?.rtt_ms)
}

/// Steps the post-quantum ratchet once and waits until the new epoch is in use.
async fn after_a_ratchet_step(from: &Node, to: &Node) -> Result<Peer> {
    let before = peer_of(from, to).await?.session.map_or(0, |session| session.epoch);
    from.client.rekey(&to.name).await?;
    let deadline = Instant::now() + STEP_WITHIN;
    loop {
        // Packets in the new epoch are what completes a step.
        ping(from, to).await?;
        let peer = peer_of(from, to).await?;
        if peer.session.as_ref().is_some_and(|session| session.epoch > before) {
            return Ok(peer);
        }
        anyhow::ensure!(Instant::now() < deadline, "the ratchet between {} and {} did not step", from.name, to.name);
    }
}

async fn peer_of(from: &Node, to: &Node) -> Result<Peer> {
    let peers = from.client.peers().await?.peers;
    peers.into_iter().find(|peer| peer.name == to.name).context("the peer is gone")
}

/// Sends for a while over one TCP connection inside the tunnel; Gbit/s as the receiver counts them.
async fn transfer(from: &Node, to: &Node) -> Result<f64> {
    let target = SocketAddr::new(to.address, 0);
    let listener = to.host.namespace.run(move || TcpListener::bind(target))??;
    let target = listener.local_addr()?;
    let receiver = to.host.namespace.thread("receiver", move || receive(&listener))?;
    let sender = from.host.namespace.thread("sender", move || send(target))?;
    let join = |thread: std::thread::JoinHandle<Result<f64>>| spawn_blocking(move || thread.join());
    let (sent, received) = (join(sender).await?, join(receiver).await?);
    sent.map_err(|_| anyhow!("the sender panicked"))?.context("sending")?;
    received.map_err(|_| anyhow!("the receiver panicked"))?.context("receiving")
}

fn send(target: SocketAddr) -> Result<f64> {
    let mut stream = TcpStream::connect_timeout(&target, PING_WITHIN)?;
    stream.set_write_timeout(Some(PING_WITHIN))?;
    let (block, start) = (vec![0x5a; 256 * 1024], Instant::now());
    while start.elapsed() < TRANSFER {
        stream.write_all(&block)?;
    }
    Ok(0.0)
}

fn receive(listener: &TcpListener) -> Result<f64> {
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(PING_WITHIN))?;
    let (mut block, mut total, start) = (vec![0; 256 * 1024], 0_u64, Instant::now());
    loop {
        match stream.read(&mut block)? {
            0 => break,
            count => total += count as u64,
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let bits = total as f64 * 8.0;
    Ok(bits / start.elapsed().as_secs_f64() / 1e9)
}
