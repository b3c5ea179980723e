// SPDX-License-Identifier: MIT OR Apache-2.0
//! A small HTTP proxy that knows CONNECT and nothing else (RFC 9110 9.3.6).

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use pqvpn_lab::topology::Host;

/// Longest request.
const HEAD: usize = 8192;
/// How long a client may take for its request, and a server to answer a connection.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it looks for a client, and whether it is still wanted.
const LOOK: Duration = Duration::from_millis(5);
const PORT: u16 = 3128;

/// The proxy; it ends when dropped, its connections with their ends.
pub(super) struct Proxy {
    /// Where it listens.
    pub(super) address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    pub(super) fn start(host: &Host) -> anyhow::Result<Self> {
        let address = SocketAddr::new(host.ipv4.into(), PORT);
        let listener = host.namespace.run(move || TcpListener::bind(address))??;
        listener.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let shared = Arc::clone(&stop);
        // Threads started in there are in the same namespace.
        let thread = host.namespace.thread("proxy", move || {
            while !shared.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((client, _)) => drop(thread::spawn(move || serve(client))),
                    Err(_) => thread::sleep(LOOK),
                }
            }
        })?;
        Ok(Self { address, stop, thread: Some(thread) })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has nothing to tell.
            _ = thread.join();
        }
    }
}

/// Whoever asks badly gets an error or nothing.
fn serve(mut client: TcpStream) {
    // A connection taken from a listener that does not block may not block either.
    _ = client.set_nonblocking(false);
    _ = client.set_read_timeout(Some(PATIENCE));
    let Some(target) = request(&mut client) else {
        _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        return;
    };
    let Ok(server) = TcpStream::connect_timeout(&target, PATIENCE) else {
        _ = client.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n");
        return;
    };
    _ = client.set_read_timeout(None);
    if client.write_all(b"HTTP/1.1 200 Connection Established\r\n\r\n").is_err() {
        return;
    }
    let (Ok(client_out), Ok(server_out)) = (client.try_clone(), server.try_clone()) else { return };
    thread::spawn(move || copy(server, client_out));
    copy(client, server_out);
}

/// Reads the request's head; gives whom it wants to reach.
fn request(client: &mut TcpStream) -> Option<SocketAddr> {
    let mut head = Vec::new();
    let mut byte = [0];
    // Byte by byte, so that nothing after the head is taken from the tunnel.
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == HEAD || client.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    target(&head)
}

fn target(head: &[u8]) -> Option<SocketAddr> {
    let line = std::str::from_utf8(head).ok()?.lines().next()?;
    let (target, version) = line.strip_prefix("CONNECT ")?.split_once(' ')?;
    version.starts_with("HTTP/1.").then(|| target.parse().ok())?
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    // Either end may go at any time.
    _ = io::copy(&mut from, &mut to);
    _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_connect_to_an_address_is_understood() {
        let wanted = Some("20.7.1.2:443".parse().unwrap());
        assert_eq!(target(b"CONNECT 20.7.1.2:443 HTTP/1.1\r\nHost: 20.7.1.2:443\r\n\r\n"), wanted);
        for bad in
            [&b"GET / HTTP/1.1\r\n\r\n"[..], b"CONNECT x HTTP/1.1\r\n\r\n", b"CONNECT 1.2.3.4:1\r\n\r\n", b"\xff"]
        {
            assert_eq!(target(bad), None);
        }
    }
}
