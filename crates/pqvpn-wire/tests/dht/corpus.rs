// SPDX-License-Identifier: MIT OR Apache-2.0
//! Replays the fuzz corpus: valid seeds of every kind, and whatever fuzzing found worth keeping.

use pqvpn_wire::{
    control::{Confirm, Hello, HelloAck, Message},
    dht::{
        Contact, Fact, Record, Request, Response,
        envelope::{REQUEST_TYPE, frame as dht_frame, seal_request, seal_response},
    },
    frame,
};

use crate::{
    check::{self, TARGETS, sender},
    inputs::{Inputs, seeds_of, write_if_asked},
    samples::{answer_header, contact, facts, header, own_contact, record, requests, responses, value},
};

#[test]
fn the_whole_corpus_is_harmless() {
    write_if_asked(valid_seeds);
    for (target, check) in TARGETS {
        let seeds = seeds_of(target);
        assert!(!seeds.is_empty(), "{target}");
        for (_, seed) in seeds {
            check(&seed);
        }
    }
}

#[test]
fn the_valid_seeds_are_valid() {
    for (target, _) in TARGETS {
        for (path, seed) in seeds_of(target).into_iter().filter(|(path, _)| path.contains("valid")) {
            let valid = match target {
                "contact" => Contact::decode(&seed).is_ok(),
                "record" => Record::decode(&seed).is_ok(),
                "fact" => Fact::decode(&seed).is_ok(),
                "envelope_request" => check::envelope_request(&seed),
                "envelope_response" => check::envelope_response(&seed),
                "frame" => seed.starts_with(b"PQ"),
                "control" => Message::decode(seed[0], &seed[1..]).is_ok(),
                _ if target.starts_with("request") => Request::decode(&seed).is_ok(),
                _ => Response::decode(&seed).is_ok(),
            };
            assert!(valid, "{path}");
        }
    }
}

/// At least one valid input per target.
pub(crate) fn valid_seeds() -> Inputs {
    let mut seeds = vec![
        ("contact", contact(1).encode()),
        ("contact", own_contact().encode()),
        ("record", record().encode()),
        ("record", value().encode()),
    ];
    seeds.extend(facts().map(|fact| ("fact", fact.encode())));
    for (target, request) in requests() {
        seeds.push((target, request.encode()));
    }
    for (target, response) in responses() {
        seeds.push((target, response.encode()));
    }
    for request in
        [Request::Ping, Request::Store { record: record(), token: pqvpn_wire::dht::Token([4; 16]), cache: true }]
    {
        let sealed = seal_request(sender(), &header(None), &request, Some(&own_contact())).unwrap();
        seeds.push(("envelope_request", sealed.bytes));
    }
    for (_, response) in responses().into_iter().filter(|(name, _)| matches!(*name, "response_pong" | "response_value"))
    {
        let sealed = seal_response(sender(), &answer_header(), &response, None).unwrap();
        seeds.push(("envelope_response", sealed.bytes));
    }
    let ack = HelloAck { aead: 2, indices: vec![9], psk_used: true, inner_mtu: 1280, mac: [5; 32] };
    let messages = [
        Message::Hello(Hello { aeads: vec![2, 1], indices: vec![1, u32::MAX], psk_id: Some([3; 16]), inner_mtu: 1420 }),
        Message::HelloAck(ack),
        Message::Confirm(Confirm { mac: [1; 32] }),
        Message::Ratchet(vec![4, 0, 0, 0, 1]),
    ];
    for message in &messages {
        let framed = frame::encode(message);
        seeds.push(("control", [&[message.type_byte()], &framed[frame::FRAME_HEADER_LEN..]].concat()));
    }
    seeds.push(("frame", messages.iter().flat_map(frame::encode).collect()));
    seeds.push(("frame", dht_frame(REQUEST_TYPE, &Request::Ping.encode())));
    seeds
}
