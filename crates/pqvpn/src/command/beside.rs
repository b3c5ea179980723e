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
use crate::context::{Context, is_same_directory};

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
        self.id.state_dir.as_deref().is_some_and(|its| is_same_directory(its, state_dir))
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
        if its == peer_id {
            return None;
        }
        Some(match its_dir {
            Some(dir) if !is_same_directory(dir, state_dir) => {
                format!("this is not the running daemon, which is {its} and keeps its state in {}", dir.display())
            }
            Some(_) | None => format!("the running daemon is {its} until it is started again"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_the_daemons_is_not_said_to_be_another() {
        let id = Identity {
            schema: 1,
            peer_id: "07".into(),
            name: "laptop".into(),
            addresses: Vec::new(),
            fingerprint: "ab".into(),
            state_dir: Some("/one".into()),
        };
        let beside = Beside { id, networks: None, started: None };
        let said = |peer_id: &str, state_dir: &str| beside.remark(peer_id, Path::new(state_dir));
        assert_eq!((said("07", "/one"), said("07", "/other")), (None, None), "a copy of the key is the key");
        assert!(said("08", "/other").unwrap().contains("which is 07 and keeps its state in /one"));
        assert!(said("08", "/one").unwrap().contains("until it is started again"));
    }
}
