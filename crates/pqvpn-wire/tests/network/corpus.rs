// SPDX-License-Identifier: MIT OR Apache-2.0
//! Replays the fuzz corpus: valid seeds of every kind, and whatever fuzzing found worth keeping.

use pqvpn_wire::network::{
    Bundle, Code, Cover, MemberRecord, SignedInvite, Statement, decode_request, decode_response, encode_request,
    encode_response,
};

use crate::{
    check::TARGETS,
    inputs::{Inputs, seeds_of, write_if_asked},
    samples::{NETWORK, bundle, code, cover, door, member_record, requests, responses, signed_invite, statements},
};

#[test]
fn the_whole_corpus_is_harmless_and_its_valid_seeds_are_valid() {
    write_if_asked(valid_seeds);
    for (target, check) in TARGETS {
        let seeds = seeds_of(target);
        assert!(!seeds.is_empty(), "{target}");
        for (path, seed) in seeds {
            check(&seed);
            assert!(!path.contains("valid") || is_valid(target, &seed), "{path}");
        }
    }
}

fn is_valid(target: &str, seed: &[u8]) -> bool {
    match target {
        "statement" => Statement::decode(seed).is_ok(),
        "bundle" => Bundle::decode(seed).is_ok(),
        "code" => str::from_utf8(seed).unwrap().parse::<Code>().is_ok(),
        "net_request" => decode_request(seed).is_ok(),
        "net_response" => decode_response(seed).is_ok(),
        "member_record" => MemberRecord::decode(seed).is_ok(),
        "invite" => SignedInvite::decode(seed).is_ok(),
        "cover" => Cover::decode(seed).is_ok(),
        _ => false,
    }
}

/// At least one valid input per target.
pub(crate) fn valid_seeds() -> Inputs {
    let mut seeds: Vec<_> = statements().iter().map(|statement| ("statement", statement.encode())).collect();
    seeds.push(("bundle", bundle().encode()));
    seeds.push(("bundle", Bundle::default().encode()));
    let large = Code { doors: (1..=4).map(door).collect(), network_name: "n".repeat(32), ..code() };
    seeds.extend([code(), large].map(|code| ("code", code.to_string().into_bytes())));
    seeds.extend(requests().iter().map(|request| ("net_request", encode_request(&NETWORK, request).unwrap())));
    seeds.extend(responses().iter().map(|response| ("net_response", encode_response(&NETWORK, response).unwrap())));
    seeds.push(("member_record", member_record().encode()));
    seeds.push(("invite", signed_invite().encode()));
    seeds.push(("cover", cover().encode()));
    seeds
}
