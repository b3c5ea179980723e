// SPDX-License-Identifier: MIT OR Apache-2.0
//! The daemon that runs beside a command which needs none: who it is, and what it was started with.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use pqvpn_api::model::{Identity, NetworkInfo, Started};
use serde::Serialize;
use tokio::time::timeout;

use super::block_on;
use crate::context::Context;

/// A daemon that hangs must not make a command hang that needs none.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a daemon says of itself.
pub(super) struct Beside {
    pub(super) id: Identity,
    pub(super) networks: Option<Vec<NetworkInfo>>,
    /// None where it is of an older version.
    pub(super) started: Option<Started>,
}

/// The part of it that `--json` prints.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    peer_id: String,
    state_dir: Option<PathBuf>,
    ephemeral: Option<bool>,
}

impl Beside {
    /// Asks the daemon this command would talk to; none where none answers.
    pub(super) fn ask(context: &Context) -> Option<Self> {
        let client = context.client().ok()?;
        let all = async {
            let id = client.identity().await.ok()?;
            let networks = client.networks().await.ok().map(|all| all.networks);
            Some(Self { id, networks, started: client.started().await.ok() })
        };
        block_on(async { Ok(timeout(PATIENCE, all).await) }).ok()?.ok()?
    }

    pub(super) fn has_state_in(&self, state_dir: &Path) -> bool {
        self.id.state_dir.as_deref() == Some(state_dir)
    }

    pub(super) fn told(&self) -> Told {
        let ephemeral = self.started.as_ref().map(|with| with.ephemeral);
        Told { peer_id: self.id.peer_id.clone(), state_dir: self.id.state_dir.clone(), ephemeral }
    }

    /// What whoever is shown `peer_id`, of `state_dir`, is to know of the daemon.
    pub(super) fn remark(&self, peer_id: &str, state_dir: &Path) -> Option<String> {
        let Identity { peer_id: its, state_dir: its_dir, .. } = &self.id;
        if self.started.as_ref().is_some_and(|with| with.ephemeral) {
            return Some(if its == peer_id {
                "the running daemon keeps this key in memory only; it ends with the daemon".to_owned()
            } else {
                format!("this is not the running daemon, which is {its} and keeps that key in memory only")
            });
        }
        match its_dir {
            Some(dir) if dir != state_dir => {
                Some(format!("this is not the running daemon, which is {its} and keeps its state in {}", dir.display()))
            }
            _ if its != peer_id => Some(format!("the running daemon is {its} until it is started again")),
            _ => None,
        }
    }
}
