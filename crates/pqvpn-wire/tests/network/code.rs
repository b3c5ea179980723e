// SPDX-License-Identifier: MIT OR Apache-2.0
//! Codes as people type them: one spelling, many ways to write it, and an answer to every typing error.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use data_encoding::BASE32_NOPAD;
use pqvpn_wire::network::{Code, CodeError, Door, InviteSecret};
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use crate::samples::{code, door, v4, v6};

fn full() -> Code {
    let addresses = (0..4).map(v6).collect::<Vec<_>>();
    let doors = (1..=4).map(|byte| Door { addresses: addresses.clone(), ..door(byte) }).collect();
    Code { doors, network_name: "n".repeat(32), ..code() }
}

#[test]
fn a_code_reads_as_it_was_written() {
    for code in [code(), full(), Code { doors: vec![Door { addresses: vec![], ..door(1) }], ..code() }] {
        let text = code.to_string();
        assert!(text.starts_with("pqvpn1-"), "{text}");
        assert_eq!(text.parse(), Ok(code));
    }
    assert_eq!(code().to_string().len(), 172);
    assert_eq!(full().to_string().len(), 851);
}

#[test]
fn case_spaces_dashes_and_lookalikes_do_not_matter() {
    let text = code().to_string();
    let upper = text.to_uppercase();
    let grouped: String =
        text.char_indices().flat_map(|(at, c)| if at > 7 && at % 5 == 0 { vec!['-', c] } else { vec![c] }).collect();
    let lines = text.replace('q', "q\n  ");
    let body = &text["pqvpn1-".len()..];
    let lookalikes = format!("pqvpn1-{}", body.replace('o', "0").replace('l', "1").replace('b', "8"));
    let quoted = format!(" \"{}\" ", text.replacen('-', "\u{2014}", 1));
    for variant in [upper, grouped, lines, lookalikes, quoted, text.replace('-', "")] {
        assert_eq!(variant.parse(), Ok(code()), "{variant}");
    }
}

#[test]
fn what_is_no_code_is_called_so() {
    for text in ["", "pqvpn", "hello", "pqvpnx-abc", "https://pqvpn1-abc", &code().to_string()["pqvpn1-".len()..]] {
        assert_eq!(text.parse::<Code>(), Err(CodeError::NotACode), "{text}");
    }
    assert_eq!(code().to_string().replacen('1', "2", 1).parse::<Code>(), Err(CodeError::Version(2)));
    assert_eq!("pqvpn1-".parse::<Code>(), Err(CodeError::Truncated));
    assert_eq!(format!("{}{}", full(), "a".repeat(60)).parse::<Code>(), Err(CodeError::Malformed));
}

#[test]
fn every_single_typing_error_is_noticed_and_mended() {
    let text = code().to_string();
    let start = "pqvpn1-".len();
    for at in start..text.len() {
        for wrong in ['a', 'z', '7'] {
            let mut bent = text.clone();
            bent.replace_range(at..=at, &wrong.to_string());
            if bent != text {
                let suggestion = Some(text.clone());
                assert_eq!(bent.parse::<Code>(), Err(CodeError::Checksum { suggestion }), "{at} {wrong}");
            }
        }
    }
}

#[test]
fn every_swap_of_neighbours_is_noticed_and_mended() {
    let text = code().to_string();
    for at in "pqvpn1-".len()..text.len() - 1 {
        let mut bent = text.clone().into_bytes();
        bent.swap(at, at + 1);
        let bent = String::from_utf8(bent).unwrap();
        if bent != text {
            assert_eq!(bent.parse::<Code>(), Err(CodeError::Checksum { suggestion: Some(text.clone()) }), "{at}");
        }
    }
}

#[test]
fn a_character_that_is_none_is_a_typing_error_like_another() {
    let text = code().to_string();
    for wrong in ["9", "!", "\u{e4}"] {
        let mut bent = text.clone();
        bent.replace_range(50..=50, wrong);
        assert_eq!(bent.parse::<Code>(), Err(CodeError::Checksum { suggestion: Some(text.clone()) }), "{wrong}");
        bent.replace_range(20..=20, "9");
        assert_eq!(bent.parse::<Code>(), Err(CodeError::Checksum { suggestion: None }), "{wrong}");
    }
}

#[test]
fn two_errors_are_noticed_and_nothing_is_guessed() {
    let text = code().to_string();
    let other = |at: usize| if text.as_bytes()[at] == b'a' { "c" } else { "a" };
    for (first, second) in [(10, 40), (11, 170), (60, 90)] {
        let mut bent = text.clone();
        bent.replace_range(first..=first, other(first));
        bent.replace_range(second..=second, other(second));
        assert_eq!(bent.parse::<Code>(), Err(CodeError::Checksum { suggestion: None }), "{first} {second}");
    }
}

#[test]
fn a_cut_code_is_said_to_be_cut() {
    let text = code().to_string();
    for len in "pqvpn1-".len()..text.len() {
        assert_eq!(text[..len].parse::<Code>(), Err(CodeError::Truncated), "{len}");
    }
}

#[test]
fn long_names_are_cut_and_mapped_addresses_are_written_as_what_they_are() {
    let long = Code { network_name: format!("{}-{}", "a".repeat(31), "b".repeat(20)), ..code() };
    assert_eq!(long.to_string().parse::<Code>().map(|code| code.network_name), Ok("a".repeat(31)));
    let mapped = SocketAddr::new(IpAddr::V6(Ipv4Addr::new(198, 51, 100, 1).to_ipv6_mapped()), 51820);
    let code = Code { doors: vec![Door { addresses: vec![mapped], ..code().doors[0].clone() }], ..code() };
    assert_eq!(code.to_string().parse::<Code>().map(|code| code.doors[0].addresses[0]), Ok(v4(1)));
}

#[test]
fn more_doors_than_a_code_may_have_are_left_out() {
    let many = Code { doors: (1..=6).map(door).collect(), ..code() };
    assert_eq!(many.to_string().parse::<Code>().map(|code| code.doors.len()), Ok(4));
    let addresses = (0..6).map(v4).collect();
    let many = Code { doors: vec![Door { addresses, ..door(1) }], ..code() };
    assert_eq!(many.to_string().parse::<Code>().map(|code| code.doors[0].addresses.len()), Ok(4));
    // A code without a door leads nowhere: right checksum, nothing to do with it.
    let closed = Code { doors: vec![], ..code() };
    assert_eq!(closed.to_string().parse::<Code>(), Err(CodeError::Malformed));
}

/// A code of any content, with the checksum it needs.
fn coded(content: &[u8]) -> String {
    let check = Sha256::digest([b"pqvpn code", content].concat());
    let text = BASE32_NOPAD.encode(&[content, &check[..4]].concat());
    format!("pqvpn1-{}", text.to_ascii_lowercase())
}

#[test]
fn a_right_checksum_is_not_enough() {
    let text = code().to_string();
    let mut content = BASE32_NOPAD.decode(text["pqvpn1-".len()..].to_ascii_uppercase().as_bytes()).unwrap();
    content.truncate(content.len() - 4);
    assert_eq!(coded(&content).parse(), Ok(code()));
    let later = [&[2], &content[1..]].concat();
    assert_eq!(coded(&later).parse::<Code>(), Err(CodeError::Version(2)));
    let longer = [content.as_slice(), &[0]].concat();
    assert_eq!(coded(&longer).parse::<Code>(), Err(CodeError::Malformed));
    // The last address, 04 || 198.51.100.1 || port, written as IPv6.
    let (front, last) = content.split_at(content.len() - 7);
    let mapped = [front, &[6], &[0; 10], &[0xff; 2], &last[1..]].concat();
    assert_eq!(coded(&mapped).parse::<Code>(), Err(CodeError::Malformed));
    // 103 bytes are 824 bits in 165 characters: the lowest bit of the last one is spare, and zero.
    let alphabet = "abcdefghijklmnopqrstuvwxyz234567";
    let last = alphabet.find(text.chars().last().unwrap()).unwrap();
    let loose = format!("{}{}", &text[..text.len() - 1], &alphabet[last ^ 1..][..1]);
    assert_eq!(loose.parse::<Code>(), Err(CodeError::Checksum { suggestion: Some(text) }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_code_survives(secret: [u8; 16], network: [u8; 32], not_after_s: u32, name in "[a-z0-9]{1,32}", doors in 1_u8..=4) {
        let code = Code {
            network: pqvpn_wire::network::NetworkId::from_bytes(network),
            network_name: name,
            secret: InviteSecret::from_bytes(secret),
            not_after_s,
            doors: (0..doors).map(door).collect(),
        };
        prop_assert_eq!(code.to_string().parse(), Ok(code));
    }

    #[test]
    fn any_text_is_judged_without_panic(text in "(pqvpn1-)?[a-z0-9 -]{0,60}", wild in ".{0,60}") {
        let _ = text.parse::<Code>();
        let _ = format!("pqvpn1-{wild}").parse::<Code>();
    }
}
