// SPDX-License-Identifier: MIT OR Apache-2.0
//! Statements that came before their parents.

use std::collections::{BTreeMap, VecDeque};

use pqvpn_wire::network::{Statement, StatementId};
use sha2::{Digest, Sha256};

use crate::MAX_WAITING;

/// Copies of one statement with different signatures wait side by side: none is verified yet, so a wrong signature
/// must not push out a right one.
type Key = (StatementId, [u8; 32]);

/// A bounded room; the oldest goes first.
#[derive(Debug, Default)]
pub(crate) struct WaitingRoom {
    statements: BTreeMap<Key, Statement>,
    arrivals: VecDeque<Key>,
}

impl WaitingRoom {
    /// Lets a statement wait; says whether another had to go.
    pub(crate) fn enter(&mut self, statement: Statement) -> bool {
        let key = (statement.id(), Sha256::digest(statement.encode()).into());
        if self.statements.contains_key(&key) {
            return false;
        }
        let full = self.statements.len() >= MAX_WAITING;
        if full && let Some(oldest) = self.arrivals.pop_front() {
            self.statements.remove(&oldest);
        }
        self.arrivals.push_back(key);
        self.statements.insert(key, statement);
        full
    }

    /// Takes out one statement all of whose parents are held.
    pub(crate) fn take_ready(&mut self, held: impl Fn(&StatementId) -> bool) -> Option<Statement> {
        let ready = self.statements.iter().find(|(_, waiting)| waiting.body().parents.iter().all(&held));
        let key = *ready?.0;
        self.arrivals.retain(|waiting| *waiting != key);
        self.statements.remove(&key)
    }

    pub(crate) fn len(&self) -> usize {
        self.statements.len()
    }
}
