// SPDX-License-Identifier: MIT OR Apache-2.0
//! OpenVPN 2.6 in user space, point to point, each end known by the fingerprint of its self-signed certificate.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;
use pqvpn_lab::folder::Folder;
use pqvpn_lab::process::{self, Daemon};
use pqvpn_lab::topology::Host;

use super::contender::{Contender, Running};
use super::tunnel::{self, INSIDE, PATIENCE, Tunnel};

/// Its name in the report.
pub(super) const NAME: &str = "openvpn";

const PORT: u16 = 1194;
/// As large as fits into 1500 bytes with room to spare, like the others.
const MTU: u32 = 1420;

/// The program.
#[derive(Debug)]
pub(super) struct OpenVpn {
    program: PathBuf,
}

impl OpenVpn {
    pub(super) const fn new(program: PathBuf) -> Self {
        Self { program }
    }

    fn daemon(&self, host: &Host, folder: &Folder, end: &End<'_>) -> anyhow::Result<Daemon> {
        let file = |name: &str, kind: &str| folder.path().join(format!("{name}.{kind}"));
        let mut command = Command::new(&self.program);
        command.args(["--dev", "ovpn0", "--dev-type", "tun", "--proto", "udp", "--verb", "3"]);
        command.args(["--port", &PORT.to_string(), "--remote", end.remote, "--local", end.local]);
        command.args(["--ifconfig", &INSIDE[end.me].to_string(), &INSIDE[1 - end.me].to_string()]);
        command.args(["--tun-mtu", &MTU.to_string(), "--data-ciphers", "AES-256-GCM", "--disable-dco"]);
        command.args(if end.me == 0 { ["--tls-client"].as_slice() } else { &["--tls-server", "--dh", "none"] });
        command.arg("--cert").arg(file(end.own, "crt")).arg("--key").arg(file(end.own, "key"));
        command.arg("--peer-fingerprint").arg(end.fingerprint);
        Ok(Daemon::spawn(&host.namespace, NAME, command)?)
    }
}

/// How one end is started.
struct End<'e> {
    me: usize,
    own: &'static str,
    local: &'e str,
    remote: &'e str,
    fingerprint: &'e str,
}

impl Contender for OpenVpn {
    fn name(&self) -> &'static str {
        NAME
    }

    fn aead(&self) -> &'static str {
        "AES-256-GCM"
    }

    fn version(&self) -> Option<String> {
        super::tools::first_line(&self.program, "--version")
    }

    fn start(&self, one: &Host, two: &Host) -> anyhow::Result<Box<dyn Running>> {
        let folder = Folder::create("pqvpn-bench-openvpn")?;
        let fingerprints = [certificate(one, &folder, "one")?, certificate(two, &folder, "two")?];
        let addresses = [one.ipv4.to_string(), two.ipv4.to_string()];
        let end = |me: usize, own| End {
            me,
            own,
            local: &addresses[me],
            remote: &addresses[1 - me],
            fingerprint: &fingerprints[1 - me],
        };
        let daemons = [self.daemon(one, &folder, &end(0, "one"))?, self.daemon(two, &folder, &end(1, "two"))?];
        let up =
            || daemons.iter().try_for_each(|daemon| daemon.wait_for_line("Sequence Completed", PATIENCE).map(drop));
        tunnel::with_words(up().map_err(Into::into), &daemons)?;
        Ok(Box::new(Tunnel { daemons, _keep: folder }))
    }
}

/// Makes a key and a certificate of a day, `name`.key and `name`.crt; returns the fingerprint.
fn certificate(host: &Host, folder: &Folder, name: &str) -> anyhow::Result<String> {
    let (key, cert) = (folder.path().join(format!("{name}.key")), folder.path().join(format!("{name}.crt")));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]);
    openssl.args(["-subj", &format!("/CN={name}")]).arg("-keyout").arg(&key).arg("-out").arg(&cert);
    tunnel::prepare(host, openssl).context("Debian package openssl")?;
    let mut openssl = Command::new("openssl");
    openssl.args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]).arg(&cert);
    let printed = process::run(&host.namespace, openssl, PATIENCE)?.stdout;
    let fingerprint = printed.trim().rsplit_once('=').context("openssl printed no fingerprint")?.1;
    Ok(fingerprint.to_owned())
}
