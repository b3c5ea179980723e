// SPDX-License-Identifier: MIT OR Apache-2.0
//! Records of our own: signed with numbers that are never used twice, not even by a node that was restarted.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use data_encoding::HEXLOWER;
use pqvpn_crypto::{identity::Identity, peer_id::PeerId};
use pqvpn_dht::{Now, admission::week, rules::SKEW_MS};
use pqvpn_wire::dht::{
    Endpoints, NetworkId, Payload, Point, Record, RecordDraft,
    record::{HEARTBEATS, MAX_ENDPOINTS, MAX_NAME_LEN, MAX_VALUE_LEN, heartbeat_chain},
};

use super::{
    event::ValueAs,
    files::{Files, OwnValue, Published},
    report::{DhtError, OwnRecord, RecordContent, RecordReport},
};
use crate::entropy;

/// Values of our own that are kept published.
const MAX_VALUES: usize = 32;
/// How long a record lasts (security.md 7.2).
const LIFETIME_MS: u64 = 24 * 3_600_000;

/// A record ready to be kept by the DHT.
#[derive(Debug, Clone)]
pub(super) struct Signed {
    pub(super) record: Arc<Record>,
    pub(super) heartbeat_seed: [u8; 32],
}

/// What we say of ourselves.
#[derive(Debug)]
pub(super) struct OwnRecords {
    identity: Arc<Identity>,
    network: NetworkId,
    files: Files,
    published: Published,
    /// What the present peer record says.
    peer: Option<PeerRecord>,
    kept: BTreeMap<Point, Kept>,
}

/// A record in force, how many nodes took it, and whether it is being offered to them.
#[derive(Debug)]
struct Kept {
    signed: Signed,
    stored: Option<usize>,
    offered: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct PeerRecord {
    key: Point,
    week: u32,
    addresses: Vec<SocketAddr>,
}

impl OwnRecords {
    pub(super) fn new(identity: Arc<Identity>, network: NetworkId, files: Files, published: Published) -> Self {
        Self { identity, network, files, published, peer: None, kept: BTreeMap::new() }
    }

    fn own(&self) -> PeerId {
        self.identity.peer_id()
    }

    /// A peer record, if what it has to say has changed: our addresses, or the week of its key. With it the key of the one
    /// it replaces elsewhere, if that is another.
    ///
    /// # Errors
    /// The number could not be kept on disk, or the record not be signed.
    pub(super) fn peer_record(
        &mut self,
        now: Now,
        mut addresses: Vec<SocketAddr>,
        renew: bool,
    ) -> Result<Option<(Signed, Option<Point>)>, DhtError> {
        addresses.truncate(MAX_ENDPOINTS);
        let week = week(&self.own(), now.unix_ms);
        let says_that = |record: &PeerRecord| record.week == week && record.addresses == addresses;
        if addresses.is_empty() || (!renew && self.peer.as_ref().is_some_and(says_that)) {
            return Ok(None);
        }
        let payload = Payload::Peer(Endpoints { addresses: addresses.clone(), capabilities: 0 });
        let signed = self.sign(now, week, payload)?;
        let key = *signed.record.key();
        let replaced =
            self.peer.replace(PeerRecord { key, week, addresses }).map(|old| old.key).filter(|old| *old != key);
        if let Some(old) = &replaced {
            self.kept.remove(old);
        }
        Ok(Some((signed, replaced)))
    }

    /// A value under a name; kept on disk, so that it is published again after a restart.
    ///
    /// # Errors
    /// Name or value are too long, there are too many, or the number could not be kept on disk.
    pub(super) fn value(&mut self, now: Now, name: &str, value: &[u8]) -> Result<Signed, DhtError> {
        if name.is_empty() || name.len() > MAX_NAME_LEN {
            return Err(DhtError::BadName { len: name.len(), max: MAX_NAME_LEN });
        }
        if value.len() > MAX_VALUE_LEN {
            return Err(DhtError::ValueTooLong { len: value.len(), max: MAX_VALUE_LEN });
        }
        let hex = HEXLOWER.encode(value);
        let values = &mut self.published.values;
        let (before, full) = (values.clone(), values.len() >= MAX_VALUES);
        match values.iter_mut().find(|own| own.name == name) {
            Some(own) => own.value = hex,
            None if full => return Err(DhtError::TooManyValues(MAX_VALUES)),
            None => values.push(OwnValue { name: name.to_owned(), value: hex }),
        }
        let payload = Payload::Value { name: name.to_owned(), value: value.to_vec() };
        self.sign(now, 0, payload).inspect_err(|_unsaved| self.published.values = before)
    }

    /// Values of earlier runs, signed anew.
    pub(super) fn values_again(&mut self, now: Now) -> Vec<Signed> {
        let values = self.published.values.clone();
        let again = values.into_iter().filter_map(|own| {
            let value = HEXLOWER.decode(own.value.as_bytes()).ok()?;
            self.value(now, &own.name, &value).inspect_err(|error| tracing::warn!(%error, "value not published")).ok()
        });
        again.collect()
    }

    /// Whether a record was signed so lately that it needs no successor.
    pub(super) fn is_lasting(&self, now: Now, key: &Point) -> bool {
        self.kept.get(key).is_some_and(|kept| {
            let draft = kept.signed.record.draft();
            let lasts = now.unix_ms.saturating_add(LIFETIME_MS / 2) < draft.not_after_ms;
            lasts && draft.not_before_ms <= now.unix_ms.saturating_add(SKEW_MS)
        })
    }

    /// A successor for a record that ends soon.
    ///
    /// # Errors
    /// As for a new one.
    pub(super) fn renewed(&mut self, now: Now, key: &Point) -> Result<Option<(Signed, Option<Point>)>, DhtError> {
        if let Some(addresses) = self.peer.as_ref().filter(|peer| peer.key == *key).map(|peer| peer.addresses.clone()) {
            return self.peer_record(now, addresses, true);
        }
        match self.kept.get(key).map(|kept| kept.signed.record.draft().payload.clone()) {
            Some(Payload::Value { name, value }) => self.value(now, &name, &value).map(|signed| Some((signed, None))),
            Some(_) | None => Ok(None),
        }
    }

    /// The number goes to disk before the record goes out: what was signed once must never be contradicted.
    fn sign(&mut self, now: Now, week: u32, payload: Payload) -> Result<Signed, DhtError> {
        let seq = self.published.seq.saturating_add(1).max(now.unix_ms);
        let before = std::mem::replace(&mut self.published.seq, seq);
        if let Err(error) = self.files.save_published(&self.published) {
            self.published.seq = before;
            return Err(DhtError::Disk(error.to_string()));
        }
        let heartbeat_seed: [u8; 32] = entropy::bytes();
        let draft = RecordDraft {
            network: self.network,
            owner: self.own(),
            week,
            seq,
            not_before_ms: now.unix_ms,
            not_after_ms: now.unix_ms.saturating_add(LIFETIME_MS),
            payload,
            heartbeat_anchor: heartbeat_chain(&heartbeat_seed, HEARTBEATS),
        };
        let record = Arc::new(Record::sign(draft, &self.identity).map_err(|_refused| DhtError::Signing)?);
        let signed = Signed { record, heartbeat_seed };
        self.kept.insert(*signed.record.key(), Kept { signed: signed.clone(), stored: None, offered: false });
        Ok(signed)
    }

    /// Lets go of what nobody takes: what begins later than anybody's clock may say, because ours was ahead when it was
    /// signed, and what has ended, because we slept or our clock was behind. Whether there was such a record; it is to be
    /// signed anew.
    pub(super) fn drop_untimely(&mut self, now: Now) -> bool {
        let (latest, before) = (now.unix_ms.saturating_add(SKEW_MS), self.kept.len());
        let is_timely =
            |record: &Record| record.draft().not_before_ms <= latest && now.unix_ms < record.draft().not_after_ms;
        self.kept.retain(|_, kept| is_timely(&kept.signed.record));
        let kept = &self.kept;
        self.peer = self.peer.take().filter(|peer| kept.contains_key(&peer.key));
        self.kept.len() < before
    }

    /// Every record in force that fewer than `nodes` keep, except those being offered just now.
    pub(super) fn kept_by_less_than(&self, nodes: usize) -> Vec<Signed> {
        let is_rare = |kept: &&Kept| !kept.offered && kept.stored.is_none_or(|stored| stored < nodes);
        self.kept.values().filter(is_rare).map(|kept| kept.signed.clone()).collect()
    }

    /// A record is being offered, until [`Self::stored`].
    pub(super) fn offered(&mut self, key: &Point) {
        if let Some(kept) = self.kept.get_mut(key) {
            kept.offered = true;
        }
    }

    /// How many nodes took a record.
    pub(super) fn stored(&mut self, key: &Point, nodes: usize) {
        if let Some(kept) = self.kept.get_mut(key) {
            (kept.stored, kept.offered) = (Some(nodes), false);
        }
    }

    pub(super) fn report(&self) -> Vec<OwnRecord> {
        let line = |kept: &Kept| OwnRecord { record: record_report(&kept.signed.record), stored: kept.stored };
        self.kept.values().map(line).collect()
    }
}

/// A value under another identity, in force for a day.
///
/// # Errors
/// Name or value are too long, or the record cannot be signed.
pub(super) fn sign_as(network: &NetworkId, now: Now, value: &ValueAs) -> Result<Signed, DhtError> {
    let heartbeat_seed: [u8; 32] = entropy::bytes();
    let draft = RecordDraft {
        network: *network,
        owner: value.owner.peer_id(),
        week: 0,
        seq: now.unix_ms,
        not_before_ms: now.unix_ms,
        not_after_ms: now.unix_ms.saturating_add(LIFETIME_MS),
        payload: Payload::Value { name: value.name.clone(), value: value.value.clone() },
        heartbeat_anchor: heartbeat_chain(&heartbeat_seed, HEARTBEATS),
    };
    let record = Arc::new(Record::sign(draft, &value.owner).map_err(|_refused| DhtError::Signing)?);
    Ok(Signed { record, heartbeat_seed })
}

/// A record for people.
pub(super) fn record_report(record: &Record) -> RecordReport {
    let draft = record.draft();
    let content = match &draft.payload {
        Payload::Peer(Endpoints { addresses, capabilities }) => {
            RecordContent::Peer { addresses: addresses.clone(), capabilities: *capabilities }
        }
        Payload::Value { name, value } => RecordContent::Value { name: name.clone(), value: value.clone() },
        _ => RecordContent::Other,
    };
    RecordReport {
        key: *record.key(),
        owner: *record.owner(),
        seq: record.seq(),
        not_before_ms: draft.not_before_ms,
        not_after_ms: draft.not_after_ms,
        content,
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Duration};

    use pqvpn_crypto::identity::IdentitySeed;

    use super::*;

    fn at(unix_ms: u64) -> Now {
        Now { mono: Duration::ZERO, unix_ms }
    }

    fn records(seed: &IdentitySeed, dir: &Path) -> OwnRecords {
        let identity = Arc::new(Identity::from_seed(seed).unwrap());
        let files = Files::new(dir, &identity.peer_id(), &NetworkId::OPEN);
        let published = files.published(&mut Vec::new());
        OwnRecords::new(identity, NetworkId::OPEN, files, published)
    }

    #[test]
    fn a_number_is_never_used_twice_whatever_the_clock_and_the_restarts() {
        let (dir, seed) = (tempfile::tempdir().unwrap(), IdentitySeed::generate().unwrap());
        let mut last = 0;
        for clock in [5000, 5000, 100, 7000, 6999] {
            let mut own = records(&seed, dir.path());
            for _ in 0..2 {
                let signed = own.value(at(clock), "name", b"value").unwrap();
                assert!(signed.record.seq() > last, "{} after {last}", signed.record.seq());
                last = signed.record.seq();
            }
        }
    }

    #[test]
    fn a_lost_file_does_not_bring_old_numbers_back_while_the_clock_runs() {
        let (dir, seed) = (tempfile::tempdir().unwrap(), IdentitySeed::generate().unwrap());
        let before = records(&seed, dir.path()).value(at(1_000_000), "name", b"a").unwrap().record.seq();
        std::fs::write(dir.path().join("dht-records.json"), "rubbish").unwrap();
        let after = records(&seed, dir.path()).value(at(1_000_500), "name", b"b").unwrap().record.seq();
        assert!(after > before);
    }

    #[test]
    fn nothing_is_signed_when_its_number_cannot_be_kept() {
        let (dir, seed) = (tempfile::tempdir().unwrap(), IdentitySeed::generate().unwrap());
        let mut own = records(&seed, &dir.path().join("missing"));
        assert!(matches!(own.value(at(1), "name", b"value"), Err(DhtError::Disk(_))));
        assert_eq!((own.report(), own.published.clone()), (Vec::new(), Published::default()));
    }

    /// Found by the simulation of whole nodes: nobody found a node for as long as its clock had been ahead, nor ever again
    /// one that had slept for a day.
    #[test]
    fn what_was_signed_by_a_wrong_clock_or_before_a_long_sleep_is_signed_anew() {
        let (dir, seed) = (tempfile::tempdir().unwrap(), IdentitySeed::generate().unwrap());
        let mut own = records(&seed, dir.path());
        let (hour, here) = (3_600_000, vec![SocketAddr::from(([203, 0, 113, 1], 41641))]);
        let early = own.peer_record(at(2 * hour), here.clone(), false).unwrap().unwrap().0;
        assert!(!own.drop_untimely(at(2 * hour - SKEW_MS)), "as others allow it");
        assert!(own.drop_untimely(at(hour)) && !own.drop_untimely(at(hour)));
        let again = own.peer_record(at(hour), here, false).unwrap().unwrap().0;
        assert_eq!(again.record.draft().not_before_ms, hour);
        assert!(again.record.seq() > early.record.seq());
        let ended = hour + LIFETIME_MS;
        assert!(!own.drop_untimely(at(ended - 1)) && own.drop_untimely(at(ended)));
    }

    #[test]
    fn a_peer_record_is_made_anew_only_when_it_would_say_something_else() {
        let (dir, seed) = (tempfile::tempdir().unwrap(), IdentitySeed::generate().unwrap());
        let mut own = records(&seed, dir.path());
        let (here, there) = (vec!["8.8.8.8:1".parse().unwrap()], vec!["8.8.4.4:1".parse().unwrap()]);
        assert!(own.peer_record(at(1000), Vec::new(), false).unwrap().is_none(), "nothing to say");
        let (first, replaced) = own.peer_record(at(1000), here.clone(), false).unwrap().unwrap();
        assert_eq!(replaced, None);
        assert!(own.peer_record(at(2000), here.clone(), false).unwrap().is_none());
        let (moved, replaced) = own.peer_record(at(3000), there.clone(), false).unwrap().unwrap();
        assert!(moved.record.seq() > first.record.seq() && replaced.is_none(), "the same key, a higher number");
        let next_week = 3000 + 7 * 24 * 3_600_000;
        let (later, replaced) = own.peer_record(at(next_week), there, false).unwrap().unwrap();
        assert_eq!(replaced, Some(*moved.record.key()), "another week, another key");
        assert!(own.renewed(at(next_week + 1), later.record.key()).unwrap().is_some());
        assert_eq!(own.report().len(), 1);
    }

    #[test]
    fn a_record_is_offered_again_only_while_few_keep_it_and_never_twice_at_once() {
        let (dir, seed) = (tempfile::tempdir().unwrap(), IdentitySeed::generate().unwrap());
        let mut own = records(&seed, dir.path());
        let key = *own.value(at(1), "name", b"value").unwrap().record.key();
        let due = |own: &OwnRecords| (own.kept_by_less_than(1).len(), own.kept_by_less_than(20).len());
        assert_eq!(due(&own), (1, 1));
        own.offered(&key);
        assert_eq!(due(&own), (0, 0), "on its way");
        for (nodes, expected) in [(0, (1, 1)), (1, (0, 1)), (19, (0, 1)), (20, (0, 0)), (40, (0, 0))] {
            own.stored(&key, nodes);
            assert_eq!(due(&own), expected, "{nodes}");
        }
        own.offered(&key);
        let _newer = own.value(at(2), "name", b"other").unwrap();
        assert_eq!(due(&own), (1, 1), "what is on its way is not this one");
    }

    #[test]
    fn values_are_bounded_and_published_again_after_a_restart() {
        let (dir, seed) = (tempfile::tempdir().unwrap(), IdentitySeed::generate().unwrap());
        let mut own = records(&seed, dir.path());
        assert!(matches!(own.value(at(1), "", b""), Err(DhtError::BadName { .. })));
        assert!(matches!(own.value(at(1), &"n".repeat(65), b""), Err(DhtError::BadName { .. })));
        assert!(matches!(own.value(at(1), "n", &[0; 513]), Err(DhtError::ValueTooLong { .. })));
        for n in 0..MAX_VALUES {
            own.value(at(1), &n.to_string(), b"x").unwrap();
        }
        assert!(matches!(own.value(at(1), "more", b"x"), Err(DhtError::TooManyValues(_))));
        own.value(at(1), "0", b"y").unwrap();
        let again = records(&seed, dir.path()).values_again(at(2));
        assert_eq!(again.len(), MAX_VALUES);
    }
}
