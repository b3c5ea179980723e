// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many nodes in one process, for `pqvpn-lab scale`: `swarm COUNT FIRST PORT SOCKET`.
//!
//! Each node is a whole one with an identity, sockets, packet threads and a state task of its own, at an IPv4 address of its
//! own (FIRST, and those after it); it knows one peer, the hub, and what comes out of its tunnel is counted and thrown
//! away. All share a runtime. SOCKET takes orders, a line each, and answers each with a line:
//!
//! | Order | Answer |
//! |---|---|
//! | `who` | JSON: id, underlay and overlay address of each node |
//! | `start HUB_ID HUB_ADDRESS` | `started`, once all nodes run |
//! | `ping SECONDS` | JSON: every node makes a round trip with the hub, all at once: how many did, ms to the last, errors |
//! | `ping SECONDS FROM COUNT GAP` | the same for COUNT of them, each GAP ms after the one before; ms are each one's own |
//! | `churn SECONDS FROM COUNT` | the same after COUNT of them have left and come again: new sessions |
//! | `rekey FROM COUNT` | how many of them stepped the ratchet of their session |
//! | `bytes` | bytes of UDP payload that came out of all tunnels, and to the ports of `bare` |
//! | `bare PORT` | `counting`: a thread for each node's address counts what comes to that port, as its packet threads would |

use std::{
    collections::BTreeMap,
    error::Error,
    fs::DirBuilder,
    io::{self, BufRead as _, BufReader, IoSlice, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    os::unix::{
        fs::DirBuilderExt as _,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    socket::{setsockopt, sockopt::UdpGroSegment},
};
use pqvpn_crypto::{identity::Identity, peer_id::PeerId};
use pqvpn_dataplane::{Offloads, TunWriter, mem::MemTun, tun::VNET_HDR_LEN};
use pqvpn_node::{
    Interface, Node, StartOptions,
    config::{Config, PeerConfig},
    handle::{NodeHandle, PeerRef},
    link::Backend,
    overlay::Overlay,
};
use serde_json::json;
use tokio::{runtime::Runtime, task::JoinSet};

type Failure = Box<dyn Error + Send + Sync>;

/// Nodes that start at a time.
const AT_A_TIME: usize = 8;
/// IPv6 and UDP headers.
const HEADERS: usize = 40 + 8;

/// The kernel's end of a tunnel that goes nowhere.
struct Counter(Arc<AtomicU64>);

impl TunWriter for Counter {
    fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        self.0.fetch_add(len.saturating_sub(VNET_HDR_LEN + HEADERS) as u64, Ordering::Relaxed);
        Ok(())
    }

    fn offloads(&self) -> Offloads {
        // So that packets come one by one, and their headers can be told from their payload.
        Offloads::default()
    }
}

/// A node that does not run yet.
struct Member {
    identity: Identity,
    at: SocketAddr,
    state: PathBuf,
}

struct Swarm {
    runtime: Runtime,
    members: Mutex<Vec<Member>>,
    who: serde_json::Value,
    running: Mutex<Vec<NodeHandle>>,
    bytes: Arc<AtomicU64>,
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [count, first, port, socket] = arguments.as_slice() else {
        return Err("usage: swarm COUNT FIRST PORT SOCKET".into());
    };
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let socket = Path::new(socket);
    let swarm = Arc::new(Swarm::new(count.parse()?, first.parse()?, port.parse()?, &socket.with_extension("state"))?);
    let listener = UnixListener::bind(socket)?;
    for stream in listener.incoming() {
        let (stream, swarm) = (stream?, Arc::clone(&swarm));
        thread::spawn(move || swarm.serve(stream));
    }
    Ok(())
}

fn config(at: SocketAddr) -> Config {
    let mut config = Config::default();
    config.node.listen = vec![at];
    config.node.port_mapping = false;
    config.interface.ipv4 = false;
    config.bootstrap.lan = false;
    config.dht.enabled = false;
    config
}

impl Swarm {
    fn new(count: u32, first: Ipv4Addr, port: u16, state: &Path) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let folder = |path: &Path| DirBuilder::new().mode(0o700).create(path);
        folder(state)?;
        let (mut members, mut who) = (Vec::new(), Vec::new());
        for number in 0..count {
            let at = SocketAddr::from((Ipv4Addr::from(u32::from(first) + number), port));
            let (identity, state) = (Identity::generate()?, state.join(number.to_string()));
            folder(&state)?;
            let address = Overlay::plan(&config(at), identity.peer_id()).own.into_iter().find(IpAddr::is_ipv6);
            who.push(json!({ "id": identity.peer_id().to_string(), "at": at, "address": address }));
            members.push(Member { identity, at, state });
        }
        let (members, who) = (Mutex::new(members), who.into());
        Ok(Self { runtime, members, who, running: Mutex::default(), bytes: Arc::default() })
    }

    /// Does what it is told until nobody is there any more.
    fn serve(&self, stream: UnixStream) -> Result<(), Failure> {
        let mut answers = stream.try_clone()?;
        for order in BufReader::new(stream).lines() {
            let order = order?;
            let answer = match *order.split(' ').collect::<Vec<_>>() {
                ["bytes"] => self.bytes.load(Ordering::Relaxed).to_string(),
                ["who"] => self.who.to_string(),
                ["start", hub, at] => match self.start(hub.parse()?, at) {
                    Ok(()) => "started".to_owned(),
                    Err(error) => error.to_string(),
                },
                ["ping", seconds] => self.ping(seconds.parse()?, 0, usize::MAX, 0).to_string(),
                ["ping", seconds, from, count, gap] => {
                    self.ping(seconds.parse()?, from.parse()?, count.parse()?, gap.parse()?).to_string()
                }
                ["churn", seconds, from, count] => {
                    let (from, count) = (from.parse()?, count.parse()?);
                    self.away_and_back(from, count);
                    self.ping(seconds.parse()?, from, count, 0).to_string()
                }
                ["bare", port] => {
                    self.bare(port.parse()?).map_or_else(|error| error.to_string(), |()| "counting".to_owned())
                }
                ["rekey", from, count] => self.rekey(from.parse()?, count.parse()?).to_string(),
                _ => "what?".to_owned(),
            };
            answers.write_all(format!("{answer}\n").as_bytes())?;
        }
        Ok(())
    }

    /// Starts every node.
    fn start(&self, hub: PeerId, at: &str) -> Result<(), Failure> {
        let mut members = std::mem::take(&mut *self.members.lock().unwrap_or_else(PoisonError::into_inner));
        let peer = PeerConfig { name: "hub".to_owned(), endpoints: vec![at.parse()?], ..PeerConfig::new(hub) };
        self.runtime.block_on(async {
            let mut starting = JoinSet::new();
            loop {
                while let Some(member) = members.pop_if(|_| starting.len() < AT_A_TIME) {
                    starting.spawn(start(member, peer.clone(), Arc::clone(&self.bytes)));
                }
                let Some(started) = starting.join_next().await else { return Ok(()) };
                self.running.lock().unwrap_or_else(PoisonError::into_inner).push(started??);
            }
        })
    }

    /// What a tunnel is compared with: the same traffic to as many sockets and threads, and nothing else done.
    fn bare(&self, port: u16) -> Result<(), Failure> {
        for member in self.who.as_array().ok_or("no members")? {
            let at: SocketAddr = serde_json::from_value(member["at"].clone())?;
            let socket = UdpSocket::bind((at.ip(), port))?;
            setsockopt(&socket, UdpGroSegment, &true)?;
            let bytes = Arc::clone(&self.bytes);
            let count = move || {
                let mut buffer = vec![0; 1 << 16];
                while let Ok(len) = socket.recv(&mut buffer) {
                    bytes.fetch_add(len as u64, Ordering::Relaxed);
                }
            };
            thread::Builder::new().stack_size(1 << 16).spawn(count)?;
        }
        Ok(())
    }

    fn some(&self, from: usize, count: usize) -> Vec<NodeHandle> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.iter().skip(from).take(count).cloned().collect()
    }

    /// Some nodes end all they have, and begin anew.
    fn away_and_back(&self, from: usize, count: usize) {
        self.runtime.block_on(async {
            for handle in self.some(from, count) {
                // What fails shows when they are to answer.
                _ = handle.down().await;
                _ = handle.up().await;
            }
        });
    }

    fn rekey(&self, from: usize, count: usize) -> usize {
        self.runtime.block_on(async {
            let mut steps = 0;
            for handle in self.some(from, count) {
                steps += usize::from(handle.rekey(PeerRef("hub".to_owned())).await.is_ok());
            }
            steps
        })
    }

    /// A round trip of some nodes with the hub, each `gap` ms after the one before.
    fn ping(&self, seconds: u64, from: usize, count: usize, gap: u64) -> serde_json::Value {
        let (mut times, mut errors) = (Vec::new(), BTreeMap::<String, usize>::new());
        self.runtime.block_on(async {
            let mut pings = JoinSet::new();
            for (handle, turn) in self.some(from, count).into_iter().zip(0..) {
                pings.spawn(async move {
                    tokio::time::sleep(Duration::from_millis(gap * turn)).await;
                    let begun = Instant::now();
                    let ping = handle.ping(PeerRef("hub".to_owned()), Duration::from_secs(seconds)).await;
                    ping.map(|_| begun.elapsed().as_millis())
                });
            }
            while let Some(ping) = pings.join_next().await {
                match ping {
                    Ok(Ok(took)) => times.push(took),
                    Ok(Err(error)) => *errors.entry(error.to_string()).or_default() += 1,
                    Err(error) => *errors.entry(error.to_string()).or_default() += 1,
                }
            }
        });
        times.sort_unstable();
        let at = |part: usize| times.get((times.len() * part / 100).min(times.len().saturating_sub(1)));
        json!({ "answered": times.len(), "half_ms": at(50), "last_ms": times.last(), "errors": errors })
    }
}

async fn start(member: Member, hub: PeerConfig, bytes: Arc<AtomicU64>) -> Result<NodeHandle, Failure> {
    let mut config = config(member.at);
    config.peers = vec![hub];
    let (_kernel, reader, _) = MemTun::new(Offloads::default())?;
    let options = StartOptions {
        config,
        identity: member.identity,
        state_dir: member.state,
        kept_in: None,
        interface: Interface::Given(vec![(Box::new(reader), Box::new(Counter(bytes)))]),
        backend: Backend::Noq,
    };
    let (handle, _runs_until_the_process_ends) = Node::start(options).await?;
    Ok(handle)
}
