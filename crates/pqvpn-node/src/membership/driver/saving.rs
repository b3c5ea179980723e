// SPDX-License-Identifier: MIT OR Apache-2.0
//! To disk first: what was signed or promised once is never contradicted by a node that was restarted, so what is not
//! written down is not said. While the store takes nothing this node signs nothing, and what others say holds as always.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_wire::network::{Bundle, NetResponse, NetworkId};
use tokio::sync::oneshot;

use super::{
    super::{
        error::NetworkError,
        store::{Change, latest},
    },
    Driver,
};
use crate::clock;

/// How long a store that has failed is left alone.
const AGAIN: Duration = Duration::from_secs(2);

/// The store took a change neither the last time nor since.
pub(super) struct Refusing {
    pub(super) why: String,
    again: Instant,
}

impl Driver {
    /// To disk, and only then to others and to who asked.
    pub(super) async fn flush(&mut self) {
        loop {
            if !self.save().await {
                return;
            }
            for answer in std::mem::take(&mut self.answers) {
                answer();
            }
            self.start_campaigns();
            self.tell_news();
            let unsaved = !self.unsaved.is_empty() || self.networks.values().any(|network| !network.changes.is_empty());
            if !unsaved && self.answers.is_empty() && self.campaigns_to_come.is_empty() {
                return;
            }
        }
    }

    /// Answers somebody once everything until now is on disk.
    pub(super) fn answer_later<T: Send + 'static>(&mut self, reply: oneshot::Sender<T>, answer: T) {
        self.answers.push(Box::new(move || drop(reply.send(answer))));
    }

    /// Writes down what has changed; says whether everything is on disk.
    pub(super) async fn save(&mut self) -> bool {
        if self.refusing.as_ref().is_some_and(|refusing| clock::now() < refusing.again) {
            return false;
        }
        let mut changes = std::mem::take(&mut self.unsaved);
        changes.extend(self.networks.values_mut().flat_map(|network| std::mem::take(&mut network.changes)));
        if changes.is_empty() && self.refusing.is_none() {
            return true;
        }
        let changes = Arc::new(changes);
        match self.store.write(Arc::clone(&changes)).await {
            Ok(()) => {
                if self.refusing.take().is_some() {
                    tracing::info!("networks are stored again");
                    // What was not done meanwhile is due.
                    self.touch();
                    self.untold = true;
                }
                true
            }
            Err(error) => {
                self.unsaved = latest(Arc::unwrap_or_clone(changes));
                self.refuse(error.to_string());
                false
            }
        }
    }

    /// Notes that the store has failed.
    pub(super) fn refuse(&mut self, why: String) {
        if self.refusing.is_none() {
            tracing::error!(%why, "networks are not stored; until they are this node signs nothing and tells nothing new");
        }
        self.refusing = Some(Refusing { why, again: clock::now() + AGAIN });
        self.untold = true;
    }

    /// Has the next attempt made at once.
    pub(super) fn save_now(&mut self) {
        if let Some(refusing) = &mut self.refusing {
            refusing.again = clock::now();
        }
    }

    /// When the store is tried again.
    pub(super) fn next_save(&self) -> Option<Instant> {
        self.refusing.as_ref().map(|refusing| refusing.again)
    }

    /// What an order that changes something is answered with now.
    pub(super) fn refusal(&self) -> Option<NetworkError> {
        self.refusing.as_ref().map(|refusing| NetworkError::Store(refusing.why.clone()))
    }

    /// An answer without what is not on disk.
    pub(super) fn withhold(&self, id: &NetworkId, response: NetResponse) -> NetResponse {
        let unsaved =
            || Unsaved::of(id, self.unsaved.iter().chain(self.networks.get(id).iter().flat_map(|n| &n.changes)));
        #[expect(clippy::wildcard_enum_match_arm, reason = "nothing else holds what is stored")]
        match response {
            NetResponse::Bundle(bundle) if self.refusing.is_some() => NetResponse::Bundle(unsaved().kept_back(bundle)),
            NetResponse::PutOut(proof) if self.refusing.is_some() => NetResponse::PutOut(unsaved().kept_back(proof)),
            other => other,
        }
    }
}

/// What of a network is not on disk.
#[derive(Default)]
struct Unsaved {
    statements: BTreeSet<[u8; 32]>,
    records: BTreeSet<PeerId>,
    others: bool,
}

impl Unsaved {
    fn of<'c>(id: &NetworkId, changes: impl Iterator<Item = &'c Change>) -> Self {
        let mut unsaved = Self::default();
        for change in changes {
            match change {
                Change::Statement(network, statement, _) if network == id => {
                    unsaved.statements.insert(*statement);
                }
                Change::Record(network, peer, _) if network == id => {
                    unsaved.records.insert(*peer);
                }
                Change::Extra(network, ..) => unsaved.others |= network == id,
                Change::Statement(..)
                | Change::Record(..)
                | Change::Head(..)
                | Change::Seen(..)
                | Change::Rotation(_)
                | Change::Forget(_) => {}
            }
        }
        unsaved
    }

    fn kept_back(&self, mut bundle: Box<Bundle>) -> Box<Bundle> {
        bundle.statements.retain(|statement| !self.statements.contains(statement.id().as_bytes()));
        bundle.records.retain(|record| !self.records.contains(&record.peer()));
        if self.others {
            bundle.invites.clear();
            bundle.pending.clear();
            bundle.covers.clear();
        }
        bundle
    }
}
