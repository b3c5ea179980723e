// SPDX-License-Identifier: MIT OR Apache-2.0
//! The door to the local network: nodes announce themselves by multicast DNS (RFC 6762, RFC 6763) and look for others.
//!
//! What is found is a hint where to dial; the link proves who answers. An announcement says PeerID, port and addresses,
//! under a name drawn for this run: never the name of the host or the user. Point-to-point interfaces, our own TUN
//! among them, and loopback take no part.
//!
//! Looking costs traffic, answering little: a node looks when it starts and when it gets a new address, and later only
//! while it has found few. In between it keeps silent.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::digest;
use data_encoding::HEXLOWER;
use mdns_sd::{DaemonEvent, IfKind, Receiver, ResolvedService, ServiceDaemon, ServiceEvent, ServiceInfo};
use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::dht::NetworkId;
use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout_at},
};

use crate::{
    dht::report::{DoorSource, NewDoor},
    entropy,
};

/// What nodes announce themselves as.
const SERVICE: &str = "_pqvpn._udp.local.";
/// How long a look takes: queries go out after 0, 1, 3, 7 and 15 s.
const LOOK: Duration = Duration::from_secs(20);
/// Time between two looks while few are known.
const PAUSE: Duration = Duration::from_secs(30 * 60);
/// Whoever knows this many neighbours needs to look no more.
const ENOUGH: usize = 8;
/// Doors taken from one look, and remembered; more neighbours, or more inventions of one of them, are not listened to.
const MAX_FOUND: usize = 64;
/// Addresses taken of one neighbour.
const MAX_ADDRESSES: usize = 4;
/// Hex digits that tell one DHT from another without naming it.
const NETWORK_DIGITS: usize = 16;

/// What the door to the local network needs.
#[derive(Debug)]
pub struct LanContext {
    /// Who we are.
    pub own: PeerId,
    /// Which DHT we are looking for others of.
    pub network: NetworkId,
    /// The sockets links arrive at.
    pub listen: Vec<SocketAddr>,
    /// Where doors go; a full queue drops them.
    pub found: mpsc::Sender<NewDoor>,
    /// Somebody is looked for: look now, however lately that was done.
    pub look: Arc<Notify>,
}

/// Announces this node and looks for others until it is dropped; ends by itself only when multicast DNS does.
///
/// A node that listens on loopback only takes no part.
pub async fn run(context: LanContext) {
    let Some((port, interfaces)) = announced(&context.listen) else {
        tracing::debug!("no socket a neighbour could reach: the local network is left alone");
        return std::future::pending().await;
    };
    match Responder::start(&context, port, interfaces) {
        Ok(responder) => responder.serve(&context).await,
        Err(error) => tracing::warn!(%error, "nodes on the local network are not found: multicast DNS does not start"),
    }
}

/// The door to the local network as the node holds it: open while somebody needs it.
pub(crate) struct Lan {
    /// `None`: switched off.
    setup: Option<LanSetup>,
    running: Option<JoinHandle<()>>,
    look: Arc<Notify>,
}

/// What a [`Lan`] is started with.
pub(crate) struct LanSetup {
    pub(crate) own: PeerId,
    pub(crate) network: NetworkId,
    pub(crate) listen: Vec<SocketAddr>,
    /// Everybody who wants to know of doors.
    pub(crate) found: Vec<mpsc::Sender<NewDoor>>,
    /// Whether somebody needs it at all times.
    pub(crate) always: bool,
}

impl Lan {
    pub(crate) fn new(setup: Option<LanSetup>) -> Self {
        let mut lan = Self { setup, running: None, look: Arc::default() };
        lan.needed(false);
        lan
    }

    /// Opens or shuts the door; `now`: whether somebody needs it who does not always.
    pub(crate) fn needed(&mut self, now: bool) {
        let Some(setup) = &self.setup else { return };
        match (now || setup.always, &self.running) {
            (true, None) => self.running = Some(tokio::spawn(setup.run(Arc::clone(&self.look)))),
            (false, Some(running)) => {
                running.abort();
                self.running = None;
            }
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// Looks again, at once, for somebody who may be nearby.
    pub(crate) fn look_again(&self) {
        self.look.notify_one();
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.abort();
        }
    }
}

impl LanSetup {
    /// Looks for others and tells everybody who wants to know.
    fn run(&self, look: Arc<Notify>) -> impl Future<Output = ()> + Send + 'static {
        let (found, doors) = mpsc::channel(MAX_FOUND);
        let context = LanContext { own: self.own, network: self.network, listen: self.listen.clone(), found, look };
        let tell = tell_all(doors, self.found.clone());
        async move {
            tokio::join!(run(context), tell);
        }
    }
}

/// Tells everybody who wants to know. Who is busy is waited for: what is not taken here is not told again soon.
async fn tell_all(mut doors: mpsc::Receiver<NewDoor>, listeners: Vec<mpsc::Sender<NewDoor>>) {
    while let Some(door) = doors.recv().await {
        for listener in &listeners {
            let _gone = listener.send(door.clone()).await;
        }
    }
}

/// The thread that speaks multicast DNS; it says goodbye when this is dropped.
struct Responder {
    daemon: ServiceDaemon,
    changes: Receiver<DaemonEvent>,
}

impl Drop for Responder {
    fn drop(&mut self) {
        // The thread ends by itself; nobody waits for its last word.
        let _last_word = self.daemon.shutdown();
    }
}

impl Responder {
    fn start(context: &LanContext, port: u16, interfaces: Vec<IfKind>) -> Result<Self, mdns_sd::Error> {
        let daemon = ServiceDaemon::new()?;
        let changes = daemon.monitor()?;
        let responder = Self { daemon, changes };
        let daemon = &responder.daemon;
        daemon.disable_interface(vec![IfKind::LoopbackV4, IfKind::LoopbackV6])?;
        let name = format!("{:016x}", entropy::u64());
        let host = format!("{name}.local.");
        let facts = [("id", context.own.to_string()), ("net", network_tag(&context.network))];
        let mut info = ServiceInfo::new(SERVICE, &name, &host, "", port, &facts[..])?.enable_addr_auto();
        info.set_interfaces(interfaces);
        daemon.register(info)?;
        Ok(responder)
    }

    async fn serve(&self, context: &LanContext) {
        let mut known = Neighbours::default();
        loop {
            if let Err(error) = self.look(context, &mut known).await {
                tracing::debug!(%error, "a look at the local network failed");
            }
            let until = if known.doors.len() < ENOUGH { Some(Instant::now() + PAUSE) } else { None };
            match self.wait(until, &context.look).await {
                Some(Woken::ToLook) => {}
                // Who was near may not be any more, and whoever is, is news here.
                Some(Woken::ByNetwork) => known = Neighbours::default(),
                None => return,
            }
        }
    }

    /// Asks who is there, and hands on what is new.
    async fn look(&self, context: &LanContext, known: &mut Neighbours) -> Result<(), mdns_sd::Error> {
        let events = self.daemon.browse(SERVICE)?;
        let end = Instant::now() + LOOK;
        let mut left = MAX_FOUND;
        while left > 0 {
            let Ok(Ok(event)) = timeout_at(end, events.recv_async()).await else { break };
            let ServiceEvent::ServiceResolved(service) = event else { continue };
            left -= 1;
            if let Some(door) = neighbour(&service, context) {
                known.tell(door, &context.found);
            }
        }
        // Whoever looks on asks again for every answer that runs out.
        self.daemon.stop_browse(SERVICE)
    }

    /// Waits for `until`, for a new address of this host, or until somebody is looked for; `None` when the responder has
    /// ended.
    async fn wait(&self, until: Option<Instant>, look: &Notify) -> Option<Woken> {
        let alarm = async {
            match until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        let changed = async {
            loop {
                match self.changes.recv_async().await {
                    Ok(DaemonEvent::IpAdd(_)) => return Some(Woken::ByNetwork),
                    Ok(_) => {}
                    Err(_ended) => return None,
                }
            }
        };
        tokio::select! {
            () = alarm => Some(Woken::ToLook),
            woken = changed => woken,
            () = look.notified() => Some(Woken::ToLook),
        }
    }
}

/// Why it is looked again.
enum Woken {
    ToLook,
    /// This host has a new address.
    ByNetwork,
}

/// Who was found where, and handed on.
#[derive(Debug, Default)]
struct Neighbours {
    doors: BTreeMap<PeerId, Neighbour>,
    /// Counts what was heard.
    heard: u64,
}

#[derive(Debug)]
struct Neighbour {
    endpoints: BTreeSet<String>,
    /// The last time.
    heard: u64,
}

impl Neighbours {
    /// Hands a door on when it or one of its endpoints is new; who was heard least lately makes room.
    fn tell(&mut self, door: NewDoor, found: &mpsc::Sender<NewDoor>) {
        self.heard += 1;
        let (peer, heard) = (door.peer, self.heard);
        let endpoints: BTreeSet<String> = door.endpoints.iter().cloned().collect();
        if let Some(known) = self.doors.get_mut(&peer)
            && known.endpoints.is_superset(&endpoints)
        {
            known.heard = heard;
            return;
        }
        // A full queue means doors enough for now: the next look finds it again.
        if found.try_send(door).is_err() {
            return;
        }
        tracing::debug!(peer = %peer.short(), "a node on the local network");
        if self.doors.len() >= MAX_FOUND && !self.doors.contains_key(&peer) {
            let oldest = self.doors.iter().min_by_key(|(_, known)| known.heard).map(|(oldest, _)| *oldest);
            oldest.and_then(|oldest| self.doors.remove(&oldest));
        }
        // The newest answer counts: a neighbour that moved has left the old address.
        self.doors.insert(peer, Neighbour { endpoints, heard });
    }
}

/// The port to announce, and on which interfaces it is open; none when only this host reaches it.
fn announced(listen: &[SocketAddr]) -> Option<(u16, Vec<IfKind>)> {
    let reachable = || listen.iter().filter(|socket| !socket.ip().is_loopback() && socket.port() != 0);
    // One announcement names one port: that of the first socket.
    let port = reachable().next()?.port();
    let kind = |socket: &SocketAddr| match socket.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IfKind::IPv4,
        IpAddr::V6(ip) if ip.is_unspecified() => IfKind::IPv6,
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => IfKind::Addr(ip),
    };
    Some((port, reachable().filter(|socket| socket.port() == port).map(kind).collect()))
}

/// The door an announcement speaks of; none when it is ours, of another DHT, or no legal one.
fn neighbour(service: &ResolvedService, context: &LanContext) -> Option<NewDoor> {
    let fact = |key| service.txt_properties.get_property_val_str(key);
    let peer: PeerId = fact("id")?.parse().ok()?;
    if peer == context.own || fact("net")? != network_tag(&context.network) || service.port == 0 {
        return None;
    }
    let mut addresses: Vec<IpAddr> = service.addresses.iter().map(mdns_sd::ScopedIp::to_ip_addr).collect();
    addresses.retain(dialable);
    // The order of a set is chance; IPv4 first, as a local network without it is rare.
    addresses.sort();
    addresses.truncate(MAX_ADDRESSES);
    let endpoints: Vec<String> = addresses.iter().map(|ip| SocketAddr::new(*ip, service.port).to_string()).collect();
    let door = NewDoor { peer, endpoints, source: DoorSource::Lan, expires_ms: None };
    (!door.endpoints.is_empty()).then_some(door)
}

/// Whether a neighbour can be dialed there without naming an interface.
fn dialable(ip: &IpAddr) -> bool {
    let ip = ip.to_canonical();
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(ip.is_loopback() || ip.is_multicast() || ip.is_unspecified() || link_local)
}

/// Tells DHTs apart on a local network; the id of a separate one is nobody else's business.
fn network_tag(network: &NetworkId) -> String {
    let hash = digest::digest(&digest::SHA256, &[b"pqvpn lan".as_slice(), network.as_bytes()].concat());
    let mut tag = HEXLOWER.encode(hash.as_ref());
    tag.truncate(NETWORK_DIGITS);
    tag
}
