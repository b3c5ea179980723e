// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sessions that the data plane has and the state task does not know of yet. A listening one receives before it is
//! confirmed, so those under way when the node goes down, or has slept, end there and then.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use pqvpn_crypto::peer_id::PeerId;
use pqvpn_dataplane::SessionId;

use super::{LinkContext, SessionError, door::Shut};

/// Shared by link tasks, which install sessions, and the state task, which keeps them.
#[derive(Debug, Default)]
pub(super) struct Unkept(Mutex<HashSet<SessionId>>);

impl Unkept {
    /// Installs a session. Whoever shuts the door and ends all of them afterwards has ended this one too.
    ///
    /// # Errors
    /// Those of `install`.
    pub(super) fn install(
        &self,
        id: SessionId,
        install: impl FnOnce() -> Result<(), SessionError>,
    ) -> Result<(), SessionError> {
        let mut unkept = self.lock();
        install()?;
        unkept.insert(id);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<SessionId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LinkContext {
    /// Ends every session that the state task does not know of yet. The door was shut before.
    pub(crate) fn end_unkept(&self) {
        for id in self.unkept.lock().drain() {
            self.control.remove_session(id);
        }
    }

    /// Keeps a session.
    ///
    /// # Errors
    /// Why it is none: the door was shut, or it was ended, while it was made.
    pub(crate) fn keep(&self, id: SessionId, peer: PeerId) -> Result<(), Shut> {
        let is_there = self.unkept.lock().remove(&id);
        self.door.check_session(peer)?;
        if is_there { Ok(()) } else { Err(Shut::Meanwhile) }
    }
}

/// Takes a session out of the data plane again unless its negotiation succeeds, also when it is cancelled.
pub(super) struct Installed<'c> {
    context: &'c LinkContext,
    id: Option<SessionId>,
}

impl<'c> Installed<'c> {
    pub(super) const fn new(context: &'c LinkContext, id: SessionId) -> Self {
        Self { context, id: Some(id) }
    }

    /// Whether nobody has ended it.
    ///
    /// # Errors
    /// [`Shut::Meanwhile`].
    pub(super) fn is_still(&self) -> Result<(), Shut> {
        let is_there = self.id.is_some_and(|id| self.context.unkept.lock().contains(&id));
        if is_there { Ok(()) } else { Err(Shut::Meanwhile) }
    }

    /// It is the state task's to keep.
    pub(super) fn keep(mut self) {
        self.id = None;
    }
}

impl Drop for Installed<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.context.unkept.lock().remove(&id);
            self.context.control.remove_session(id);
        }
    }
}
