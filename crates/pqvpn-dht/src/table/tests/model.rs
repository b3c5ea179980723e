// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random operations, judged by plain rules that know nothing of how the table works.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Op {
    Insert(usize),
    Seen(usize),
    Failed(usize),
    Remove(usize),
    Stalest,
    Lost,
    Pass(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let who = 0..160_usize;
    prop_oneof![
        12 => who.clone().prop_map(Op::Insert),
        3 => who.clone().prop_map(Op::Seen),
        4 => who.clone().prop_map(Op::Failed),
        1 => who.prop_map(Op::Remove),
        1 => Just(Op::Stalest),
        1 => Just(Op::Lost),
        2 => (1..1000_u64).prop_map(Op::Pass),
    ]
}

/// 160 contacts, most of them in few subnets and few buckets, some private.
fn cast() -> Vec<Arc<Contact>> {
    (0..160_u64)
        .map(|n| {
            let [.., low] = n.to_be_bytes();
            let address = match n % 4 {
                0 => public(n),
                1 => SocketAddr::from(([20, 20, low % 8, low], 1)),
                2 => SocketAddr::from(([30, low, 1, 1], 1)),
                _ => SocketAddr::from(([10, 0, 0, low], 1)),
            };
            contact_in(u32::try_from(n % 3).expect("small"), n, address)
        })
        .collect()
}

fn check(table: &Table, config: TableConfig, all: &[Arc<Contact>], target: &Point) -> Result<(), TestCaseError> {
    let mut inside: Vec<Arc<Contact>> = table.iter().map(|entry| Arc::clone(entry.contact())).collect();
    prop_assert_eq!(inside.len(), table.len());
    let mut buckets: BTreeMap<u32, Vec<&Arc<Contact>>> = BTreeMap::new();
    for contact in &inside {
        buckets.entry(OWN.distance(contact.node_id()).leading_zeros()).or_default().push(contact);
    }
    let ip = |contact: &Contact| match contact.addresses()[0].ip() {
        std::net::IpAddr::V4(ip) => ip.octets(),
        std::net::IpAddr::V6(_) => unreachable!("none in the cast"),
    };
    let most = |contacts: &mut dyn Iterator<Item = &Arc<Contact>>| {
        let mut subnets: BTreeMap<[u8; 3], usize> = BTreeMap::new();
        for contact in contacts {
            let [a, b, c, _] = ip(contact);
            if a != 10 {
                *subnets.entry([a, b, c]).or_default() += 1;
            }
        }
        subnets.into_values().max().unwrap_or(0)
    };
    for contacts in buckets.values() {
        prop_assert!(contacts.len() <= config.k);
        prop_assert!(most(&mut contacts.iter().copied()) <= config.subnet_per_bucket);
    }
    prop_assert!(most(&mut inside.iter()) <= config.subnet_per_table);
    prop_assert!(inside.iter().filter(|contact| ip(contact)[0] == 10).count() <= config.private);
    prop_assert!(table.buckets().iter().all(|bucket| bucket.replacements <= config.replacements));
    prop_assert!(table.lost() <= 64);
    let names: BTreeSet<_> = inside.iter().map(|contact| *contact.peer()).collect();
    prop_assert_eq!(names.len(), inside.len(), "nobody is there twice");
    prop_assert!(all.iter().all(|one| table.get(one.peer()).is_some() == names.contains(one.peer())));
    inside.sort_by_key(|contact| contact.node_id().distance(target));
    for n in [0, 1, 7, 20, 500] {
        let naive: Vec<_> = inside.iter().take(n).cloned().collect();
        prop_assert_eq!(table.closest(target, n), naive);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_operation_breaks_a_bound(ops in prop::collection::vec(op(), 1..250), target in any::<[u8; 32]>(), k in 3..21_usize) {
        let config = TableConfig { k, replacements: 5, private: 12, ..TableConfig::default() };
        let mut table = Table::new(OWN, config);
        let all = cast();
        let target = Point::from_bytes(target);
        let mut now = at(1000);
        // Failures in a row by our own count: who has none cannot lose its place to anybody.
        let mut failures: BTreeMap<PeerId, u32> = BTreeMap::new();
        for op in ops {
            let before: Vec<PeerId> = table.iter().map(|entry| *entry.contact().peer()).collect();
            let mut gone = None;
            match op {
                Op::Insert(who) => {
                    let result = table.insert(now, Arc::clone(&all[who]));
                    if matches!(result, Inserted::Added | Inserted::Updated) {
                        failures.insert(*all[who].peer(), 0);
                    }
                }
                Op::Seen(who) => {
                    table.seen(now, all[who].peer());
                    failures.insert(*all[who].peer(), 0);
                }
                Op::Failed(who) => {
                    let count = failures.entry(*all[who].peer()).or_default();
                    *count = if before.contains(all[who].peer()) { *count + 1 } else { 0 };
                    gone = Some(*all[who].peer());
                    let result = table.failed(now, all[who].peer());
                    if *count >= 3 && before.contains(all[who].peer()) {
                        let removed = matches!(result, Failed::Removed { .. });
                        prop_assert!(removed, "three failures in a row");
                    }
                    if matches!(result, Failed::Removed { .. }) {
                        *count = 0;
                    }
                }
                Op::Remove(who) => {
                    gone = Some(*all[who].peer());
                    prop_assert_eq!(table.remove(all[who].peer()), before.contains(all[who].peer()));
                    failures.insert(*all[who].peer(), 0);
                }
                Op::Stalest => {
                    let stalest = table.stalest(now, Duration::from_secs(300));
                    prop_assert!(stalest.is_none_or(|one| before.contains(one.peer())));
                }
                Op::Lost => {
                    let lost = table.next_lost(now);
                    prop_assert!(lost.is_none_or(|one| !before.contains(one.peer())));
                }
                Op::Pass(seconds) => now.mono += Duration::from_secs(seconds),
            }
            for peer in before.iter().filter(|peer| Some(**peer) != gone) {
                prop_assert!(table.get(peer).is_some(), "a contact nobody complained of stays");
            }
            check(&table, config, &all, &target)?;
        }
    }
}
