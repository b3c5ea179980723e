// SPDX-License-Identifier: MIT OR Apache-2.0
//! The resolver's sockets: UDP and TCP on port 53 of one address.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{
    DnsServer, Names,
    answer::{MAX_QUERY, Outcome, Transport, answer},
};

/// Where resolvers are asked.
const PORT: u16 = 53;
/// Connections at a time.
const CONNECTIONS: usize = 16;
/// Queries over one connection.
const QUERIES: usize = 64;
/// How long a connection may say nothing.
const IDLE: Duration = Duration::from_secs(5);
/// How long it may last: there are few of them, and others wait.
const WHOLE: Duration = Duration::from_secs(20);
/// How long to wait before an address is tried again, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// Answers on one address until it is dropped.
#[derive(Debug)]
pub(super) struct Server {
    address: IpAddr,
    /// Why it does not answer; tried again all the time.
    error: Arc<Mutex<Option<String>>>,
    task: JoinHandle<()>,
}

impl Server {
    /// Begins to answer; an address that is not there yet, or taken, is tried again.
    pub(super) fn start(names: Arc<Names>, address: IpAddr) -> Self {
        Self::start_on(names, SocketAddr::new(address, PORT))
    }

    pub(super) fn start_on(names: Arc<Names>, address: SocketAddr) -> Self {
        let error = Arc::new(Mutex::new(None));
        let task = tokio::spawn(run(names, address, Arc::clone(&error)));
        Self { address: address.ip(), error, task }
    }

    pub(super) const fn address(&self) -> IpAddr {
        self.address
    }

    pub(super) fn report(&self) -> DnsServer {
        let error = self.error.lock().unwrap_or_else(PoisonError::into_inner).clone();
        DnsServer { address: self.address, error }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(names: Arc<Names>, address: SocketAddr, error: Arc<Mutex<Option<String>>>) {
    let say = |what: Option<String>| *error.lock().unwrap_or_else(PoisonError::into_inner) = what;
    let mut wait = RETRY.0;
    loop {
        let why = match bind(address).await {
            Ok((udp, tcp)) => {
                say(None);
                wait = RETRY.0;
                tokio::select! {
                    error = serve_udp(&names, &udp) => error,
                    error = serve_tcp(&names, &tcp) => error,
                }
            }
            Err(error) => error,
        };
        tracing::debug!(%address, error = %why, "names are not answered here");
        say(Some(explain(&why)));
        sleep(wait).await;
        wait = (wait * 2).min(RETRY.1);
    }
}

async fn bind(address: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    Ok((UdpSocket::bind(address).await?, TcpListener::bind(address).await?))
}

fn explain(error: &io::Error) -> String {
    let kind = error.kind();
    if kind == io::ErrorKind::AddrInUse {
        "another DNS server on this host has port 53 of this address".to_owned()
    } else if kind == io::ErrorKind::PermissionDenied {
        "the right to use port 53 is missing (CAP_NET_BIND_SERVICE)".to_owned()
    } else {
        error.to_string()
    }
}

async fn serve_udp(names: &Names, socket: &UdpSocket) -> io::Error {
    let mut query = vec![0; MAX_QUERY + 1];
    loop {
        let (len, asker) = match socket.recv_from(&mut query).await {
            Ok(received) => received,
            // What an earlier answer met on its way: the asker is gone.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(error) if is_out_of_room(&error) => {
                sleep(RETRY.0).await;
                continue;
            }
            Err(error) => return error,
        };
        let query = query.get(..len).unwrap_or_default();
        if let Some(reply) = judge(names, query, asker.ip(), Transport::Udp) {
            let _asker_may_be_gone = socket.send_to(&reply, asker).await;
        }
    }
}

async fn serve_tcp(names: &Arc<Names>, listener: &TcpListener) -> io::Error {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let (stream, asker) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) if is_out_of_room(&error) => {
                // Bound again, the address could be lost to whoever takes the descriptors meanwhile.
                tracing::debug!(%error, "no connection for names taken");
                sleep(RETRY.0).await;
                continue;
            }
            Err(error) => return error,
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            names.count(Outcome::Dropped);
            continue;
        };
        if !names.answers(asker.ip()) {
            names.count(Outcome::Dropped);
            continue;
        }
        let names = Arc::clone(names);
        tokio::spawn(async move {
            let _closed_broken_or_over = timeout(WHOLE, talk(&names, stream, asker.ip())).await;
            drop(permit);
        });
    }
}

/// Whether the process or the machine has no descriptor or memory left: the socket is as good as before.
fn is_out_of_room(error: &io::Error) -> bool {
    use nix::libc::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOBUFS | ENOMEM))
}

/// Queries and answers over one connection, each after its length (RFC 7766 §8).
async fn talk(names: &Names, mut stream: TcpStream, asker: IpAddr) -> io::Result<()> {
    for _ in 0..QUERIES {
        let Ok(len) = timeout(IDLE, stream.read_u16()).await else { return Ok(()) };
        let len = usize::from(len?);
        if len > MAX_QUERY {
            return Ok(());
        }
        let mut query = vec![0; len];
        let Ok(read) = timeout(IDLE, stream.read_exact(&mut query)).await else { return Ok(()) };
        read?;
        let Some(reply) = judge(names, &query, asker, Transport::Tcp) else { return Ok(()) };
        let len = u16::try_from(reply.len()).map_err(io::Error::other)?;
        let framed = [len.to_be_bytes().as_slice(), &reply].concat();
        let Ok(written) = timeout(IDLE, stream.write_all(&framed)).await else { return Ok(()) };
        written?;
    }
    Ok(())
}

/// The answer to a query from there, if it gets one.
fn judge(names: &Names, query: &[u8], asker: IpAddr, transport: Transport) -> Option<Vec<u8>> {
    if !names.answers(asker) {
        names.count(Outcome::Dropped);
        return None;
    }
    let (reply, outcome) = answer(&names.table(), query, transport);
    names.count(outcome);
    reply
}
