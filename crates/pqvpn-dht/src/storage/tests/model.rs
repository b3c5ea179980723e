// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random operations against a storage that is a plain list: same answers, same contents, no bound ever broken.

use pqvpn_wire::dht::Payload;
use proptest::{collection::vec, prelude::*};

use super::*;

const CONFIG: StorageConfig = StorageConfig { records: 9, bytes: 4000, per_owner: 4, per_subnet: 5 };
const MINUTE_MS: u64 = 60_000;

#[derive(Debug, Clone)]
enum Op {
    Put { owner: u32, name: u32, seq: u64, content: u8, length: usize, minutes: u64, from: Option<u8>, cached: bool },
    Wait { minutes: u64 },
    Tidy,
    RemoveOwner(u32),
    MoveTo(u8),
    Beat { owner: u32, name: u32, hour: u8, valid: bool },
}

fn op() -> impl Strategy<Value = Op> {
    // Few different records, so that the same one, and one that contradicts it, come up again and again.
    let put =
        (0..4_u32, 0..6_u32, 0..3_u64, 0..2_u8, any::<bool>(), prop::option::weighted(0.9, 0..4_u8), any::<bool>())
            .prop_map(|(owner, name, seq, content, short, from, cached)| Op::Put {
                owner,
                name,
                seq,
                content,
                length: (name as usize % 3) * 250,
                minutes: if short { 40 } else { 290 },
                from,
                cached: cached && from.is_some(),
            });
    let beat = (0..4_u32, 0..6_u32, 1..=24_u8, any::<bool>()).prop_map(|(owner, name, hour, valid)| Op::Beat {
        owner,
        name,
        hour,
        valid,
    });
    prop_oneof![
        16 => put,
        2 => (1..40_u64).prop_map(|minutes| Op::Wait { minutes }),
        1 => Just(Op::Tidy),
        1 => (0..4_u32).prop_map(Op::RemoveOwner),
        1 => any::<u8>().prop_map(Op::MoveTo),
        3 => beat,
    ]
}

#[derive(Debug, Clone)]
struct Item {
    record: Arc<Record>,
    beat: u8,
    until_ms: u64,
    from: Option<u8>,
    cached: bool,
}

#[derive(Debug, PartialEq)]
enum Answer {
    Until(u64),
    Expired,
    Stale(u64),
    Equivocation,
    Owner,
    Subnet,
    Full,
}

#[derive(Debug, Default)]
struct Model {
    items: Vec<Item>,
    position: u8,
    ms: u64,
}

impl Model {
    fn rank(&self, item: &Item) -> (bool, Distance) {
        (item.cached, item.record.key().distance(&Point::from_bytes([self.position; 32])))
    }

    fn tidy(&mut self) {
        let now = TODAY_MS + self.ms;
        self.items.retain(|item| item.until_ms > now);
    }

    fn put(&mut self, record: &Arc<Record>, from: Option<u8>, mut cached: bool) -> Answer {
        self.tidy();
        let now = TODAY_MS + self.ms;
        let end = record.draft().not_after_ms;
        if end <= now {
            return Answer::Expired;
        }
        let index = self.items.iter().position(|item| item.record.key() == record.key());
        cached &= index.is_none_or(|index| self.items[index].cached);
        let until_ms = if cached { end.min(now + CACHE_MS) } else { end };
        if let Some(item) = index.map(|index| &mut self.items[index]) {
            if record.seq() < item.record.seq() {
                return Answer::Stale(item.record.seq());
            }
            if record.seq() == item.record.seq() && record.digest() != item.record.digest() {
                return Answer::Equivocation;
            }
            if record.seq() == item.record.seq() {
                item.until_ms = until_ms;
                item.cached = cached;
                return Answer::Until(item.until_ms);
            }
        }
        let mut rest = self.items.clone();
        if let Some(index) = index {
            rest.remove(index);
        }
        if rest.iter().filter(|item| item.record.owner() == record.owner()).count() >= CONFIG.per_owner as usize {
            return Answer::Owner;
        }
        // Whoever pays for the record that is replaced may go on doing so.
        let paid = from.is_some() && rest.iter().filter(|item| item.from == from).count() >= CONFIG.per_subnet as usize;
        if paid {
            return Answer::Subnet;
        }
        let new = Item { record: Arc::clone(record), beat: 0, until_ms, from, cached };
        rest.sort_by_key(|item| self.rank(item));
        let bytes = |items: &[Item]| items.iter().map(|item| item.record.encoded_len()).sum::<usize>();
        while rest.len() >= CONFIG.records || bytes(&rest) + record.encoded_len() > CONFIG.bytes {
            match rest.pop() {
                Some(worst) if self.rank(&worst) > self.rank(&new) => {}
                _ => return Answer::Full,
            }
        }
        rest.push(new);
        self.items = rest;
        Answer::Until(until_ms)
    }

    fn beat(&mut self, key: &Point, hour: u8, valid: bool) -> Result<u64, BeatRefusal> {
        let now = TODAY_MS + self.ms;
        let item = self.items.iter_mut().find(|item| item.record.key() == key && item.until_ms > now);
        let item = item.ok_or(BeatRefusal::Unknown)?;
        if item.record.draft().not_before_ms + u64::from(hour) * HOUR_MS > now + 120_000 {
            return Err(BeatRefusal::Early);
        }
        if !valid {
            return Err(BeatRefusal::False);
        }
        item.beat = item.beat.max(hour);
        Ok(item.until_ms)
    }
}

fn answer(result: Result<u64, StoreRefusal>) -> Answer {
    match result {
        Ok(until_ms) => Answer::Until(until_ms),
        Err(StoreRefusal::Expired) => Answer::Expired,
        Err(StoreRefusal::Stale { kept }) => Answer::Stale(kept),
        Err(StoreRefusal::Equivocation(proof)) => {
            assert!(Fact::Equivocation(*proof).verify(&Toy), "a proof that proves nothing");
            Answer::Equivocation
        }
        Err(StoreRefusal::OwnerQuota) => Answer::Owner,
        Err(StoreRefusal::SubnetQuota) => Answer::Subnet,
        Err(StoreRefusal::Full) => Answer::Full,
    }
}

fn compare(storage: &Storage, model: &Model) {
    assert!(storage.len() <= CONFIG.records && storage.bytes() <= CONFIG.bytes);
    assert_eq!(storage.bytes(), storage.iter().map(|kept| kept.record.encoded_len()).sum::<usize>());
    let now = at(model.ms);
    let mut expected: Vec<&Item> = model.items.iter().filter(|item| item.until_ms > now.unix_ms).collect();
    expected.sort_by_key(|item| *item.record.key());
    let got: Vec<Kept<'_>> = storage.iter().filter_map(|kept| storage.get(now, kept.record.key())).collect();
    assert_eq!(got.len(), expected.len());
    for (kept, item) in got.iter().zip(expected) {
        assert_eq!((kept.record, kept.until_ms, kept.cached), (&item.record, item.until_ms, item.cached));
        assert_eq!(kept.heartbeat.map_or(0, |beat| beat.hour), item.beat);
    }
    for owner in 0..4 {
        let owned = storage.iter().filter(|kept| *kept.record.owner() == peer(owner)).count();
        assert!(owned <= CONFIG.per_owner as usize);
        assert_eq!(storage.owners.get(&peer(owner)).copied().unwrap_or(0) as usize, owned);
    }
    assert!(storage.payers.values().all(|paid| (1..=CONFIG.per_subnet).contains(paid)));
    assert_eq!((storage.ranks.len(), storage.ends.len()), (storage.len(), storage.len()));
}

fn run(ops: Vec<Op>) {
    let mut storage = Storage::new(CONFIG, Point::from_bytes([0; 32]), [7; 32]);
    let mut model = Model::default();
    for op in ops {
        match op {
            Op::Put { owner, name, seq, content, length, minutes, from, cached } => {
                let payload = Payload::Value { name: format!("name {name}"), value: vec![content; length + 1] };
                // Not the moment of the put: two puts of one seq shall be the same record.
                let not_after_ms = TODAY_MS + minutes * MINUTE_MS;
                let record = signed(RecordDraft { payload, not_after_ms, ..value_draft(peer(owner), name, seq, 0) });
                let got = match from {
                    Some(from) => storage.put(at(model.ms), Arc::clone(&record), host(from, name as u8), cached),
                    None => storage.put_own(at(model.ms), Arc::clone(&record)),
                };
                assert_eq!(answer(got), model.put(&record, from, cached));
            }
            Op::Wait { minutes } => model.ms += minutes * MINUTE_MS,
            Op::Tidy => {
                storage.expire(at(model.ms));
                model.tidy();
                assert_eq!(storage.len(), model.items.len());
            }
            Op::RemoveOwner(owner) => {
                let before = model.items.len();
                model.items.retain(|item| *item.record.owner() != peer(owner));
                assert_eq!(storage.remove_owner(&peer(owner)), before - model.items.len());
            }
            Op::MoveTo(position) => {
                model.position = position;
                storage.move_to(Point::from_bytes([position; 32]));
            }
            Op::Beat { owner, name, hour, valid } => {
                let key = value_draft(peer(owner), name, 0, 0).key();
                let mut heartbeat = Heartbeat::at(&SEED, hour).unwrap();
                heartbeat.preimage[0] ^= u8::from(!valid);
                assert_eq!(storage.beat(at(model.ms), &key, heartbeat), model.beat(&key, hour, valid));
            }
        }
        compare(&storage, &model);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn storage_does_what_a_plain_list_would(ops in vec(op(), 1..120)) {
        run(ops);
    }
}
