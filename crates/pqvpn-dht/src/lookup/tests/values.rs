// SPDX-License-Identifier: MIT OR Apache-2.0
//! Values: which record wins, when it is enough.

use pqvpn_wire::dht::{Endpoints, Payload, Record, RecordDraft};

use super::*;

fn gives(record: &Arc<Record>) -> LookupReply {
    LookupReply { record: Some(Arc::clone(record)), ..names(vec![]) }
}

fn value_lookup(target: Point, sources: usize, want_seq: u64) -> (Lookup, Vec<PeerId>) {
    let config = LookupConfig { sources, ..LookupConfig::default() };
    let mut lookup = lookup_of(Goal::Value { want_seq }, target, (0..8).map(contact).collect(), config);
    let asked = asks(&mut lookup, START);
    assert!(asked.iter().all(|(_, ask)| ask.value && ask.target == target));
    (lookup, asked.into_iter().map(|(to, _)| *to.peer()).collect())
}

/// The same owner and seq, another content.
fn contradiction(record: &Record) -> Arc<Record> {
    let payload = Payload::Peer(Endpoints { addresses: vec![], capabilities: 77 });
    let draft = RecordDraft { payload, ..record.draft().clone() };
    Arc::new(Record::assemble(draft, vec![], vec![]))
}

#[test]
fn the_first_valid_record_ends_a_lookup_that_wants_one_source() {
    let record = record(1, 5);
    let (mut lookup, asked) = value_lookup(*record.key(), 1, 5);
    lookup.on_reply(after(1), &asked[0], names(vec![]));
    lookup.on_reply(after(1), &asked[1], gives(&record));
    assert_eq!(lookup.next(after(2)), Step::Done);
    let outcome = lookup.finish();
    assert_eq!(outcome.record, Some(record));
    assert_eq!(outcome.sources, 1);
    let (missed, _) = outcome.missed.expect("one answered without it");
    assert_eq!(missed.peer(), &asked[0], "a copy belongs there");
}

#[test]
fn a_record_too_old_or_under_another_key_is_none() {
    let wanted = record(1, 5);
    let (mut lookup, asked) = value_lookup(*wanted.key(), 1, 5);
    lookup.on_reply(after(1), &asked[0], gives(&record(1, 4)));
    lookup.on_reply(after(1), &asked[1], gives(&record(2, 9)));
    assert_ne!(lookup.next(after(2)), Step::Done);
    assert_eq!(lookup.finish().record, None);
}

#[test]
fn the_newest_wins_and_its_sources_are_counted_anew() {
    let (old, new) = (record(1, 5), record(1, 6));
    let (mut lookup, asked) = value_lookup(*old.key(), 3, 0);
    lookup.on_reply(after(1), &asked[0], gives(&old));
    lookup.on_reply(after(1), &asked[1], gives(&old));
    lookup.on_reply(after(1), &asked[2], gives(&new));
    lookup.on_reply(after(1), &asked[3], gives(&old));
    lookup.on_reply(after(1), &asked[4], gives(&new));
    assert_ne!(lookup.next(after(2)), Step::Done, "two sources of the newest");
    lookup.on_reply(after(1), &asked[5], gives(&new));
    assert_eq!(lookup.next(after(2)), Step::Done);
    let outcome = lookup.finish();
    assert_eq!((outcome.record, outcome.sources), (Some(new), 3));
}

#[test]
fn two_records_of_one_seq_are_handed_out_as_a_proof() {
    let one = record(1, 5);
    let other = contradiction(&one);
    let (mut lookup, asked) = value_lookup(*one.key(), 3, 0);
    lookup.on_reply(after(1), &asked[0], gives(&one));
    lookup.on_reply(after(1), &asked[1], gives(&other));
    let outcome = lookup.finish();
    assert_eq!((outcome.record, outcome.rival, outcome.sources), (Some(one), Some(other), 1));
}

#[test]
fn a_lookup_for_nodes_takes_no_record() {
    let record = record(1, 5);
    let mut lookup = lookup_of(Goal::Nodes, *record.key(), vec![contact(1)], LookupConfig::default());
    let asked = asks(&mut lookup, START);
    lookup.on_reply(after(1), asked[0].0.peer(), gives(&record));
    assert_eq!(lookup.finish().record, None);
}

#[test]
fn tokens_come_with_those_who_answered() {
    let mut lookup = lookup_of(Goal::Nodes, Point::from_bytes([9; 32]), vec![contact(1)], LookupConfig::default());
    let asked = asks(&mut lookup, START);
    lookup.on_reply(after(1), asked[0].0.peer(), names(vec![]));
    assert_eq!(lookup.finish().closest, [(contact(1), Some(Token([1; 16])))]);
}
