// SPDX-License-Identifier: MIT OR Apache-2.0
//! A WebSocket to a peer: TCP, straight or by a proxy, TLS, the secret path.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use pqvpn_crypto::peer_id::PeerId;
use rustls::{ClientConfig, pki_types::ServerName};
use socket2::{SockRef, Socket};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream, lookup_host},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{WebSocketStream, client_async_with_config, tungstenite};

use super::{
    proxy::{Proxy, ProxyError},
    secret, stream,
};
use crate::{clock, link::race};

/// How long all of it may take.
const LIMIT: Duration = Duration::from_secs(8);
/// Head start of a proxy, where one is set, over going straight.
const BEFORE_STRAIGHT: Duration = Duration::from_millis(150);
/// What the kernel holds of what was sent and is not acknowledged: too little when the network is far.
const SEND_BUFFER: u32 = 256 * 1024;
/// And of what the network has not taken yet: it grows old there behind the queue's back, 50 ms at 5 Mbit/s. Datagrams wait
/// in the queue, which drops those that are late.
const UNSENT: u32 = 32 * 1024;

/// Why there is no WebSocket.
#[derive(Debug, Error)]
pub(crate) enum DialError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Proxy(Box<dyn std::error::Error + Send + Sync>),
    #[error("the server speaks no WebSocket there: {0}")]
    WebSocket(Box<tungstenite::Error>),
    #[error("no answer in time")]
    Timeout,
}

impl DialError {
    /// Whether it is for want of something here, and says nothing of the server.
    pub(super) fn is_local(&self) -> bool {
        use nix::libc::{EADDRNOTAVAIL, EMFILE, ENETDOWN, ENETUNREACH, ENFILE, ENOBUFS, ENOMEM, EPERM};
        const HERE: [i32; 8] = [EADDRNOTAVAIL, EMFILE, ENETDOWN, ENETUNREACH, ENFILE, ENOBUFS, ENOMEM, EPERM];
        matches!(self, Self::Io(error) if error.raw_os_error().is_some_and(|code| HERE.contains(&code))
            || error.kind() == io::ErrorKind::QuotaExceeded)
    }
}

impl From<ProxyError> for DialError {
    fn from(error: ProxyError) -> Self {
        Self::Proxy(Box::new(error))
    }
}

/// A WebSocket as it was dialled.
pub(super) type Dialled = WebSocketStream<TlsStream<TcpStream>>;

/// Makes a WebSocket to a peer's address.
///
/// # Errors
/// [`DialError`].
pub(super) async fn dial(
    tls: &Arc<ClientConfig>,
    proxy: Option<&Proxy>,
    to: SocketAddr,
    peer: &PeerId,
) -> Result<Dialled, DialError> {
    let straight = async {
        if proxy.is_some() {
            sleep(BEFORE_STRAIGHT).await;
        }
        speak(tls, connect(to).await?, to, peer).await
    };
    let all = async {
        let Some(proxy) = proxy else { return straight.await };
        let by_proxy = async { speak(tls, through(proxy, to).await?, to, peer).await };
        first(by_proxy, straight).await
    };
    timeout(LIMIT, all).await.map_err(|_elapsed| DialError::Timeout)?
}

/// The first of two that works; else what the first said.
async fn first<T, E>(
    one: impl Future<Output = Result<T, E>>,
    other: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let (one, other) = (std::pin::pin!(one.fuse()), std::pin::pin!(other.fuse()));
    match futures_util::future::select(one, other).await {
        futures_util::future::Either::Left((Ok(made), _)) | futures_util::future::Either::Right((Ok(made), _)) => {
            Ok(made)
        }
        futures_util::future::Either::Left((Err(error), other)) => other.await.map_err(|_| error),
        futures_util::future::Either::Right((Err(_), one)) => one.await,
    }
}

async fn through(proxy: &Proxy, to: SocketAddr) -> Result<TcpStream, DialError> {
    let found: Vec<SocketAddr> = lookup_host(proxy.authority()).await?.take(4).collect();
    let attempts = found.into_iter().map(|at| connect(at).boxed());
    let stream = race(attempts, io::Error::from(io::ErrorKind::NotFound), |_, _| true).await?;
    Ok(proxy.connect(stream, to).await?)
}

async fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    hold_little(&SockRef::from(&socket))?;
    mark(&SockRef::from(&socket));
    socket.connect(to).await
}

/// Has packets of a socket go by the underlay also where a member has the address they go to.
pub(super) fn mark(socket: &Socket) {
    let unmarked = |error: &io::Error| tracing::trace!(%error, "a carrier's socket has no mark");
    socket.set_mark(pqvpn_dataplane::MARK).inspect_err(unmarked).ok();
}

/// Has the kernel hold little of what is sent, and send at once.
///
/// # Errors
/// The system refuses.
pub(super) fn hold_little(socket: &Socket) -> io::Result<()> {
    socket.set_send_buffer_size(SEND_BUFFER as usize)?;
    socket.set_tcp_notsent_lowat(UNSENT)?;
    socket.set_tcp_nodelay(true)
}

/// Makes a WebSocket out of a stream to a server.
///
/// # Errors
/// [`DialError`].
pub(super) async fn speak<S>(
    tls: &Arc<ClientConfig>,
    stream: S,
    to: SocketAddr,
    peer: &PeerId,
) -> Result<WebSocketStream<TlsStream<S>>, DialError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // An address is no server name: none is sent.
    let name = ServerName::IpAddress(to.ip().into());
    let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await?;
    let host = if to.is_ipv4() { to.ip().to_string() } else { format!("[{}]", to.ip()) };
    let uri = format!("wss://{host}{}", secret::path(peer, clock::unix_seconds()));
    let made = client_async_with_config(uri, stream, Some(stream::config())).await;
    made.map(|(stream, _response)| stream).map_err(|error| DialError::WebSocket(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use super::{super::server, *};

    #[tokio::test]
    async fn the_kernel_holds_little_of_what_waits_at_either_end() {
        let listener = server::listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let dialled = connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _from) = listener.accept().await.unwrap();
        for stream in [&dialled, &accepted] {
            let socket = SockRef::from(stream);
            assert_eq!(socket.tcp_notsent_lowat().unwrap(), UNSENT);
            assert!(socket.tcp_nodelay().unwrap());
            assert!(socket.send_buffer_size().unwrap() <= 2 * SEND_BUFFER as usize, "the kernel counts double");
        }
    }
}
