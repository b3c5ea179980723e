// SPDX-License-Identifier: MIT OR Apache-2.0
//! The data plane with nothing around it, for `pqvpn-lab bench`: `plane CIPHER one|two LISTEN PEER`.
//!
//! One session with keys that everybody knows, between two of these; the cipher `none` encrypts nothing, which tells
//! what encryption costs. The interface is called `plane0`, its addresses and MTU are the caller's business. Runs until
//! it is killed; the session ends by itself when its first epoch is too old.
#![expect(clippy::print_stdout, reason = "says when it is ready")]

use std::{
    error::Error,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    thread,
    time::Instant,
};

use pqvpn_crypto::{
    aead::AeadId,
    schedule::{Exporter, Role, SessionSecrets, Transcript},
};
use pqvpn_dataplane::{
    DataPlane, DataPlaneConfig, KernelTun, SessionId, SessionInstall,
    session::{RxSession, TxSession},
};

/// What the node has on a path of 1500 bytes.
const INNER_MTU: u16 = 1420;
/// The replay window of the node.
const WINDOW: usize = 8192;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [cipher, end, listen, peer] = arguments.as_slice() else {
        return Err("usage: plane none|aes-256-gcm|chacha20-poly1305 one|two LISTEN PEER".into());
    };
    let role = match end.as_str() {
        "one" => Role::Initiator,
        "two" => Role::Responder,
        _ => return Err("the end is one or two".into()),
    };
    let install = session(cipher, role, peer.parse()?)?;
    let tun = KernelTun::open("plane0", 1)?.into_queues();
    let config = DataPlaneConfig { tun, sockets: vec![UdpSocket::bind(listen)?], inner_mtu: INNER_MTU };
    let plane = DataPlane::start(config, Arc::new(|_| ()))?;
    plane.control().set_routes(vec![("0.0.0.0/0".parse()?, install.peer)]);
    plane.control().install_session(install)?;
    println!("ready");
    loop {
        thread::park();
    }
}

fn session(cipher: &str, role: Role, path: SocketAddr) -> Result<SessionInstall, Box<dyn Error>> {
    let parts = SessionSecrets::derive(Exporter::from_bytes([7; 64]), Transcript::from_bytes([8; 64]), None);
    let mut parts = parts.into_parts(role);
    let aead = match cipher {
        "none" => {
            parts.tx = parts.tx.without_encryption();
            parts.rx = parts.rx.without_encryption();
            parts.tx_header = parts.tx_header.without_encryption();
            parts.rx_header = parts.rx_header.without_encryption();
            AeadId::Aes256Gcm
        }
        "aes-256-gcm" => AeadId::Aes256Gcm,
        "chacha20-poly1305" => AeadId::ChaCha20Poly1305,
        _ => return Err("no such cipher".into()),
    };
    let now = Instant::now();
    Ok(SessionInstall {
        id: SessionId(1),
        peer: 0,
        tx: TxSession::new(aead, parts.tx_header, parts.tx, now),
        rx: RxSession::new(aead, parts.rx_header, parts.rx, WINDOW, now),
        local_indices: vec![1],
        remote_indices: vec![1],
        path,
        tx_active: true,
    })
}
