// SPDX-License-Identifier: MIT OR Apache-2.0
//! WireGuard in user space, set up over its own control socket (wireguard.com/xplatform), so that no `wg` is needed.

use std::fs::File;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use pqvpn_lab::process::Daemon;
use pqvpn_lab::topology::Host;
use x25519_dalek::{X25519_BASEPOINT_BYTES, x25519};

use super::contender::{Contender, Running};
use super::tunnel::{self, INSIDE, PATIENCE, Tunnel};

/// Mullvad's, in Rust.
pub(super) const GOTATUN: &str = "gotatun";
/// The reference for systems without one in the kernel, in Go.
pub(super) const WIREGUARD_GO: &str = "wireguard-go";

const PORT: u16 = 51820;
/// What every WireGuard has on a path of 1500 bytes.
const MTU: u32 = 1420;
/// Where all implementations put their control sockets.
const SOCKETS: &str = "/var/run/wireguard";

/// One implementation.
#[derive(Debug)]
pub(super) struct WireGuard {
    name: &'static str,
    program: PathBuf,
    arguments: &'static [&'static str],
}

/// Path of a control socket, removed with it: the daemons leave it behind when killed.
#[derive(Debug)]
struct ControlSocket(PathBuf);

/// A key pair of this run.
struct Keys {
    private: [u8; 32],
    public: [u8; 32],
}

impl WireGuard {
    /// The one a bar is about.
    pub(super) const fn boringtun(program: PathBuf) -> Self {
        Self { name: super::RIVAL, program, arguments: &["--foreground", "--disable-drop-privileges"] }
    }

    pub(super) const fn gotatun(program: PathBuf) -> Self {
        Self { name: GOTATUN, program, arguments: &["--foreground", "--disable-drop-privileges"] }
    }

    pub(super) const fn wireguard_go(program: PathBuf) -> Self {
        Self { name: WIREGUARD_GO, program, arguments: &["--foreground"] }
    }
}

impl Contender for WireGuard {
    fn name(&self) -> &'static str {
        self.name
    }

    fn aead(&self) -> &'static str {
        "ChaCha20-Poly1305"
    }

    fn version(&self) -> Option<String> {
        super::tools::first_line(&self.program, "--version")
    }

    fn start(&self, one: &Host, two: &Host) -> anyhow::Result<Box<dyn Running>> {
        let run = std::process::id();
        let names = [format!("wg{run}a"), format!("wg{run}b")];
        let daemon = |host: &Host, interface: &str| {
            let mut command = Command::new(&self.program);
            command.args(self.arguments).arg(interface);
            Daemon::spawn(&host.namespace, self.name, command)
        };
        let daemons = [daemon(one, &names[0])?, daemon(two, &names[1])?];
        let sockets = names.each_ref().map(|name| ControlSocket::of(name));
        let keys = [Keys::new()?, Keys::new()?];
        for (me, host, other) in [(0, one, two), (1, two, one)] {
            let them = 1 - me;
            let config = format!(
                "set=1\nprivate_key={}\nlisten_port={PORT}\nreplace_peers=true\npublic_key={}\nendpoint={}:{PORT}\n\
                 allowed_ip={}/32\n\n",
                hex(&keys[me].private),
                hex(&keys[them].public),
                other.ipv4,
                INSIDE[them]
            );
            daemons[me].wait_until("the control socket", PATIENCE, || sockets[me].0.exists().then_some(()))?;
            sockets[me].configure(&config).with_context(|| format!("setting up {}", self.name))?;
            tunnel::set_up(host, &names[me], INSIDE[me], MTU)?;
        }
        Ok(Box::new(Tunnel { daemons, _keep: sockets }))
    }
}

impl ControlSocket {
    fn of(interface: &str) -> Self {
        Self(Path::new(SOCKETS).join(format!("{interface}.sock")))
    }

    fn configure(&self, config: &str) -> anyhow::Result<()> {
        let mut socket = UnixStream::connect(&self.0)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.write_all(config.as_bytes())?;
        socket.shutdown(Shutdown::Write)?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        anyhow::ensure!(answer.contains("errno=0"), "it answered {answer:?}");
        Ok(())
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // It may have gone with its daemon.
        _ = std::fs::remove_file(&self.0);
    }
}

impl Keys {
    fn new() -> anyhow::Result<Self> {
        let mut private = [0; 32];
        File::open("/dev/urandom")?.read_exact(&mut private)?;
        Ok(Self { private, public: x25519(private, X25519_BASEPOINT_BYTES) })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
