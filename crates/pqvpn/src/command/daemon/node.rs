// SPDX-License-Identifier: MIT OR Apache-2.0
//! Starts the node, and says in words of the command line why it did not start.

use std::{io, path::Path};

use pqvpn_crypto::identity::Identity;
use pqvpn_node::{
    Interface, Node, StartError, config::Config, handle::NodeHandle, link::Backend, store::KeystoreFile,
    supervisor::Supervised,
};
use tokio::task::JoinHandle;

use crate::failure::Failure;

/// Starts a node on the kernel's TUN device; the task ends after a shutdown, or when it cannot start again with another
/// key.
pub(super) async fn start(
    config: Config,
    identity: Identity,
    (state_dir, kept_in): (&Path, Option<&Path>),
    keystore: Option<KeystoreFile>,
) -> Result<(NodeHandle, JoinHandle<Result<(), StartError>>), Failure> {
    let supervised = Supervised {
        config,
        identity,
        state_dir: state_dir.to_owned(),
        kept_in: kept_in.map(Path::to_owned),
        interface: Box::new(|| Interface::Kernel),
        backend: Backend::default(),
        keystore,
    };
    Node::supervise(supervised).await.map_err(|error| refused(&error))
}

/// Says in words of the command line why the node did not start.
pub(super) fn refused(error: &StartError) -> Failure {
    let what = "the node did not start";
    if is_denied(error) {
        let hint = "run as root, or give the program CAP_NET_ADMIN";
        return Failure::refused("privilege", what, chain(error), hint);
    }
    if let StartError::Networks(error) = error
        && let Some(path) = error.not_private()
    {
        let hint = format!("`chmod 0600 {}`; it has to be a file of the user the daemon runs as", path.display());
        return Failure::refused("not-private", what, error, hint);
    }
    let (code, hint) = match error {
        StartError::PortTaken(_) => ("port-taken", "stop the other program, or change node.listen"),
        StartError::Listen { .. } | StartError::NoSocket => ("listen", "check node.listen against `ip address`"),
        StartError::Tun(_) => ("tun", "`modprobe tun`; or change interface.name: `ip link` lists the names in use"),
        StartError::Host(error) => ("host", error.hint()),
        StartError::Networks(error) if error.is_of_another_version() => {
            ("newer-networks", "install that version again; or move the file elsewhere, and this node is in no network")
        }
        StartError::DataPlane(_) | StartError::Link(_) | StartError::Io(_) | _ => {
            ("start", "`--log-level debug` shows more")
        }
    };
    Failure::failed(code, what, chain(error), hint)
}

/// Whether the system denied it for want of privilege, anywhere in the chain of causes.
fn is_denied(error: &StartError) -> bool {
    causes(error).any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    })
}

/// The error with its causes, in one line.
fn chain(error: &StartError) -> String {
    let mut lines: Vec<String> = Vec::new();
    for cause in causes(error).map(ToString::to_string) {
        // Transparent errors repeat what they wrap.
        if !lines.iter().any(|line| line.contains(&cause)) {
            lines.push(cause);
        }
    }
    lines.join(": ")
}

fn causes<'a>(error: &'a StartError) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error as &'a (dyn std::error::Error + 'static)), |error| error.source())
}
