// SPDX-License-Identifier: MIT OR Apache-2.0
//! The envelope: what is honest opens, and every way to be dishonest has its own refusal.

use ciborium::Value;
use pqvpn_crypto::identity::{Identity, MLDSA_SIGNATURE_LEN, SignatureLabel};
use pqvpn_wire::dht::{
    Contact, Fact, NetworkId, Request, Response,
    envelope::{
        EnvelopeError, Expect, Header, MAX_MESSAGE, MAX_SKEW_MS, open_request, open_response, seal_request,
        seal_response,
    },
};

use crate::{
    check::{ASKED, NOW_MS, expect, identity, receiver, sender},
    samples::{answer_header, contact, facts, header, own_contact, requests, responses},
};

fn seal(header: &Header) -> Vec<u8> {
    seal_request(sender(), header, &Request::Ping, None).unwrap().bytes
}

fn refusal(bytes: &[u8], expect: &Expect) -> Option<EnvelopeError> {
    open_request(bytes, sender().public(), expect).err()
}

/// A message with these signed bytes and a good signature over them.
fn signed(signer: &Identity, label: SignatureLabel, signed: Vec<u8>) -> Vec<u8> {
    let signature = signer.sign(label, &signed).unwrap().into_bytes();
    cbor(&Value::Array(vec![Value::Bytes(signed), Value::Bytes(signature)]))
}

fn cbor(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    ciborium::into_writer(value, &mut out).unwrap();
    out
}

/// The signed bytes of an honest ping, as values.
fn fields() -> Vec<Value> {
    let outer: Value = ciborium::from_reader(seal(&header(None)).as_slice()).unwrap();
    let signed = outer.into_array().unwrap().remove(0).into_bytes().unwrap();
    let signed: Value = ciborium::from_reader(signed.as_slice()).unwrap();
    signed.into_array().unwrap()
}

#[test]
fn every_honest_message_opens() {
    for (name, request) in requests() {
        let sealed = seal_request(sender(), &header(None), &request, Some(&own_contact())).unwrap();
        let opened = open_request(&sealed.bytes, sender().public(), &expect(None)).unwrap();
        assert_eq!((opened.body.0, opened.body.1), (Some(own_contact()), request), "{name}");
        assert_eq!((opened.header, opened.hash), (header(None), sealed.hash), "{name}");
    }
    for (name, response) in responses() {
        let sealed = seal_response(sender(), &answer_header(), &response, None).unwrap();
        let opened = open_response(&sealed.bytes, sender().public(), &expect(Some(ASKED))).unwrap();
        assert_eq!((opened.body.0, opened.body.1), (None, response), "{name}");
        assert_eq!((opened.header, opened.hash), (answer_header(), sealed.hash), "{name}");
    }
}

#[test]
fn the_signed_bytes_are_the_documented_ones() {
    let network = Value::Bytes(NetworkId::OPEN.as_bytes().to_vec());
    let expected = vec![
        1.into(),
        network,
        Value::Bytes(sender().peer_id().as_bytes().to_vec()),
        Value::Bytes(receiver().peer_id().as_bytes().to_vec()),
        NOW_MS.into(),
        Value::Bytes(vec![6; 16]),
        Value::Null,
        Value::Array(vec![Value::Null, Value::Array(vec![1.into()])]),
    ];
    assert_eq!(fields(), expected);
    let again = signed(sender(), SignatureLabel::DhtMessage, cbor(&Value::Array(expected)));
    assert_eq!(refusal(&again, &expect(None)), None);
}

#[test]
fn a_long_message_is_refused_by_its_length() {
    assert_eq!(refusal(&vec![0; MAX_MESSAGE + 1], &expect(None)), Some(EnvelopeError::TooLong));
    assert_eq!(refusal(&vec![0; MAX_MESSAGE], &expect(None)), Some(EnvelopeError::Malformed));
}

#[test]
fn malformed_messages_are_refused_however_well_signed() {
    let label = SignatureLabel::DhtMessage;
    let mut cases = vec![vec![], vec![0x80], vec![0xff; 40], seal(&header(None))[1..].to_vec()];
    // A field too few, a field too many, and each field replaced by something of another type.
    cases.push(signed(sender(), label, cbor(&Value::Array(fields()[..7].to_vec()))));
    let mut more = fields();
    more.push(Value::Null);
    cases.push(signed(sender(), label, cbor(&Value::Array(more))));
    for at in 0..fields().len() {
        let mut bad = fields();
        bad[at] = Value::Text("text".to_owned());
        cases.push(signed(sender(), label, cbor(&Value::Array(bad))));
    }
    // An unknown request; a response; an illegal contact; a trailing byte after the signed array.
    for body in [
        Value::Array(vec![Value::Null, Value::Array(vec![99.into()])]),
        Value::Array(vec![Value::Array(vec![]), Value::Array(vec![1.into()])]),
        Value::Array(vec![Value::Array(vec![1.into()])]),
    ] {
        let mut bad = fields();
        bad[7] = body;
        cases.push(signed(sender(), label, cbor(&Value::Array(bad))));
    }
    cases.push(signed(sender(), label, [cbor(&Value::Array(fields())), vec![0]].concat()));
    // A trailing byte after the message, and half a signature.
    cases.push([seal(&header(None)), vec![0]].concat());
    let bytes = cbor(&Value::Array(fields()));
    let half = sender().sign(label, &bytes).unwrap().into_bytes()[..MLDSA_SIGNATURE_LEN].to_vec();
    cases.push(cbor(&Value::Array(vec![Value::Bytes(bytes), Value::Bytes(half)])));
    for (at, case) in cases.iter().enumerate() {
        assert_eq!(refusal(case, &expect(None)), Some(EnvelopeError::Malformed), "case {at}");
    }
}

#[test]
fn a_second_encoding_of_the_signed_bytes_is_refused() {
    let mut bytes = cbor(&Value::Array(fields()));
    assert_eq!(bytes[..2], [0x88, 1]);
    bytes.splice(1..2, [0x18, 1]);
    let message = signed(sender(), SignatureLabel::DhtMessage, bytes);
    assert_eq!(refusal(&message, &expect(None)), Some(EnvelopeError::Malformed));
}

#[test]
fn a_second_encoding_deep_inside_is_refused() {
    let announce = |statement: Vec<u8>, fact: Vec<Value>| {
        let mut fact = fact;
        fact[1] = Value::Bytes(statement);
        let mut bad = fields();
        bad[7] = Value::Array(vec![Value::Null, Value::Array(vec![7.into(), Value::Array(fact)])]);
        signed(sender(), SignatureLabel::DhtMessage, cbor(&Value::Array(bad)))
    };
    for fact in &facts()[..2] {
        let fact: Value = ciborium::from_reader(fact.encode().as_slice()).unwrap();
        let fact = fact.into_array().unwrap();
        let mut statement = fact[1].as_bytes().unwrap().clone();
        assert_eq!(refusal(&announce(statement.clone(), fact.clone()), &expect(None)), None);
        statement.splice(1..2, [0x18, 1]);
        let message = announce(statement.clone(), fact.clone());
        assert_eq!(refusal(&message, &expect(None)), Some(EnvelopeError::Malformed));
        let mut alone = fact;
        alone[1] = Value::Bytes(statement);
        assert!(Fact::decode(&cbor(&Value::Array(alone))).is_err());
    }
    let [_, _, equivocation] = facts();
    let fact: Value = ciborium::from_reader(equivocation.encode().as_slice()).unwrap();
    let mut fact = fact.into_array().unwrap();
    let mut record = fact[2].as_bytes().unwrap().clone();
    record.splice(1..2, [0x18, 1]);
    fact[2] = Value::Bytes(record);
    let key = fact[1].as_bytes().unwrap().clone();
    assert_eq!(refusal(&announce(key, fact), &expect(None)), Some(EnvelopeError::Malformed));
}

#[test]
fn another_version_is_refused_whatever_follows() {
    for version in [0_u64, 2, u64::MAX] {
        let mut other = fields();
        other[0] = version.into();
        other.truncate(3);
        let message = signed(sender(), SignatureLabel::DhtMessage, cbor(&Value::Array(other)));
        assert_eq!(refusal(&message, &expect(None)), Some(EnvelopeError::Version));
    }
}

#[test]
fn another_network_is_refused() {
    let elsewhere = Header { network: NetworkId::from_bytes([1; 32]), ..header(None) };
    assert_eq!(refusal(&seal(&elsewhere), &expect(None)), Some(EnvelopeError::Network));
}

#[test]
fn a_message_handed_on_by_a_third_party_is_refused() {
    let relayed = open_request(&seal(&header(None)), identity(9).public(), &expect(None));
    assert_eq!(relayed.err(), Some(EnvelopeError::NotFromLink));
    // The third party puts its own name on it instead, or the sender's name on its own message.
    let renamed = Header { from: identity(9).peer_id(), ..header(None) };
    assert_eq!(refusal(&seal(&renamed), &expect(None)), Some(EnvelopeError::NotFromLink));
}

#[test]
fn a_message_for_somebody_else_is_refused() {
    let other = Header { to: identity(9).peer_id(), ..header(None) };
    assert_eq!(refusal(&seal(&other), &expect(None)), Some(EnvelopeError::Misdirected));
    let echoed = Header { to: sender().peer_id(), ..header(None) };
    assert_eq!(refusal(&seal(&echoed), &expect(None)), Some(EnvelopeError::Misdirected));
}

#[test]
fn clocks_may_differ_by_two_minutes() {
    let at = |ts_ms| refusal(&seal(&Header { ts_ms, ..header(None) }), &expect(None));
    assert_eq!(at(NOW_MS - MAX_SKEW_MS), None);
    assert_eq!(at(NOW_MS - MAX_SKEW_MS - 1), Some(EnvelopeError::Expired));
    assert_eq!(at(0), Some(EnvelopeError::Expired));
    assert_eq!(at(NOW_MS + MAX_SKEW_MS), None);
    assert_eq!(at(NOW_MS + MAX_SKEW_MS + 1), Some(EnvelopeError::Future));
    assert_eq!(at(u64::MAX), Some(EnvelopeError::Future));
}

#[test]
fn an_answer_answers_the_request_it_names() {
    let answer = |re| seal_response(sender(), &header(re), &Response::Noted, None).unwrap().bytes;
    let open = |bytes: &[u8], re| open_response(bytes, sender().public(), &expect(re)).err();
    assert_eq!(open(&answer(Some(ASKED)), Some(ASKED)), None);
    assert_eq!(open(&answer(Some([0; 32])), Some(ASKED)), Some(EnvelopeError::WrongAnswer), "another request's answer");
    assert_eq!(open(&answer(None), Some(ASKED)), Some(EnvelopeError::WrongAnswer), "a request reflected");
    let question = seal_request(sender(), &answer_header(), &Request::Ping, None).unwrap().bytes;
    assert_eq!(refusal(&question, &expect(None)), Some(EnvelopeError::WrongAnswer), "an answer as a request");
}

#[test]
fn the_hash_of_a_request_is_its_own() {
    let hash = |header: &Header| seal_request(sender(), header, &Request::Ping, None).unwrap().hash;
    assert_eq!(hash(&header(None)), hash(&header(None)));
    assert_ne!(hash(&header(None)), hash(&Header { nonce: [7; 16], ..header(None) }));
}

#[test]
fn an_unsigned_or_wrongly_signed_message_is_refused() {
    let bytes = cbor(&Value::Array(fields()));
    let wrong = Some(EnvelopeError::Signature);
    let outer = |signature: Vec<u8>| cbor(&Value::Array(vec![Value::Bytes(bytes.clone()), Value::Bytes(signature)]));
    let good = sender().sign(SignatureLabel::DhtMessage, &bytes).unwrap().into_bytes();
    assert_eq!(refusal(&outer(good.clone()), &expect(None)), None);
    assert_eq!(refusal(&outer(vec![0; good.len()]), &expect(None)), wrong, "no signature");
    for at in [0, MLDSA_SIGNATURE_LEN - 1, MLDSA_SIGNATURE_LEN, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert_eq!(refusal(&outer(bad), &expect(None)), wrong, "byte {at}");
    }
    let message = signed(&identity(9), SignatureLabel::DhtMessage, bytes.clone());
    assert_eq!(refusal(&message, &expect(None)), wrong, "another's signature");
    for label in SignatureLabel::ALL.into_iter().filter(|label| *label != SignatureLabel::DhtMessage) {
        let message = signed(sender(), label, bytes.clone());
        assert_eq!(refusal(&message, &expect(None)), wrong, "made for another purpose: {label:?}");
    }
    let mut changed = fields();
    changed[7] = Value::Array(vec![Value::Null, Value::Array(vec![6.into()])]);
    let changed = cbor(&Value::Array(changed));
    let message = cbor(&Value::Array(vec![Value::Bytes(changed), Value::Bytes(good)]));
    assert_eq!(refusal(&message, &expect(None)), wrong, "another request under the same signature");
}

#[test]
fn nobody_speaks_for_another_contact() {
    let foreign: Contact = contact(9);
    let request = seal_request(sender(), &header(None), &Request::Ping, Some(&foreign)).unwrap();
    assert_eq!(refusal(&request.bytes, &expect(None)), Some(EnvelopeError::Sender));
    let response = seal_response(sender(), &answer_header(), &Response::Noted, Some(&foreign)).unwrap();
    let opened = open_response(&response.bytes, sender().public(), &expect(Some(ASKED)));
    assert_eq!(opened.err(), Some(EnvelopeError::Sender));
}

#[test]
fn every_refusal_has_its_own_name() {
    let mut names: Vec<_> = EnvelopeError::ALL.map(EnvelopeError::name).to_vec();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), EnvelopeError::ALL.len());
}
