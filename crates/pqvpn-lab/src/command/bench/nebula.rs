// SPDX-License-Identifier: MIT OR Apache-2.0
//! Nebula: two hosts of a network of their own, each knowing where the other is.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use pqvpn_lab::folder::Folder;
use pqvpn_lab::process::Daemon;
use pqvpn_lab::topology::{Host, Interface};

use super::contender::{Contender, Running};
use super::tunnel::{self, INSIDE, PATIENCE, PREFIX, Tunnel};

/// Its name in the report.
pub(super) const NAME: &str = "nebula";

const PORT: u16 = 4242;
const INTERFACE: &str = "neb0";
const MTU: u32 = 1420;

/// The two programs.
#[derive(Debug)]
pub(super) struct Nebula {
    program: PathBuf,
    cert: PathBuf,
}

impl Nebula {
    pub(super) const fn new(program: PathBuf, cert: PathBuf) -> Self {
        Self { program, cert }
    }

    /// An authority and a certificate for each host, in the folder.
    fn certify(&self, host: &Host, folder: &Folder) -> anyhow::Result<()> {
        let file = |name: &str| folder.path().join(name);
        let mut ca = Command::new(&self.cert);
        ca.args(["ca", "-name", "bench", "-duration", "24h"]);
        ca.arg("-out-crt").arg(file("ca.crt")).arg("-out-key").arg(file("ca.key"));
        tunnel::prepare(host, ca)?;
        for (name, inside) in ["one", "two"].into_iter().zip(INSIDE) {
            let mut sign = Command::new(&self.cert);
            sign.args(["sign", "-name", name, "-ip", &format!("{inside}/{PREFIX}")]);
            sign.arg("-ca-crt").arg(file("ca.crt")).arg("-ca-key").arg(file("ca.key"));
            sign.arg("-out-crt").arg(file(&format!("{name}.crt"))).arg("-out-key").arg(file(&format!("{name}.key")));
            tunnel::prepare(host, sign)?;
        }
        Ok(())
    }

    fn daemon(&self, name: &str, folder: &Folder, ends: (&Host, &Host), me: usize) -> anyhow::Result<Daemon> {
        let dir = folder.path().display();
        let (them, far) = (INSIDE[1 - me], ends.1.ipv4);
        let config = format!(
            "pki: {{ca: {dir}/ca.crt, cert: {dir}/{name}.crt, key: {dir}/{name}.key}}\n\
             static_host_map: {{\"{them}\": [\"{far}:{PORT}\"]}}\n\
             lighthouse: {{am_lighthouse: false}}\n\
             listen: {{host: 0.0.0.0, port: {PORT}}}\n\
             punchy: {{punch: false}}\n\
             tun: {{dev: {INTERFACE}, mtu: {MTU}}}\n\
             logging: {{level: warning, format: text}}\n\
             firewall: {{outbound: [{{port: any, proto: any, host: any}}], inbound: [{{port: any, proto: any, host: any}}]}}\n"
        );
        let path = folder.path().join(format!("{name}.yaml"));
        fs::write(&path, config)?;
        let mut command = Command::new(&self.program);
        command.arg("-config").arg(path);
        Ok(Daemon::spawn(&ends.0.namespace, NAME, command)?)
    }
}

impl Contender for Nebula {
    fn name(&self) -> &'static str {
        NAME
    }

    fn aead(&self) -> &'static str {
        "AES-256-GCM"
    }

    fn version(&self) -> Option<String> {
        super::tools::first_line(&self.program, "-version")
    }

    fn start(&self, one: &Host, two: &Host) -> anyhow::Result<Box<dyn Running>> {
        let folder = Folder::create("pqvpn-bench-nebula")?;
        self.certify(one, &folder)?;
        let daemons = [self.daemon("one", &folder, (one, two), 0)?, self.daemon("two", &folder, (two, one), 1)?];
        let hosts = [one, two].into_iter().zip(&daemons);
        let mut up = hosts.map(|(host, daemon)| {
            let there = || Interface::find(&host.namespace, INTERFACE).ok();
            daemon.wait_until("the interface", PATIENCE, there)
        });
        tunnel::with_words(up.try_for_each(|up| up.map(drop)).map_err(Into::into), &daemons)?;
        Ok(Box::new(Tunnel { daemons, _keep: folder }))
    }
}
