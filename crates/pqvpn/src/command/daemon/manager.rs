// SPDX-License-Identifier: MIT OR Apache-2.0
//! The service manager, if one started us: it is told when the node is ready, that it lives, and that it ends
//! (sd_notify(3); one datagram each).

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    process,
    time::Duration,
};

use tokio::time::sleep;

/// How often a sign of life is given within the time after which the manager takes the daemon for hung.
const SIGNS: u32 = 3;

/// The manager's socket, and how soon it wants signs of life.
pub(super) struct Manager {
    socket: Option<UnixDatagram>,
    patience: Option<Duration>,
}

impl Manager {
    /// Connects to the manager named in the environment; nobody is told anything where there is none.
    pub(super) fn of_this_process() -> Self {
        let socket = env::var_os("NOTIFY_SOCKET").and_then(|name| {
            let failed = |error: &io::Error| tracing::warn!(%error, "the service manager is told nothing");
            connect(&name).inspect_err(failed).ok()
        });
        // Of another process if it names one: a manager's wishes are inherited like all of the environment.
        let about_us = env::var("WATCHDOG_PID").map_or(true, |pid| pid == process::id().to_string());
        let patience = env::var("WATCHDOG_USEC").ok().filter(|_| about_us).and_then(|text| text.parse().ok());
        Self { socket, patience: patience.filter(|usec| *usec > 0).map(Duration::from_micros) }
    }

    pub(super) fn tell(&self, what: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = socket.send(what.as_bytes()) {
            tracing::debug!(%error, what, "the service manager was not told");
        }
    }

    /// Gives signs of life for as long as `lives` says so. It is asked before each: one who does not answer any more has
    /// none given for it, and this task's own life proves nothing.
    pub(super) async fn watch(&self, lives: impl AsyncFn() -> bool) {
        let Some(patience) = self.patience else { return };
        while lives().await {
            self.tell("WATCHDOG=1");
            sleep(patience / SIGNS).await;
        }
    }
}

fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    match name.as_bytes().strip_prefix(b"@") {
        Some(abstract_name) => socket.connect_addr(&SocketAddr::from_abstract_name(abstract_name)?)?,
        None => socket.connect(name)?,
    }
    // A manager with a full queue keeps nobody waiting.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::pending};

    use tokio::sync::Notify;

    use super::*;

    fn said(heard: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 200];
        let mut said = Vec::new();
        while let Ok(len) = heard.recv(&mut buffer) {
            said.push(String::from_utf8_lossy(&buffer[..len]).into_owned());
        }
        said
    }

    fn manager() -> (Manager, UnixDatagram) {
        let (ours, heard) = UnixDatagram::pair().unwrap();
        heard.set_nonblocking(true).unwrap();
        (Manager { socket: Some(ours), patience: Some(Duration::from_micros(3)) }, heard)
    }

    #[tokio::test]
    async fn signs_of_life_are_given_while_the_node_answers_and_not_one_once_it_hangs() {
        let (manager, heard) = manager();
        let (asked, hangs) = (Cell::new(0), Notify::new());
        let lives = async || {
            asked.set(asked.get() + 1);
            if asked.get() > 3 {
                hangs.notify_one();
                pending().await
            }
            true
        };
        tokio::select! {
            biased;
            () = manager.watch(lives) => panic!("it waits for the answer"),
            () = hangs.notified() => {}
        }
        assert_eq!(said(&heard), ["WATCHDOG=1"; 3]);
    }

    #[tokio::test]
    async fn none_is_given_for_a_node_that_has_gone() {
        let (manager, heard) = manager();
        manager.watch(async || false).await;
        assert!(said(&heard).is_empty());
    }

    #[test]
    fn a_manager_is_found_by_a_path_and_by_an_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        let name = format!("pqvpn-test-{}", process::id());
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (heard, at) in [(by_path, path.into_os_string()), (by_name, format!("@{name}").into())] {
            heard.set_nonblocking(true).unwrap();
            let manager = Manager { socket: Some(connect(&at).unwrap()), patience: None };
            manager.tell("READY=1");
            assert_eq!(said(&heard), ["READY=1"]);
        }
    }
}
