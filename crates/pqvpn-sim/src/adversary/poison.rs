// SPDX-License-Identifier: MIT OR Apache-2.0
//! Poisoners: whoever asks a colluder for a value gets a false one.

use std::sync::Arc;

use pqvpn_wire::dht::{MAX_CONTACTS, Payload, Point, Record, RecordDraft, Request, Response};

use super::{Case, Coven, Reaction, Strategy, reply};
use crate::crypto::unsigned;

/// What is wrong with the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// The owner's name and a higher seq, without a signature.
    Unsigned,
    /// The same, signed by a colluder's key.
    Forged,
    /// A record the owner replaced since.
    Stale,
    /// The newest seq with other content, signed by the owner: only a dishonest owner can.
    Equivocating,
    /// A record whose time is over.
    Expired,
    /// Each request another of the above.
    Any,
}

impl Lie {
    /// The lie of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "unsigned" => Self::Unsigned,
            "forged" => Self::Forged,
            "stale" => Self::Stale,
            "equivocating" => Self::Equivocating,
            "expired" => Self::Expired,
            _ => return None,
        })
    }
}

/// Gives false values; routes honestly or to colluders only.
#[derive(Debug, Clone)]
pub struct Poison {
    lie: Lie,
    hijack: bool,
    told: u64,
}

impl Poison {
    /// A poisoner that tells `lie`; with `hijack` it leads to other poisoners only.
    #[must_use]
    pub const fn new(lie: Lie, hijack: bool) -> Self {
        Self { lie, hijack, told: 0 }
    }

    fn false_record(&mut self, now_ms: u64, key: &Point, coven: &Coven) -> Option<Arc<Record>> {
        self.told += 1;
        let known = coven.records(key);
        let (newest, oldest) = (known.last()?, known.first()?);
        let mut draft = newest.draft().clone();
        match self.lie {
            Lie::Unsigned => Some(Arc::new(unsigned(twisted(&draft, 1), Vec::new()))),
            Lie::Forged => Some(Arc::new(forged(twisted(&draft, 1), coven))),
            Lie::Stale => Some(Arc::clone(oldest)),
            Lie::Equivocating => {
                let signed = coven.ring().and_then(|ring| ring.sign(twisted(&draft, 0)));
                Some(Arc::new(signed.unwrap_or_else(|| forged(twisted(&draft, 0), coven))))
            }
            Lie::Expired => {
                // Its own signature would be right had the owner signed it; a colluder's record really has.
                (draft.not_before_ms, draft.not_after_ms) = (now_ms - 48 * 3_600_000, now_ms - 24 * 3_600_000);
                draft.seq += 1;
                let signed = coven.ring().and_then(|ring| ring.sign(draft.clone()));
                Some(Arc::new(signed.unwrap_or_else(|| forged(draft, coven))))
            }
            Lie::Any => {
                let all = [Lie::Unsigned, Lie::Forged, Lie::Stale, Lie::Equivocating, Lie::Expired];
                let lie = all[usize::try_from(self.told % 5).unwrap_or(0)];
                Self { lie, hijack: false, told: 0 }.false_record(now_ms, key, coven)
            }
        }
    }
}

impl Strategy for Poison {
    fn name(&self) -> &'static str {
        match (self.hijack, self.lie) {
            (true, _) => "poison-hijack",
            (false, Lie::Unsigned) => "poison-unsigned",
            (false, Lie::Forged) => "poison-forged",
            (false, Lie::Stale) => "poison-stale",
            (false, Lie::Equivocating) => "poison-equivocating",
            (false, Lie::Expired) => "poison-expired",
            (false, Lie::Any) => "poison-any",
        }
    }

    fn lie(&mut self, unix_ms: u64, key: &Point, coven: &Coven) -> Option<Arc<Record>> {
        self.false_record(unix_ms, key, coven)
    }

    fn answer(&mut self, case: &Case<'_>, coven: &Coven, honest: &mut dyn FnMut(Request) -> Response) -> Reaction {
        let mut route = |request: &Request| {
            if self.hijack {
                reply(request, case.observed, |target| coven.nearest_members(target, MAX_CONTACTS))
            } else {
                honest(request.clone())
            }
        };
        let Request::FindValue { key, .. } = case.request else {
            // What honest nodes store with a poisoner is lost.
            if matches!(case.request, Request::Store { .. }) {
                return Reaction::Say(reply(case.request, case.observed, |_| Vec::new()));
            }
            return Reaction::Say(route(case.request));
        };
        let Response::Nodes { contacts, token } = route(&Request::FindNode { target: *key }) else {
            return Reaction::Silence;
        };
        Reaction::Say(match self.false_record(case.now.unix_ms, key, coven) {
            Some(record) => Response::Value { record, heartbeat: None, contacts, token },
            None => Response::Nodes { contacts, token },
        })
    }
}

/// The draft with another content and a seq higher by `step`.
fn twisted(draft: &RecordDraft, step: u64) -> RecordDraft {
    let mut draft = draft.clone();
    draft.seq += step;
    match &mut draft.payload {
        Payload::Peer(endpoints) => endpoints.capabilities ^= 1,
        Payload::Value { value, .. } => value.push(b'!'),
        _ => draft.heartbeat_anchor[0] ^= 1,
    }
    draft
}

/// The draft under its owner's name with a colluder's signature.
fn forged(draft: RecordDraft, coven: &Coven) -> Record {
    let signature = coven.ring().and_then(|ring| {
        let owner = *ring.owners().next()?;
        ring.sign(RecordDraft { owner, ..draft.clone() })
    });
    unsigned(draft, signature.map_or_else(Vec::new, |record| record.signature().to_vec()))
}
